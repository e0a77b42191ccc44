"""A plan: what every layer of one model shall be. Plain data, made by the search, read by all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from autosparse.errors import PlanError, UsageError
from autosparse.records import LayerChoice, LayerInfo, Record, onexn, short_hash

PLAN_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Record):
    """Per-layer pattern, sparsity, dtype and kernel of one model.

    Attributes:
        model: the model's name as the user gave it.
        layers: layer name to its choice; a layer not named stays dense.
        schema: version of this format.
        note: free text on where the plan comes from.
    """

    model: str
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    schema: int = PLAN_SCHEMA
    note: str = ""

    @property
    def id(self) -> str:
        """Short hash of what the plan prescribes, equal for equal prescriptions."""
        sparse = {k: v.to_json() for k, v in self.layers.items() if not v.pattern.is_dense}
        return short_hash([self.model, sparse, *([self.dtype] if self.dtype != "f32" else [])])

    @property
    def dtype(self) -> Literal["f32", "bf16"]:
        """Arithmetic type of the whole model.

        Raises:
            PlanError: the layers' types differ; a model runs in one.
        """
        dtypes = {choice.dtype for choice in self.layers.values()}
        if len(dtypes) > 1:
            wrong = ", ".join(sorted(dtypes))
            raise PlanError(f"all layers of a plan must have one dtype, but got {wrong}")
        return next(iter(dtypes), "f32")

    @classmethod
    def uniform(
        cls,
        model: str,
        layers: Iterable[LayerInfo],
        *,
        block_n: int,
        sparsity: float,
        dtype: Literal["f32", "bf16"] = "f32",
    ) -> Self:
        """Gives every prunable layer the same 1xN pattern and sparsity."""
        choice = LayerChoice(pattern=onexn(block_n), sparsity=sparsity, dtype=dtype)
        names = [layer.name for layer in layers if not layer.why_dense]
        return cls(
            model=model,
            layers={name: choice for name in names},
            note=f"uniform 1x{block_n} at {sparsity:g}",
        )

    def choice(self, layer: str) -> LayerChoice:
        """Gives a layer's choice; dense if the plan does not name it."""
        return self.layers.get(layer, LayerChoice())

    def check(self, layers: Iterable[LayerInfo]) -> None:
        """Refuses a plan that does not fit a model.

        Raises:
            PlanError: an unknown layer, a sparse choice for a layer that must stay dense, or several
                dtypes.
        """
        _ = self.dtype  # all layers agree
        known = {layer.name: layer for layer in layers}
        for name, choice in self.layers.items():
            if name not in known:
                raise PlanError(
                    f"a plan may name only layers of its model, but got {name!r}; "
                    f"layers of {self.model}: {', '.join(known)}"
                )
            if choice.pattern.is_dense:
                continue
            if known[name].why_dense:
                raise PlanError(
                    f"layer {name!r} must stay dense ({'; '.join(known[name].why_dense)}), "
                    f"but got {choice.label}"
                )

    def save(self, path: Path | str) -> None:
        """Writes the plan as YAML."""
        Path(path).write_text(yaml.safe_dump(self.to_json(), sort_keys=False))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a plan from YAML.

        Raises:
            PlanError: the file is missing, is no plan, or breaks a rule.
        """
        try:
            values: Any = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise PlanError(f"a plan must be a readable YAML file, but got {path}: {error}") from None
        if not isinstance(values, dict) or values.get("schema") != PLAN_SCHEMA:
            raise PlanError(f"a plan must be a mapping with schema: {PLAN_SCHEMA}, but got {path}")
        try:
            return cls.from_json(values)
        except UsageError as error:
            raise PlanError(f"{path}: {error}") from None
