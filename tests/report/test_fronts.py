"""Two fronts compared: what moved beyond its intervals, and what is not to be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.cli import run
from autosparse.report.document import Document, load
from autosparse.report.fronts import compare_fronts
from autosparse.report.moves import AccuracyMove, FrontMove, LatencyMove
from autosparse.storage.files import write_json

RunWriter = Callable[..., Path]
Edit = Callable[[dict[str, Any]], None]
NAMES = ("before", "after")


def unchanged(document: dict[str, Any]) -> None:
    return


def scaled(config: dict[str, Any], factor: float) -> None:
    config["measured_latency_ms"] *= factor
    config["latency_ci_ms"] = [end * factor for end in config["latency_ci_ms"]]


@pytest.fixture
def moved(make_run: RunWriter) -> Callable[..., FrontMove]:
    """Compares a made-up run with itself, each edited."""

    def compare(newer: Edit = unchanged, older: Edit = unchanged, **options: Any) -> FrontMove:
        documents: list[Document] = [load(make_run(edit=edit, **options)) for edit in (older, newer)]
        return compare_fronts(documents[0], documents[1], NAMES)

    return compare


class TestLatencies:
    @pytest.mark.parametrize(
        ("after", "beyond", "is_disjoint"),
        [
            ((10.0, (9.9, 10.2)), 0.0, False),
            ((10.3, (10.1, 10.5)), 0.0, False),  # the ends meet
            ((11.0, (10.8, 11.2)), 0.7, True),
            ((9.0, (8.8, 9.2)), -0.7, True),
        ],
    )
    def test_beyond_is_between_the_near_ends(
        self, after: tuple[float, tuple[float, float]], beyond: float, is_disjoint: bool
    ) -> None:
        found = LatencyMove.of((10.0, (9.9, 10.1)), after)
        assert (found.beyond_ms, found.is_disjoint) == (pytest.approx(beyond), is_disjoint)
        assert found.ratio == pytest.approx(after[0] / 10)

    def test_it_travels_as_json(self) -> None:
        found = LatencyMove.of((10.0, (9.9, 10.1)), (11.0, (10.8, 11.2)))
        assert LatencyMove.from_json(json.loads(json.dumps(found.to_json()))) == found


class TestAccuracies:
    def test_a_change_within_chance_is_none(self) -> None:
        assert not AccuracyMove.of(0.95, 0.94, 300).is_beyond
        assert AccuracyMove.of(0.95, 0.85, 300).is_beyond
        assert AccuracyMove.of(0.95, 0.94, 30_000).is_beyond

    def test_of_unknown_many_samples_nothing_is_beyond_chance(self) -> None:
        assert not AccuracyMove.of(0.95, 0.2, 0).is_beyond

    def test_all_right_before_and_after_is_no_change(self) -> None:
        assert not AccuracyMove.of(1.0, 1.0, 300).is_beyond


@pytest.mark.smoke
def test_a_run_has_not_moved_against_itself(moved: Callable[..., FrontMove]) -> None:
    found = moved()
    assert found.is_comparable and not found.moved
    assert len(found.of_fate("stayed")) == len(found.configs) == 8
    assert all(config.latency and config.latency.ratio == 1 for config in found.configs)
    assert all(config.accuracy and config.accuracy.change == 0 for config in found.configs)
    assert set(found.dense) == {"autosparse", "torch"}
    assert (found.budget, found.budget_ms) == ("kept", 14.0)
    assert found.sentence == (
        "The front of resnet18 stands: 8 configurations on both stay within the intervals; the budget "
        "of 14 ms is still met."
    )


def test_one_slower_configuration_moves_the_front_by_so_much(moved: Callable[..., FrontMove]) -> None:
    def slower(document: dict[str, Any]) -> None:
        scaled(document["configs"][3], 1.1)

    found = moved(slower)
    [one] = [config for config in found.configs if config.moved]
    assert found.moved and one.latency is not None
    assert one.latency.ratio == pytest.approx(1.1)
    wanted = one.latency.after_ci_ms[0] - one.latency.before_ci_ms[1]
    assert one.latency.beyond_ms == pytest.approx(wanted) and wanted > 0
    assert f"1 of 8 configurations on both left the intervals, {one.id} the most" in found.sentence
    assert one.id in found.text()


def test_a_move_within_the_intervals_is_none(moved: Callable[..., FrontMove]) -> None:
    def slightly(document: dict[str, Any]) -> None:
        for config in document["configs"]:
            scaled(config, 1.002)

    assert not moved(slightly).moved


def test_a_dense_model_that_moved_alone_is_told_but_is_not_the_front(
    moved: Callable[..., FrontMove],
) -> None:
    def slower_dense(document: dict[str, Any]) -> None:
        latency = document["dense"]["latency"]
        for name in ("median_ms", "ci_low_ms", "ci_high_ms"):
            latency[name] *= 1.2

    found = moved(slower_dense)
    assert not found.moved
    assert found.dense["autosparse"].ratio == pytest.approx(1.2)
    assert not found.dense["torch"].is_disjoint
    assert "the dense model takes another time too: autosparse 1.20" in found.sentence


def test_configurations_appear_and_go(moved: Callable[..., FrontMove]) -> None:
    def fewer(document: dict[str, Any]) -> None:
        # The last ones are the fastest here; the chosen one and a faster one stay.
        del document["configs"][0]

    gone = moved(fewer)
    assert [config.fate for config in gone.configs] == ["stayed"] * 7 + ["gone"]
    assert gone.configs[-1].only_ms is not None and gone.configs[-1].latency is None
    assert "1 is gone" in gone.sentence
    back = moved(older=fewer)
    assert [config.fate for config in back.configs] == ["stayed"] * 7 + ["appeared"]
    assert "1 appeared" in back.sentence
    assert "appeared" in back.text()


def test_a_configuration_that_other_kernels_run_has_stayed(moved: Callable[..., FrontMove]) -> None:
    def of_other_kernels(document: dict[str, Any]) -> None:
        config = document["configs"][2]
        config["id"] = "of today"
        for layer in config["layers"]:
            layer["kernel"] = "another"
        scaled(config, 0.9)

    found = moved(of_other_kernels)
    assert {config.fate for config in found.configs} == {"stayed"}
    [one] = [config for config in found.configs if config.was]
    assert one.id == "of today" and one.latency is not None
    assert one.latency.ratio == pytest.approx(0.9)


def test_one_without_layers_is_matched_by_its_id_alone(moved: Callable[..., FrontMove]) -> None:
    def bare(document: dict[str, Any]) -> None:
        for config in document["configs"]:
            config["layers"] = []

    assert {config.fate for config in moved(bare, bare).configs} == {"stayed"}

    def renamed(document: dict[str, Any]) -> None:
        bare(document)
        document["configs"][2]["id"] = "another"

    assert {c.fate for c in moved(renamed, bare).configs} == {"stayed", "appeared", "gone"}


class TestVerdicts:
    def over(self, document: dict[str, Any]) -> None:
        for config in document["configs"]:
            scaled(config, 5)
            config["feasible"] = False
        document["verdict"] = {"id": None, "text": ""}

    def test_a_budget_is_lost_and_met_again(self, moved: Callable[..., FrontMove]) -> None:
        lost = moved(self.over)
        assert (lost.budget, lost.moved) == ("lost", True)
        assert "the budget of 14 ms is no longer met" in lost.sentence
        assert lost.chosen[0] is not None and lost.chosen[1] is None
        again = moved(older=self.over)
        assert (again.budget, again.moved) == ("regained", True)
        assert moved(self.over, self.over).budget == "missed"

    def test_without_a_budget_there_is_none(self, moved: Callable[..., FrontMove]) -> None:
        found = moved(budget_ms=None)
        assert (found.budget, found.budget_ms, found.notes) == ("none", None, ())

    def test_of_two_budgets_nothing_is_said(self, moved: Callable[..., FrontMove]) -> None:
        def other(document: dict[str, Any]) -> None:
            document["budget_ms"] = 12.0

        found = moved(other)
        assert (found.budget, found.budget_ms) == ("none", None)
        assert found.notes == ("verdicts: their budgets differ: 14 ms and 12 ms",)
        assert not found.moved and "not compared: verdicts" in found.text()


class TestAtEqualAccuracy:
    def test_a_faster_one_that_is_as_accurate_counts(self, moved: Callable[..., FrontMove]) -> None:
        def better(document: dict[str, Any]) -> None:
            fast = min(document["configs"], key=lambda config: config["measured_latency_ms"])
            fast["accuracy"] = max(config["accuracy"] for config in document["configs"])

        found = moved(better)
        assert found.at_accuracy is not None and found.at_accuracy.latency is not None
        assert found.at_accuracy.latency.ratio < 1
        assert found.at_accuracy.before != found.at_accuracy.after
        assert found.moved

    def test_what_is_no_longer_reached_is_told(self, moved: Callable[..., FrontMove]) -> None:
        def worse(document: dict[str, Any]) -> None:
            for config in document["configs"]:
                config["accuracy"] = 0.5

        found = moved(worse)
        assert found.at_accuracy is not None and found.at_accuracy.after is None
        assert found.moved and "is no longer reached" in found.sentence
        assert "changed by more than chance" in found.sentence

    def test_one_sample_less_of_many_right_ones_is_as_good(
        self, moved: Callable[..., FrontMove]
    ) -> None:
        def all_right(document: dict[str, Any]) -> None:
            for config in document["configs"]:
                config["accuracy"] = 1.0

        def but_one(document: dict[str, Any]) -> None:
            for config in document["configs"]:
                config["accuracy"] = 1 - 1 / config["accuracy_samples"]

        assert not moved(but_one, all_right).moved


class TestNeverCompared:
    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("model", "resnet50", "models"),
            ("hardware_id", "0000", "hardware ids"),
            ("threads", 1, "threads"),
            ("batch_size", 8, "batch sizes"),
            ("input_shape", [3, 96, 96], "input shapes"),
            ("dtypes", ["f32", "bf16"], "types"),
            ("compact_weights", True, "compact weights"),
        ],
    )
    def test_latencies_of_other_questions(
        self, moved: Callable[..., FrontMove], key: str, value: object, told: str
    ) -> None:
        def other(document: dict[str, Any]) -> None:
            document[key] = value
            scaled(document["configs"][0], 2)

        found = moved(other)
        assert not found.is_comparable and not found.moved
        assert told in found.why_not[0]
        assert (found.configs, found.dense, found.at_accuracy) == ((), {}, None)
        assert found.sentence.startswith("The fronts of before and after cannot be compared: their")

    @pytest.mark.parametrize(
        ("key", "value"), [("data", "cifar10:x"), ("data_resolution", 16), ("seed", 1)]
    )
    def test_accuracies_on_other_data(
        self, moved: Callable[..., FrontMove], key: str, value: object
    ) -> None:
        def other(document: dict[str, Any]) -> None:
            document[key] = value
            for config in document["configs"]:
                config["accuracy"] = 0.1

        found = moved(other)
        assert found.is_comparable and not found.moved
        assert all(config.accuracy is None and config.latency for config in found.configs)
        assert found.at_accuracy is None
        assert found.notes[0].startswith("accuracies: their ")

    def test_accuracies_of_other_trainings(self, moved: Callable[..., FrontMove]) -> None:
        def longer(document: dict[str, Any]) -> None:
            config = document["configs"][2]
            config["accuracy_kind"], config["epochs"], config["accuracy"] = "full", 40, 0.2

        found = moved(longer)
        [other] = [config for config in found.configs if config.accuracy is None]
        assert "kinds differ: short and full" in other.why_not[0]
        assert other.latency is not None and not found.moved
        assert "not compared" in found.text()

    def test_one_state_of_the_host_and_another(self, moved: Callable[..., FrontMove]) -> None:
        def of(state: str) -> Edit:
            def edit(document: dict[str, Any]) -> None:
                for latency in (document["dense"]["latency"], *document["dense"]["peers"].values()):
                    latency["state"] = state

            return edit

        assert moved(of("apart"), of("apart")).state == "apart"
        found = moved(of("apart"), of("shared"))
        assert "states of the host differ" in found.why_not[0]
        assert not moved(of("apart")).is_comparable, "of the older run only one state was known"


class TestInAStateThatBothSaw:
    def seen(self, judged: str, factor: float = 1.0) -> Edit:
        """Two states, in one of which everything takes 1.5 times as long."""

        def edit(document: dict[str, Any]) -> None:
            dense = document["dense"]
            latencies = {"autosparse": dense["latency"], **dense["peers"]}
            states = {}
            for name, latency in latencies.items():
                states[name] = {
                    state: {**latency, "state": state}
                    | {k: latency[k] * by for k in ("median_ms", "ci_low_ms", "ci_high_ms")}
                    for state, by in (("shared", 1.0), ("apart", 1.5))
                }
            dense["latency_states"] = states
            dense["latency"] = states["autosparse"][judged]
            dense["peers"] = {"torch": states["torch"][judged]}
            for config in document["configs"]:
                scaled(config, factor)
                median, (low, high) = config["measured_latency_ms"], config["latency_ci_ms"]
                like = dense["latency"]
                config["latency_states"] = {
                    state: {
                        **like,
                        "state": state,
                        "median_ms": median * by,
                        "ci_low_ms": low * by,
                        "ci_high_ms": high * by,
                    }
                    for state, by in (("shared", 1.0), ("apart", 1.5))
                }
                scaled(config, 1.5 if judged == "apart" else 1.0)

        return edit

    def test_latencies_are_taken_in_it(self, moved: Callable[..., FrontMove]) -> None:
        found = moved(self.seen("apart"), self.seen("shared"), budget_ms=None)
        assert found.state == "apart" and not found.moved
        assert all(
            config.latency is not None and math.isclose(config.latency.ratio, 1)
            for config in found.configs
        )
        assert all(math.isclose(each.ratio, 1) for each in found.dense.values())

    def test_a_move_in_it_is_seen(self, moved: Callable[..., FrontMove]) -> None:
        found = moved(self.seen("apart", 1.2), self.seen("shared"), budget_ms=None)
        assert found.moved

    def test_verdicts_in_two_states_are_not_compared(self, moved: Callable[..., FrontMove]) -> None:
        found = moved(self.seen("apart"), self.seen("shared"), budget_ms=14.0)
        assert found.budget == "none"
        assert found.notes == ("verdicts: they are of different states of the host",)


def test_unmeasured_configurations_are_not_compared(moved: Callable[..., FrontMove]) -> None:
    def unmeasured(document: dict[str, Any]) -> None:
        config = document["configs"][0]
        config["measured_latency_ms"] = config["latency_ci_ms"] = None

    found = moved(unmeasured)
    assert found.configs[0].latency is None and found.configs[0].why_not
    assert not found.moved


def test_fronts_without_configurations_are_compared(moved: Callable[..., FrontMove]) -> None:
    def none(document: dict[str, Any]) -> None:
        document["configs"], document["verdict"] = [], {"id": None, "text": ""}

    found = moved(none, none)
    assert found.is_comparable and not found.configs and found.at_accuracy is None
    assert moved(none).at_accuracy is not None


def test_all_of_it_travels_as_json(moved: Callable[..., FrontMove]) -> None:
    found = moved(lambda document: scaled(document["configs"][3], 1.1))
    assert FrontMove.from_json(json.loads(json.dumps(found.to_json()))) == found


class TestCommandLine:
    @pytest.fixture
    def results(self, make_run: RunWriter, tmp_path: Path) -> Path:
        for name, factor in (("one", 1.0), ("two", 1.1)):
            folder = make_run(edit=lambda document, by=factor: scaled(document["configs"][3], by))
            state = {
                "schema": 1, "model": "resnet18", "hardware_id": "h", "fingerprint": "f",
                "created_at": "", "updated_at": "", "status": "done",
            }  # fmt: skip
            write_json(folder / "state.json", state)
            (tmp_path / "results").mkdir(exist_ok=True)
            folder.rename(tmp_path / "results" / f"2026030{len(name)}-{name}")
        return tmp_path / "results"

    def test_two_runs_are_compared(self, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["runs", "compare", "20260303-one", "20260303-two", "--out", str(results)]
        assert run(words) == 0
        said = capsys.readouterr().out
        assert said.startswith("The front of resnet18 moved: 1 of 8 configurations")
        assert run([*words, "--json"]) == 0
        found = FrontMove.from_json(json.loads(capsys.readouterr().out))
        assert (found.older, found.newer, found.moved) == ("20260303-one", "20260303-two", True)

    def test_a_run_that_is_not_there_is_refused(
        self, results: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["runs", "compare", "never", "latest", "--out", str(results)]) == 2
        assert "never" in capsys.readouterr().err
