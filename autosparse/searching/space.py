"""Search spaces: which layers may be sparse, in which patterns, how sparse, and how the study runs.

One YAML file per experiment in search_spaces/. A key that does not exist is refused with the nearest
one that does; a value that breaks a rule is refused with the rule.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.resources
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from autosparse.devices import kind_names
from autosparse.errors import ConfigError, PlanError, got
from autosparse.patterns import all_families, family_of, parse_pattern
from autosparse.patterns.family import finest_first
from autosparse.records import (
    DENSE,
    LayerChoice,
    LayerInfo,
    LayerShape,
    Pattern,
    Record,
    onexn,
    short_hash,
)
from autosparse.searching.samplers import SAMPLERS
from autosparse.storage.yaml_text import YamlError, parse_yaml, read_yaml

BLOCK_NS = (1, 2, 4, 8, 16, 32, 64)


def _listed(value: Any) -> Any:
    """Reads ``block_n: 16`` as ``block_n: [16]``."""
    return value if isinstance(value, list | tuple) else (value,)


def _known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"a sampler must be one of {', '.join(SAMPLERS)}")
    return name


class StudySpace(BaseModel):
    """How a study explores: the `study:` section of a search space.

    Attributes:
        sampler: name in `autosparse.searching.samplers`.
        trials: different plans to evaluate, unless the command line says otherwise.
        batch_size: plans evaluated at once. It decides which plans are tried, so it is a setting and
            not the number of cores.
        startup_trials: told trials before the sampler leaves random drawing; the seeds count.
        seed_points: budgets at which the exact optimum seeds the study.
        uniform_sparsity: sparsities of the uniform baselines, one plan per pattern and sparsity;
            empty takes 0.5, 0.75 and 0.875 where the grid has them.
        safety_margin: part of the budget that policies keep free, against predictions that are too low.
        retries: how often a failed evaluation is tried again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Annotated[str, BeforeValidator(_known_sampler)] = "tpe"
    trials: int = Field(default=64, ge=1)
    batch_size: int = Field(default=4, ge=1, le=1024)
    startup_trials: int = Field(default=12, ge=0)
    seed_points: int = Field(default=8, ge=2, le=64)
    uniform_sparsity: tuple[float, ...] = ()
    safety_margin: float = Field(default=0.0, ge=0.0, lt=0.5)
    retries: int = Field(default=3, ge=0, le=10)


