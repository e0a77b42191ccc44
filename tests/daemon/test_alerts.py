"""What the end of a job means: alerts of every kind, each once, and how it stands with watches."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from telling import Desk, as_json, checked, desk_at, moved

from autosparse.daemon.alerts import MOST_BYTES, alert_of, fitting, meaning, outcome_of
from autosparse.daemon.place import RESULT, folder_of
from autosparse.daemon.results import telling_result
from autosparse.daemon.watches import Checked
from autosparse.errors import ArtifactError, ConfigError
from autosparse.jobs.alerts import Alerts, Ended
from autosparse.jobs.queue import Lost
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.states import State
from autosparse.pipeline.results.checked import CheckOutcome, Verdict
from autosparse.report.moves import FILE, FrontMove
from autosparse.schedules.store import NoSuchSchedule

AT_S = 1000.0


def job(verb: str = "check", state: State = State.DONE, **how: object) -> Job:
    values = {"id": 7, "submitted_at_s": 0.0, "changed_at_s": AT_S, "schedule_id": 1, **how}
    return Job(request=JobRequest(verb=verb), state=state, **values)  # type: ignore[arg-type]


def before(verdict: str, since_s: float = 10.0, decided: str | None = None) -> Job:
    """Gives the job of a check that found something, or failed."""
    known = verdict if decided is None else decided
    held = Checked(verdict=verdict, since_s=since_s, decided=known, budget_ms=5.0)  # type: ignore[arg-type]
    state = State.FAILED if verdict == "unknown" else State.DONE
    return job(state=state, id=6, outcome=held.to_json())


def ended(found: Job, last: Job | None = None) -> Ended:
    return Ended(job=found, at_s=AT_S, before=last, schedule="hourly")


class TestWatchAlerts:
    @pytest.mark.parametrize(
        ("was", "now", "kind", "title"),
        [
            (None, "met", None, ""),
            (None, "missed", "watch.missed", "hourly: net does not meet its budget of 5 ms"),
            (None, "open", None, ""),
            ("met", "met", None, ""),
            ("met", "missed", "watch.missed", "hourly: net no longer meets its budget of 5 ms"),
            ("met", "open", None, ""),
            ("missed", "met", "watch.met", "hourly: net meets its budget of 5 ms again"),
            ("missed", "missed", None, ""),
            ("missed", "open", None, ""),
        ],
    )
    def test_when_the_verdict_changes(
        self, was: str | None, now: Verdict, kind: str | None, title: str
    ) -> None:
        happened = ended(job(), None if was is None else before(was))
        found = meaning(happened, checked(now)).alert
        assert (None if found is None else found.kind) == kind
        if found is not None:
            assert found.title == title
            assert found.body["before"] == (was or "unknown") and found.body["median_ms"] > 0

    @pytest.mark.parametrize(("decided", "kind"), [("met", "watch.missed"), ("missed", None)])
    @pytest.mark.parametrize("between", ["open", "unknown"])
    def test_what_was_decided_is_known_beyond_what_was_not(
        self, decided: str, kind: str | None, between: str
    ) -> None:
        last = before(between, decided=decided)
        found = meaning(ended(job(), last), checked("missed")).alert
        assert (None if found is None else found.kind) == kind

    def test_an_outcome_of_another_version_is_none(self) -> None:
        last = dataclasses.replace(before("met"), outcome={"colour": "red"})
        found = meaning(ended(job(), last), checked("missed")).alert
        assert found is not None and found.body["before"] == "unknown"

    def test_none_of_a_job_that_a_person_submitted(self) -> None:
        alone = ended(job(schedule_id=None))
        found = meaning(alone, checked("missed"))
        assert found.alert is None and found.outcome is not None
        assert found.outcome["verdict"] == "missed"


class TestFrontAlerts:
    @pytest.mark.parametrize(("is_so", "kind"), [(True, "front.moved"), (False, None)])
    def test_when_the_front_moved(self, is_so: bool, kind: str | None) -> None:
        happened = ended(job("search", run="after"))
        found = meaning(happened, moved(is_so))
        assert (None if found.alert is None else found.alert.kind) == kind
        assert found.outcome == {
            "older": "before",
            "moved": is_so,
            "budget": "none",
            "sentence": "The front of resnet20 moved: c0.",
        }
        if found.alert is not None:
            body = found.alert.body
            assert (body["schedule"], body["run"], body["job_id"]) == ("hourly", "after", 7)
            assert body["configs"][0]["latency"]["beyond_ms"] == pytest.approx(0.8)

    def test_also_of_a_search_that_became_infeasible(self) -> None:
        happened = ended(job("search", State.INFEASIBLE))
        found = meaning(happened, moved(budget="lost", budget_ms=5.0)).alert
        assert found is not None and found.title.endswith("moved, and no longer meets its budget")

    def test_of_a_front_of_many_the_first_are_told(self) -> None:
        found = meaning(ended(job("search")), moved(configs=500)).alert
        assert found is not None and found.body["moved"] == 500 and len(found.body["configs"]) == 20
        assert len(json.dumps(found.body)) <= MOST_BYTES

    def test_none_of_a_search_that_followed_no_other(self) -> None:
        found = meaning(ended(job("search")), None)
        assert (found.alert, found.outcome) == (None, None)


class TestFailures:
    @pytest.mark.parametrize("verb", ["search", "tune", "train", "check"])
    @pytest.mark.parametrize(
        ("last", "is_told"),
        [
            (None, True),
            (State.DONE, True),
            (State.INFEASIBLE, True),
            (State.FAILED, False),
        ],
    )
    def test_the_first_one_is_told(self, verb: str, last: State | None, is_told: bool) -> None:
        happened = ended(
            job(verb, State.FAILED, message="why", exit_code=2), last and job(verb, last, id=6)
        )
        found = meaning(happened, None).alert
        assert (found is not None) == is_told
        if found is not None:
            assert (found.kind, found.body["message"], found.body["exit_code"]) == (
                "job.failed",
                "why",
                2,
            )

    @pytest.mark.parametrize("state", [State.STOPPED, State.CANCELLED])
    def test_whoever_stopped_a_job_knows(self, state: State) -> None:
        found = meaning(ended(job(state=state), before("met")), None)
        assert (found.alert, found.outcome) == (None, None)


class TestKept:
    def test_a_verdict_keeps_the_time_since_when_it_holds(self) -> None:
        for was, since_s in (("met", 10.0), ("missed", AT_S), ("unknown", AT_S)):
            found = outcome_of(ended(job(), before(was)), checked("met"))
            assert isinstance(found, Checked) and (found.verdict, found.since_s) == ("met", since_s)

    def test_a_failed_check_keeps_what_was_measured_before(self) -> None:
        first = outcome_of(ended(job()), checked("missed"))
        assert isinstance(first, Checked)
        failed = ended(job(state=State.FAILED), job(id=6, outcome=first.to_json()))
        found = outcome_of(failed, None)
        assert isinstance(found, Checked) and found.verdict == "unknown" and found.decided == "missed"
        assert (found.median_ms, found.measured_at_s) == (first.median_ms, AT_S)

    def test_what_no_database_takes_is_left_out(self) -> None:
        odd = checked("missed", model="a\0b\udc80", disturbed="\ud800")
        found = meaning(ended(job(), before("met")), odd)
        assert found.alert is not None and found.outcome is not None
        assert found.outcome["model"] == found.alert.body["model"] == "ab?"
        json.dumps([found.outcome, dict(found.alert.body)], allow_nan=False).encode()
        moving = moved(budget_ms=math.nan, sentence="\0" * 5)
        alert = meaning(ended(job("search")), moving).alert
        assert alert is not None and alert.body["budget_ms"] is None and alert.body["sentence"] == ""

    def test_a_body_that_is_too_large_loses_its_longest_parts(self) -> None:
        body = {"a": "x" * MOST_BYTES, "b": ["y" * 20_000, "y" * 20_000], "c": 1}
        assert fitting(body) == {"c": 1, "left_out": ["b", "a"]}
        assert fitting({"c": 1}) == {"c": 1}


class TestResults:
    """What a job's process left, whole or not."""

    @pytest.fixture
    def desk(self, tmp_path: Path) -> Iterator[Desk]:
        with desk_at(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path) as desk:
            yield desk

    def result(self, desk: Desk, found: Job, run: str = "") -> CheckOutcome | FrontMove | None:
        return telling_result(found, found.state, run, desk.service.place)

    def test_of_a_check(self, desk: Desk) -> None:
        folder = folder_of(desk.results, 7)
        folder.mkdir(parents=True)
        found = checked("missed")
        (folder / RESULT).write_text(as_json(found))
        assert self.result(desk, job()) == found
        assert self.result(desk, job(state=State.INFEASIBLE)) == found
        for state in (State.FAILED, State.STOPPED, State.CANCELLED):
            assert self.result(desk, job(state=state)) is None

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"artifact": 1}', '{"verdict": "met"}'])
    def test_that_is_not_whole(self, desk: Desk, text: str) -> None:
        folder = folder_of(desk.results, 7)
        folder.mkdir(parents=True)
        assert self.result(desk, job()) is None
        (folder / RESULT).write_text(text)
        assert self.result(desk, job()) is None
        (desk.results / "run").mkdir()
        (desk.results / "run" / FILE).write_text(text)
        assert self.result(desk, job("search"), "run") is None

    def test_of_a_search_lies_in_its_run(self, desk: Desk) -> None:
        assert self.result(desk, job("search"), "run") is None
        (desk.results / "run").mkdir()
        assert self.result(desk, job("search"), "run") is None
        (desk.results / "run" / FILE).write_text(as_json(moved()))
        assert self.result(desk, job("search"), "run") == moved()
        assert self.result(desk, job("search"), "") is None
        assert self.result(desk, job("tune"), "run") is None


