"""Whether an artifact meets its budget, and what that says where the host or the artifact is odd."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from autosparse import cli, hardware
from autosparse.engine import compile
from autosparse.engine.saving import Facts
from autosparse.errors import ArtifactError, ConfigError, ExitCode, UsageError
from autosparse.measuring.conditions import Conditions
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.results.checked import CheckOutcome, compared, verdict_of
from autosparse.pipeline.verbs import check as verb
from autosparse.progress import Progress
from autosparse.records import WholeLatency
from autosparse.sessions.artifact import ArtifactRequest, ArtifactTimes, time_artifact
from autosparse.sessions.in_turn import Circumstances

BUSY = Circumstances(conditions=Conditions(foreign_share=0.5))


def took(median_ms: float, half_ms: float = 0.05, **how: object) -> WholeLatency:
    values = {"repeats": 100, "threads": 1, "batch_size": 1, "dtype": "f32", **how}
    low, high = median_ms - half_ms, median_ms + half_ms
    return WholeLatency(median_ms=median_ms, ci_low_ms=low, ci_high_ms=high, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("artifact"), Facts(model="net"))


def saved(folder: Path, facts: Facts) -> Path:
    path = folder / "net.autosparse"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    with compile(net, (torch.randn(1, 3, 32, 32),), threads=1, exportable=True) as compiled:
        compiled.save_as(path, facts, overwrite=True)
    return path


class TestVerdict:
    @pytest.mark.parametrize(
        ("median_ms", "half_ms", "disturbed", "verdict"),
        [
            (4.0, 0.5, "", "met"),
            (4.5, 0.5, "", "met"),  # the upper end is the budget
            (4.5, 0.6, "", "open"),
            (5.5, 0.6, "", "open"),
            (5.5, 0.5, "", "open"),  # the lower end is the budget
            (6.0, 0.5, "", "missed"),
            (4.0, 0.5, "busy", "met"),
            (6.0, 0.5, "busy", "open"),
        ],
    )
    def test_of_the_whole_interval(
        self, median_ms: float, half_ms: float, disturbed: str, verdict: str
    ) -> None:
        assert verdict_of(took(median_ms, half_ms), 5.0, disturbed) == verdict

    @pytest.mark.parametrize(
        ("verdict", "code"),
        [("met", ExitCode.DONE), ("missed", ExitCode.INFEASIBLE), ("open", ExitCode.INFEASIBLE)],
    )
    def test_what_is_open_counts_as_over_it(self, verdict: str, code: ExitCode) -> None:
        assert outcome(verdict=verdict).exit_code == code

    def test_is_said(self) -> None:
        assert "net takes 4.00 ± 0.05 ms on 1 thread, within its budget of 5 ms." in outcome().text()
        missed = outcome(verdict="missed", latency=took(6.0))
        assert "over its budget of 5 ms: 1.20\N{MULTIPLICATION SIGN} of it." in missed.text()
        crossing = outcome(verdict="open", latency=took(5.0), deciding_s=10.0)
        assert "crosses its budget of 5 ms, also after 10 s of further turns" in crossing.text()
        busy = outcome(verdict="open", latency=took(6.0), disturbed="others")
        assert "but the host was disturbed: others" in busy.text()

    def test_comes_back_from_json(self) -> None:
        found = outcome(recorded=took(3.9))
        assert CheckOutcome.from_json(json.loads(json.dumps(found.to_json()))) == found


def outcome(**changes: object) -> CheckOutcome:
    made = CheckOutcome(
        artifact="/a/net.autosparse",
        model="net",
        hardware_id="0" * 12,
        budget_ms=5.0,
        verdict="met",
        latency=took(4.0),
        why_not="nobody knows",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class TestAgainstWhenItWasMade:
    @pytest.mark.parametrize(
        ("before", "after", "said", "beyond_ms"),
        [
            (4.0, 4.08, "within", 0.0),
            (4.0, 4.3, "slower", 0.2),
            (4.0, 3.7, "faster", -0.2),
        ],
    )
    def test_by_the_intervals(self, before: float, after: float, said: str, beyond_ms: float) -> None:
        against, move, why_not = compared({"": took(after)}, took(before), "")
        assert (against, why_not) == (said, "")
        assert move is not None and move.beyond_ms == pytest.approx(beyond_ms)
        text = outcome(recorded=took(before), against=against, since=move).text()
        assert f"it took {before:.2f} ± 0.05 ms when it was made" in text
        assert ("the intervals meet" in text) == (said == "within")

    def test_in_the_state_that_it_was_measured_in(self) -> None:
        states = {"apart": took(6.0, state="apart"), "shared": took(4.0, state="shared")}
        assert compared(states, took(4.02, state="shared"), "")[0] == "within"
        assert compared(states, took(4.02, state="apart"), "")[0] == "slower"

    @pytest.mark.parametrize(
        ("recorded", "elsewhere", "why"),
        [
            (None, "", "does not say what it took"),
            (took(4.0), "on another host", "on another host"),
            (took(4.0, threads=2), "", "with threads 2, and not 1"),
            (took(4.0, batch_size=8), "", "with batch size 8, and not 1"),
            (took(4.0, dtype="bf16"), "", "with dtype bf16, and not f32"),
            (took(4.0, state="apart"), "", "the host was in another state all the while"),
        ],
    )
    def test_not_compared(self, recorded: WholeLatency | None, elsewhere: str, why: str) -> None:
        against, move, why_not = compared({"": took(4.0)}, recorded, elsewhere)
        assert (against, move) == ("unknown", None) and why in why_not

    def test_of_a_time_when_the_host_had_one_state(self) -> None:
        now = {"shared": took(4.0, state="shared"), "apart": took(5.0, state="apart")}
        assert "not yet known to have several states" in compared(now, took(4.0), "")[2]


class TestTimed:
    """With real artifacts, briefly."""

    POLICY = dataclasses.replace(WHOLE, warmup_us=1000.0, time_cap_us=100_000.0, target_ci=0.05)

    @pytest.fixture(autouse=True)
    def at_home(self, known_host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTOSPARSE_HOME", str(known_host))

    def test_in_this_process(self, artifact: Path) -> None:
        found = time_artifact(
            ArtifactRequest(artifact=str(artifact), threads=1, policy=self.POLICY), Progress()
        )
        latency = found.latency
        assert 0 < latency.ci_low_ms <= latency.median_ms <= latency.ci_high_ms
        assert (latency.threads, latency.batch_size, latency.dtype) == (1, 1, "f32")
        assert found.states[latency.state] == latency and found.deciding_s == 0

    def test_what_crosses_the_budget_is_measured_on(
        self, artifact: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("autosparse.sessions.artifact._DECIDING_US", 300_000.0)
        monkeypatch.setattr("autosparse.measuring.deciding.crosses", lambda timing, bound: True)
        request = ArtifactRequest(artifact=str(artifact), threads=1, policy=self.POLICY, budget_us=1e3)
        before = dataclasses.replace(request, budget_us=None)
        few = time_artifact(before, Progress()).latency.repeats
        found = time_artifact(request, Progress())
        assert found.deciding_s >= 0.3 and found.latency.repeats > few

    def test_by_the_verb_in_a_process_of_its_own(
        self, artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        brief = verb.ArtifactRequest
        monkeypatch.setattr(verb, "ArtifactRequest", lambda **given: brief(**given, policy=self.POLICY))
        assert cli.run(["check", str(artifact), "-b", "1h", "--threads", "1", "--json"]) == 0
        found = CheckOutcome.from_json(json.loads(capsys.readouterr().out))
        assert (found.verdict, found.budget_ms, found.model) == ("met", 3600e3, "net")
        assert found.hardware_id == hardware.hardware_id() and found.latency.threads == 1
        assert cli.run(["check", str(artifact), "-b", "0.001us", "--threads", "1"]) == 3
        assert "over its budget of 1e-06 ms" in capsys.readouterr().out


class TestVerb:
    @pytest.fixture
    def sessions(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ArtifactTimes]]:
        """Sessions to come; the requests that were made take their place."""
        left: list[ArtifactTimes] = []
        monkeypatch.setattr(verb, "_timed", lambda request, progress: left.pop(0))
        monkeypatch.setattr(verb, "_PAUSE_S", 0.0)
        monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")
        yield left
        assert not left, "fewer sessions than expected"

    def test_a_disturbed_session_is_tried_again(
        self, artifact: Path, sessions: list[ArtifactTimes]
    ) -> None:
        sessions += [times(9.0, BUSY), times(8.0, BUSY), times(7.0)]
        found = verb.check(artifact, 5e3)
        assert (found.verdict, found.sessions, found.latency.median_ms) == ("missed", 3, 7.0)

    def test_the_fastest_counts_where_all_are_disturbed(
        self, artifact: Path, sessions: list[ArtifactTimes]
    ) -> None:
        sessions += [times(9.0, BUSY), times(7.0, BUSY), times(8.0, BUSY)]
        found = verb.check(artifact, 5e3)
        assert (found.verdict, found.sessions, found.latency.median_ms) == ("open", 3, 7.0)
        assert "other processes took 50%" in found.disturbed

    def test_a_budget_that_is_met_even_so_needs_no_other(
        self, artifact: Path, sessions: list[ArtifactTimes]
    ) -> None:
        sessions.append(times(4.0, BUSY))
        assert verb.check(artifact, 5e3).verdict == "met"

    def test_a_host_that_is_hardly_ever_left_alone_is_not_waited_for(
        self, artifact: Path, sessions: list[ArtifactTimes]
    ) -> None:
        sessions.append(times(9.0, dataclasses.replace(BUSY, undisturbed_share=0.1)))
        assert verb.check(artifact, 5e3).sessions == 1

    def test_threads_are_those_that_it_was_measured_with(
        self, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = list[ArtifactRequest]()

        def timed(request: ArtifactRequest, progress: Progress) -> ArtifactTimes:
            asked.append(request)
            return times(4.0)

        monkeypatch.setattr(verb, "_timed", timed)
        facts = Facts(model="net", latency=took(4.0))
        found = verb.check(saved(tmp_path, facts), 5e3)
        assert (asked[-1].threads, found.against, found.recorded) == (1, "within", took(4.0))
        verb.check(artifact, 5e3)
        assert asked[-1].threads == hardware.usable_cores()
        moved = saved(tmp_path, dataclasses.replace(facts, latency_hardware_id="elsewhere"))
        assert "on another host, elsewhere" in verb.check(moved, 5e3).why_not

    def test_nothing_waits_for_what_cannot_be_loaded(self, artifact: Path, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.autosparse"
        damaged.write_bytes(artifact.read_bytes()[:-100])
        for path in (tmp_path / "none.autosparse", damaged, tmp_path):
            with pytest.raises(ArtifactError):
                verb.check(path, 5e3)

    @pytest.mark.parametrize("budget_us", [0.0, -1.0, float("nan")])
    def test_a_budget_that_is_none(self, artifact: Path, budget_us: float) -> None:
        with pytest.raises(ConfigError, match="must be longer than no time"):
            verb.check(artifact, budget_us)

    def test_more_threads_than_there_are(self, artifact: Path) -> None:
        with pytest.raises(UsageError, match="threads must be"):
            verb.check(artifact, 5e3, threads=4096)


def times(median_ms: float, how: Circumstances | None = None) -> ArtifactTimes:
    latency = took(median_ms)
    more = {} if how is None else {"circumstances": how}
    return ArtifactTimes(latency=latency, states={"": latency}, **more)
