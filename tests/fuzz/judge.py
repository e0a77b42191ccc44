"""What counts as a failure of a call, whatever it was called with."""

from __future__ import annotations

from dataclasses import dataclass

INTERRUPTED = 130  # a model's own code may interrupt, and nobody can tell that from a user
GOOD_CODES = frozenset((0, 2, 3, 4, 6, 7, INTERRUPTED))
_LINES = 12  # what a verb says of its progress and skips, its error included
_CHARACTERS = 6_000
_ERROR_CHARACTERS = 2_100


@dataclass(frozen=True)
class Result:
    """How one call ended.

    Attributes:
        number: of the case.
        verb: as in `Case`.
        code: exit code; None where the process died.
        stderr: what it said.
        seconds: how long it took.
        command: as it can be typed.
        fault: why that is a failure, or empty.
    """

    number: int
    verb: str
    code: int | None
    stderr: str
    seconds: float
    command: str
    fault: str


def fault(code: int, stdout: str, stderr: str, *, plain: bool = True) -> str:
    """Says what is wrong with the end of a call; empty if nothing is.

    Args:
        code: exit code.
        stdout: what was said there.
        stderr: what was said there.
        plain: whether messages must be those of the command line, without tracebacks.
    """
    if code not in GOOD_CODES:
        return f"exit code {code}"
    if not plain:
        return ""
    for text in (stdout, stderr):
        if "Traceback (most recent call last)" in text:
            return "a traceback"
    lines = stderr.rstrip("\n").split("\n") if stderr else []
    if len(lines) > _LINES or len(stderr) > _CHARACTERS:
        return f"{len(lines)} lines and {len(stderr)} characters on stderr"
    if code == INTERRUPTED:
        return "" if lines and lines[-1] == "autosparse: interrupted" else f"exit code {code}"
    if code and not lines:  # a doctor's findings are no errors of its own
        found = any(line.startswith("FAIL ") for line in stdout.splitlines())
        return "" if found or '"fail"' in stdout else f"exit code {code} without a word"
    if code and (not lines[-1].startswith("autosparse: ") or len(lines[-1]) > _ERROR_CHARACTERS):
        return f"the last line is no message, or has {len(lines[-1])} characters"
    odd = [letter for letter in stderr if not letter.isprintable() and letter not in "\n\t"]
    if odd:
        return f"control characters on stderr: {odd[:3]!r}"
    return ""