class SearchSpace(BaseModel):
    """What a search may choose.

    Attributes:
        version: version of this format, 1.
        device: device kind the space is for.
        block_n: N of the 1xN pattern; powers of two from 1 to 64. 8, 16 and 32 where neither this nor
            `pattern` is given.
        pattern: further patterns, each by its name (``block16``), or by its family's (``block``), which
            means all that the family offers for a layer.
        sparsity: fractions of units pruned, each in [0, 1).
        include: layer names (globs) that may be sparse.
        exclude: layer names (globs) that stay dense; wins over `include`.
        dense: positions that stay dense whatever their names: ``first``, ``last``.
        study: how the study explores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    device: str = "cpu"
    block_n: Annotated[tuple[int, ...], BeforeValidator(_listed)] = ()
    pattern: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    sparsity: Annotated[tuple[float, ...], BeforeValidator(_listed)] = (0.5, 0.75, 0.875)
    include: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("*",)
    exclude: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    dense: Annotated[tuple[Literal["first", "last"], ...], BeforeValidator(_listed)] = ("first",)
    study: StudySpace = StudySpace()

    @field_validator("block_n")
    @classmethod
    def _powers_of_two(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(value not in BLOCK_NS for value in values):
            raise ValueError(f"block_n must list powers of two from {', '.join(map(str, BLOCK_NS))}")
        return tuple(sorted(set(values)))

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value not in kind_names():
            raise ValueError(f"device must be a kind of {', '.join(kind_names())}, but got {value!r}")
        return value

    @field_validator("pattern")
    @classmethod
    def _known_patterns(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value == DENSE.name:
                raise ValueError("pattern must list sparse patterns, as every layer may stay dense")
            if value not in all_families():
                try:
                    parse_pattern(value)
                except PlanError as error:
                    raise ValueError(str(error)) from None
        return tuple(dict.fromkeys(values))

    @model_validator(mode="before")
    @classmethod
    def _some_pattern(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and not values.get("block_n") and not values.get("pattern"):
            if "block_n" in values or "pattern" in values:
                raise ValueError(
                    "block_n and pattern must name at least one pattern between them; "
                    f"block_n lists powers of two from {', '.join(map(str, BLOCK_NS))}"
                )
            return {**values, "block_n": (8, 16, 32)}
        return values

    @field_validator("sparsity")
    @classmethod
    def _fractions(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or any(not 0 <= value < 1 for value in values):
            raise ValueError("sparsity must list fractions of zeros, each at least 0 and below 1")
        return tuple(sorted(set(values)))

    @classmethod
    def parse(cls, values: Any, where: str) -> Self:
        """Checks plain values and makes a space of them.

        Args:
            values: what a YAML file holds.
            where: the file's name, for messages.

        Raises:
            ConfigError: an unknown key, with the nearest known one, or a value that breaks a rule.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{where}: a search space must be a mapping of keys, but got {type(values).__name__}"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_explain(error, cls)}") from None

    @property
    def fingerprint(self) -> str:
        """Short hash of all that the space says; of 1xN alone what it was before there were others."""
        return short_hash(self._plain())

    def patterns(self, shape: LayerShape) -> tuple[Pattern, ...]:
        """Gives the patterns that the space names for a layer, finest first, fitting or not."""
        named = [onexn(block_n) for block_n in self.block_n]
        for name in self.pattern:
            known = all_families().get(name)
            named += known.grid(shape.weight_shape) if known else [parse_pattern(name)]
        return tuple(finest_first(named))

    def narrowed(self, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Self:
        """Gives the space with other `include` globs (if any) and further `exclude` globs."""
        values = self.model_dump()
        values["include"] = tuple(include) or self.include
        values["exclude"] = self.exclude + tuple(exclude)
        return self.parse(values, "the narrowed space")

    def to_yaml(self) -> str:
        """Gives the resolved space as YAML that `load` reads."""
        return yaml.safe_dump(self._plain(), sort_keys=False)

    def _plain(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=None if self.pattern else {"pattern"})

    def applicable(self, layers: Sequence[LayerInfo]) -> tuple[LayerScope, ...]:
        """Says for every layer what it may become, or why it stays dense.

        Args:
            layers: all weight-bearing layers in the order they run.
        """
        return tuple(self._scope(layer, index, len(layers)) for index, layer in enumerate(layers))

    def size(self, layers: Sequence[LayerInfo]) -> SpaceSize:
        """Counts the assignments of choices to layers."""
        scopes = self.applicable(layers)
        total = math.prod(1 + len(scope.choices) for scope in scopes)
        return SpaceSize(
            configurations=total,
            log10=math.log10(total),
            sparse_layers=sum(bool(scope.choices) for scope in scopes),
            choices=sum(len(scope.choices) for scope in scopes),
        )

    def _scope(self, layer: LayerInfo, index: int, count: int) -> LayerScope:
        reasons = list(layer.why_dense)
        if layer.shape is None and not reasons:
            reasons.append("its operator is neither a convolution nor linear")
        reasons += self._why_left_out(layer.name, index, count)
        if reasons or layer.shape is None:
            return LayerScope(name=layer.name, why_dense=tuple(reasons))
        choices, refused = self._choices(layer.shape)
        return LayerScope(
            name=layer.name,
            choices=choices,
            why_dense=() if choices else refused,
            refused=refused if choices else (),
        )

    def _why_left_out(self, name: str, index: int, count: int) -> list[str]:
        reasons = []
        if "first" in self.dense and index == 0:
            reasons.append("the space keeps the first layer dense")
        if "last" in self.dense and index == count - 1:
            reasons.append("the space keeps the last layer dense")
        if not any(fnmatch.fnmatchcase(name, glob) for glob in self.include):
            reasons.append(f"no include glob matches it ({', '.join(self.include)})")
        reasons += [f"excluded by {glob!r}" for glob in self.exclude if fnmatch.fnmatchcase(name, glob)]
        return reasons

    def _choices(self, shape: LayerShape) -> tuple[tuple[LayerChoice, ...], tuple[str, ...]]:
        choices: list[LayerChoice] = []
        refused: list[str] = []
        for pattern in self.patterns(shape):
            if why := family_of(pattern).why_not(pattern, shape.weight_shape):
                refused.append(f"{pattern.name}: {why}")
                continue
            steps, same = _distinct_steps(self.sparsity, pattern, shape)
            choices += [LayerChoice(pattern=pattern, sparsity=sparsity) for sparsity in steps]
            refused += same
        # Patterns of one family refuse steps for the same reasons.
        return tuple(choices), tuple(dict.fromkeys(refused))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScope(Record):
    """What one layer may become.

    Attributes:
        name: the layer.
        choices: its sparse choices; dense is always there beside them.
        why_dense: why it has none; empty if it has some.
        refused: choices of the space that this layer cannot have, with the reason.
    """

    name: str
    choices: tuple[LayerChoice, ...] = ()
    why_dense: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSize(Record):
    """How large a space is.

    Attributes:
        configurations: exact number of assignments of choices to layers.
        log10: its decimal logarithm.
        sparse_layers: layers with a sparse choice.
        choices: sparse choices, summed over layers.
    """

    configurations: int
    log10: float
    sparse_layers: int
    choices: int


def _distinct_steps(
    grid: Sequence[float], pattern: Pattern, shape: LayerShape
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Leaves out steps that prune nothing in this layer, or as much as a smaller step does."""
    family, extents = family_of(pattern), shape.weight_shape
    full = family.kept(pattern, extents, 0.0)
    who = "" if pattern.family == "onexn" else f"{pattern.name}: "
    steps: dict[int, float] = {}
    refused = []
    for sparsity in grid:
        kept = family.kept(pattern, extents, sparsity)
        if why := family.why_not_sparsity(pattern, sparsity):
            refused.append(f"{who}{why}")
        elif kept == full and sparsity > 0:
            refused.append(f"{who}sparsity {sparsity:g} prunes none of {full} blocks")
        elif kept in steps:
            refused.append(f"{who}sparsity {sparsity:g} keeps {kept} blocks, as {steps[kept]:g} does")
        else:
            steps[kept] = sparsity
    return tuple(steps.values()), tuple(refused)


def names() -> tuple[str, ...]:
    """Gives the names of the shipped spaces."""
    folder = importlib.resources.files("autosparse.search_spaces")
    return tuple(
        sorted(
            entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml")
        )
    )


def load(name_or_path: str | Path) -> SearchSpace:
    """Reads a shipped space by name, or any by the path of its YAML file.

    Raises:
        ConfigError: no such name or file, no YAML, an unknown key, or a value that breaks a rule.
    """
    given = str(name_or_path)
    values = _shipped(given) if _is_name(given) else _file(Path(os.path.expanduser(given)))
    return SearchSpace.parse(values, given)


def _is_name(given: str) -> bool:
    return "/" not in given and not given.endswith((".yaml", ".yml"))


def _shipped(name: str) -> Any:
    if name not in names():
        raise ConfigError(
            f"a search space must be a file or one of {', '.join(names())}, but got {name!r}"
            + _nearest(name, names())
        )
    folder = importlib.resources.files("autosparse.search_spaces")
    return parse_yaml((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _file(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (OSError, YamlError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"a search space must be a readable YAML file, but got {path}: {reason}"
        ) from None


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        inside = f" in {'.'.join(path[:-1])!r}" if path[:-1] else ""
        return f"unknown key {path[-1]!r}{inside}{_nearest(path[-1], known)}; keys: {', '.join(known)}"
    rule = first["msg"].removeprefix("Value error, ")
    but = "" if first["type"] == "missing" else f", but got {got(first['input'])}"
    return f"{'.'.join(path)}: {rule}{but}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> tuple[str, ...]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return tuple(model.model_fields)
