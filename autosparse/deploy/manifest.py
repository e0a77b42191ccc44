"""What an artifact says of itself: how to call it, what it is, what it reaches, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from autosparse.errors import ArtifactError, UsageError
from autosparse.records import Accuracy, LayerShape, Record, WholeLatency

FORMAT = "autosparse"
FORMAT_VERSION = 2  # the newest; see kernels/artifact/container.h


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport(Record):
    """How one weight-bearing layer of a compiled or loaded model runs.

    Attributes:
        name: dotted path of its module.
        shape: its shape, None where the records cannot say it.
        pattern: ``dense``, ``1x16``, …
        sparsity: fraction of blocks pruned.
        kernel: name of the kernel that runs it; ``torch`` where the whole model runs through torch;
            ``builtin`` for operators outside the kernel table.
        why: how the choice came about.
    """

    name: str
    shape: LayerShape | None
    pattern: str
    sparsity: float
    kernel: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Record):
    """An input or output as callers see it.

    Attributes:
        name: as traced.
        shape: its dimensions outside; the program adds ones behind up to four.
        dtype: its element type outside, such as ``float32``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance(Record):
    """Where an artifact comes from.

    Attributes:
        autosparse: version that wrote it.
        created_at: UTC, ISO 8601.
        hardware_id: host whose kernels were chosen.
        cpu: that host's processor.
        torch: version that traced the model.
        run: the run it was exported from; empty for a user's own model.
        kernels: kernel name to the hash of its sources and build flags.
    """

    autosparse: str
    created_at: str
    hardware_id: str
    cpu: str
    torch: str
    run: str = ""
    kernels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """All that an artifact holds beside its program.

    Attributes:
        format_version: of the artifact.
        model: the model's name as the user gave it; may be empty.
        dtype: arithmetic type.
        inputs: in the order of the arguments.
        outputs: leaves of the result.
        sources: for every output the index of the program's output that it is.
        result: how the leaves make up the result; see `structure_of`.
        operators: name of every operator of the program.
        layers: weight-bearing layers, with the kernels of the host where the artifact was made.
        layer_operators: for every layer the index of its operator.
        plan: the plan as plain values, None without one.
        accuracy: of these weights, None where nobody evaluated them.
        latency: as measured, None where nobody did.
        latency_hardware_id: host where it was measured, empty without a latency.
        provenance: where it comes from.
    """

    model: str
    dtype: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sources: tuple[int, ...]
    result: Any
    operators: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    layer_operators: tuple[int, ...]
    plan: dict[str, Any] | None = None
    accuracy: Accuracy | None = None
    latency: WholeLatency | None = None
    latency_hardware_id: str = ""
    provenance: Provenance
    format_version: int = FORMAT_VERSION

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a manifest.

        Raises:
            ArtifactError: it breaks the format.
        """
        try:
            return cls.from_json(json.loads(text))
        except (UsageError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactError(
                f"an artifact's manifest must follow format version {FORMAT_VERSION}, but: {error}; "
                "export again"
            ) from None

    def text(self) -> str:
        """Gives the manifest as JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# ------------------------------------------------------------------------- structure of a result


def structure_of(value: Any) -> Any:
    """Describes a result whose leaves are numbers: leaf, or container with its kind.

    Raises:
        UsageError: a container that plain Python cannot rebuild.
    """
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | dict):
        raise UsageError(
            "the result of a model to save must be made of tensors, tuples, lists and dicts, but holds "
            f"a {type(value).__name__}; wrap the model in one that returns these"
        )
    if isinstance(value, int):
        return value
    if isinstance(value, dict):
        return {"dict": {str(key): structure_of(item) for key, item in value.items()}}
    kind = "list" if isinstance(value, list) else "tuple"
    return {kind: [structure_of(item) for item in value]}


def rebuilt(structure: Any, leaves: Sequence[Any]) -> Any:
    """Puts leaves together as `structure_of` described them.

    Raises:
        ArtifactError: no such structure, or a leaf that is not there.
    """
    if isinstance(structure, int) and 0 <= structure < len(leaves):
        return leaves[structure]
    if isinstance(structure, dict) and len(structure) == 1:
        kind, items = next(iter(structure.items()))
        if kind == "dict" and isinstance(items, dict):
            return {key: rebuilt(item, leaves) for key, item in items.items()}
        if kind in ("list", "tuple") and isinstance(items, list):
            made = [rebuilt(item, leaves) for item in items]
            return made if kind == "list" else tuple(made)
    raise ArtifactError(
        f"an artifact's result must be made of its {len(leaves)} outputs, but got {structure!r}"
    )
