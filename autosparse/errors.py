"""Every error autosparse raises on purpose, with the exit code a shell sees.

    AutosparseError                1  something inside autosparse is wrong
    ├── UsageError                 2  bad flag, bad value, bad combination
    │   ├── ArtifactError          2  an artifact is missing, damaged, changed or too new
    │   ├── ConfigError            2  a config or search-space file breaks a rule
    │   ├── DatabaseError          2  a tuning database is missing, damaged, unwritable or too new
    │   ├── DataError              2  a data set is missing, truncated or of the wrong kind
    │   ├── ModelError             2  a model or its weights cannot be used as asked
    │   ├── PlanError              2  a plan does not fit its model or breaks its pattern's rules
    │   └── RunError               2  a run folder is missing, unfinished or unwritable
    ├── BudgetInfeasible           3  no assignment can meet the latency budget
    ├── NoValidConfiguration       4  every configuration failed; nothing to report
    ├── Stopped                    6  stopped on request; the same command resumes
    ├── MissingDependency          7  a library, compiler product or device is absent
    │   └── NoKernel               7  no kernel can run this layer; carries every kernel's reason
    ├── WrongResult                1  a kernel's output is outside its tolerance
    ├── DeviceLost                 1  a device does no more for this process
    ├── TrainingDiverged           1  the loss of a training run is no longer finite
    └── MissingMeasurement         1  a latency was asked for that was never measured

A message states the rule, the value it got, and what to do next, in that order.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from enum import IntEnum

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = 120
_MOST_BITS = 256
_LONGEST = 240


def got(value: object) -> str:
    """Shows a value in a message as Python writes it, without what makes it long.

    Files can hold anything: numbers of more digits than Python prints, and a few lines of YAML that
    stand for more values than memory holds.
    """
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a whole number of {value.bit_length()} bits"
    try:
        shown = _SHORT.repr(value)
    except (ValueError, RecursionError):  # there are such numbers further inside
        return f"a {type(value).__name__}"
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 40]}...{shown[-40:]}"


class ExitCode(IntEnum):
    """What a shell sees when a verb ends."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    INFEASIBLE = 3
    NO_CONFIGURATION = 4
    STOPPED = 6
    MISSING = 7
    INTERRUPTED = 130


class AutosparseError(Exception):
    """Root of all errors raised on purpose."""

    exit_code: ExitCode = ExitCode.INTERNAL


class UsageError(AutosparseError):
    """The caller asked for something that cannot be meant."""

    exit_code = ExitCode.USAGE


class ArtifactError(UsageError):
    """A file to load is no artifact, is damaged, truncated or changed, or needs a newer autosparse."""


class ConfigError(UsageError):
    """A configuration or search-space file has an unknown key or an illegal value."""


class DataError(UsageError):
    """A data set is missing, truncated, or not of the kind its name says."""


class ModelError(UsageError):
    """A model name, factory or weight file cannot be used."""


class PlanError(UsageError):
    """A plan names unknown layers, or a pattern the layer cannot have."""


class RunError(UsageError):
    """A run folder is missing, incomplete, in use, or cannot be written."""


class BudgetInfeasible(AutosparseError):
    """No assignment of the measured options meets the latency budget.

    Attributes:
        smallest_feasible_ms: the least latency any assignment reaches, milliseconds.
    """

    exit_code = ExitCode.INFEASIBLE

    def __init__(self, message: str, smallest_feasible_ms: float) -> None:
        super().__init__(message)
        self.smallest_feasible_ms = smallest_feasible_ms


class NoValidConfiguration(AutosparseError):
    """The search ended without one configuration that could be evaluated."""

    exit_code = ExitCode.NO_CONFIGURATION


class Stopped(AutosparseError):
    """The work was stopped on request and saved; the same command resumes it."""

    exit_code = ExitCode.STOPPED


class StoppedMidway(KeyboardInterrupt):
    """The work was stopped on request in the middle of a step; the same command resumes it.

    No error, so that nothing which handles errors on the way takes it for one.
    """


class MissingDependency(AutosparseError):
    """A library or device that this request needs is not on this machine."""

    exit_code = ExitCode.MISSING


def missing_library(error: ModuleNotFoundError, wanting: str) -> MissingDependency:
    """Words the absence of a library, or of a part that only the whole tool has.

    Args:
        error: what an import raised.
        wanting: what the user asked for.
    """
    library = (error.name or "").partition(".")[0]
    if library == "autosparse":
        return MissingDependency(
            f"{wanting} is a part of the whole tool, but what is installed here runs exported models "
            "alone (autosparse-runtime); run: pip install autosparse"
        )
    return MissingDependency(
        f"{wanting} needs {library}, which is not installed here; run: pip install autosparse, "
        "which brings it"
    )


class NoKernel(MissingDependency):
    """No kernel can run a layer here.

    Attributes:
        reasons: kernel name to the reasons it gave.
    """

    def __init__(self, message: str, reasons: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class DatabaseError(UsageError):
    """The tuning database that was named cannot be opened, migrated, read or written."""


class WrongResult(AutosparseError):
    """A kernel's output differs from the reference by more than its tolerance."""


class DeviceLost(AutosparseError):
    """A device gave this process up, as GPUs do after an illegal access: only another can go on."""


class TrainingDiverged(AutosparseError):
    """The loss of a training run became infinite or not a number."""


class MissingMeasurement(AutosparseError):
    """A latency was asked for that no row of the table holds."""


def retold(words: str, rule: str) -> AutosparseError:
    """Gives the error that ended another process, of its class where that is one of ours.

    Args:
        words: what Python says of an exception, ``DatabaseError: the text``.
        rule: what should have worked, for errors of any other class.
    """
    name, _, text = words.partition(": ")
    found = globals().get(name.rpartition(".")[2])
    if isinstance(found, type) and issubclass(found, AutosparseError):
        if found.__init__ is AutosparseError.__init__:  # a message is all it takes
            return found(text)
    return AutosparseError(f"{rule}, but the session ended with: {words}")
