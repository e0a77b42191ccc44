"""The records of a comparison: what was asked, who takes part, and what came of it.

All travel as JSON; `Comparison` is the content of bench.json. Times are microseconds where a name ends
in `_us` and milliseconds in `WholeLatency`; rates are 10^9 operations a second, two per multiply-add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from autosparse.errors import UsageError
from autosparse.measuring.stopwatch import WHOLE, MeasurementPolicy
from autosparse.patterns import family_of
from autosparse.plans.plan import Plan
from autosparse.records import HardwareProfile, Pattern, Record, WholeLatency, onexn
from autosparse.sessions.in_turn import UNEVENTFUL, Circumstances
from autosparse.storage.serial import added

SCHEMA = 1
DTYPES = ("f32", "bf16", "f16")
"""Types of our contestants."""
RIVAL_DTYPES = (*DTYPES, "int8")
"""Types of other engines."""
OURS = "autosparse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(Record):
    """The model that all contestants run.

    Attributes:
        model: zoo name, ``path/to/file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or ``hf:ID``.
        weights: file of weights; None draws random ones, which is enough for a latency.
        input_shape: one sample; empty is the model's own.
        batch_size: samples per run.
        seed: of random weights, of the input and of random masks.
        calibration: data set whose training part gives the ranges of int8 peers; None takes random
            inputs, which is enough for a latency.
    """

    model: str
    weights: str | None = None
    input_shape: tuple[int, ...] = ()
    batch_size: int = 1
    seed: int = 0
    calibration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Record):
    """What shall be compared.

    Attributes:
        subject: the model.
        sparsities: fractions of blocks pruned; one contestant of ours each, random masks on
            every layer that may be sparse but the first, the last and those of `exclude`.
        patterns: those that these contestants may choose from, layer by layer.
        plan: file of a plan that one more contestant follows, or None.
        artifact: exported file that one more contestant runs, or None.
        dtypes: arithmetic types of our contestants; peers run in every type they have.
        threads: thread counts, one session each.
        against: peers by name, empty for none of them; None is every installed one.
        exclude: globs of layers that stay dense.
        dense: whether our engine also runs the model without zeros.
        peers_masked: whether peers also run the models with zeros.
        policy: how long to measure.
        database: URL of the tuning database; None is the user's own.
        compact_weights: leaves out kernels of ours that expand weights; peers do as they do.
        untuned: nothing is measured before, and no row that is known is read: our contestants run what
            the engine picks by its rules, one contestant per sparsity and pattern.
        layers_alone: whether every layer of our contestants is timed alone too.
        device: where everybody runs, ``cpu`` or as `devices.find` takes it.
    """

    subject: Subject
    sparsities: tuple[float, ...] = (0.75,)
    patterns: tuple[Pattern, ...] = (onexn(8), onexn(16), onexn(32))
    plan: str | None = None
    artifact: str | None = None
    dtypes: tuple[str, ...] = ("f32",)
    threads: tuple[int, ...] = (1,)
    against: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    dense: bool = True
    peers_masked: bool = False
    policy: MeasurementPolicy = WHOLE
    database: str | None = None
    compact_weights: bool = False
    untuned: bool = added(False)
    layers_alone: bool = added(False)
    device: str = added("cpu")

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            family_of(pattern)
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise UsageError(
                    f"a sparsity to compare must lie between 0 and 1, but got {sparsity:g}; "
                    "the model without zeros takes part anyway"
                )
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise UsageError(f"dtype must be {' or '.join(DTYPES)}, but got {dtype!r}")
        if self.sparsities and not self.patterns:
            raise UsageError("sparse contestants need at least one pattern, but got none")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a request; those of files that know 1xN alone list its N as ``block_ns``."""
        given = dict(values)
        if "block_ns" in given:
            given["patterns"] = [onexn(block_n).to_json() for block_n in given.pop("block_ns")]
        return super(Asked, cls).from_json(given)


# ------------------------------------------------------------------------------------- who takes part


