"""The verbs around the database: db list, export, import, merge, stale, gc, verify, backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_facts, emit_json, emit_table, notice
from autosparse.errors import ExitCode

app = typer.Typer(help="Look after the tuning database.", no_args_is_help=True)

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="AUTOSPARSE_DATABASE",
        show_envvar=False,
        help="URL or file; by default the one in AUTOSPARSE_HOME.",
        show_default=False,
        metavar="",
    ),
]
Hardware = Annotated[str | None, typer.Option("--hardware-id", help="Rows of this host.", metavar="")]
Kernel = Annotated[str | None, typer.Option("--kernel", help="Rows of this kernel.", metavar="")]
Shape = Annotated[str | None, typer.Option("--shape", help="Rows of this layer shape.", metavar="")]
State = Annotated[str | None, typer.Option("--status", help="Rows that ended so.", metavar="")]


@app.command("list")
def list_(
    database: Database = None,
    hardware_id: Hardware = None,
    kernel: Kernel = None,
    shape: Shape = None,
    status: State = None,
    limit: Annotated[int, typer.Option(help="Rows to print; 0 is all.", min=0, metavar="")] = 50,
    as_json: options.Json = False,
) -> int:
    """List measurements."""
    from autosparse.database import list_rows

    rows = list_rows(database, **_given(hardware_id, kernel, shape, status))
    shown = rows[:limit] if limit else rows
    if as_json:
        emit_json([row.to_json() for row in shown])
        return ExitCode.DONE
    emit_table(
        ("kernel", "shape", "pattern", "kept", "threads", "median us", "from", "to", "status"),
        (
            (
                row.key.kernel,
                row.key.shape,
                row.key.pattern,
                row.key.kept,
                row.key.threads,
                row.median_us,
                row.ci_low_us,
                row.ci_high_us,
                row.status,
            )
            for row in shown
        ),
    )
    if len(shown) < len(rows):
        emit(f"{len(shown)} of {len(rows)} rows; --limit 0 prints all")
    return ExitCode.DONE


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="File to write, .csv or .json.")],
    database: Database = None,
    hardware_id: Hardware = None,
    kernel: Kernel = None,
    shape: Shape = None,
    status: State = None,
) -> int:
    """Write rows to a file."""
    from autosparse.database import export_rows

    count = export_rows(database, file, **_given(hardware_id, kernel, shape, status))
    emit(f"wrote {count} rows to {file}")
    return ExitCode.DONE


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File that was exported, .csv or .json.")],
    database: Database = None,
    as_json: options.Json = False,
) -> int:
    """Add the rows of an exported file."""
    from autosparse.database import import_rows

    return _show(import_rows(file, database).to_json(), as_json)


@app.command()
def merge(
    source: Annotated[str, typer.Argument(help="URL or file of the database to copy from.")],
    database: Database = None,
    as_json: options.Json = False,
) -> int:
    """Add the rows of another database."""
    from autosparse.database import merge as merge_rows

    return _show(merge_rows(source, database).to_json(), as_json)


@app.command()
def stale(database: Database = None, as_json: options.Json = False) -> int:
    """Say of every device how many rows are current, and why others would be measured again."""
    from autosparse.database import freshness

    found = freshness(database)
    if as_json:
        emit_json([each.to_json() for each in found])
        return ExitCode.DONE
    columns = ("device", "rows", "current", "kernel changed", "kernel gone", "taken under", "now")
    emit_table(
        columns,
        (
            (
                f"{each.hardware_id}{' (here)' if each.is_here else ''}",
                each.rows,
                each.current,
                sum(each.changed.values()),
                sum(each.gone.values()),
                ", ".join(f"{count} {facts}" for facts, count in each.facts.items()) or None,
                each.today or None,
            )
            for each in found
        ),
    )
    return ExitCode.DONE


@app.command()
def gc(
    database: Database = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, but delete nothing.")] = False,
    as_json: options.Json = False,
) -> int:
    """Delete rows whose kernel has since changed or gone."""
    from autosparse.database import collect_garbage

    return _show(collect_garbage(database, dry_run=dry_run).to_json(), as_json)


@app.command()
def verify(database: Database = None, as_json: options.Json = False) -> int:
    """Check the database and every row in it."""
    from autosparse.database import verify as verify_rows

    found = verify_rows(database)
    _show(found.to_json(), as_json)
    if found.problems:
        notice(f"a database must be sound, but has {len(found.problems)} faults; name another")
        return ExitCode.USAGE
    return ExitCode.DONE


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to make.")],
    database: Database = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: options.Json = False,
) -> int:
    """Copy the database with its rows, jobs and schedules into a file, also while a daemon works."""
    from autosparse.storage.backup import back_up
    from autosparse.storage.paths import tuning_database_url

    made = back_up(tuning_database_url() if database is None else database, file, overwrite=force)
    return _show(made.to_json(), as_json)


def _given(
    hardware_id: str | None, kernel: str | None, shape: str | None, status: str | None
) -> dict[str, str]:
    filters = {"hardware_id": hardware_id, "kernel": kernel, "shape": shape, "status": status}
    return {name: value for name, value in filters.items() if value is not None}


def _show(values: dict[str, object], as_json: bool) -> int:
    if as_json:
        emit_json(values)
    else:
        emit_facts((name, _plain(value)) for name, value in values.items())
    return ExitCode.DONE


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return value
