"""Runs cases one after another in this process, and writes a line of JSON about each.

A case that hangs ends the process, with the stacks of all threads on standard error; the driver then
starts another one behind it.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.judge import Result, fault
from tests.fuzz.shop import stock
from tests.fuzz.verbs import Case, make

LIMIT_S = 60.0
_MEMORY_BYTES = 12 << 30  # no case shall take the machine's memory away from others
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


def serve(
    seed: int, numbers: Sequence[int], folder: Path, limit_s: float, *, keep: bool = False
) -> None:
    """Runs cases and tells of each on standard output."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    shop = stock(folder / "shop")
    import autosparse.pipeline  # noqa: F401  once, and not within the time of the first case

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    for number in numbers:
        place = folder / f"case-{seed}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        case = make(seed, number, shop, place)
        told.write(
            json.dumps({"begun": number, "verb": case.verb, "command": typed(case, place)}) + "\n"
        )
        told.flush()
        faulthandler.dump_traceback_later(limit_s, exit=True)
        result = run(number, case, place)
        faulthandler.cancel_dump_traceback_later()
        told.write(json.dumps(asdict(result)) + "\n")
        told.flush()
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def typed(case: Case, place: Path) -> str:
    """Gives the command as it can be typed, in the case's folder."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in case.environ.items()]
    program = case.verb if case.verb.startswith("py-") else "autosparse"
    return f"cd {place}; {' '.join([*variables, program, shlex.join(case.arguments)])}"


def run(number: int, case: Case, place: Path) -> Result:
    """Runs one case as its own process would be: folder, environment, streams."""
    begun = time.monotonic()
    out, err = _stream(), _stream()
    path = list(sys.path)
    with _as_alone(case, place), redirect_stdout(out), redirect_stderr(err):
        code = _call(case)
    sys.path[:] = path
    stdout, stderr = _text(out), _text(err)
    return Result(
        number=number,
        verb=case.verb,
        code=code,
        stderr=stderr[-6000:],
        seconds=time.monotonic() - begun,
        command=typed(case, place),
        fault=fault(code, stdout, stderr, plain=case.is_plain),
    )


def _call(case: Case) -> int:
    if not case.verb.startswith("py-"):
        from autosparse.cli import run as cli

        return int(cli(case.arguments))
    from autosparse.errors import AutosparseError

    try:
        _python(case)
    except AutosparseError as error:
        print(f"autosparse: {error}", file=sys.stderr)
        return int(error.exit_code)
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(f"autosparse: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _python(case: Case) -> None:
    import autosparse

    if case.verb == "py-load":
        with autosparse.load(case.arguments[0], threads=1) as loaded:
            _ = loaded.layers
    elif case.verb == "py-weights":
        from autosparse import models
        from autosparse.config import SearchConfig
        from autosparse.models.weight_files import check_weights

        check_weights(Path(case.arguments[0]))
        config = SearchConfig(
            model=str(Path(os.environ["SHOP"]) / "net.py") + ":build", weights=case.arguments[0]
        )
        models.resolve(config.model, weights=config.weights)
    elif case.verb == "py-run":
        found = autosparse.Run(case.arguments[1], root=case.arguments[0])
        for name in ("summary", "front", "layers", "trials", "latency_rows", "metrics"):
            _ = getattr(found, name)


@contextmanager
def _as_alone(case: Case, place: Path) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({name: before[name] for name in _KEPT if name in before})
    os.environ.update(HOME=str(place), SHOP=str(place.parent / "shop"), **case.environ)
    here = os.getcwd()
    os.chdir(place)
    stdin, sys.stdin = sys.stdin, open(os.devnull)
    try:
        yield
    finally:
        sys.stdin.close()
        sys.stdin = stdin
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True
    )


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8")
