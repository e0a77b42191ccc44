"""The format of pareto.json, schema 1: what a search hands to everything that reports on it.

Fractions lie in [0, 1]: accuracies, sparsities and `Calibration.mape`. A latency that nobody measured
is None, never a prediction under another name. Keys this version does not know are ignored where a file
is read, and refused where one is written: `docs/pareto.schema.json` is what is written, as JSON schema,
made by `json_schema`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autosparse.errors import RunError
from autosparse.records import Accuracy, AccuracyKind, AccuracySource, SplitName, WholeLatency
from autosparse.storage.files import read_json, write_json

SCHEMA = 1
FILE = "pareto.json"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class TrainedDense(_Part):
    """The un-pruned model, trained as configurations were: what they are to be compared with.

    `taken_from` names the earlier run that it was trained in; empty where it was this one.
    """

    kind: AccuracyKind
    epochs: int
    accuracy: Accuracy
    validation: Accuracy | None = None
    weights: str | None = None
    taken_from: str = ""

    def on(self, split: SplitName) -> Accuracy | None:
        """Gives its accuracy on a split, None where that is not known."""
        return _on(split, self.accuracy, self.validation)


class Dense(_Part):
    """The un-pruned model: on our executor in the run's first type, beside it (`peers`), its accuracy.

    Peers are other engines, and our executor in other types, by `run_name`. `accuracy` is that in f32,
    `accuracies` that in every type of the run, both on the test split, `validation` likewise on the
    other; all of the model as it is, `trained` of the model trained like configurations.
    `latency_states` maps every run's name to its latency in every state of the host that was seen, that
    of `latency` or `peers` among them; empty where the host has only one.
    """

    latency: WholeLatency | None = None
    accuracy: Accuracy | None = None
    accuracies: dict[str, Accuracy] = {}
    validation: dict[str, Accuracy] = {}
    trained: tuple[TrainedDense, ...] = ()
    peers: dict[str, WholeLatency] = {}
    latency_states: dict[str, dict[str, WholeLatency]] = {}

    def on(self, split: SplitName, dtype: str = "f32") -> Accuracy | None:
        """Gives the accuracy of the model as it is on a split; in f32 where that is all there is."""
        first = _on(split, self.accuracy, self.validation.get("f32"))
        return _on(split, self.accuracies.get(dtype), self.validation.get(dtype)) or first

    def like(self, kind: str, epochs: int) -> TrainedDense | None:
        """Gives the model that was trained as long as a configuration, None where there is none."""
        return next((each for each in self.trained if (each.kind, each.epochs) == (kind, epochs)), None)

    @property
    def runs(self) -> dict[str, WholeLatency]:
        """Every dense run by its name, ours first."""
        ours = {} if self.latency is None else {run_name(self.latency): self.latency}
        return ours | self.peers


def _on(split: SplitName, *known: Accuracy | None) -> Accuracy | None:
    return next((each for each in known if each is not None and each.split == split), None)


def run_name(latency: WholeLatency) -> str:
    """Names a dense run: its engine, and its type where that is not f32."""
    return latency.engine if latency.dtype == "f32" else f"{latency.engine} {latency.dtype}"


class SharedTraining(_Part):
    """A training that several configurations share.

    `trained` is the id of the configuration that was trained; None where it is this one. The others are
    pruned from its weights or, if `tail_epochs` are more than 0, from the mean of `tickets` models that
    so many more epochs gave. `ensemble` is the accuracy of all these models under this configuration's
    plan when they vote, which takes as many times its latency.
    """

    trained: str | None = None
    tail_epochs: Annotated[float, Field(ge=0)] = 0.0
    tickets: int
    ensemble: Accuracy


class _Evaluated(_Part):
    """Something with an accuracy.

    `accuracy` is what reports show: of the test split, or of validation where nothing else is known.
    `validation_accuracy` is what decided, on data that training did not see. `accuracy_samples` and
    `validation_samples` say what they rest on, `epochs` how long was trained; 0 where that was not
    noted. `accuracy_dtype` and `accuracy_through` are the type in which it was found and what
    computed it. `shared` is None where the training is its own alone. `taken_from` names the earlier
    run that it was trained in; empty where it was this one.
    """

    accuracy: Fraction
    accuracy_kind: AccuracyKind
    accuracy_split: SplitName = "validation"
    accuracy_samples: int = 0
    accuracy_dtype: str = "f32"
    accuracy_through: AccuracySource = "torch"
    validation_accuracy: Fraction | None = None
    validation_samples: int = 0
    epochs: int = 0
    shared: SharedTraining | None = None
    taken_from: str = ""

    def accuracy_on(self, split: SplitName) -> float | None:
        """Gives the accuracy on a split, None where that is not known."""
        if split == self.accuracy_split:
            return self.accuracy
        return self.validation_accuracy if split == "validation" else None

    @property
    def deciding_accuracy(self) -> float:
        """Accuracy on the validation split, else the only one there is."""
        known = self.accuracy_on("validation")
        return self.accuracy if known is None else known


class _Timed(_Evaluated):
    """Something with a latency, too.

    `latency_repeats` says what the latency rests on; 0 where that was not noted. `latency_states` is
    the latency in every state of the host that was seen; empty where it has only one.
    `latency_deciding_s` is the time of further turns, taken as the interval had crossed the budget.
    `dtype` is the type that it computes in. `weights` is a file of the run, relative to its folder,
    that holds the trained weights with the plan's zeros in place; without one, the dense weights pruned
    by the plan ran.
    """

    predicted_latency_ms: Positive | None = None
    measured_latency_ms: Positive | None = None
    latency_ci_ms: tuple[Positive, Positive] | None = None
    latency_repeats: int = 0
    latency_states: dict[str, WholeLatency] = {}
    latency_deciding_s: Annotated[float, Field(ge=0)] = 0.0
    weights: str | None = None
    dtype: str = "f32"


class Baseline(_Timed):
    """A configuration nobody searched for, such as one sparsity for all layers.

    Without an id it was never run whole, and has no `plan`.
    """

    name: str
    id: str | None = None
    plan: str = ""

    @model_validator(mode="before")
    @classmethod
    def _split_of_trained(cls, values: Any) -> Any:
        """Earlier runs did not note it: what they trained was of test, all else of validation."""
        if not isinstance(values, Mapping) or "accuracy_split" in values:
            return values
        trained = values.get("accuracy_kind") in ("short", "full")
        return {**values, "accuracy_split": "test" if trained else "validation"}


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


class Config(_Timed):
    """One configuration on the final front.

    `plan` is a file of the run, relative to its folder. `speedup` counts from the fastest dense run,
    ours or a peer's. `one_shot_accuracy` is that on validation data before any training.
    """

    id: str
    speedup: Positive | None = None
    one_shot_accuracy: Fraction | None = None
    sparsity: Fraction
    feasible: bool
    plan: str
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
    """How well predictions met measurements: factor (measured over predicted), MAPE, rank order.

    `state` is the state of the host that predictions are of, and measurements if taken in it at all.
    """

    factor: float | None = None
    mape: float | None = None
    spearman: float | None = None
    state: str = ""
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
    took part. `given_weights` says whether the dense weights were the user's, which may have been
    trained on images of the validation split; None where that was not noted. Where the host was seen in
    several states, all latencies are those in one of them but for `latency_states`: `judged` says in
    which, the ``worst`` or the ``best``. `since` names the earlier run that trainings were taken over
    from; empty without. `recorded` names a device that was not there, so that no model was run and
    latencies are sums of its rows; empty where models ran.
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
    judged: Literal["worst", "best"] = "worst"
    input_shape: tuple[int, ...] = ()
    data: str = ""
    given_weights: bool | None = None
    data_resolution: int | None = None
    seed: int | None = None
    since: str = ""
    recorded: str = ""
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

    @property
    def main_split(self) -> SplitName:
        """The split that configurations are reported on: test, but for runs that know none of it."""
        splits = {config.accuracy_split for config in self.configs}
        return "validation" if splits == {"validation"} else "test"

    def is_open(self, config: Config) -> bool:
        """Whether a configuration's interval crosses the budget, so that it counts as over it."""
        if self.budget_ms is None or config.latency_ci_ms is None:
            return False
        return config.latency_ci_ms[0] <= self.budget_ms < config.latency_ci_ms[1]

    @property
    def host_state(self) -> str:
        """State of the host that latencies are of, ``shared`` or ``apart``; empty where it has one."""
        return "" if self.dense.latency is None else self.dense.latency.state

    @property
    def host_states(self) -> tuple[str, ...]:
        """Every state that the host was seen in, the slowest first; nothing where it has only one."""
        for states in self.dense.latency_states.values():
            return tuple(sorted(states, key=lambda state: -states[state].median_ms))
        return ()

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


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a pareto.json of which every key and value is in the format.

    Args:
        path: the file.
        values: plain JSON values.

    Raises:
        ValidationError: a key that `Document` lacks, or a value that it refuses: a defect of who calls.
        RunError: the file cannot be written.
    """
    Document.model_validate(values, extra="forbid")
    write_json(path, values)


def json_schema() -> dict[str, Any]:
    """Gives the format as a JSON schema (draft 2020-12)."""
    schema = Document.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": f"{FILE} of autosparse, schema {SCHEMA}",
    }


def load(run: Path) -> Document:
    """Reads the pareto.json of a run folder.

    Raises:
        RunError: missing, damaged, or not of this schema.
    """
    path = run / FILE
    if not os.path.exists(path):
        raise RunError(f"{run} must hold {FILE}, but has none: its search is unfinished; run it again")
    return parse(read_json(path), str(path))
