"""The verb that runs a daemon: serve."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from autosparse.cli import options
from autosparse.cli.output import emit_json, notice
from autosparse.cli.settings import Settings
from autosparse.errors import ConfigError, ExitCode

_HEARD, _WORK, _TOLD = "Who may reach it", "What it works with", "Whom it tells"


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar="", **more)


def serve(
    ctx: typer.Context,
    host: Annotated[str, _option("--host", help="Address to listen at.", panel=_HEARD)] = "127.0.0.1",
    port: Annotated[
        int, _option("--port", help="TCP port; 0 takes a free one.", panel=_HEARD, min=0, max=65535)
    ] = 8337,
    tls_cert: Annotated[
        Path | None, _option("--tls-cert", help="Certificate and its chain, PEM.", panel=_HEARD)
    ] = None,
    tls_key: Annotated[Path | None, _option("--tls-key", help="Its key, PEM.", panel=_HEARD)] = None,
    allowed_host: Annotated[
        list[str] | None,
        _option("--allowed-host", help="Name by which it is spoken to (repeatable).", panel=_HEARD),
    ] = None,
    behind_proxy: Annotated[
        bool, _option("--behind-proxy", help="A server in front of it speaks TLS.", panel=_HEARD)
    ] = False,
    database: options.Database = None,
    results: Annotated[
        Path, _option("--results", "-o", help="Folder of runs and jobs.", panel=_WORK)
    ] = Path("results"),
    address: options.Address = None,
    root: Annotated[
        list[str] | None,
        _option("--root", help="NAME=DIR: a folder that jobs may read (repeatable).", panel=_WORK),
    ] = None,
    allow_code: Annotated[
        bool,
        _option(
            "--allow-code", help="Let jobs name factories (file.py:function), which run.", panel=_WORK
        ),
    ] = False,
    jobs: Annotated[
        int, _option("--jobs", help="Jobs that run at a time.", panel=_WORK, min=1, max=64)
    ] = 2,
    own_cores: Annotated[
        int | None,
        _option(
            "--own-cores",
            help="Processors that jobs leave to the daemon (default: 1 of four or more, else 0).",
            panel=_WORK,
            min=0,
        ),
    ] = None,
    webhook: Annotated[
        list[str] | None,
        _option("--webhook", help="URL that alerts are sent to, signed (repeatable).", panel=_TOLD),
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        _option(
            "--webhook-secret-file",
            help="File of the secret that signs them, made if missing "
            "(default: webhook.secret in AUTOSPARSE_HOME).",
            panel=_TOLD,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        _option(
            "--keep",
            help="Time after which ended jobs and the runs they made are deleted, as 90d "
            "(default: never).",
            panel=_WORK,
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        _option("--log-format", help="json or text (default: text on a terminal).", panel=_WORK),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Run the daemon: a queue of jobs, schedules, an API and a page."""
    from autosparse import values
    from autosparse.daemon.access import Listening
    from autosparse.daemon.logs import start_log
    from autosparse.serving import Serving
    from autosparse.serving import serve as run

    serving = Serving(
        listening=Listening(
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            allowed_hosts=tuple(allowed_host or ()),
            behind_proxy=behind_proxy,
        ),
        results=results,
        database=database,
        roots=_roots(root or []),
        allow_code=allow_code,
        address=address,
        slots=jobs,
        own_cores=own_cores,
        webhooks=tuple(webhook or ()),
        webhook_secret_file=webhook_secret_file,
        keep_s=None if keep is None else values.duration("90d")(keep, "--keep") / 1e6,
    )
    serving.check()
    start_log(_format(log_format), _level(ctx.obj))

    def told(found: dict[str, Any]) -> None:
        if as_json:
            emit_json(found)
        else:
            notice(f"the daemon answers at {found['url']}; its token is in {found['token_file']}")

    run(serving, told)
    return ExitCode.DONE


def _roots(given: list[str]) -> dict[str, Path]:
    roots: dict[str, Path] = {}
    for each in given:
        name, separator, folder = each.partition("=")
        if not separator or not folder or not name.isidentifier() or name in (*roots, "results"):
            raise ConfigError(
                f"--root must be NAME=DIR with a name of its own, letters and digits, but got "
                f"{each!r}; write --root data=/srv/data"
            )
        roots[name] = Path(folder).expanduser().absolute()
    return roots


def _format(given: str | None) -> Literal["json", "text"]:
    if given is None:
        return "text" if sys.stderr.isatty() else "json"
    if given not in ("json", "text"):
        raise ConfigError(f"--log-format must be json or text, but got {given!r}")
    return "json" if given == "json" else "text"


def _level(settings: Settings) -> int:
    return logging.ERROR if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO
