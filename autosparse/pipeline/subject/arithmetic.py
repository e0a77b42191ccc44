"""Which arithmetic types a run computes in: what was asked for, as far as device and model allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autosparse.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The types of a run.

    Attributes:
        dtypes: those that configurations may have, f32 first where it is among them.
        why_not: type to the reason why it is left out although it was asked for.
    """

    dtypes: tuple[str, ...] = ("f32",)
    why_not: tuple[tuple[str, str], ...] = ()

    def without(self, dtype: str, why: str) -> Arithmetic:
        """Gives the rest with the reason why a type is left out."""
        left = tuple(name for name in self.dtypes if name != dtype)
        return Arithmetic(dtypes=left, why_not=(*self.why_not, (dtype, why)))


F32 = Arithmetic()


def settle(
    wanted: str,
    usual: Sequence[str],
    why_not_there: Mapping[str, str],
    why_not_model: Callable[[str], str],
) -> Arithmetic:
    """Turns a type, or ``auto``, into types.

    ``auto`` is all that are usual on the kind of device, but for those that the device or the model
    cannot do. Which of them a configuration gets is for the search to choose.

    Args:
        wanted: as in `SearchConfig.dtype`.
        usual: types that the kind of device is for, the first one first.
        why_not_there: type to the reason why the device does not compute in it.
        why_not_model: gives the reason why the model cannot be computed in a type, empty if it can; of
            types on which everything runs, such as f32 on processors, it is not asked.

    Raises:
        UsageError: the one type that is wanted is not possible, or none is.
    """
    if wanted != "auto":
        if why := _why_not(wanted, usual, why_not_there, why_not_model):
            raise UsageError(
                f"--dtype {wanted} must be possible where it is measured, but {why}; write "
                f"{_others(usual, wanted)}"
            )
        return Arithmetic(dtypes=(wanted,))
    found = Arithmetic(dtypes=tuple(usual))
    for dtype in usual:
        if why := _why_not(dtype, usual, why_not_there, why_not_model):
            found = found.without(dtype, why)
    if not found.dtypes:
        reasons = "; ".join(f"{dtype}: {why}" for dtype, why in found.why_not)
        raise UsageError(f"a model must be computed in some type, but none is possible: {reasons}")
    return found


def _why_not(
    dtype: str,
    usual: Sequence[str],
    why_not_there: Mapping[str, str],
    why_not_model: Callable[[str], str],
) -> str:
    if why := why_not_there.get(dtype, ""):
        return why
    return "" if dtype == "f32" and dtype in usual else why_not_model(dtype)


def _others(usual: Sequence[str], wanted: str) -> str:
    left = [dtype for dtype in (*usual, "auto") if dtype != wanted]
    return f"--dtype {' or '.join(left)}"