class TestStored:
    """In the database, with the ends of the jobs."""

    @pytest.fixture
    def desk(self, database_url: str, tmp_path: Path) -> Iterator[Desk]:
        with desk_at(database_url, tmp_path) as desk:
            yield desk

    def test_a_year_in_the_life_of_a_watch(self, desk: Desk) -> None:
        schedule = desk.watch("hourly")
        watch = desk.service.watches()[0]
        assert (watch.verdict, watch.since_s, watch.budget_ms) == ("unknown", None, 5.0)
        for verdict in ("met", "met", "open", "missed", "missed"):
            desk.checks(verdict)  # type: ignore[arg-type]
        desk.fails()
        desk.fails()
        desk.checks("missed")
        last = desk.checks("met")
        assert desk.kinds() == ["watch.missed", "job.failed", "watch.met"]
        watch = desk.service.watches()[0]
        assert (watch.schedule.id, watch.job_id) == (schedule.id, last.id)
        assert watch.verdict == "met" and watch.since_s == desk.clock.now_s
        assert watch.checked is not None and watch.checked.interval_ms == pytest.approx((3.9, 4.1))
        alert = desk.service.alerts()[0]
        assert (alert.job_id, alert.schedule_id, alert.at_s) == (
            last.id,
            schedule.id,
            last.changed_at_s,
        )

    def test_a_watch_whose_check_failed_is_unknown(self, desk: Desk) -> None:
        desk.watch()
        desk.checks("met")
        desk.fails("an artifact must be a readable file")
        watch = desk.service.watches()[0]
        assert (watch.verdict, watch.problem) == ("unknown", "an artifact must be a readable file")
        assert watch.checked is not None and watch.checked.median_ms == 4.0
        began_s = watch.since_s
        desk.fails()
        assert desk.service.watches()[0].since_s == began_s

    def test_jobs_that_were_stopped_tell_nothing(self, desk: Desk) -> None:
        desk.watch()
        desk.checks("met")
        desk.end(desk.begin(), State.STOPPED)
        desk.end(desk.begin(), State.CANCELLED)
        assert desk.service.watches()[0].verdict == "met"
        desk.checks("missed")
        assert desk.kinds() == ["watch.missed"]

    def test_watches_do_not_hear_of_one_another(self, desk: Desk) -> None:
        first, second = desk.watch("a"), desk.watch("b", budget="7ms")
        desk.to_the_hour()
        assert len(desk.service.schedules.make_due_jobs()) == 2
        for verdict in ("met", "missed"):
            job = desk.claim()
            desk.end(job, State.DONE, checked(verdict))  # type: ignore[arg-type]
        found = {watch.schedule.id: watch for watch in desk.service.watches()}
        assert (found[first.id].verdict, found[second.id].verdict) == ("met", "missed")
        assert (found[first.id].budget_ms, found[second.id].budget_ms) == (5.0, 7.0)
        assert desk.kinds() == ["watch.missed"]

    def test_a_resumed_job_that_fails_again_is_told_once(self, desk: Desk) -> None:
        desk.search()
        job = desk.fails()
        desk.queue.resume(job.id)
        again = desk.end(desk.claim(), State.FAILED, message="the same")
        assert again.state == State.FAILED and desk.kinds() == ["job.failed"]

    def test_an_end_that_is_not_recorded_tells_nothing(self, desk: Desk) -> None:
        desk.search()
        job = desk.begin()
        desk.queue.put_back(job, reason="killed", is_failure=True)
        with pytest.raises(Lost):
            desk.end(job, State.DONE, moved())
        assert desk.kinds() == []
        desk.end(desk.claim(), State.DONE, moved())
        assert desk.kinds() == ["front.moved"]

    def test_an_end_whose_meaning_cannot_be_stored_is_not_recorded(self, desk: Desk) -> None:
        desk.search()
        job = desk.begin()

        def broken(ended: Ended) -> None:
            raise OSError("died here")

        with pytest.raises(OSError, match="died here"):
            desk.queue.end(job, State.DONE, then=Alerts(desk.store).noting(broken))  # type: ignore[arg-type]
        assert desk.queue.get(job.id).state == State.RUNNING
        desk.end(job, State.DONE, moved())
        assert desk.kinds() == ["front.moved"]

    def test_lists_go_on_where_they_ended(self, desk: Desk) -> None:
        desk.search()
        for _ in range(5):
            desk.end(desk.begin(), State.DONE, moved())
        first = desk.service.alerts(limit=3)
        rest = desk.service.alerts(before_id=first[-1].id, limit=3)
        numbers = [alert.id for alert in (*first, *rest)]
        assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == 5


