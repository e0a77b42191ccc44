"""What tuning brings whole models, and whether it ever makes one slower: tuned and untuned in turn.

    python benchmarks/untuned_regret.py [--model resnet20 ...] [--threads 1 2] [--dtype f32 ...]
        [--sparsity 0.5 ...] [--out results/reference/prediction] [--seconds 2]

Every model is compiled twice, dense and at each sparsity, with the same weights and patterns: with the
kernels that tuning chose, and with those that the rule picks where nothing was measured. Both run in
turn, and the ratio is taken within every round. Untuned over tuned above 1 is what a user loses who
never tunes; below 1, tuning made the model slower.

Rows are those of benchmarks/prediction.py in the same folder, and are measured where they are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from prediction import MODELS, SPARSITIES, Case, plan_at, subject_of

from autosparse import compile, hardware, models
from autosparse.cli.bars import progress_sink
from autosparse.database import TuningDatabase
from autosparse.engine import CompiledModel
from autosparse.kernels import spec
from autosparse.measuring import limits
from autosparse.measuring.stopwatch import WHOLE
from autosparse.measuring.turns import interleave_here, paired_ratio
from autosparse.pipeline.measured.tables import measure_options
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import LayerChoice, Record
from autosparse.storage.files import read_json, write_json
from autosparse.version import __version__

FILE = "untuned.json"
CLOSE = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line(Record):
    """One model at one sparsity.

    Attributes:
        model: of the zoo; `dtype`, `threads` and `sparsity` say how it ran.
        state: state of the host, empty where it has only one.
        tuned_us: median of the tuned model.
        untuned_us: median of the other.
        ratio: untuned over tuned, with its 95 % interval.
        differ: layers whose kernels differ.
        disturbed: what else ran on the host; empty if nothing did.
    """

    model: str
    dtype: str
    threads: int
    sparsity: float
    state: str
    tuned_us: float
    untuned_us: float
    ratio: tuple[float, float, float]
    differ: int
    disturbed: str


def measure(
    case: Case, sparsities: Sequence[float], out: Path, seconds: float, progress: Progress
) -> list[Line]:
    """Compiles and runs one model at every sparsity."""
    database = out / "tuning.db"
    TuningDatabase(str(out / "empty.db")).close()
    subject = subject_of(case, sparsities, database, progress)
    tuning = measure_options(subject, None, progress)
    lines = []
    for level in (0.0, *sparsities):
        chosen = {name: each.choice for name, each in plan_at(level, subject, tuning).items()}
        lines.append(_line(case, level, chosen, database, out / "empty.db", seconds, progress))
    return lines


def _line(
    case: Case,
    level: float,
    chosen: Mapping[str, LayerChoice],
    database: Path,
    empty: Path,
    seconds: float,
    progress: Progress,
) -> Line:
    torch.manual_seed(0)
    module = models.resolve(case.model, seed=0).module
    shape = models.resolve(case.model, seed=0).input_shape
    x = torch.randn(1, *shape)
    free = {name: dataclasses.replace(each, kernel=None) for name, each in chosen.items()}
    plans = {
        "tuned": (Plan(model=case.model, layers=dict(chosen)), database),
        "untuned": (Plan(model=case.model, layers=free), empty),
    }
    if level:
        sparsify(module, plans["tuned"][0])
    with ExitStack() as stack:
        compiled: dict[str, CompiledModel] = {
            name: stack.enter_context(
                compile(
                    module,
                    (x,),
                    plan=plan,
                    database=str(rows),
                    dtype=case.dtype,
                    threads=case.threads,
                    use_zeros=level > 0,
                )
            )
            for name, (plan, rows) in plans.items()
        }
        kernels = [{layer.name: layer.kernel for layer in each.layers} for each in compiled.values()]
        policy = dataclasses.replace(WHOLE, time_cap_us=seconds * 1e6)
        runners = {name: each.run_times for name, each in compiled.items()}
        found, _ = interleave_here(runners, policy, progress, threads=case.threads, spinning=())
    state = found.longest
    timings = found.timings[state]
    return Line(
        model=case.model,
        dtype=case.dtype,
        threads=case.threads,
        sparsity=level,
        state=state,
        tuned_us=timings["tuned"].median_us,
        untuned_us=timings["untuned"].median_us,
        ratio=paired_ratio(timings["untuned"], timings["tuned"]),
        differ=sum(kernels[0][name] != kernels[1][name] for name in kernels[0]),
        disturbed=found.conditions.why_disturbed,
    )


def table(lines: Sequence[Line]) -> str:
    """Gives all lines in columns, and what they come to."""
    form = "{:13} {:5} {:>3} {:>6} {:8} {:>9} {:>10} {:>22} {:>6}"
    out = [
        form.format(
            *("model", "type", "thr", "zeros", "state", "tuned ms", "untuned ms"),
            *("untuned/tuned", "differ"),
        )
    ]
    for line in lines:
        middle, low, high = line.ratio
        out.append(
            form.format(
                *(line.model, line.dtype, line.threads, f"{line.sparsity:.0%}", line.state or "-"),
                *(f"{line.tuned_us / 1e3:.3f}", f"{line.untuned_us / 1e3:.3f}"),
                *(f"{middle:.3f} [{low:.3f} {high:.3f}]", line.differ),
            )
            + ("  *" if line.disturbed else "")
        )
    ratios = [line.ratio[0] for line in lines]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    slower = sum(line.ratio[2] < 1 for line in lines)
    out.append(
        f"untuned over tuned: geometric mean {mean:.3f}, from {min(ratios):.3f} to {max(ratios):.3f}; "
        f"{sum(ratio <= 1 + CLOSE for ratio in ratios)} of {len(ratios)} within {CLOSE:.0%}; "
        f"tuning made {slower} slower beyond their intervals"
    )
    if why := {line.disturbed for line in lines if line.disturbed}:
        out.append(f"* the host was disturbed: {'; '.join(sorted(why))}")
    return "\n".join(out)


def main() -> None:
    dtypes = [d for d in ("f32", "bf16") if not spec.why_not_native(d)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = sorted({1, min(2, hardware.usable_cores())})
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=here)
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=dtypes)
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/prediction"))
    parser.add_argument("--seconds", type=float, default=2.0, help="running time of each contestant")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file, profile = options.out / FILE, limits.profile()
    known: dict[str, list[dict[str, object]]] = {}
    if file.exists():
        before = read_json(file)
        if before["hardware"]["hardware_id"] == profile.hardware_id:
            known = before["cases"]
    cases = [Case(m, d, t) for m in options.model for d in options.dtype for t in options.threads]
    with progress_sink(quiet=False) as sink:
        for case in cases:
            if {line["sparsity"] for line in known.get(case.key, ())} >= {0.0, *options.sparsity}:
                continue
            progress = Progress(sink)
            lines = measure(case, options.sparsity, options.out, options.seconds, progress)
            known[case.key] = [line.to_json() for line in lines]
            content = {"version": __version__, "hardware": profile.to_json(), "cases": known}
            write_json(file, content)
    print(table([Line.from_json(line) for case in cases for line in known[case.key]]))


if __name__ == "__main__":
    main()
