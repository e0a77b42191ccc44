"""What is forgotten after a while, and above all what is not."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from telling import Desk, desk_at, moved

from autosparse.daemon import retention
from autosparse.daemon.place import folder_of
from autosparse.daemon.retention import Retention, Swept
from autosparse.jobs import forgetting
from autosparse.jobs.deliveries import Deliveries
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.rows import NoSuchJob
from autosparse.jobs.states import State
from autosparse.run_folders import RunFolder, list_runs
from autosparse.storage.for_job import LOCK
from autosparse.storage.locks import FileLock

DAY_S = 86400.0
KEEP_S = 90 * DAY_S


class Attic:
    """A desk whose jobs leave folders and runs, and what sweeps it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.retention = Retention(desk.store, desk.results, KEEP_S)
        self._runs = 0

    def run(self, job: str = "") -> Path:
        """Makes a finished run, of a job or of a person."""
        self._runs += 1
        made = RunFolder.create(
            self.desk.results,
            model="resnet20",
            hardware_id="0" * 12,
            config_yaml="model: resnet20\n",
            fingerprint=str(self._runs),
            job=job,
            at=datetime.fromtimestamp(self.desk.clock.now_s + self._runs, UTC),
        )
        with made:
            (made.path / "pareto.json").write_text("{}")
        return made.path

    def leave(self, job: Job, *, with_run: bool = True) -> str:
        """Has a job leave a folder and a run; gives the run's name."""
        folder = folder_of(self.desk.results, job.id)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        return self.run(str(job.id)).name if with_run else ""

    def done(self, state: State = State.DONE, *, verb: str = "search", with_run: bool = True) -> Job:
        """Gives a job that a person submitted and that has ended."""
        self.desk.queue.submit(JobRequest(verb=verb, settings={"model": "resnet20"}))
        job = self.desk.claim()
        return self.desk.end(job, state, run=self.leave(job, with_run=with_run))

    def scheduled(self, state: State = State.DONE) -> Job:
        """Gives a job that the one schedule has made and that has ended."""
        job = self.desk.begin()
        return self.desk.end(job, state, run=self.leave(job))

    def later(self, days: float = 91) -> None:
        self.desk.clock.now_s += days * DAY_S

    def is_whole(self, job: Job) -> bool:
        """Whether a job is there with all that it left; else nothing of it may be there."""
        parts = [folder_of(self.desk.results, job.id).exists()]
        parts += [(self.desk.results / job.run).exists()] if job.run else []
        try:
            parts.append(self.desk.queue.get(job.id) is not None)
        except NoSuchJob:
            parts.append(False)
        assert len(set(parts)) == 1, f"job {job.id} is there in parts: {parts}"
        return parts[0]


@pytest.fixture
def attic(database_url: str, tmp_path: Path) -> Iterator[Attic]:
    with desk_at(database_url, tmp_path) as desk:
        yield Attic(desk)


