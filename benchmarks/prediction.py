"""Does the sum of tuned rows tell what whole models take? Uncorrected, as predicted, and measured.

    python benchmarks/prediction.py [--model resnet20 ...] [--threads 1 2] [--dtype f32 ...]
        [--sparsity 0.5 ...] [--out results/reference/prediction] [--fresh]

For every model, thread count and type the layers are tuned as a search tunes them, dense and at each
sparsity, and every layer takes the fastest measured option of that sparsity. Then the dense model and
those configurations run whole, in turn. Three figures stand beside each other:

sum        the rows of the layers, and what the dense model spends outside of them: nothing is fitted
predicted  that sum with the correction that a search fits, here to the *other* configurations of the
           same model, threads and type, so that no figure is held against itself
measured   the whole model

Rows are of one state of the host (`autosparse.measuring.states`), and are held against whole runs in
that state alone; whole runs in the other one, where it was seen, are shown too.

What is finished is kept in prediction.json and not done again; rows are kept in tuning.db beside it, so
that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autosparse import hardware
from autosparse.cli.bars import progress_sink
from autosparse.config import SearchConfig
from autosparse.hosts.here import LocalHost
from autosparse.kernels import spec
from autosparse.measuring import limits
from autosparse.measuring.states import NEAR
from autosparse.pipeline.measured.ledger import Measured, dense_name
from autosparse.pipeline.measured.session import Contestant, SessionResult, run_apart
from autosparse.pipeline.measured.tables import measure_options, outside_us
from autosparse.pipeline.subject.requests import session_request
from autosparse.pipeline.subject.survey import Survey, survey
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LatencyOption, Record
from autosparse.storage.files import read_json, write_json
from autosparse.tuning.autotune import TuneResult
from autosparse.version import __version__

MODELS = ("resnet20", "mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "vgg16_bn")
SPARSITIES = (0.5, 0.75, 0.9)
BLOCK_N = (8, 16, 32)
FILE = "prediction.json"
SCHEMA = 1
CLOSE = 0.05
"""How far a prediction may be off."""

_FEW = 0.1
"""Share of the rows that may be disturbed: each layer takes the fastest of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Record):
    """One configuration.

    Attributes:
        model: of the zoo.
        dtype: arithmetic type.
        threads: worker threads.
        sparsity: of the layers that may be sparse; 0 is the dense model.
        state: state of the host that the rows are of; empty where it has only one.
        rows_us: sum of the rows of its layers.
        outside_us: operators without rows, within the dense model.
        predicted_us: with the correction fitted to the other configurations.
        measured_us: state of the host to median of the whole model.
        intervals_us: state to the 95 % interval of that median.
        disturbed: what else ran on the host while the models ran, and of how many of the rows; empty if
            nothing did.
    """

    model: str
    dtype: str
    threads: int
    sparsity: float
    state: str
    rows_us: float
    outside_us: float
    predicted_us: float
    measured_us: Mapping[str, float]
    intervals_us: Mapping[str, tuple[float, float]]
    disturbed: str

    @property
    def sum_us(self) -> float:
        """Rows and what stands outside of them, nothing fitted."""
        return self.rows_us + self.outside_us

    def ratio(self, figure_us: float) -> float | None:
        """Gives a figure over the whole in the rows' state; None where that was not seen."""
        measured_us = self.measured_us.get(self.state)
        return None if measured_us is None else figure_us / measured_us


@dataclass(frozen=True, slots=True)
class Case:
    """What is tuned and run together."""

    model: str
    dtype: str
    threads: int

    @property
    def key(self) -> str:
        return f"{self.model} {self.dtype} {self.threads}"


def subject_of(case: Case, sparsities: Sequence[float], database: Path, progress: Progress) -> Survey:
    """Gives what a search of the model would be about, in a space of these sparsities alone."""
    config = SearchConfig(
        model=case.model, dtype=case.dtype, threads=case.threads, database=str(database)
    )
    found = survey(config, progress)
    space = found.space.model_copy(update={"sparsity": tuple(sparsities), "block_n": BLOCK_N})
    return dataclasses.replace(found, space=space, scopes=space.applicable(found.layers))


def plan_at(sparsity: float, subject: Survey, tuning: TuneResult) -> dict[str, LatencyOption]:
    """Gives every layer's fastest option of a sparsity; of layers that have none, the dense one."""
    chosen = {}
    for name, options in tuning.options.items():
        dense = [option for option in options if option.choice.pattern.is_dense]
        close = [option for option in options if abs(option.choice.sparsity - sparsity) < 1e-9]
        chosen[name] = min(close or dense, key=lambda option: option.median_us)
    return chosen


def measure(case: Case, sparsities: Sequence[float], database: Path, progress: Progress) -> list[Line]:
    """Tunes a model, runs it whole, dense and at every sparsity, and sets the figures side by side."""
    subject = subject_of(case, sparsities, database, progress)
    tuning = measure_options(subject, None, progress)
    state = next(iter({row.key.state for row in tuning.rows if row.median_us is not None}), "")
    chosen = {level: plan_at(level, subject, tuning) for level in (0.0, *sparsities)}
    plans = {
        level: Plan(model=case.model, layers={name: option.choice for name, option in options.items()})
        for level, options in chosen.items()
        if level
    }
    names = {0.0: dense_name(case.dtype), **{level: plan.id for level, plan in plans.items()}}
    contestants = (
        Contestant(name=names[0.0], dtype=case.dtype),
        *(Contestant(name=plan.id, plan=plan, dtype=case.dtype) for plan in plans.values()),
    )
    # Layers inside the whole are timed in the state that is judged: that of the rows.
    request = dataclasses.replace(session_request(subject), judged="best" if state == NEAR else "worst")
    session = run_apart(request.with_contestants(contestants), progress, LocalHost())
    rows_us = {
        level: sum(option.median_us for option in each.values()) for level, each in chosen.items()
    }
    dense = session.of(names[0.0])
    lines = _lines(case, state, rows_us, outside_us(dense, tuning.options), names, session)
    return [dataclasses.replace(line, disturbed=_disturbed(session, tuning)) for line in lines]


