"""`autosparse tune`: fill the tuning database for one model, and nothing else."""

from __future__ import annotations

from autosparse.config import SearchConfig, validate
from autosparse.hosts.opening import open_host
from autosparse.pipeline.measured.held import hold_to_the_whole
from autosparse.pipeline.measured.tables import measure_options
from autosparse.pipeline.results.outcomes import TuneOutcome
from autosparse.pipeline.results.publish import latency_rows
from autosparse.pipeline.subject.survey import survey
from autosparse.progress import Progress
from autosparse.report.words import COMPACT_WEIGHTS


def tune(
    config: SearchConfig,
    *,
    time_budget_us: float | None = None,
    progress: Progress | None = None,
) -> TuneOutcome:
    """Measures every layer of a model in every way the space allows that could be the best.

    What the database holds is not measured again; an interrupted tuning continues. In the end the dense
    model runs whole with its rows, in turn with what is picked without any: rows that make it slower
    are replaced by what their kernels took inside it.

    Args:
        config: model, space, threads, types; what concerns accuracy plays no part.
        time_budget_us: stop after so many microseconds, the costliest shapes first; None for no limit.
        progress: told of every measurement.

    Raises:
        UsageError: something asked for cannot be meant; nothing was started.
        NoValidConfiguration: the model would run through torch, where no row is of use.
        Stopped: a stop was asked for; every row measured so far is saved.
    """
    validate(config, writing=False)
    progress = (progress or Progress()).of(f"tune {config.model}")
    with open_host(config.host, config.address) as host:
        subject = survey(config, progress, host=host)
        subject.check_native()
        with progress.at("tune"):
            result = measure_options(subject, time_budget_us, progress)
            held = hold_to_the_whole(subject, progress)
    return TuneOutcome(
        model=config.model,
        database=subject.database,
        considered=result.considered,
        timed=result.timed,
        reused=result.reused,
        skipped={skip.reason: skip.count for skip in result.skipped},
        table=tuple(latency_rows(subject, result.options)),
        notes=(
            *held,
            *(f"no {dtype}: {why}" for dtype, why in subject.arithmetic.why_not),
            *([f"kernels: {COMPACT_WEIGHTS}"] if config.compact_weights else []),
        ),
    )
