"""An earlier finished run that a search takes over from, where all that decides a result is equal.

Rows of layers lie in the tuning database, which knows which of them are stale. Dense weights, losses of
layers and layers reconstructed alone lie in AUTOSPARSE_HOME, by all that decides them. Evaluated plans,
the study and trainings lie in the earlier run's folder, and are taken from there by what stands here.

Latencies of whole models are never taken over: that they are measured anew is what the run is for.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autosparse.config import SearchConfig
from autosparse.errors import AutosparseError, RunError
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.report import document as form
from autosparse.report.fronts import compare_fronts
from autosparse.report.moves import FrontMove
from autosparse.run_folders import RunFolder
from autosparse.run_folders.listing import find_run
from autosparse.run_folders.shelf import LATEST, run_folders
from autosparse.run_folders.state import FINISHED, RunState, read_state
from autosparse.searching.evaluations import keys_of
from autosparse.searching.storage import JOURNAL, LOCK
from autosparse.storage.files import read_json, read_rows_csv, write_json
from autosparse.train.job import TrainJob, load_result
from autosparse.train.taking import finished_trainings, take

STUDY = "study"
TABLE = "latency_table.csv"
_EVALUATIONS, _ORIGIN = "evaluations.jsonl", "origin.json"
_COLUMNS = ("layer", "label", "dtype", "kernel", "ci_low_us", "ci_high_us")
_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier finished run.

    Attributes:
        path: its folder.
        state: its state file.
        document: its pareto.json.
        chosen: the plans of its configurations, in the order of its report.
        uniform: the plan of one sparsity that went all the way with them; None without.
    """

    path: Path
    state: RunState
    document: form.Document
    chosen: tuple[Plan, ...]
    uniform: Plan | None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    @classmethod
    def open(cls, path: Path) -> Earlier:
        """Reads a run.

        Raises:
            AutosparseError: it is unfinished, or a file of it is missing or damaged.
        """
        state, document = read_state(path), form.load(path)
        if state.status not in FINISHED:
            raise RunError(
                f"since must be a finished run, but {path.name} is {state.status}; run its search "
                "again to finish it, or name another"
            )
        uniform = [row.plan for row in document.baselines if row.plan and row.accuracy_split == "test"]
        return cls(
            path=path,
            state=state,
            document=document,
            chosen=tuple(Plan.load(path / config.plan) for config in document.configs),
            uniform=Plan.load(path / uniform[0]) if uniform else None,
        )

    @property
    def has_result(self) -> bool:
        """Whether it had a configuration to deploy."""
        return self.document.verdict.id is not None

    def compared_with(self, newer: form.Document, name: str) -> FrontMove:
        """Says what became of its front in a newer run."""
        return compare_fronts(self.document, newer, (self.name, name))

    # -------------------------------------------------------------------------------- trainings

    @cached_property
    def _trainings(self) -> Mapping[str, Path]:
        return finished_trainings(self.path / "train")

    def taking(self, data_id: str, progress: Progress) -> Callable[[Mapping[str, TrainJob]], None]:
        """Gives what fills the folders of jobs, by name, that it has trained already.

        Folders of others are left as they are.

        Args:
            data_id: of the images that they are trained on.
            progress: told what is taken.
        """
        return functools.partial(self._take, data_id=data_id, progress=progress)

    def _take(self, jobs: Mapping[str, TrainJob], *, data_id: str, progress: Progress) -> None:
        taken = []
        for name, job in jobs.items():
            if load_result(Path(job.folder)) is not None:
                continue
            source = self._trainings.get(job.training_id()) or self._trainings.get(job.fingerprint())
            try:
                result = None if source is None else load_result(source)
                if source is not None and result is not None and result.data == data_id:
                    take(source, job, self.name)
                    taken.append(name)
            except (AutosparseError, OSError) as error:
                progress.log(f"the training of {name} is not taken over from {self.name}: {error}")
        if taken:
            progress.log(f"trainings taken over from {self.name}: {', '.join(taken)}")

    # ------------------------------------------------------------------------------------ study

    def why_not_its_study(self, config: SearchConfig, fingerprint: str, table: Path, key: str) -> str:
        """Says why a study would find something else than it did; empty if it would not.

        Args:
            config: of the new run.
            fingerprint: of the new run.
            table: latency table of the new run.
            key: of the new run's evaluations.
        """
        if self.state.fingerprint != fingerprint:
            return "settings, files or the host are others"
        if not self.has_result:
            return "it had no configuration to deploy"
        if config.storage is not None or not (self.path / STUDY / JOURNAL).is_file():
            return "its study is not in its folder"
        try:
            if key not in keys_of(self.path / STUDY / _EVALUATIONS):
                return "weights, data or reconstructed layers are others"
            moved = rows_moved(*(read_rows_csv(file, _COLUMNS) for file in (self.path / TABLE, table)))
        except (RunError, KeyError, ValueError) as error:
            return f"its files cannot be read: {error}"
        if moved:
            more = f" and {len(moved) - _TOLD} more" if len(moved) > _TOLD else ""
            return f"options of layers moved: {', '.join(moved[:_TOLD])}{more}"
        return ""

    def give_study(self, run: Path, config: SearchConfig) -> None:
        """Copies its study into a new run's folder, whole or not at all.

        Args:
            run: folder of the new run, which has no study yet.
            config: of the new run.
        """
        source = self.path / STUDY
        origin = study_name(source) or config.study_name or self.name
        with tempfile.TemporaryDirectory(dir=run, prefix=".study-") as nursery:
            ignored = shutil.ignore_patterns(LOCK, ".*")
            made = Path(shutil.copytree(source, Path(nursery) / STUDY, ignore=ignored))
            write_json(made / _ORIGIN, {"study_name": origin, "run": self.name})
            made.rename(run / STUDY)

    def give_evaluations(self, folder: Path) -> None:
        """Copies the accuracies that it has found to the folder of another study, which checks them."""
        source = self.path / STUDY / _EVALUATIONS
        if source.is_file():
            shutil.copyfile(source, folder / _EVALUATIONS)


