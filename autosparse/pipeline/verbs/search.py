"""The main job: profile, tune, search, train the front, measure it whole, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autosparse import report
from autosparse.config import SearchConfig, validate
from autosparse.errors import BudgetInfeasible, ConfigError, ExitCode
from autosparse.hosts.opening import open_host
from autosparse.pipeline.measured.finalists import (
    Finalist,
    Qualifying,
    finalist,
    qualify,
    qualify_again,
)
from autosparse.pipeline.measured.ledger import Ledger
from autosparse.pipeline.measured.tables import (
    check_rows,
    measure_losses,
    measure_options,
    measured_arithmetic,
    to_problem,
)
from autosparse.pipeline.results import publish
from autosparse.pipeline.results.findings import Entrant, Findings
from autosparse.pipeline.results.outcomes import SearchOutcome
from autosparse.pipeline.subject.earlier import (
    STUDY,
    Earlier,
    find_earlier,
    study_folder,
    study_name,
    study_of,
)
from autosparse.pipeline.subject.opening import begin_events, command, open_run
from autosparse.pipeline.subject.requests import (
    arrangement_of,
    check_study_of,
    check_training,
    contestant,
    dense_weights,
    evaluator_for,
    ledger_for,
    pool_for,
    recipe_for,
    relative_to,
    study_subject,
    train_job,
    weights_in,
)
from autosparse.pipeline.subject.survey import Survey, survey, will_train
from autosparse.pipeline.trained.accuracies import Reached, dense_accuracies
from autosparse.pipeline.trained.reconstructed import alternatives_for, reconstruct_plans
from autosparse.pipeline.trained.training import train_with_dense
from autosparse.plans.front import least_infeasible
from autosparse.progress import Progress
from autosparse.report import document as form
from autosparse.run_folders import RunFolder
from autosparse.run_folders.event_log import EventLog
from autosparse.searching import knapsack
from autosparse.searching.pool import AbstractPool
from autosparse.searching.problem import Problem, prepare
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudyResult, StudySettings
from autosparse.train.evaluate import OneShotEvaluator
from autosparse.train.tickets.sharing import Shared
from autosparse.tuning.autotune import TuneResult

# Part of what is left of --time-budget that the study may take; the rest trains and measures.
_STUDY_SHARE = 0.4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the stages of one run share."""

    survey: Survey
    run: RunFolder
    pool: AbstractPool
    progress: Progress
    deadline_s: float | None
    earlier: Earlier | None = None

    @property
    def is_late(self) -> bool:
        """Whether the time budget is used up."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s

    @property
    def left_s(self) -> float | None:
        """Seconds left of the time budget, at least one; None without a budget."""
        return None if self.deadline_s is None else max(1.0, self.deadline_s - time.monotonic())


def search(
    config: SearchConfig | None = None,
    *,
    resume: bool | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> SearchOutcome:
    """Runs a search to its end, or continues the one that the same configuration left unfinished.

    Args:
        config: what to search; None makes it of `settings`.
        resume: True insists on a run to continue, False starts a new one, None does what fits.
        progress: told of every stage, and asked whether to stop.
        **settings: keys of `SearchConfig`, as on the command line: ``model="resnet18"``,
            ``latency_budget="5ms"``.

    Returns:
        The run's folder and result; exit code 3 with the smallest feasible budget where the budget
        cannot be met.

    Raises:
        UsageError: something asked for cannot be meant; nothing was started.
        Stopped: a stop was asked for; the same call continues.
        NoValidConfiguration: no layer can be sparse, which is told before any work; or every
            configuration failed.
    """
    config = _config(config, settings)
    validate(config)
    events = EventLog()
    progress = (progress or Progress()).of("search", events)
    deadline_s = None if config.time_budget is None else time.monotonic() + config.time_budget / 1e6
    with open_host(config.host, config.address) as host:
        subject = survey(config, progress, evaluates=True, trains=will_train(config), host=host)
        return _settled(subject, resume, deadline_s, events, progress)


def _settled(
    subject: Survey,
    resume: bool | None,
    deadline_s: float | None,
    events: EventLog,
    progress: Progress,
) -> SearchOutcome:
    """Makes or takes up the run of a subject, and does all of its work."""
    subject.check_sparse()
    check_rows(subject)
    check_study_of(subject)
    check_training(subject)
    earlier = find_earlier(subject.config, subject.device.id, progress)
    with open_run(subject, resume) as run:
        publish.write_start(run, subject)
        begin_events(run, "search", events, progress)
        with pool_for(subject, run, progress) as pool:
            work = _Work(
                survey=subject,
                run=run,
                pool=pool,
                progress=progress,
                deadline_s=deadline_s,
                earlier=earlier,
            )
            return _search(work)


def _config(config: SearchConfig | None, settings: Mapping[str, Any]) -> SearchConfig:
    if config is not None and settings:
        raise ConfigError(
            f"a search takes a config or settings, but got both: {', '.join(settings)}; "
            "put them into the config"
        )
    return config if config is not None else SearchConfig(**settings)


def _search(work: _Work) -> SearchOutcome:
    with _stage(work, "baseline"):
        weights = dense_weights(work.survey, work.progress)
        accuracies = dense_accuracies(work.survey, weights, work.progress)
    evaluator = _evaluator(work, weights)
    with _stage(work, "tune"), work.pool.exclusive():
        tuning = measure_options(work.survey, _us(work.left_s), work.progress)
        publish.write_latency_table(work.run, work.survey, tuning.options)
    work = _measurable(work, tuning)
    with _stage(work, "measure dense"):
        ledger = ledger_for(work.survey, work.run, work.pool, weights, evaluator, work.progress)
        ledger.measure_references()
    with _stage(work, "sensitivity"):
        losses, references = measure_losses(work.survey, evaluator, work.pool, work.progress)
    problem = to_problem(work.survey, tuning, losses, references, ledger)
    findings = Findings(
        survey=work.survey,
        command=command(work.survey.config),
        dense_accuracies=accuracies.of(work.survey.dtypes),
        tuning=tuning,
        study=None,
        problem=prepare(problem).problem,
        ledger=ledger,
        entrants=(),
        since=work.earlier.name if work.earlier else "",
    )
    with _stage(work, "search"):
        try:
            study = _study(work, problem, evaluator)
        except BudgetInfeasible:
            return _out_of_reach(work, findings, weights)
        publish.write_trials(work.run, study)
    return _qualify(work, findings, study, weights)


def _qualify(work: _Work, findings: Findings, study: StudyResult, weights: Path) -> SearchOutcome:
    """Runs the study's best whole, trains what meets the budget, and measures what is deployed."""
    findings.ledger.know(study.trials)
    with _stage(work, "measure"):
        qualifying = _qualifying(work, findings.ledger, study)
    findings = dataclasses.replace(
        findings,
        study=study,
        problem=qualifying.problem,
        skipped=_skipped(findings, study, qualifying),
    )
    if not qualifying.chosen:
        nearest = least_infeasible(qualifying.all, work.survey.config.top_k)
        entrants = _untrained(work, findings.ledger, nearest, weights)
        return _publish(work, dataclasses.replace(findings, entrants=entrants))
    with _stage(work, "train"):
        trained, dense = _train(work, qualifying, weights)
    with _stage(work, "final measurement"):
        entrants = _final(work, findings.ledger, qualifying, trained, weights)
    chosen = {finalist.plan.id for finalist in qualifying.chosen}
    uniform_id = qualifying.uniform.plan.id if qualifying.uniform else None
    findings = dataclasses.replace(
        findings,
        entrants=tuple(e for e in entrants if e.finalist.plan.id in chosen),
        trained_dense=dense,
        uniform=next((e for e in entrants if e.finalist.plan.id == uniform_id), None),
        skipped=_skipped(findings, study, qualifying),
    )
    return _publish(work, findings)


