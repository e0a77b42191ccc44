"""The format of pareto.json, schema 1: what a search hands to everything that reports on it.

Fractions lie in [0, 1]: accuracies, sparsities and `Calibration.mape`. A latency that nobody measured
is None, never a prediction under another name. Keys this version does not know are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autosparse.errors import RunError
from autosparse.files import read_json
from autosparse.records import Accuracy, AccuracyKind, AccuracySource, WholeLatency

SCHEMA = 1
FILE = "pareto.json"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Dense(_Part):
    """The un-pruned model: on our executor in the run's first type, beside it (`peers`), its accuracy.

    Peers are other engines, and our executor in other types, by `run_name`. `accuracy` is that in f32,
    `accuracies` that in every type of the run.
    """

    latency: WholeLatency | None = None
    accuracy: Accuracy | None = None
    accuracies: dict[str, Accuracy] = {}
    peers: dict[str, WholeLatency] = {}

    @property
    def runs(self) -> dict[str, WholeLatency]:
        """Every dense run by its name, ours first."""
        ours = {} if self.latency is None else {run_name(self.latency): self.latency}
        return ours | self.peers


def run_name(latency: WholeLatency) -> str:
    """Names a dense run: its engine, and its type where that is not f32."""
    return latency.engine if latency.dtype == "f32" else f"{latency.engine} {latency.dtype}"


class Baseline(_Part):
    """A configuration nobody searched for, such as one sparsity for all layers.

    `id`, `plan` and `weights` as in `Config`; without an id it was never run whole.
    """

    name: str
    id: str | None = None
    predicted_latency_ms: Positive | None = None
    measured_latency_ms: Positive | None = None
    latency_ci_ms: tuple[Positive, Positive] | None = None
    accuracy: Fraction
    accuracy_kind: AccuracyKind
    dtype: str = "f32"
    plan: str = ""
    weights: str | None = None


class Layer(_Part):
    """One layer of a configuration.

    `measured_us` is its time inside the compiled model, `predicted_us` the tuning table's row for what
    it became, `dense_us` the row of its fastest dense kernel of that type.
    """

    name: str
    label: str
    dtype: str = "f32"
    kernel: str | None = None
    predicted_us: float | None = None
    measured_us: float | None = None
    dense_us: float | None = None
    sparsity: Fraction = 0.0
    why_dense: str = ""


class Config(_Part):
    """One configuration on the final front.

    `plan` and `weights` are files of the run, relative to its folder. `weights` holds the trained
    weights with the plan's zeros in place; without one, the dense weights pruned by the plan ran.
    `accuracy_samples` and `latency_repeats` say what the figures rest on; 0 where that was not noted.
    `dtype` is the type that it computes in, `accuracy_dtype` and `accuracy_through` the type in which
    its accuracy was found and what computed it.
    """

    id: str
    predicted_latency_ms: Positive | None = None
    measured_latency_ms: Positive | None = None
    latency_ci_ms: tuple[Positive, Positive] | None = None
    latency_repeats: int = 0
    accuracy: Fraction
    accuracy_kind: AccuracyKind
    accuracy_split: Literal["validation", "test"] = "validation"
    accuracy_samples: int = 0
    accuracy_dtype: str = "f32"
    accuracy_through: AccuracySource = "torch"
    one_shot_accuracy: Fraction | None = None
    sparsity: Fraction
    feasible: bool
    plan: str
    weights: str | None = None
    dtype: str = "f32"
    layers: tuple[Layer, ...] = ()


class FrontPoint(_Part):
    """One point of the front that the additive model predicts."""

    latency_ms: Positive
    accuracy: Fraction
    dtype: str = "f32"


class CalibrationPoint(_Part):
    """One configuration, predicted and measured."""

    id: str
    predicted_ms: Positive
    measured_ms: Positive


class Calibration(_Part):
    """How well predictions met measurements: factor (measured over predicted), MAPE, rank order."""

    factor: float | None = None
    mape: float | None = None
    spearman: float | None = None
    points: tuple[CalibrationPoint, ...] = ()


class HypervolumePoint(_Part):
    """Hypervolume of the front after a trial."""

    trial: int
    value: float


class SkipCount(_Part):
    """Options the tuner did not time, by reason."""

    reason: str
    count: int


class Tuning(_Part):
    """What the tuner did with the options of the space."""

    considered: int
    timed: int
    reused: int
    skipped: tuple[SkipCount, ...] = ()


class Skipped(_Part):
    """Something the run left out."""

    what: str
    why: str


class Verdict(_Part):
    """The chosen configuration, or None, and the result in one sentence."""

    id: str | None = None
    text: str = ""


class Feasibility(_Part):
    """What assignments of the measured options can reach, whole model, milliseconds."""

    fastest_ms: Positive | None = None
    dense_ms: Positive | None = None
    slowest_ms: Positive | None = None
    smallest_feasible_ms: Positive | None = None


class Document(_Part):
    """pareto.json as a whole.

    `dtypes` are the types that configurations could have, `no_dtypes` maps those that were asked for
    beside them to the reason why they could not. With `compact_weights` no kernel that expands weights
    took part.
    """

    schema_: Literal[1] = Field(alias="schema")
    model: str
    hardware_id: str
    threads: int
    batch_size: int
    dtypes: tuple[str, ...]
    no_dtypes: dict[str, str] = {}
    compact_weights: bool = False
    budget_ms: Positive | None = None
    input_shape: tuple[int, ...] = ()
    data: str = ""
    data_resolution: int | None = None
    seed: int | None = None
    command: str = ""
    version: str = ""
    created_at: str = ""
    dense: Dense
    baselines: tuple[Baseline, ...] = ()
    configs: tuple[Config, ...]
    predicted_front: tuple[FrontPoint, ...] = ()
    calibration: Calibration | None = None
    hypervolume: tuple[HypervolumePoint, ...] = ()
    tuning: Tuning | None = None
    skipped: tuple[Skipped, ...] = ()
    verdict: Verdict = Verdict()
    feasibility: Feasibility | None = None
    policy: dict[str, Any] = {}
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _ids_agree(self) -> Document:
        ids = [config.id for config in self.configs]
        if len(set(ids)) != len(ids):
            raise ValueError("every configuration must have its own id")
        if self.verdict.id is not None and self.verdict.id not in ids:
            raise ValueError(
                f"verdict.id must be the id of a configuration, but got {self.verdict.id!r}"
            )
        return self

    def config(self, wanted: str) -> Config:
        """Gives a configuration by its id; KeyError if there is none."""
        return {config.id: config for config in self.configs}[wanted]


def parse(values: Any, source: str = FILE) -> Document:
    """Checks and types the content of pareto.json.

    Args:
        values: plain JSON values.
        source: the file, for messages.

    Raises:
        RunError: another schema, a missing key, or a value of the wrong kind; names the first.
    """
    schema = values.get("schema") if isinstance(values, Mapping) else None
    if type(schema) is not int or schema != SCHEMA:  # True equals 1
        raise RunError(
            f"{source} must have schema {SCHEMA}, but got {schema!r}; "
            "report on it with the version of autosparse that wrote it"
        )
    try:
        return Document.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise RunError(
            f"{source} breaks its format at {place}: {first['msg']}; run the search again"
        ) from None


def load(run: Path) -> Document:
    """Reads the pareto.json of a run folder.

    Raises:
        RunError: missing, damaged, or not of this schema.
    """
    path = run / FILE
    if not path.exists():
        raise RunError(f"{run} must hold {FILE}, but has none: its search is unfinished; run it again")
    return parse(read_json(path), str(path))