@dataclass(frozen=True, slots=True, kw_only=True)
class Zeros(Record):
    """Which weights of a model are zero.

    Attributes:
        name: for tables, such as ``75 %``.
        plan: pattern and sparsity per layer.
        random: whether blocks are drawn at random; otherwise the least important ones go.
    """

    name: str
    plan: Plan
    random: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Own(Record):
    """One contestant on our engine.

    Attributes:
        name: label in tables, unique in its session.
        dtype: arithmetic type.
        plan: kernels of the layers, and their zeros; None where an exported file decides.
        zeros: what the model's weights hold; None for none.
        artifact: exported file to run instead of compiling.
    """

    name: str
    dtype: str
    plan: Plan | None = None
    zeros: Zeros | None = None
    artifact: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant(Record):
    """Who ran.

    Attributes:
        name: label in tables, unique in its session.
        engine: ``autosparse``, or the peer's name.
        dtype: arithmetic type.
        zeros: name of the zeros its weights hold; empty for a dense model.
    """

    name: str
    engine: str
    dtype: str
    zeros: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether our engine ran it."""
        return self.engine == OURS


# ------------------------------------------------------------------------------------ what came of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Record):
    """Somebody who was not timed, and why.

    Attributes:
        name: contestant or peer.
        kind: ``absent`` not installed, ``failed`` its engine refused, ``wrong`` its output was.
        reason: what happened, and for an absent one how to get it.
        ours: whether it was to run on our engine.
    """

    name: str
    kind: Literal["absent", "failed", "wrong"]
    reason: str
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(Record):
    """How many times faster a contestant is than a rival, from the ratio within every round.

    Attributes:
        over: the rival's name.
        median: rival's time over this one's; above 1 is faster than the rival.
        ci_low: lower end of the 95 % interval.
        ci_high: upper end.
    """

    over: str
    median: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Record):
    """Memory of one contestant.

    Attributes:
        size_bytes: how much; None where no honest figure is to be had.
        how: where the figure comes from, or why there is none.
    """

    size_bytes: int | None
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates(Record):
    """Operations per second of whole runs.

    Attributes:
        kept_gflops: of the blocks that are kept, counted as the direct algorithm does them.
        dense_gflops: as if no weight were zero.
        limit_gflops: what the machine was measured to do with these threads and type; None if unknown.
        limit_share: `kept_gflops` over `limit_gflops`.
    """

    kept_gflops: float
    dense_gflops: float
    limit_gflops: float | None
    limit_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime(Record):
    """One weight-bearing layer of a contestant on our engine.

    Attributes:
        name: dotted path.
        shape: `LayerShape.key`, empty where records cannot say it.
        pattern: as it is stored: ``dense``, ``1x16``.
        sparsity: fraction of blocks that are not stored.
        kernel: what runs it.
        inside_us: median inside whole runs.
        alone_us: timed alone by the tuner's method; None where the tuner does not time it.
    """

    name: str
    shape: str
    pattern: str
    sparsity: float
    kernel: str
    inside_us: float
    alone_us: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSum(Record):
    """Does the sum of layers timed alone predict the whole?

    Attributes:
        tuned_us: sum of the layers timed alone.
        inside_us: sum of the same layers inside whole runs.
        overheads_us: all other operators and the borders, by name, as timed inside whole runs.
        predicted_us: both together.
        steady_us: the whole, run again and again by itself beside its layers, as they are timed too.
        measured_us: the whole, measured in turn with the others, who leave less of it in the caches.
        ratio: predicted over `steady_us`.
        untuned: layers among the overheads, because the tuner does not time them.
    """

    tuned_us: float
    inside_us: float
    overheads_us: Mapping[str, float]
    predicted_us: float
    steady_us: float
    measured_us: float
    ratio: float
    untuned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Record):
    """What one contestant did in another state of the host.

    Attributes:
        latency: the whole model.
        ratios: type to the comparison, in that state, with the fastest peer of that type.
    """

    latency: WholeLatency
    ratios: Mapping[str, Ratio]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Record):
    """What one contestant did.

    Attributes:
        contestant: who.
        error: largest difference from torch in float32, over its largest output.
        tolerance: the largest error that passes.
        latency: the whole model.
        turns_us: median of every turn, in the order of the rounds.
        ratios: type to the comparison with the fastest peer of that type.
        rates: operations per second.
        memory: activations and weights.
        weight_bytes: weights as they are held; None where the engine does not tell.
        weight_share: of what all layers' weights would take in this type without zeros; None likewise.
        layers: empty for peers.
        layer_sum: None for peers, and where no layer was timed alone.
        note: anything a reader must know, such as that its figures are disturbed.
        elsewhere: state of the host to the figures in it, of the states that were seen beside that of
            `latency`.
    """

    contestant: Contestant
    error: float
    tolerance: float
    latency: WholeLatency
    turns_us: tuple[float, ...]
    ratios: Mapping[str, Ratio]
    rates: Rates
    memory: Memory
    weight_bytes: int | None = None
    weight_share: float | None = None
    layers: tuple[LayerTime, ...] = ()
    layer_sum: LayerSum | None = None
    note: str = ""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Record):
    """One interleaved comparison: one process, one input, one thread count.

    Attributes:
        threads: worker threads of every contestant.
        rounds: turns that everybody had.
        disturbed: numbers of the rounds in which most contestants ran clearly slower than they can.
        results: in the order they took their turns.
        refused: who was not timed.
        circumstances: how it was on the host; all figures but those of `Result.elsewhere` are of the
            state that it was in for longest.
    """

    threads: int
    rounds: int
    disturbed: tuple[int, ...]
    results: tuple[Result, ...]
    refused: tuple[Refusal, ...] = ()
    circumstances: Circumstances = UNEVENTFUL


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Record):
    """A whole comparison; the content of bench.json.

    Attributes:
        asked: what was compared.
        input_shape: of the input, batch included.
        dense_flops: operations of one run without zeros, in layers whose shape is known.
        hardware: the host, with its measured limits.
        versions: of everything that took part.
        sessions: one per thread count.
        absent: peers that were not asked for by name and are not installed.
        created_at: UTC, ISO 8601.
        schema: version of this format.
    """

    asked: Asked
    input_shape: tuple[int, ...]
    dense_flops: int
    hardware: HardwareProfile
    versions: Mapping[str, str] = field(default_factory=dict)
    sessions: tuple[Session, ...] = ()
    absent: tuple[Refusal, ...] = ()
    created_at: str = ""
    schema: int = SCHEMA

    @property
    def failed(self) -> tuple[Refusal, ...]:
        """Contestants of ours that failed or were wrong."""
        return tuple(r for session in self.sessions for r in session.refused if r.ours)