def _qualifying(work: _Work, ledger: Ledger, study: StudyResult) -> Qualifying:
    """Runs the study's best whole; of an earlier run's study the plans of its front, while they do."""
    earlier, top_k = work.earlier, work.survey.config.top_k
    if earlier is not None and study_of(work.run.path / STUDY) == earlier.name:
        again = qualify_again(
            study, ledger, chosen=earlier.chosen, uniform=earlier.uniform, progress=work.progress
        )
        if again is not None:
            return again
        work.progress.log("a configuration no longer meets the budget: they are chosen anew")
    also = earlier.chosen if earlier else ()
    return qualify(study, ledger, top_k=top_k, progress=work.progress, also=also)


def _out_of_reach(work: _Work, findings: Findings, weights: Path) -> SearchOutcome:
    """Reports that no assignment of the table meets the budget, with the fastest one, really run."""
    plan, _ = knapsack.fastest(findings.problem)
    if plan.id not in findings.ledger.measured:
        findings.ledger.measure([plan])
    found = finalist(plan, findings.problem, findings.ledger)
    why = ("search", "no assignment of the measured options is predicted to meet the budget")
    skipped = (why, *_skipped(findings))
    entrants = _untrained(work, findings.ledger, [found], weights)
    return _publish(work, dataclasses.replace(findings, entrants=entrants, skipped=skipped))


