"""What the global flags say. They are taken anywhere on the line, before or after the verb."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from autosparse.cli.output import one_line
from autosparse.errors import ConfigError

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much to say.

    Attributes:
        verbose: 0 warnings, 1 decisions, 2 everything.
        quiet: errors only, and no progress.
        debug: show tracebacks.
    """

    verbose: int = 0
    quiet: bool = False
    debug: bool = False

    @property
    def level(self) -> int:
        """Level of the log lines to show."""
        if self.quiet:
            return logging.ERROR
        return (logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbose, 2)]


def split(arguments: Sequence[str]) -> tuple[Settings, list[str]]:
    """Takes the global flags out of a command line.

    Returns:
        What they say, and the other arguments in their order. Nothing after ``--`` is taken.
    """
    verbose, quiet, debug = 0, False, False
    rest: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            rest.extend(arguments[index:])
            break
        if argument in ("-v", "--verbose"):
            verbose += 1
        elif argument == "-vv":
            verbose += 2
        elif argument in ("-q", "--quiet"):
            quiet = True
        elif argument == "--debug":
            debug = True
        else:
            rest.append(argument)
    return Settings(verbose=verbose, quiet=quiet, debug=debug), rest


def log_level(settings: Settings) -> int:
    """Gives the level of log lines: AUTOSPARSE_LOG where it is set, else what the flags say.

    Raises:
        ConfigError: AUTOSPARSE_LOG is no level.
    """
    named = os.environ.get("AUTOSPARSE_LOG", "").lower()
    if not named:
        return settings.level
    if named not in _LEVELS:
        raise ConfigError(f"AUTOSPARSE_LOG must be one of {', '.join(_LEVELS)}, but got {named!r}")
    return min(_LEVELS[named], settings.level)


class _CurrentStderr(logging.Handler):
    """Writes to whatever stderr is now: progress bars put themselves in its place while they show."""

    def emit(self, record: logging.LogRecord) -> None:
        print(one_line(self.format(record)), file=sys.stderr)


def start_logging(level: int) -> None:
    """Sends autosparse's log lines of `level` and above to stderr."""
    logger = logging.getLogger("autosparse")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _CurrentStderr)]:
        logger.removeHandler(handler)
    handler = _CurrentStderr()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
