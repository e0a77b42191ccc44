"""A plan: what every layer of one model shall be. Plain data, made by the search, read by all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import yaml

from autosparse.errors import PlanError, UsageError
from autosparse.patterns import family_of, parse_pattern
from autosparse.records import LayerChoice, LayerInfo, Pattern, Record, onexn, short_hash
from autosparse.storage.yaml_text import read_mapping

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
    def dtype(self) -> Literal["f32", "bf16", "f16"]:
        """Arithmetic type of the whole model.

        Raises:
            PlanError: the layers' types differ; a model runs in one.
        """
        dtypes = {choice.dtype for choice in self.layers.values()}
        if len(dtypes) > 1:
            wrong = ", ".join(sorted(dtypes))
            raise PlanError(f"all layers of a plan must have one dtype, but got {wrong}")
        return next(iter(dtypes), "f32")

    @property
    def is_sparse(self) -> bool:
        """Whether any layer gets zeros; without, the plan is the dense model."""
        return any(choice.sparsity > 0 for choice in self.layers.values())

    @classmethod
    def uniform(
        cls,
        model: str,
        layers: Iterable[LayerInfo],
        *,
        block_n: int | None = None,
        pattern: Pattern | str | None = None,
        sparsity: float,
        dtype: Literal["f32", "bf16", "f16"] = "f32",
    ) -> Self:
        """Gives every prunable layer the same pattern and sparsity.

        Args:
            model: the model's name.
            layers: its weight-bearing layers.
            block_n: N of the 1xN pattern, or
            pattern: any pattern, or its name, such as ``block16``.
            sparsity: fraction of blocks to prune.
            dtype: arithmetic type.

        Layers that must stay dense or cannot have the pattern are left out; the plan's note names them
        with their reasons.

        Raises:
            PlanError: no family knows the pattern, or it cannot have the sparsity; or no layer may be
                sparse, with every reason.
            UsageError: not exactly one of `block_n` and `pattern` is given.
        """
        if (block_n is None) == (pattern is None):
            raise UsageError(
                f"a uniform plan takes either block_n or pattern, but got {block_n} and {pattern!r}"
            )
        wanted = parse_pattern(pattern) if isinstance(pattern, str) else pattern or onexn(block_n or 0)
        choice = LayerChoice(pattern=wanted, sparsity=sparsity, dtype=dtype)
        if why := family_of(wanted).why_not_sparsity(wanted, sparsity):
            raise PlanError(f"a pattern must be able to have its sparsity, but {why}")
        given = tuple(layers)
        reasons = {layer.name: why_dense(layer, wanted) for layer in given}
        names = [name for name, why in reasons.items() if not why]
        dense = by_reason({name: ", ".join(why) for name, why in reasons.items() if why})
        if not names:
            raise PlanError(
                f"a uniform plan needs a layer that may be sparse, but all {len(given)} of {model} "
                f"must stay dense: {dense or 'it was given none'}"
            )
        return cls(
            model=model,
            layers={name: choice for name in names},
            note=f"uniform {wanted.name} at {sparsity:g}" + (f"; dense: {dense}" if dense else ""),
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

    def check_patterns(self, layers: Iterable[LayerInfo]) -> None:
        """Refuses a plan whose patterns its layers could not be pruned to.

        Weights that are pruned already may follow it: kernels run blocks that are larger than a layer.

        Args:
            layers: of the model; `check` has found all that the plan names.

        Raises:
            PlanError: a layer is too small for its pattern, or a pattern cannot have its sparsity.
        """
        for layer in layers:
            choice = self.choice(layer.name)
            why = why_dense(layer, choice.pattern)
            if flaw := family_of(choice.pattern).why_not_sparsity(choice.pattern, choice.sparsity):
                why = (*why, flaw)
            if why and not choice.pattern.is_dense:
                raise PlanError(f"layer {layer.name!r} cannot be {choice.label}: {'; '.join(why)}")

    def save(self, path: Path | str) -> None:
        """Writes the plan as YAML."""
        text = yaml.safe_dump(self.to_json(), sort_keys=False)
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a plan from YAML.

        Raises:
            PlanError: the file is missing, is no plan, or breaks a rule.
        """
        values = read_mapping(Path(path), "a plan", PlanError)
        if values.get("schema") != PLAN_SCHEMA:
            raise PlanError(f"a plan must be a mapping with schema: {PLAN_SCHEMA}, but got {path}")
        try:
            return cls.from_json(values)
        except UsageError as error:
            raise PlanError(f"{path}: {error}") from None


def why_dense(layer: LayerInfo, pattern: Pattern) -> tuple[str, ...]:
    """Says why a layer stays dense where a pattern is wanted; empty if it can have it."""
    if layer.why_dense or layer.shape is None:
        return layer.why_dense
    why = family_of(pattern).why_not(pattern, layer.shape.weight_shape)
    return (why,) if why else ()


def by_reason(reasons: Mapping[str, str]) -> str:
    """Lists layers with the reason why they stay dense, once per reason."""
    layers: dict[str, list[str]] = {}
    for name, why in reasons.items():
        layers.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in layers.items())