def _untrained(
    work: _Work, ledger: Ledger, finalists: Sequence[Finalist], weights: Path
) -> tuple[Entrant, ...]:
    """Evaluates plans that were run whole but not trained, as a report needs them."""
    files = _reconstructed(work, finalists, weights)
    with work.progress.step("accuracy on both splits", len(finalists)) as step:
        found = []
        for each in finalists:
            file = files.get(each.plan.id)
            if file is None:
                reached = ledger.reached(each.plan)
            else:
                reached = Reached.of(work.survey, file, each.plan.dtype)
            found.append(
                Entrant(
                    finalist=each,
                    measured=each.measured,
                    reached=reached,
                    weights=None if file is None else relative_to(work.run.path, file),
                )
            )
            step.advance(1, each.plan.id)
    return tuple(found)


def _evaluator(work: _Work, weights: Path) -> OneShotEvaluator:
    """Gives what evaluates plans without training; layers are reconstructed first if asked for."""
    if work.survey.config.one_shot == "masks":
        return evaluator_for(work.survey, weights)
    with _stage(work, "reconstruct layers"):
        alternatives = alternatives_for(work.survey, weights, work.progress)
    return evaluator_for(work.survey, weights, alternatives)


def _reconstructed(work: _Work, finalists: Sequence[Finalist], weights: Path) -> dict[str, Path]:
    """Gives the weights of plans that are not trained, where they are more than masks."""
    if work.survey.config.one_shot == "masks":
        return {}
    plans = [each.plan for each in finalists]
    return reconstruct_plans(work.survey, work.run, plans, weights, work.progress)


def _publish(work: _Work, findings: Findings) -> SearchOutcome:
    """Writes the results and the report, and records how the run ended."""
    with _stage(work, "report"):
        document = publish.publish(work.run, findings)
    if document["verdict"]["id"] is None:
        code, message = ExitCode.INFEASIBLE, document["verdict"]["text"]
    else:
        code, message = ExitCode.DONE, ""
    parsed, moved = form.parse(document), None
    if work.earlier is not None:
        moved = work.earlier.compared_with(parsed, work.run.name)
        publish.write_moved(work.run, moved)
    work.run.finish("done" if code is ExitCode.DONE else "infeasible", code, message)
    return SearchOutcome(
        run=work.run.path,
        document=document,
        summary=report.summary(parsed),
        exit_code=code,
        moved=moved,
    )


# ----------------------------------------------------------------------------------------- stages


@contextmanager
def _stage(work: _Work, name: str) -> Iterator[None]:
    work.progress.check()
    work.run.enter(name)
    with work.progress.at(name):
        work.progress.log(f"stage: {name}")
        yield


def _measurable(work: _Work, tuning: TuneResult) -> _Work:
    """Leaves out the types that some layer could not be measured in, and says so."""
    before = work.survey.arithmetic
    after = measured_arithmetic(before, tuning)
    if after == before:
        return work  # with the images that its survey has read
    for dtype, why in after.why_not[len(before.why_not) :]:
        work.progress.log(f"no {dtype}: {why}")
    return dataclasses.replace(work, survey=dataclasses.replace(work.survey, arithmetic=after))


