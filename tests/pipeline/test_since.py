"""A search since an earlier run: what is taken over, what is not, and what moved."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from autosparse import data
from autosparse import database as tuning
from autosparse.config import SearchConfig
from autosparse.database.current import kernel_hashes
from autosparse.devices.kinds.cpu import device as cpu
from autosparse.errors import RunError
from autosparse.pipeline.subject import earlier as module
from autosparse.pipeline.subject.earlier import Earlier, find_earlier, rows_moved, study_folder
from autosparse.pipeline.trained import training
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.report import document as form
from autosparse.report.moves import FrontMove
from autosparse.run_folders import RunFolder
from autosparse.searching.pool import SerialPool
from autosparse.storage.files import append_jsonl, read_json, write_json, write_rows_csv, write_text
from autosparse.train.job import TrainJob, load_result
from autosparse.train.recipes import Recipe
from autosparse.train.taking import finished_trainings, take

NET = f"{Path(__file__).parents[1] / 'train' / 'tiny_net.py'}:make"
RECIPE = Recipe(kind="short", epochs=1, settings={"ramp_start": 0.0, "ramp_end": 0.0}, batch_size=512)
HALF = LayerChoice(pattern=onexn(4), sparsity=0.5, kernel="f32_one")
IDS = ("fingerprint", "training")
SPARSE = Plan(model=NET, layers={"3": HALF})


# ------------------------------------------------------------------------------------- whole runs


@dataclasses.dataclass(frozen=True)
class Followed:
    """A run since the finished one, with nothing changed."""

    shop: Any
    outcome: dict[str, Any]
    before: dict[str, Any]
    rows: Mapping[Any, Any]
    rows_before: Mapping[Any, Any]


def rows_of(shop: Any) -> dict[Any, Any]:
    return {row.key: row for row in tuning.list_rows(f"sqlite:///{shop.home}/tuning.db")}


@pytest.fixture(scope="module")
def followed(finished: Any, used_shop: Any) -> Followed:
    rows = rows_of(used_shop)
    done = used_shop.search("--dtype", "auto", "--since", str(finished.latest), "--fresh", "--json")
    assert done.returncode == 0, done.stderr
    shop = dataclasses.replace(used_shop, run=used_shop.latest)
    return Followed(shop, json.loads(done.stdout), finished.document(), rows_of(used_shop), rows)


def test_nothing_is_timed_of_layers(followed: Followed) -> None:
    assert followed.rows == followed.rows_before
    assert followed.outcome["tuning"]["timed"] == 0 < followed.outcome["tuning"]["reused"]


def test_nothing_is_trained(followed: Followed, finished: Any) -> None:
    document = followed.shop.document()
    assert document["since"] == finished.latest.name
    assert [c["id"] for c in document["configs"]] == [c["id"] for c in followed.before["configs"]]
    for new, old in zip(document["configs"], followed.before["configs"], strict=True):
        assert new["taken_from"] == finished.latest.name
        assert os.path.samefile(followed.shop.latest / new["weights"], finished.latest / old["weights"])
        for key in ("accuracy", "validation_accuracy", "epochs", "accuracy_kind"):
            assert new[key] == old[key]
    [dense], [dense_before] = document["dense"]["trained"], followed.before["dense"]["trained"]
    assert dense == {**dense_before, "taken_from": finished.latest.name}
    events = (followed.shop.latest / "logs" / "events.jsonl").read_text()
    assert "stage: train" in events and "train configurations" not in events


def test_the_study_is_the_earlier_one(followed: Followed, finished: Any) -> None:
    name = "trials.csv"
    assert (followed.shop.latest / name).read_text() == (finished.latest / name).read_text()
    assert followed.shop.trials() == dataclasses.replace(followed.shop, run=finished.latest).trials()
    assert read_json(followed.shop.latest / "study" / "origin.json")["run"] == finished.latest.name


def test_whole_models_are_measured_anew(followed: Followed) -> None:
    document = followed.shop.document()
    assert document["dense"]["latency"] != followed.before["dense"]["latency"]
    for new, old in zip(document["configs"], followed.before["configs"], strict=True):
        assert new["latency_ci_ms"] != old["latency_ci_ms"]


def test_what_moved_is_told_and_written(followed: Followed, finished: Any) -> None:
    moved = FrontMove.from_json(followed.outcome["moved"])
    assert read_json(followed.shop.latest / "moved.json") == followed.outcome["moved"]
    assert (moved.older, moved.newer) == (finished.latest.name, followed.shop.latest.name)
    assert moved.is_comparable and moved.notes == ()
    assert {config.fate for config in moved.configs} == {"stayed"}
    assert all(config.latency and config.accuracy for config in moved.configs)
    assert all(config.accuracy and config.accuracy.change == 0 for config in moved.configs)
    wanted = any(config.latency and config.latency.is_disjoint for config in moved.configs)
    at = moved.at_accuracy
    assert moved.moved == (wanted or bool(at and at.moved))


def test_the_earlier_run_is_as_it_was(followed: Followed, finished: Any) -> None:
    assert finished.document() == followed.before
    assert not (finished.latest / "moved.json").exists()
    for config in followed.before["configs"]:
        result = load_result(finished.latest / "train" / config["id"])
        assert result is not None and result.taken_from == ""


def test_the_report_names_it(followed: Followed, finished: Any) -> None:
    page = (followed.shop.latest / "report.html").read_text()
    assert f"trained in {finished.latest.name}: " in page


@pytest.fixture
def changed_kernel(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Lets one kernel of the tuned rows have other sources."""
    name = min(row.key.kernel for row in followed.rows.values() if row.key.pattern != "dense")
    hashes = MappingProxyType({**cpu._source_hashes(), name: "other sources"})
    monkeypatch.setattr(cpu, "_source_hashes", lambda: hashes)
    kernel_hashes.cache_clear()
    yield name
    kernel_hashes.cache_clear()