def _disturbed(session: SessionResult, tuning: TuneResult) -> str:
    """Says what was disturbed: models that ran whole, or so many rows that their sum is in doubt."""
    timed = [row for row in tuning.rows if row.median_us is not None]
    slowed = sum(bool(row.disturbed) for row in timed)
    rows = f"{slowed / len(timed):.0%} of the rows were" if slowed > _FEW * len(timed) else ""
    return "; ".join(filter(None, (session.disturbed, rows)))


def _lines(
    case: Case,
    state: str,
    rows_us: Mapping[float, float],
    outside: float,
    names: Mapping[float, str],
    session: SessionResult,
) -> Iterator[Line]:
    figures = {level: session.of(name) for level, name in names.items()}
    factors = {
        level: (_us(figure, state) - outside) / rows_us[level] for level, figure in figures.items()
    }
    for level, figure in figures.items():
        others = [factor for other, factor in factors.items() if other != level]
        yield Line(
            model=case.model,
            dtype=case.dtype,
            threads=case.threads,
            sparsity=level,
            state=state,
            rows_us=rows_us[level],
            outside_us=outside,
            predicted_us=outside + statistics.median(others) * rows_us[level],
            measured_us={name: 1e3 * each.median_ms for name, each in figure.states.items()},
            intervals_us={
                name: (1e3 * each.ci_low_ms, 1e3 * each.ci_high_ms)
                for name, each in figure.states.items()
            },
            disturbed="",
        )


def _us(figure: Measured, state: str) -> float:
    """Median in a state, or in the one that was seen instead."""
    return 1e3 * figure.states.get(state, figure.latency).median_ms


def table(lines: Sequence[Line]) -> str:
    """Gives all lines in columns, and how many are close."""
    head = (
        "model",
        "type",
        "thr",
        "zeros",
        "state",
        "sum ms",
        "predicted",
        "measured",
        "sum/",
        "pred/",
    )
    form = "{:13} {:5} {:>3} {:>6} {:8} {:>8} {:>9} {:>9} {:>6} {:>6}"
    out = [form.format(*head)]
    for line in lines:
        ratios = line.ratio(line.sum_us), line.ratio(line.predicted_us)
        for state, measured_us in line.measured_us.items():
            here = state == line.state
            note = "  *" if line.disturbed and here else ""
            out.append(
                form.format(
                    *(line.model, line.dtype, line.threads, f"{line.sparsity:.0%}", state or "-"),
                    *(f"{line.sum_us / 1e3:.3f}" if here else "",),
                    *(f"{line.predicted_us / 1e3:.3f}" if here else "",),
                    f"{measured_us / 1e3:.3f}",
                    *(f"{ratio:.3f}" if here and ratio is not None else "" for ratio in ratios),
                )
                + note
            )
    for what, figure in (("sum", lambda x: x.sum_us), ("prediction", lambda x: x.predicted_us)):
        found = [ratio for line in lines if (ratio := line.ratio(figure(line))) is not None]
        if found:
            close = sum(abs(ratio - 1) <= CLOSE for ratio in found)
            worst = max(found, key=lambda ratio: abs(ratio - 1))
            out.append(
                f"{what}: {close} of {len(found)} within {CLOSE:.0%} of the whole, "
                f"the worst {worst:.3f} of it"
            )
    if why := {line.disturbed for line in lines if line.disturbed}:
        out.append(f"* the host was disturbed: {'; '.join(sorted(why))}")
    return "\n".join(out)


def main() -> None:
    here = sorted({1, min(2, hardware.usable_cores())})
    dtypes = [d for d in ("f32", "bf16") if not spec.why_not_native(d)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=here)
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=dtypes)
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/prediction"))
    parser.add_argument("--fresh", action="store_true", help="measure what is known already again")
    options = parser.parse_args()
    profile = limits.profile()
    file = options.out / FILE
    options.out.mkdir(parents=True, exist_ok=True)
    known: dict[str, list[dict[str, object]]] = {}
    if file.exists() and not options.fresh:
        before = read_json(file)
        if before["hardware"]["hardware_id"] == profile.hardware_id:
            known = before["cases"]
    cases = [Case(m, d, t) for m in options.model for d in options.dtype for t in options.threads]
    with progress_sink(quiet=False) as sink:
        for case in cases:
            done = {line["sparsity"] for line in known.get(case.key, ())}
            if done >= {0.0, *options.sparsity}:
                continue
            # They are fitted to each other, so what is known of a case is measured with the rest.
            wanted = sorted({*options.sparsity, *done} - {0.0})
            lines = measure(case, wanted, options.out / "tuning.db", Progress(sink))
            known[case.key] = [line.to_json() for line in lines]
            content = {
                "schema": SCHEMA,
                "version": __version__,
                "hardware": profile.to_json(),
                "cases": known,
            }
            write_json(file, content)
    print(table([Line.from_json(line) for case in cases for line in known[case.key]]))


if __name__ == "__main__":
    main()