class TestAddingWatches:
    @pytest.fixture
    def desk(self, tmp_path: Path) -> Iterator[Desk]:
        with desk_at(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path) as desk:
            yield desk

    def test_hourly_and_not_all_at_once(self, desk: Desk) -> None:
        path = desk.artifact()
        watch = desk.service.add_watch("results/net.autosparse", "0.005s", JobOptions())
        schedule = watch.schedule
        assert (schedule.cron, schedule.jitter_s, schedule.catch_up) == ("0 * * * *", 600.0, "skip")
        assert schedule.name == "check-net.autosparse"
        assert dict(schedule.request.settings) == {"artifact": str(path), "latency_budget": "5ms"}
        desk.service.schedules.remove(schedule.name)
        assert desk.service.watches() == []
        with pytest.raises(NoSuchSchedule):
            desk.service.schedules.get(schedule.id)

    def test_other_schedules_are_none(self, desk: Desk) -> None:
        desk.search()
        assert desk.service.watches() == []

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"artifact": "results/none"}, "must be a file, but there is no"),
            ({"artifact": "/etc/passwd"}, "must lie in a folder that jobs may read"),
            ({"artifact": "results/../../secret"}, "must lie in a folder that jobs may read"),
            ({"artifact": "results"}, "must lie in a folder|must be a file"),
            ({"artifact": "results/a\0b"}, "must lie in a folder|must be a file"),
            ({"artifact": ""}, "must be text"),
            ({"artifact": None}, "needs artifact, but got none"),
            ({"latency_budget": None}, "needs latency budget, but got none"),
            ({"latency_budget": "5"}, "must end in one of"),
            ({"latency_budget": "0ms"}, "must be greater than zero"),
            ({"latency_budget": 5}, "must be a number with a unit"),
            ({"threads": 0}, "must be a whole number from 1"),
            ({"judged": "middling"}, "must be worst or best"),
            ({"out": "/tmp"}, "is the daemon's to decide"),
            ({"artefact": "x"}, "did you mean artifact"),
        ],
    )
    def test_what_cannot_be_meant(self, desk: Desk, settings: dict[str, object], said: str) -> None:
        desk.artifact()
        asked = {"artifact": "results/net.autosparse", "latency_budget": "5ms", **settings}
        with pytest.raises(ConfigError, match=said):
            desk.service.submit("check", asked, JobOptions())
        assert desk.queue.jobs() == []

    def test_a_file_that_is_no_artifact(self, desk: Desk) -> None:
        (desk.results / "weights.pth").write_bytes(b"PK\x03\x04")
        asked = {"artifact": "results/weights.pth", "latency_budget": "5ms"}
        with pytest.raises(ArtifactError, match="must be a file that autosparse wrote"):
            desk.service.submit("check", asked, JobOptions())
        assert desk.queue.jobs() == []

    def test_a_file_that_turned_into_a_link_elsewhere_is_refused_when_its_job_begins(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        from autosparse.jobs.verbs import verb_named

        path = desk.artifact()
        asked = {"artifact": str(path), "latency_budget": "5ms", "threads": 2, "judged": "best"}
        settings = verb_named("check").settle(asked, desk.service.place)
        words = verb_named("check").command(settings, tmp_path, desk.service.place)
        flags = ["--latency-budget", "5ms", "--threads", "2", "--judged", "best"]
        assert words == ["check", "--json", *flags, "--", str(path)]
        path.unlink()
        path.symlink_to("/etc/passwd")
        with pytest.raises(ConfigError, match="must lie in a folder"):
            verb_named("check").command(settings, tmp_path, desk.service.place)


def test_no_alert_where_there_is_no_schedule() -> None:
    alone = ended(job("search", State.FAILED, schedule_id=None))
    assert alert_of(alone, None, None) is None