def test_of_a_changed_kernel_only_its_rows_are_taken_again(
    followed: Followed, finished: Any, used_shop: Any, changed_kernel: str
) -> None:
    stale = {key for key in followed.rows if key.kernel == changed_kernel}
    database = tuning.TuningDatabase(f"sqlite:///{used_shop.home}/tuning.db")
    assert {row.key for row in database.stale()} == stale != set()
    done = used_shop.search("--dtype", "auto", "--since", "latest", "--fresh", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    rows = rows_of(used_shop)
    assert all(rows[key] == row for key, row in followed.rows.items()), "old rows stay"
    new = rows.keys() - followed.rows.keys()
    again = {key for key in new if key.kernel == changed_kernel}
    assert {key.kernel_hash for key in again} == {"other sources"} and len(again) <= len(stale) + 2
    # What it wins and loses now decides which others are worth a row; those had none before.
    assert outcome["tuning"]["timed"] == len(new) and outcome["tuning"]["reused"] > len(new)
    moved = FrontMove.from_json(outcome["moved"])
    assert moved.older == followed.shop.latest.name, "latest is the newest finished run"
    stayed = {config.id for config in moved.of_fate("stayed")}
    for config in outcome["configs"]:  # of what is still on the front nothing is trained again
        assert (config["taken_from"] == finished.latest.name) == (config["id"] in stayed)
    [dense] = outcome["dense"]["trained"]
    assert dense["taken_from"] == finished.latest.name


# --------------------------------------------------------------------------------- which trainings


def job(run: Path, plan: Plan = SPARSE, **changes: Any) -> TrainJob:
    values: dict[str, Any] = {
        "model": NET, "weights": None, "data": "digits", "resolution": 8, "plan": plan,
        "recipe": RECIPE, "threads": 1, "folder": str(run / "train" / plan.id),
    }  # fmt: skip
    return TrainJob(**{**values, **changes})


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    """A run with one configuration and the dense model, trained for an epoch."""
    run = tmp_path_factory.mktemp("older")
    with SerialPool() as pool:
        training.train_with_dense({SPARSE.id: job(run)}, run, pool, Progress())
    return opened(run)


def opened(run: Path) -> Earlier:
    values = {
        "schema": 1, "model": NET, "hardware_id": "h", "threads": 1, "batch_size": 1,
        "dtypes": ["f32"], "dense": {}, "configs": [],
    }  # fmt: skip
    form.write(run / form.FILE, values)
    state = {
        "schema": 1, "model": NET, "hardware_id": "h", "fingerprint": "f", "created_at": "",
        "updated_at": "", "status": "done",
    }  # fmt: skip
    write_json(run / "state.json", state)
    return Earlier.open(run)


def data_id(resolution: int = 8) -> str:
    return data.resolve("digits", resolution=resolution).id


def trained_again(
    older: Earlier, run: Path, again: TrainJob, monkeypatch: pytest.MonkeyPatch, images: str = ""
) -> list[str]:
    """Trains a job and its dense model since the older run; gives what was really trained."""
    told: list[str] = []
    real = training.train

    def train(one: TrainJob, progress: Progress) -> Any:
        if load_result(Path(one.folder)) is None:
            told.append(Path(one.folder).name)
        return real(one, progress)

    monkeypatch.setattr(training, "train", train)
    take = older.taking(images or data_id(), Progress())
    with SerialPool() as pool:
        training.train_with_dense({again.plan.id: again}, run, pool, Progress(), take=take)
    return told


def test_equal_trainings_are_taken(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained_again(older, tmp_path, job(tmp_path), monkeypatch) == []
    for folder in (tmp_path / "train").iterdir():
        mine, theirs = load_result(folder), load_result(older.path / "train" / folder.name)
        assert mine is not None and theirs is not None
        assert mine.taken_from == older.name and theirs.taken_from == ""
        assert dataclasses.replace(mine, taken_from="", weights=theirs.weights) == theirs
        assert {p.name for p in folder.iterdir()} == {
            "job.json", "metrics.jsonl", "result.json", "weights.safetensors",
        }  # fmt: skip


def test_a_training_is_of_the_run_that_it_was_done_in_however_often_it_was_taken(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_again(older, tmp_path / "b", job(tmp_path / "b"), monkeypatch)
    second = opened(tmp_path / "b")
    assert trained_again(second, tmp_path / "c", job(tmp_path / "c"), monkeypatch) == []
    result = load_result(tmp_path / "c" / "train" / SPARSE.id)
    assert result is not None and result.taken_from == older.name


def test_other_kernels_are_no_other_training(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(model=NET, layers={"3": dataclasses.replace(HALF, kernel="f32_two")})
    assert plan.id != SPARSE.id
    assert trained_again(older, tmp_path, job(tmp_path, plan), monkeypatch) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": dataclasses.replace(RECIPE, lr=0.01)},
        {"recipe": dataclasses.replace(RECIPE, seed=3)},
        {"seed": 1},
        {"model": NET.replace(":make", ":plain")},
    ],
    ids=["recipe", "seed of the recipe", "seed", "model"],
)
def test_what_decides_weights_has_everything_trained(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    choice = {"0": HALF} if "model" in changes else {"3": HALF}
    plan = Plan(model=changes.get("model", NET), layers=choice)
    again = job(tmp_path, plan, **changes)
    images = data.resolve("digits", resolution=8, seed=changes.get("seed", 0)).id
    told = trained_again(older, tmp_path, again, monkeypatch, images)
    assert len(told) == 2, "the configuration and the dense model"


def test_other_images_have_everything_trained(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(trained_again(older, tmp_path, job(tmp_path), monkeypatch, "other images")) == 2


def test_another_plan_is_trained_beside_the_dense_model_that_is_taken(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(model=NET, layers={"3": dataclasses.replace(HALF, sparsity=0.75)})
    assert trained_again(older, tmp_path, job(tmp_path, plan), monkeypatch) == [plan.id]


class TestDamaged:
    def copy(self, older: Earlier, tmp_path: Path) -> Path:
        for folder in (older.path / "train").iterdir():
            values = read_json(folder / "job.json")
            mine = TrainJob.from_json({k: v for k, v in values.items() if k not in IDS})
            take(folder, dataclasses.replace(mine, folder=str(tmp_path / "train" / folder.name)), "x")
        return tmp_path / "train" / SPARSE.id

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("result.json", "{"),
            ("result.json", "[]"),
            ("result.json", '{"accuracy": 1}'),
            ("job.json", "{"),
            ("job.json", "[1]"),
            ("job.json", '{"fingerprint": 3}'),
        ],
    )
    def test_what_cannot_be_read_is_passed_over(
        self, older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
    ) -> None:
        folder = self.copy(older, tmp_path / "a")
        (folder / name).write_text(content)
        found = opened(tmp_path / "a")
        again = job(tmp_path / "b")
        assert SPARSE.id in trained_again(found, tmp_path / "b", again, monkeypatch)

    def test_so_is_an_unfinished_one(self, older: Earlier, tmp_path: Path) -> None:
        folder = self.copy(older, tmp_path / "a")
        (folder / "weights.safetensors").unlink()
        assert folder not in finished_trainings(tmp_path / "a" / "train").values()
        with pytest.raises(RunError, match="must be finished"):
            take(folder, job(tmp_path / "b"), "x")
        assert not list((tmp_path / "b" / "train").iterdir()), "nothing is left of it"

    def test_a_run_without_trainings_has_none(self, tmp_path: Path) -> None:
        assert finished_trainings(tmp_path / "train") == {}


def test_a_training_of_an_earlier_version_says_nothing_of_its_images_and_is_not_taken(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TestDamaged().copy(older, tmp_path / "a")
    values = read_json(folder / "result.json")
    del values["data"]
    write_json(folder / "result.json", values)
    found = opened(tmp_path / "a")
    assert SPARSE.id in trained_again(found, tmp_path / "b", job(tmp_path / "b"), monkeypatch)


def test_what_was_begun_gives_way_to_what_is_finished(older: Earlier, tmp_path: Path) -> None:
    mine = job(tmp_path)
    write_text(Path(mine.folder) / "metrics.jsonl", "{}\n")
    write_text(Path(mine.folder) / "checkpoint-00000.pt", "half")
    take(older.path / "train" / SPARSE.id, mine, "x")
    assert not (Path(mine.folder) / "checkpoint-00000.pt").exists()


def test_a_file_system_without_links_is_copied_to(
    older: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    result = take(older.path / "train" / SPARSE.id, job(tmp_path), "x")
    theirs = older.path / "train" / SPARSE.id / "weights.safetensors"
    assert not os.path.samefile(result.weights, theirs)
    assert Path(result.weights).read_bytes() == theirs.read_bytes()


# -------------------------------------------------------------------------------------- which run


def config(root: Path, **settings: Any) -> SearchConfig:
    return SearchConfig(**{"model": "resnet20", "out": root / "results", "since": "latest", **settings})


def made(
    root: Path, minute: int, status: str = "done", hardware_id: str = "h", **settings: Any
) -> Path:
    """Makes a run of some settings, as `search` leaves it."""
    asked = config(root, **settings)
    with RunFolder.create(
        asked.out,
        model=asked.model,
        hardware_id=hardware_id,
        config_yaml=asked.to_yaml(),
        fingerprint=f"{asked.fingerprint()}-{hardware_id}",
    ) as run:
        opened(run.path)
        run.finish(status, 0)  # type: ignore[arg-type]
    path = run.path.rename(asked.out / f"20260101T00{minute:02}00Z-resnet20-h")
    return path


class TestLatest:
    def test_without_an_earlier_run_all_is_done_anew(self, tmp_path: Path) -> None:
        assert find_earlier(config(tmp_path), "h", Progress()) is None

    def test_it_is_the_newest_finished_one_of_these_settings_on_this_device(
        self, tmp_path: Path
    ) -> None:
        made(tmp_path, 1)
        wanted = made(tmp_path, 2, "infeasible")
        made(tmp_path, 3, "failed")
        made(tmp_path, 4, "stopped")
        made(tmp_path, 5, hardware_id="other")
        made(tmp_path, 6, seed=1)
        found = find_earlier(config(tmp_path), "h", Progress())
        assert found is not None and found.path == wanted

    def test_how_a_run_was_done_makes_no_other_settings(self, tmp_path: Path) -> None:
        wanted = made(tmp_path, 1, since=None, parallel=1, train_device="cpu")
        found = find_earlier(config(tmp_path, database="t.db"), "h", Progress())
        assert found is not None and found.path == wanted

    def test_files_may_have_changed_since(self, tmp_path: Path) -> None:
        recipe = tmp_path / "recipe.yaml"
        RECIPE.save(recipe)
        wanted = made(tmp_path, 1, recipe=str(recipe))
        before = config(tmp_path, recipe=str(recipe)).fingerprint()
        dataclasses.replace(RECIPE, lr=0.3).save(recipe)
        asked = config(tmp_path, recipe=str(recipe))
        found = find_earlier(asked, "h", Progress())
        assert found is not None and found.path == wanted and asked.fingerprint() != before

    @pytest.mark.parametrize("name", ["pareto.json", "config.yaml", "state.json"])
    def test_a_damaged_one_is_passed_over(self, tmp_path: Path, name: str) -> None:
        wanted = made(tmp_path, 1)
        (made(tmp_path, 2) / name).write_text("{")
        found = find_earlier(config(tmp_path), "h", Progress())
        assert found is not None and found.path == wanted


class TestNamed:
    @pytest.mark.parametrize("by", ["name", "path", "beginning"])
    def test_it_is_found(self, tmp_path: Path, by: str) -> None:
        wanted = made(tmp_path, 1, seed=4)
        since = {"name": wanted.name, "path": str(wanted), "beginning": wanted.name[:-2]}[by]
        found = find_earlier(config(tmp_path, since=since), "h", Progress())
        assert found is not None and found.path == wanted

    @pytest.mark.parametrize("status", ["failed", "stopped"])
    def test_an_unfinished_one_is_refused(self, tmp_path: Path, status: str) -> None:
        run = made(tmp_path, 1, status)
        with pytest.raises(RunError, match=f"must be a finished run, but .* is {status}"):
            find_earlier(config(tmp_path, since=run.name), "h", Progress())

    def test_one_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="but got 'never'"):
            find_earlier(config(tmp_path, since="never"), "h", Progress())

    def test_a_search_without_it_takes_over_from_none(self, tmp_path: Path) -> None:
        made(tmp_path, 1)
        assert find_earlier(config(tmp_path, since=None), "h", Progress()) is None


# ------------------------------------------------------------------------------------ which study


def row(layer: str, label: str, low: float, high: float, kernel: str = "k") -> dict[str, Any]:
    return {
        "layer": layer, "label": label, "dtype": "f32", "kernel": kernel, "median_us": (low + high) / 2,
        "ci_low_us": low, "ci_high_us": high,
    }  # fmt: skip


TABLE = [row("a", "dense", 9, 11), row("a", "1x8@0.5", 5, 6), row("b", "dense", 3, 4)]


class TestTables:
    def test_the_same_has_not_moved(self) -> None:
        assert rows_moved(TABLE, list(reversed(TABLE))) == ()

    def test_intervals_that_meet_have_not(self) -> None:
        assert rows_moved(TABLE, [row("a", "dense", 11, 12), *TABLE[1:]]) == ()

    @pytest.mark.parametrize(
        "other", [row("a", "dense", 11.1, 12), row("a", "dense", 7, 8.9), row("a", "dense", 9, 11, "l")]
    )
    def test_others_and_other_kernels_have(self, other: dict[str, Any]) -> None:
        assert rows_moved(TABLE, [other, *TABLE[1:]]) == ("a dense in f32",)

    def test_so_have_options_of_one_table_alone(self) -> None:
        assert rows_moved(TABLE, TABLE[1:]) == rows_moved(TABLE[1:], TABLE) == ("a dense in f32",)


class TestStudies:
    @pytest.fixture
    def older(self, tmp_path: Path) -> Earlier:
        path = made(tmp_path, 1)
        values = read_json(path / form.FILE)
        config = {
            "id": "c", "accuracy": 0.5, "accuracy_kind": "short", "sparsity": 0.5, "feasible": True,
            "plan": "configs/c.yaml",
        }  # fmt: skip
        (path / "configs").mkdir()
        Plan(model="resnet20").save(path / "configs" / "c.yaml")
        form.write(path / form.FILE, {**values, "configs": [config], "verdict": {"id": "c"}})
        write_rows_csv(path / "latency_table.csv", TABLE, list(TABLE[0]))
        append_jsonl(path / "study" / "evaluations.jsonl", {"key": "e", "plan": "c", "accuracy": {}})
        (path / "study" / "study.journal").write_text("journal")
        (path / "study" / "study.lock").write_text("")
        (path / "study" / "plans").mkdir()
        return Earlier.open(path)

    def newer(self, tmp_path: Path, older: Earlier, table: list[dict[str, Any]] | None = None) -> Any:
        asked = config(tmp_path)
        run = RunFolder.create(
            asked.out, model="resnet20", hardware_id="h", config_yaml=asked.to_yaml(),
            fingerprint=older.state.fingerprint,
        )  # fmt: skip
        write_rows_csv(run.path / "latency_table.csv", table or TABLE, list(TABLE[0]))
        return run

    def test_a_study_that_would_find_the_same_is_taken(self, tmp_path: Path, older: Earlier) -> None:
        with self.newer(tmp_path, older) as run:
            folder = study_folder(older, run, config(tmp_path), "e", Progress())
            assert {p.name for p in folder.iterdir()} == {
                "evaluations.jsonl", "study.journal", "plans", "origin.json",
            }  # fmt: skip
            assert module.study_name(folder) == older.name == module.study_of(folder)
            assert study_folder(older, run, config(tmp_path), "other by now", Progress()) == folder
            taken = dataclasses.replace(older, path=run.path)
            with self.newer(tmp_path, older) as third:
                folder = study_folder(taken, third, config(tmp_path), "e", Progress())
                assert module.study_name(folder) == older.name, "a study keeps its name"
                assert module.study_of(folder) == run.name

    def why(self, tmp_path: Path, older: Earlier, run: Any, key: str = "e", **settings: Any) -> str:
        asked = config(tmp_path, **settings)
        table = run.path / "latency_table.csv"
        return older.why_not_its_study(asked, run.state.fingerprint, table, key)

    def test_others_are_not(self, tmp_path: Path, older: Earlier) -> None:
        with self.newer(tmp_path, older) as run:
            assert self.why(tmp_path, older, run) == ""
            assert "data" in self.why(tmp_path, older, run, key="other")
            assert "its folder" in self.why(tmp_path, older, run, storage=f"sqlite:///{tmp_path}/s.db")
            other = dataclasses.replace(older.state, fingerprint="other")
            assert "settings" in self.why(tmp_path, dataclasses.replace(older, state=other), run)
            none = older.document.model_copy(update={"verdict": form.Verdict()})
            without = dataclasses.replace(older, document=none)
            assert "to deploy" in self.why(tmp_path, without, run)
            (older.path / "latency_table.csv").write_text("layer\n")
            assert "cannot be read" in self.why(tmp_path, older, run)
            (older.path / "study" / "study.journal").unlink()
            assert "its folder" in self.why(tmp_path, older, run)

    def test_nor_after_a_layer_moved_but_its_evaluations_are(
        self, tmp_path: Path, older: Earlier
    ) -> None:
        with self.newer(tmp_path, older, [row("a", "dense", 1, 2), *TABLE[1:]]) as run:
            assert "moved: a dense in f32" in self.why(tmp_path, older, run)
            folder = study_folder(older, run, config(tmp_path), "e", Progress())
            assert [p.name for p in folder.iterdir()] == ["evaluations.jsonl"]
            assert module.study_name(folder) is None is module.study_of(folder)

    def test_a_study_under_way_goes_on(self, tmp_path: Path, older: Earlier) -> None:
        with self.newer(tmp_path, older) as run:
            own = run.folder("study") / "study.journal"
            own.write_text("mine")
            assert study_folder(older, run, config(tmp_path), "e", Progress()) == own.parent
            assert own.read_text() == "mine"

    def test_without_an_earlier_run_it_is_empty(self, tmp_path: Path, older: Earlier) -> None:
        with self.newer(tmp_path, older) as run:
            assert list(study_folder(None, run, config(tmp_path), "e", Progress()).iterdir()) == []


def test_a_column_of_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = [row("a", "dense", 1 / 3, 2 / 3)]
    write_rows_csv(tmp_path / "t.csv", table, list(table[0]))
    with (tmp_path / "t.csv").open() as file:
        assert rows_moved(list(csv.DictReader(file)), table) == ()
