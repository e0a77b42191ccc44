"""How long a job still takes: by its events and an earlier one's, and when nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosparse.daemon.earlier import earlier_job, earlier_run
from autosparse.daemon.left import Clock, Left, Spent, spent
from autosparse.daemon.place import Follower, later
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import JobRequest, Snapshot
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.run_folders import RunFolder, append_jsonl

Event = dict[str, Any]
SEARCH = (("survey", "survey", 2.0, 4), ("tune", "tune", 100.0, 50), ("train", "train", 300.0, 30))


def job(*parts: tuple[str, str, float, int], start_s: float = 1000.0) -> Iterator[Event]:
    """Gives the events of stages of one step each: name, step, seconds and units."""
    at_s = start_s
    for stage, step, seconds, units in parts:
        common = {"stage": stage, "step": step, "total": float(units), "job": "search a-run"}
        yield {"at_s": at_s, "kind": "start", "done": 0.0, **common}
        for done in range(1, units + 1):
            at_s += seconds / units
            yield {"at_s": at_s, "kind": "advance", "done": float(done), **common}
        yield {"at_s": at_s, "kind": "end", "done": float(units), **common}


def left_at(events: list[Event], count: int, earlier: Spent | None) -> Left:
    clock = Clock()
    for event in events[:count]:
        clock.take(event)
    return clock.left(earlier)


def test_time_is_kept_by_stage_and_step() -> None:
    found = spent("then", job(*SEARCH))
    assert list(found.stages) == ["survey", "tune", "train"]
    assert found.stages == pytest.approx({"survey": 2, "tune": 100, "train": 300})
    assert {key: step.seconds for key, step in found.steps.items()} == pytest.approx(
        {("survey", "survey"): 2, ("tune", "tune"): 100, ("train", "train"): 300}
    )


def test_a_job_like_an_earlier_one_takes_as_long() -> None:
    events, then = list(job(*SEARCH)), spent("then", job(*SEARCH, start_s=5.0))
    for count in range(1, len(events) + 1):
        left = left_at(events, count, then)
        assert left.job_s == pytest.approx(events[-1]["at_s"] - events[count - 1]["at_s"])
        assert left.rests_on == "then"


def test_more_units_than_then_take_more_time() -> None:
    then = spent("then", job(*SEARCH))
    events = list(job(("tune", "tune", 400.0, 200), ("train", "train", 300.0, 30)))
    assert left_at(events, 101, then).job_s == pytest.approx(200 + 300)


def test_a_slower_step_is_believed_the_more_of_it_is_done() -> None:
    then = spent("then", job(("tune", "tune", 100.0, 50)))
    events = list(job(("tune", "tune", 300.0, 50)))
    said = [left_at(events, count, then).job_s for count in (11, 26, 46)]
    true = [300.0 - 300.0 * done / 50 for done in (10, 25, 45)]
    off = [abs(a - b) / b for a, b in zip((s or math.nan for s in said), true, strict=True)]
    assert off == sorted(off, reverse=True) and off[-1] < 0.1


def test_without_an_earlier_one_the_step_is_all_that_is_known() -> None:
    events = list(job(*SEARCH))
    first_step = len(list(job(SEARCH[0])))
    left = left_at(events, first_step + 1 + 25, None)
    assert left == Left(job_s=None, step_s=pytest.approx(50.0), rests_on="")


def test_nothing_is_guessed_before_a_step_has_moved() -> None:
    events = list(job(("tune", "tune", 100.0, 1000)))
    assert left_at(events, 1, None) == Left()
    assert left_at(events, 15, None) == Left()  # 1.4 s, and 1.4 % of it
    assert left_at(events, 40, None).step_s is not None


@pytest.mark.parametrize("total", [None, 0.0])
def test_a_step_of_unknown_length_has_no_time_left(total: float | None) -> None:
    events = [{**event, "total": total} for event in job(("tune", "tune", 100.0, 50))]
    assert left_at(events, 40, None) == Left()


def test_what_was_there_when_a_step_began_was_not_done_in_that_time() -> None:
    events = list(job(("search", "search", 100.0, 50)))
    resumed = [
        {**e, "done": e["done"] + 1000, "total": 1050.0} for e in events if e["kind"] == "advance"
    ]
    seen = [events[0], {**events[0], "kind": "advance", "done": 1000.0, "total": 1050.0}, *resumed]
    assert left_at(seen, 2 + 25, None).step_s == pytest.approx(50.0)


def test_a_step_that_begins_anew_has_a_new_speed() -> None:
    events = [e for e in job(("tune", "tune", 100.0, 50)) if e["kind"] == "advance"]
    again = [{**e, "at_s": e["at_s"] * 1 + 40} for e in events]
    clock = Clock()
    for event in (*events[:20], *again[:25]):
        clock.take(event)
    assert clock.left().step_s == pytest.approx(50.0)


def test_of_steps_side_by_side_the_last_counts() -> None:
    fast, slow = list(job(("train", "a", 50.0, 25))), list(job(("train", "b", 100.0, 25)))
    events = sorted([*fast[:13], *slow[:13]], key=lambda event: event["at_s"])
    assert left_at(events, len(events), None).step_s == pytest.approx(52.0)


def test_a_pause_between_attempts_counts_for_nothing() -> None:
    first = list(job(SEARCH[0], ("tune", "tune", 40.0, 20)))
    second = list(job(SEARCH[0], ("tune", "tune", 60.0, 30), start_s=90000.0))
    found = spent("then", [*first, *second])
    assert found.stages == pytest.approx({"survey": 4, "tune": 100})


def test_a_stage_that_a_resumed_job_left_out_is_not_waited_for() -> None:
    then = spent("then", job(*SEARCH))
    events = list(job(SEARCH[0], SEARCH[2]))  # tuned before
    begun = len(list(job(SEARCH[0]))) + 1
    assert left_at(events, begun, then).job_s == pytest.approx(300.0)


def test_a_stage_that_the_earlier_one_had_not_is_left_by_its_own_speed() -> None:
    then = spent("then", job(*SEARCH))
    events = list(job(SEARCH[0], ("reconstruct", "layers", 20.0, 20), *SEARCH[1:]))
    begun = len(list(job(SEARCH[0]))) + 1 + 10
    assert left_at(events, begun, then).job_s == pytest.approx(10 + 100 + 300)
    assert left_at(events, begun - 10, then) == Left()


@pytest.mark.parametrize(
    "event",
    [{}, {"at_s": "x", "kind": "log"}, {"at_s": 1.0}, {"at_s": 1.0, "kind": "advance", "step": "s"}],
)
def test_events_of_other_versions_are_passed_over(event: Event) -> None:
    events = list(job(*SEARCH))
    assert spent("a", [*events[:3], event, *events[3:]]) == spent("a", events)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "at_s": st.floats(0, 1e6),
                "kind": st.sampled_from(["start", "advance", "end", "log"]),
                "stage": st.sampled_from(["", "a", "b", "c"]),
                "step": st.sampled_from(["", "x", "y"]),
                "done": st.floats(0, 100),
                "total": st.none() | st.floats(0, 100),
            }
        ),
        max_size=30,
    )
)
def test_whatever_is_told_nothing_negative_is_left(events: list[Event]) -> None:
    then, clock = spent("then", job(("a", "x", 10.0, 5), ("c", "y", 5.0, 5))), Clock()
    for event in events:
        clock.take(event)
        for left in (clock.left(), clock.left(then)):
            for value in (left.job_s, left.step_s):
                assert value is None or (value >= 0 and math.isfinite(value))
            assert bool(left.rests_on) == (left.job_s is not None)


# ------------------------------------------------------------------------------- runs and followers

CONFIG = "model: resnet20\ndata: digits\ntrain: short\ntrials: {trials}\n"


def made(
    root: Path, *, model: str = "resnet20", host: str = "a" * 12, trials: int = 64, config: str = CONFIG
) -> Path:
    with RunFolder.create(
        root,
        model=model,
        hardware_id=host,
        config_yaml=config.format(trials=trials),
        fingerprint=f"{model}{trials}",
    ) as run:
        for event in job(*SEARCH):
            append_jsonl(run.path / "logs" / "events.jsonl", event)
        return run.path


def test_the_newest_run_like_it_is_taken(tmp_path: Path) -> None:
    older, newer = made(tmp_path), made(tmp_path, trials=500)
    made(tmp_path, model="resnet18")
    made(tmp_path, host="b" * 12)
    made(tmp_path, config=CONFIG.replace("digits", "cifar10"))
    made(tmp_path, config="[")
    now = made(tmp_path)
    found = earlier_run(tmp_path, now.name, "search")
    assert found is not None and found.name == newer.name != older.name
    assert found.stages == pytest.approx({"survey": 2, "tune": 100, "train": 300})


def test_runs_that_are_not_done_tell_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    stopped = made(tmp_path)
    with RunFolder.resume(stopped) as run:
        run.finish("stopped", 6)
    now = made(tmp_path)
    found = earlier_run(tmp_path, now.name, "search")
    assert found is not None and found.name != stopped.name
    assert earlier_run(tmp_path, "no-such-run", "search") is None


def test_what_other_verbs_did_to_a_run_afterwards_does_not_count(tmp_path: Path) -> None:
    done = made(tmp_path)
    for event in job(("train", "train", 5000.0, 10), start_s=9e5):
        append_jsonl(done / "logs" / "events.jsonl", {**event, "job": f"train {done.name}"})
    found = earlier_run(tmp_path, made(tmp_path).name, "search")
    assert found is not None and found.stages["train"] == pytest.approx(300)


def test_of_jobs_without_a_run_the_newest_that_did_the_very_same_is_taken(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        queue = Queue(store)
        asked = [{"model": "resnet20"}, {"model": "resnet20"}, {"model": "resnet18"}]
        numbers = [tuned(queue, tmp_path, settings) for settings in asked]
        now = queue.submit(JobRequest(verb="tune", settings=asked[0]))[0]
        found = earlier_job(tmp_path, queue, now)
        assert found is not None and found.name == f"job {numbers[1]}"
        assert found.stages == pytest.approx({"survey": 2, "tune": 100, "train": 300})
        other = queue.submit(JobRequest(verb="tune", settings={"model": "vgg16"}))[0]
        assert earlier_job(tmp_path, queue, other) is None


def tuned(queue: Queue, results: Path, settings: dict[str, Any]) -> int:
    number = queue.submit(JobRequest(verb="tune", settings=settings))[0].id
    queue.admit("me")
    claimed = queue.claim("me", [])
    assert claimed is not None and claimed.id == number
    for event in job(*SEARCH):
        append_jsonl(results / "jobs" / str(number) / "events.jsonl", {**event, "job": "tune"})
    queue.end(claimed, State.DONE, exit_code=0, message="", run="", ran_s=1.0, reason="")
    return number


def test_a_follower_asks_once_and_tells_what_is_left(tmp_path: Path) -> None:
    asked = []

    def earlier(run: str) -> Spent:
        asked.append(run)
        return spent("then", job(*SEARCH))

    follower, file = Follower(tmp_path / "events.jsonl", earlier=earlier), tmp_path / "events.jsonl"
    assert follower.follow() is None
    events = list(job(*SEARCH))
    for event in events[:40]:
        append_jsonl(file, event)
        snapshot = follower.follow()
    assert snapshot is not None and asked == ["a-run"] and snapshot.left_as == "then"
    assert snapshot.left_s == pytest.approx(events[-1]["at_s"] - events[39]["at_s"])
    assert snapshot.step_left_s is not None and snapshot.step_left_s < snapshot.left_s
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_what_was_noted_is_brought_up_to_date() -> None:
    noted = Snapshot(at_s=100.0, done=1.0, left_s=50.0, left_as="then")
    said = Snapshot(at_s=120.0, done=3.0, step_left_s=5.0)
    newest = later(noted, said)
    assert newest == Snapshot(at_s=120.0, done=3.0, left_s=30.0, left_as="then", step_left_s=5.0)
    assert later(noted, None) == noted == later(None, noted)
    assert later(said, noted) == said and later(None, None) is None
    long_ago = later(noted, Snapshot(at_s=1e6))
    assert long_ago is not None and long_ago.left_s == 0.0