def study_folder(
    earlier: Earlier | None, run: RunFolder, config: SearchConfig, key: str, progress: Progress
) -> Path:
    """Gives the folder of a run's study: with the earlier run's, if a new one would find nothing else.

    Args:
        earlier: the run that is taken over from, if any.
        run: the new run, which has its latency table.
        config: of the new run.
        key: of its evaluations.
        progress: told whose study it is.
    """
    if earlier is None or (run.path / STUDY).exists():
        return run.folder(STUDY)
    why = earlier.why_not_its_study(config, run.state.fingerprint, run.path / TABLE, key)
    if not why:
        progress.log(f"no option of a layer moved: the study is that of {earlier.name}")
        earlier.give_study(run.path, config)
        return run.path / STUDY
    progress.log(f"a study of its own, as of {earlier.name} {why}")
    folder = run.folder(STUDY)
    earlier.give_evaluations(folder)
    return folder


def study_name(folder: Path) -> str | None:
    """Gives the name of a study that was taken over from an earlier run; None for one that was not."""
    return _origin(folder).get("study_name")


def study_of(folder: Path) -> str | None:
    """Gives the name of the run that a study was taken over from; None for one that was not."""
    return _origin(folder).get("run")


def _origin(folder: Path) -> Mapping[str, str]:
    file = folder / _ORIGIN
    return dict(read_json(file)) if file.is_file() else {}


def find_earlier(config: SearchConfig, hardware_id: str, progress: Progress) -> Earlier | None:
    """Gives the run that a search takes over from; None where it shall not, or there is none yet.

    Args:
        config: of the search.
        hardware_id: what it measures on.
        progress: told which run it is.

    Raises:
        AutosparseError: the run that is named is not there, unfinished or damaged.
    """
    if config.since is None:
        return None
    if config.since == LATEST:
        found = _latest(config, hardware_id)
        if found is None:
            progress.log(f"no finished run of these settings in {config.out}: all is done anew")
            return None
    else:
        found = Earlier.open(find_run(config.out, config.since))
    progress.log(f"taking over from {found.name}")
    return found


def _latest(config: SearchConfig, hardware_id: str) -> Earlier | None:
    """Gives the newest finished run of the same settings on the same device that can be read."""
    for path in run_folders(config.out):
        try:
            state = read_state(path)
            if state.status not in FINISHED or state.hardware_id != hardware_id:
                continue
            if SearchConfig.from_yaml(path / "config.yaml").family() == config.family():
                return Earlier.open(path.resolve())
        except AutosparseError:
            continue
    return None


def rows_moved(
    older: Iterable[Mapping[str, str]], newer: Iterable[Mapping[str, str]]
) -> tuple[str, ...]:
    """Says which options of two latency tables are others, or of one table alone.

    An option is another one if its 95 % interval does not meet that of before, or another kernel is
    the fastest.

    Args:
        older: rows of latency_table.csv of the older run.
        newer: of the newer one.

    Returns:
        A few words for each; none where a search would find the same in both.
    """
    before, after = _by_option(older), _by_option(newer)
    moved = before.keys() ^ after.keys()
    for key in before.keys() & after.keys():
        (old_kernel, old_low, old_high), (kernel, low, high) = before[key], after[key]
        if kernel != old_kernel or low > old_high or high < old_low:
            moved.add(key)
    return tuple(f"{layer} {label} in {dtype}" for layer, label, dtype in sorted(moved))


def _by_option(
    rows: Iterable[Mapping[str, str]],
) -> dict[tuple[str, str, str], tuple[str, float, float]]:
    return {
        (row["layer"], row["label"], row["dtype"]): (
            row["kernel"],
            float(row["ci_low_us"]),
            float(row["ci_high_us"]),
        )
        for row in rows
    }