def _study(work: _Work, problem: Problem, evaluator: OneShotEvaluator) -> StudyResult:
    config = work.survey.config
    left_s = work.left_s
    folder = study_folder(work.earlier, work.run, config, evaluator.fingerprint(), work.progress)
    settings = StudySettings.of(
        work.survey.space.study,
        **({} if config.trials is None else {"trials": config.trials}),
        seed=config.seed,
        study_name=study_name(folder) or config.study_name or work.run.name,
        storage=config.storage,
        time_budget_s=None if left_s is None else _STUDY_SHARE * left_s,
        chance_accuracy=1 / work.survey.classes,
        evaluation_key=evaluator.fingerprint(),
        asked=study_subject(work.survey),
    )
    return run_study(
        problem,
        settings,
        evaluator,
        pool=work.pool,
        folder=folder,
        progress=work.progress,
    )


def _train(
    work: _Work, qualifying: Qualifying, weights: Path
) -> tuple[dict[str, Shared], tuple[Mapping[str, Any], ...]]:
    """Trains what is deployed and, to compare with, the dense model as long."""
    kind = work.survey.config.train
    if kind == "none":
        return {}, ()
    if work.is_late:
        work.progress.log("the time budget is used up: accuracies stay one-shot; `train` trains later")
        return {}, ()
    config, earlier = work.survey.config, work.earlier
    recipe = recipe_for(work.survey, kind, config.recipe)
    arrangement = arrangement_of(config)
    places = arrangement.places()
    jobs = {
        finalist.plan.id: train_job(
            work.survey,
            finalist.plan,
            recipe,
            weights,
            work.run.folder("train", finalist.plan.id),
            next(places),
            arrangement.workers,
        )
        for finalist in _deployable(qualifying)
    }
    data_id = work.survey.images.id
    take = None if earlier is None else earlier.taking(data_id, work.progress)
    return train_with_dense(
        jobs,
        work.run.path,
        work.pool,
        work.progress,
        share_reach=arrangement.share_reach,
        take=take,
    )


def _deployable(qualifying: Qualifying) -> list[Finalist]:
    """The chosen plans, and the uniform one that they are compared with at equal training."""
    chosen = list(qualifying.chosen)
    extra = qualifying.uniform
    return chosen if extra is None or extra in chosen else [*chosen, extra]


def _final(
    work: _Work,
    ledger: Ledger,
    qualifying: Qualifying,
    trained: dict[str, Shared],
    weights: Path,
) -> tuple[Entrant, ...]:
    """Measures, in one session with dense, exactly the weights that would be deployed."""
    finalists = [f for f in _deployable(qualifying) if not trained or f.plan.id in trained]
    own: dict[str, Path | str] = {name: each.result.weights for name, each in trained.items()}
    if not trained:
        own = {**_reconstructed(work, finalists, weights)}
    results = ledger.measure_deployed(
        [contestant(f.plan, own.get(f.plan.id), weights) for f in finalists]
    )
    measured = [dataclasses.replace(f, measured=results[f.plan.id]) for f in finalists]
    if not trained:
        return _untrained(work, ledger, measured, weights)
    return tuple(
        Entrant(
            finalist=each,
            measured=each.measured,
            reached=Reached.by(trained[each.plan.id]),
            weights=weights_in(work.run.path, trained[each.plan.id].result),
        )
        for each in measured
    )


def _skipped(
    findings: Findings, study: StudyResult | None = None, qualifying: Qualifying | None = None
) -> tuple[tuple[str, str], ...]:
    scopes = findings.survey.scopes
    rows = [(f"arithmetic in {dtype}", why) for dtype, why in findings.survey.arithmetic.why_not]
    rows += [(scope.name, "; ".join(scope.why_dense)) for scope in scopes if scope.why_dense]
    rows += [(scope.name, reason) for scope in scopes for reason in scope.refused]
    rows += findings.survey.held
    rows += [(f"{item.layer} {item.label}", item.reason) for item in (study.dropped if study else ())]
    rows += qualifying.reverted if qualifying else ()
    rows += findings.tuning.unmeasured.items()
    rows += [("undisturbed measurement", why) for why in findings.ledger.disturbances]
    trials = study.trials if study else ()
    rows += [(f"trial {trial.number}", trial.reason) for trial in trials if trial.state == "FAIL"]
    return tuple(rows)


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6