class TestForgotten:
    @pytest.mark.parametrize(
        "state", [State.DONE, State.INFEASIBLE, State.FAILED, State.CANCELLED, State.STOPPED]
    )
    def test_jobs_that_ended_long_ago_with_all_they_left(self, attic: Attic, state: State) -> None:
        old = attic.done(state)
        attic.later(60)
        new = attic.done(state)
        attic.later(31)
        assert attic.retention.sweep() == Swept(jobs=1, runs=1)
        assert not attic.is_whole(old) and attic.is_whole(new)
        assert os.readlink(attic.desk.results / "latest") == new.run
        assert attic.retention.sweep() == Swept()

    def test_also_what_made_no_run_or_left_no_folder(self, attic: Attic) -> None:
        without = attic.done(with_run=False)
        bare = attic.done()
        shutil.rmtree(folder_of(attic.desk.results, bare.id))
        shutil.rmtree(attic.desk.results / bare.run)
        attic.later()
        assert attic.retention.sweep() == Swept(jobs=2)
        assert not attic.is_whole(without)

    def test_more_than_one_transaction_takes(self, attic: Attic) -> None:
        jobs = [attic.done(with_run=False) for _ in range(130)]
        attic.later()
        assert attic.retention.sweep().jobs == 130
        assert not any(attic.is_whole(job) for job in jobs)

    def test_alerts_their_deliveries_and_due_times_too(self, attic: Attic) -> None:
        desk = attic.desk
        desk.search()
        desk.end(desk.begin(), State.DONE, moved())
        desk.clock.now_s += 1
        store = Deliveries(desk.store)
        numbers = store.register(["https://example.org/a", "https://example.org/b"])
        desk.end(desk.begin(), State.DONE, moved())
        store.prepare(numbers, DAY_S)
        attic.later()
        desk.end(desk.begin(), State.DONE, moved())
        wanted = Swept(jobs=2, alerts=2, deliveries=2, occurrences=2)
        assert attic.retention.sweep(dry_run=True) == wanted
        assert attic.retention.sweep() == wanted
        assert len(desk.service.alerts()) == 1 and attic.retention.sweep() == Swept()
        schedule = desk.service.schedules.all()[0]
        assert desk.service.schedules.make_due_jobs() == []
        assert len(desk.service.schedules.occurrences(schedule.id)) >= 1

    def test_in_a_dry_run_nothing(self, attic: Attic) -> None:
        old, lone = attic.done(), attic.done(with_run=False)
        attic.later()
        assert attic.retention.sweep(dry_run=True) == Swept(jobs=2, runs=1)
        assert attic.is_whole(old) and attic.is_whole(lone)

    def test_only_what_the_log_says(self, attic: Attic, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", logger="autosparse")  # whatever a command line has set
        attic.retention.work()
        assert not caplog.messages
        attic.done()
        attic.later()
        attic.retention.work()
        assert caplog.messages[-1] == "forgotten as older than 90 days: 1 jobs, 1 runs"


class TestSpared:
    def test_runs_of_people(self, attic: Attic) -> None:
        path = attic.run()
        attic.later()
        assert attic.retention.sweep() == Swept() and path.exists()

    def test_a_run_that_a_job_did_not_make(self, attic: Attic) -> None:
        """Such as one that a job trained further, or another database's job of the same number."""
        of_a_person, of_another = attic.run(), attic.run("999")
        for path in (of_a_person, of_another):
            attic.desk.queue.submit(JobRequest(verb="search"))
            job = attic.desk.claim()
            attic.desk.end(job, State.DONE, run=path.name)
        attic.later()
        assert attic.retention.sweep() == Swept(jobs=2)
        assert of_a_person.exists() and of_another.exists()

    def test_a_run_whose_state_cannot_be_read(self, attic: Attic) -> None:
        job = attic.done()
        (attic.desk.results / job.run / "state.json").write_text("{")
        attic.later()
        assert attic.retention.sweep() == Swept(jobs=1)
        assert (attic.desk.results / job.run).exists()

    @pytest.mark.parametrize("name", ["..", ".", "jobs", "../results", "/", "latest", "a/../.."])
    def test_what_is_no_run_of_its_own(self, attic: Attic, name: str) -> None:
        path = attic.run("1")
        attic.desk.queue.submit(JobRequest(verb="search"))
        job = attic.desk.claim()
        attic.desk.end(job, State.DONE, run=name)
        attic.later()
        attic.retention.sweep()
        assert path.exists() and attic.desk.results.exists()

    def test_jobs_whose_end_lies_ahead(self, attic: Attic) -> None:
        desk = attic.desk
        waiting = desk.queue.submit(JobRequest(verb="search"))[0]
        running = desk.claim()
        again = attic.done(State.STOPPED)
        desk.queue.submit(JobRequest(verb="search"))
        desk.queue.resume(again.id)
        attic.later()
        assert attic.retention.sweep() == Swept()
        assert {desk.queue.get(number).is_open for number in (waiting.id, running.id, again.id)} == {
            True
        }

    def test_the_last_runs_of_a_schedule(self, attic: Attic) -> None:
        attic.desk.search()
        first = attic.scheduled()
        with_result = attic.scheduled(State.INFEASIBLE)
        failed = attic.scheduled(State.FAILED)
        last = attic.scheduled(State.FAILED)
        attic.later()
        assert attic.retention.sweep().jobs == 2
        whole = [attic.is_whole(job) for job in (first, with_result, failed, last)]
        assert whole == [False, True, False, True]
        attic.desk.service.schedules.remove("nightly")
        assert attic.retention.sweep().jobs == 2
        assert not attic.is_whole(with_result) and not attic.is_whole(last)

    def test_a_paused_watch_still_knows_how_it_stood(self, attic: Attic) -> None:
        desk = attic.desk
        schedule = desk.watch()
        desk.checks("met")
        desk.checks("missed")
        desk.service.schedules.pause(schedule.id)
        attic.later(400)
        assert attic.retention.sweep().jobs == 1
        assert desk.service.watches()[0].verdict == "missed"

    def test_what_a_watch_watches(self, attic: Attic) -> None:
        desk = attic.desk
        watched, other, folder = attic.done(), attic.done(), attic.done()
        desk.artifact(f"{watched.run}/exported/net.autosparse")
        inside = desk.artifact(f"jobs/{folder.id}/net.autosparse")
        for path in (f"results/{watched.run}/exported/net.autosparse", str(inside)):
            desk.service.add_watch(path, "5ms", JobOptions())
        attic.later()
        assert attic.retention.sweep() == Swept(jobs=1, runs=1)
        assert attic.is_whole(watched) and attic.is_whole(folder) and not attic.is_whole(other)
        for schedule in desk.service.schedules.all():
            desk.service.schedules.remove(schedule.id)
        assert attic.retention.sweep() == Swept(jobs=2, runs=2)

    def test_what_a_watch_reaches_by_a_link(self, attic: Attic) -> None:
        desk = attic.desk
        watched = attic.done()
        desk.artifact(f"{watched.run}/net.autosparse")
        (desk.results / "deployed").symlink_to(watched.run, target_is_directory=True)
        desk.service.add_watch("results/deployed/net.autosparse", "5ms", JobOptions())
        attic.later()
        assert attic.retention.sweep() == Swept() and attic.is_whole(watched)

    @pytest.mark.parametrize("key", ["run", "since", "weights", "data"])
    def test_what_a_job_that_waits_names(self, attic: Attic, key: str) -> None:
        named, other = attic.done(), attic.done()
        path = attic.desk.results / named.run
        settings = {
            "run": named.run,
            "since": named.run,
            "weights": str(path / "train" / "w.pth"),
            "data": f"folder:{path}/images",
        }
        attic.later()
        attic.desk.queue.submit(JobRequest(verb="train", settings={key: [settings[key]]}))
        assert attic.retention.sweep() == Swept(jobs=1, runs=1)
        assert attic.is_whole(named) and not attic.is_whole(other)

    def test_what_a_process_works_on(self, attic: Attic) -> None:
        in_run, in_folder, free = attic.done(), attic.done(), attic.done()
        attic.later()
        results = attic.desk.results
        with (
            RunFolder.amend(results / in_run.run),
            FileLock(folder_of(results, in_folder.id) / LOCK),
        ):
            assert attic.retention.sweep() == Swept(jobs=2, runs=1, left=1)
            assert (results / in_run.run).exists() and attic.is_whole(in_folder)
            assert not attic.is_whole(free)
        assert attic.retention.sweep() == Swept(jobs=1, runs=2)
        assert not attic.is_whole(in_run) and not attic.is_whole(in_folder)


class Killed(BaseException):
    """A process that is killed takes no part in anything further."""


class TestKilled:
    @pytest.mark.parametrize("seed", range(8))
    def test_at_any_moment_the_next_one_finishes(
        self, attic: Attic, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs = [attic.done(with_run=bool(n % 3)) for n in range(6)]
        attic.desk.search()
        kept = attic.scheduled()
        attic.later()
        chance, steps = random.Random(seed), 0

        def fragile(real: object) -> object:
            def call(*args: object, **how: object) -> object:
                nonlocal steps
                steps += 1
                if chance.random() < 0.25:
                    raise Killed
                return real(*args, **how)  # type: ignore[operator]

            return call

        with monkeypatch.context() as patch:
            for where, name in (
                (forgetting, "forget_jobs"),
                (forgetting, "cleared"),
                (retention, "remove_run"),
                (shutil, "rmtree"),
                (os, "rmdir"),
                (os, "unlink"),
            ):
                patch.setattr(where, name, fragile(getattr(where, name)))
            for _ in range(3):
                try:
                    attic.retention.sweep()
                except Killed:
                    pass
        assert steps
        attic.retention.sweep()
        assert not any(attic.is_whole(job) for job in jobs) and attic.is_whole(kept)
        assert forgetting.leftovers(attic.desk.store) == []
        assert [run.name for run in list_runs(attic.desk.results)] == [kept.run]

    def test_between_row_and_disk(self, attic: Attic) -> None:
        job = attic.done()
        attic.later()
        found = forgetting.forget_jobs(attic.desk.store, attic.desk.clock.now_s, lambda *_: False).found
        assert [each.job_id for each in found] == [job.id]
        with pytest.raises(NoSuchJob):
            attic.desk.queue.resume(job.id)
        assert attic.retention.sweep() == Swept(runs=1) and not attic.is_whole(job)

    def test_while_a_run_was_being_removed(self, attic: Attic) -> None:
        results = attic.desk.results
        old, new = results / ".gone-run-1", results / ".gone-run-2"
        for path in (old, new):
            (path / "train").mkdir(parents=True)
            (path / "train" / "w.pth").write_text("x")
        hours_ago = time.time() - 2 * 3600
        os.utime(old, (hours_ago, hours_ago))
        attic.retention.sweep()
        assert not old.exists() and new.exists()

    def test_what_cannot_be_deleted_is_tried_again(
        self, attic: Attic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stuck, other = attic.done(), attic.done()
        attic.later()

        def refuse(path: Path) -> None:
            if path.name == stuck.run:
                raise PermissionError(13, "Permission denied", str(path))
            real(path)

        real = retention.remove_run
        with monkeypatch.context() as patch:
            patch.setattr(retention, "remove_run", refuse)
            assert attic.retention.sweep() == Swept(jobs=2, runs=1, left=1)
        assert not attic.is_whole(other)
        assert attic.retention.sweep() == Swept(runs=1) and not attic.is_whole(stuck)


def test_two_daemons_sweep_at_once(attic: Attic) -> None:
    jobs = [attic.done() for _ in range(12)]
    attic.later()
    with ThreadPoolExecutor(3) as pool:
        swept = list(pool.map(lambda _: attic.retention.sweep(), range(3)))
    assert sum(each.jobs for each in swept) == 12
    attic.retention.sweep()
    assert not any(attic.is_whole(job) for job in jobs)
    assert forgetting.leftovers(attic.desk.store) == []
