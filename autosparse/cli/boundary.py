"""Where everything that goes wrong becomes one message on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from autosparse.cli import missing
from autosparse.cli.app import command
from autosparse.cli.leash import put_on
from autosparse.cli.output import one_line
from autosparse.cli.settings import Settings, log_level, split, start_logging
from autosparse.errors import AutosparseError, ExitCode
from autosparse.storage.paths import home

PROGRAM = "autosparse"
# What a file system says of names and permissions, whoever asks: no fault of the program.
_OF_FILES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL),
)
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_SIZE_DIGITS = 4
# The command-line parser's own error. typer exports only its children, of which this is one.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Returns:
        The exit code; nothing is raised for anything that can go wrong inside.
    """
    settings, rest = split(arguments)
    _check_width()
    try:
        start_logging(log_level(settings))
        put_on()
        return _finish(command().main(rest, PROGRAM, standalone_mode=False, obj=settings))
    except _ParserError as error:
        _say(_parser_message(error))
        return ExitCode.USAGE
    except AutosparseError as error:
        return _expected(error, settings)
    except (KeyboardInterrupt, typer.Abort):
        return _finish(ExitCode.INTERRUPTED)
    except SystemExit as stop:
        return _finish(stop.code)
    except ModuleNotFoundError as error:
        return _missing_module(error, settings)
    except Exception as error:
        return _unexpected(error, settings)


def _check_width() -> None:
    """Forgets sizes of a terminal that none has: libraries take them as they are, and fail."""
    for name in _SIZES:
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdecimal() and len(value) <= _SIZE_DIGITS):
            del os.environ[name]


def _finish(code: object) -> int:
    if code == ExitCode.INTERRUPTED:  # the parser turns the exception into this
        _say("interrupted")
    return int(code) if isinstance(code, int) else ExitCode.DONE


def _expected(error: AutosparseError, settings: Settings) -> int:
    if settings.debug:
        traceback.print_exc()
    _say(str(error))
    return error.exit_code


def _missing_module(error: ModuleNotFoundError, settings: Settings) -> int:
    if (error.name or "").partition(".")[0] == PROGRAM:
        return _unexpected(error, settings)
    return _expected(missing(error), settings)


def _unexpected(error: Exception, settings: Settings) -> int:
    if settings.debug:
        traceback.print_exc()
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say("the disk is full; free space and run the same command again, it continues")
        return ExitCode.INTERNAL
    if isinstance(error, OSError) and error.errno in _OF_FILES and error.filename is not None:
        _say(f"{os.fsdecode(error.filename)} must be usable, but: {error.strerror}; name another")
        return ExitCode.USAGE
    if _is_of_memory(error):
        _say(
            "memory must suffice for what was asked for, but it ran out; take a smaller --input-shape, "
            "--batch-size, --data-resolution, model or data set"
        )
        return ExitCode.MISSING
    where = _keep_traceback()
    advice = "" if settings.debug else "; run again with --debug to see it here"
    _say(f"internal error: {type(error).__name__}: {error} (traceback in {where}){advice}")
    return ExitCode.INTERNAL


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's
    )


def _keep_traceback() -> Path:
    """Writes the current traceback to a file of its own, in the home folder if that can be written."""
    name = f"internal-error-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    try:
        folder = home() / "logs"
        folder.mkdir(exist_ok=True)
    except (AutosparseError, OSError):
        folder = Path(tempfile.gettempdir())
    path = folder / name
    path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    return path


def _parser_message(error: Exception) -> str:
    """Words a parser's error as all others are: what is wrong, what was meant, where to look."""
    near = list(getattr(error, "possibilities", None) or ())
    text = str(getattr(error, "message", error)).rstrip(".")
    option = getattr(error, "option_name", None)
    if option is not None and text.startswith("No such option"):
        text = f"a flag must be one that exists, but got {option}"
    elif not isinstance(error, typer.BadParameter):
        text = text.replace("No such command ", "a verb must be one that exists, but got ")
        text = text.replace(". Did you mean", "; did you mean")
    else:
        text = str(error.format_message()).rstrip(".")  # type: ignore[no-untyped-call,unused-ignore]
    hint = f"; did you mean {near[0]}?" if near else ""
    context = getattr(error, "ctx", None)
    verb = context.command_path if context is not None else PROGRAM
    return f"{text}{hint} (see {verb} --help)"


def _say(message: str) -> None:
    try:
        print(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)
    except BrokenPipeError:
        pass  # nobody listens any more
