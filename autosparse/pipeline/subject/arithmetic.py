"""Which arithmetic types a run computes in: what was asked for, as far as host and model allow."""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.engine import why_not_native as why_model_cannot
from autosparse.errors import UsageError
from autosparse.graph import Graph
from autosparse.kernels.spec import why_not_native as why_host_cannot


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The types of a run.

    Attributes:
        dtypes: those that configurations may have, f32 first.
        why_not: type to the reason why it is left out although it was asked for.
    """

    dtypes: tuple[str, ...] = ("f32",)
    why_not: tuple[tuple[str, str], ...] = ()

    def without(self, dtype: str, why: str) -> Arithmetic:
        """Gives the rest, f32 at least, with the reason why a type is left out."""
        left = tuple(name for name in self.dtypes if name != dtype)
        return Arithmetic(dtypes=left, why_not=(*self.why_not, (dtype, why)))


F32 = Arithmetic()


def settle(wanted: str, graph: Graph, why_not_there: str | None = None) -> Arithmetic:
    """Turns ``f32``, ``bf16`` or ``auto`` into types.

    ``auto`` is f32, and bf16 too where the host computes in it and the executor takes the whole model.
    Which of the two a configuration gets is for the search to choose.

    Args:
        wanted: as in `SearchConfig.dtype`.
        graph: the model, fused.
        why_not_there: why the host does not compute in bf16, empty if it does; None asks this machine.

    Raises:
        UsageError: bf16 alone is wanted, but the host or the model cannot.
    """
    if wanted == "f32":
        return F32
    why_host = why_host_cannot("bf16") if why_not_there is None else why_not_there
    why = why_host or _why_model_cannot(graph)
    if wanted == "auto":
        both = Arithmetic(dtypes=("f32", "bf16"))
        return both.without("bf16", why) if why else both
    if why:
        raise UsageError(
            f"--dtype bf16 must be possible where it is measured, but {why}; write --dtype f32 or auto"
        )
    return Arithmetic(dtypes=("bf16",))


def _why_model_cannot(graph: Graph) -> str:
    why = why_model_cannot(graph, "bf16")
    return f"the executor does not run the whole model: {'; '.join(why)}" if why else ""
