"""What jobs may ask for, which files they may name, and the command lines that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autosparse.config import SearchConfig
from autosparse.errors import AutosparseError, ConfigError
from autosparse.jobs.roots import Roots
from autosparse.jobs.verbs import VERBS, Place, verb_named
from autosparse.run_folders import RunFolder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("results", "data", "outside"):
        (tmp_path / name).mkdir()
    roots = Roots(folders={"results": tmp_path / "results", "data": tmp_path / "data"})
    return Place(results=tmp_path / "results", database=str(tmp_path / "t.db"), roots=roots)


def settled(place: Place, verb: str = "search", **settings: Any) -> dict[str, Any]:
    return verb_named(verb).settle({"model": "resnet20", **settings}, place)


def with_code(place: Place) -> Place:
    roots = Roots(folders=place.roots.folders, allow_code=True)
    return Place(results=place.results, database=place.database, roots=roots)


def a_run(place: Place) -> str:
    with RunFolder.create(
        place.results, model="m", hardware_id="0" * 12, config_yaml="", fingerprint="f"
    ) as run:
        return run.name


class TestSettings:
    def test_only_what_was_asked_is_stored_and_as_it_would_be_typed(self, place: Place) -> None:
        found = settled(place, latency_budget="5ms", include=["layer1*"], trials=3, top_k="2")
        assert found == {
            "model": "resnet20",
            "latency_budget": "5ms",
            "include": ["layer1*"],
            "trials": 3,
            "top_k": 2,
        }

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"modle": "x"}, "did you mean model"),
            ({"model": "nosuch"}, "known name"),
            ({"latency_budget": 5}, "number with a unit"),
            ({"latency_budget": "0ms"}, "latency_budget"),
            ({"threads": 100_000}, "at most"),
            ({"trials": 0}, "trials"),
            ({"data": "mnist"}, "data"),
            ({"host": "node:x"}, "no cluster is joined"),
            ({"include": 5}, "include"),
            ({"model": ["resnet20"]}, "model"),
        ],
    )
    def test_what_the_command_line_refuses_is_refused(
        self, place: Place, settings: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(AutosparseError, match=said):
            settled(place, **settings)

    @pytest.mark.parametrize("key", ["out", "database", "storage", "study_name", "address"])
    def test_what_the_daemon_decides(self, place: Place, key: str) -> None:
        with pytest.raises(ConfigError, match="the daemon's to decide"):
            settled(place, **{key: "x"})

    def test_a_verb_of_no_job(self) -> None:
        with pytest.raises(ConfigError, match="did you mean search"):
            verb_named("serach")


class TestFiles:
    def test_below_a_root_by_name_or_path(self, place: Place, tmp_path: Path) -> None:
        space = tmp_path / "data" / "my.yaml"
        space.write_text((Path(__file__).parents[2] / "search_spaces" / "cpu.yaml").read_text())
        for named in ("data/my.yaml", str(space), "data/../data/my.yaml"):
            assert settled(place, space=named)["space"] == str(space)

    @pytest.mark.parametrize(
        "named",
        [
            "/etc/passwd",
            "data/../outside/w.pth",
            "../outside/w.pth",
            "data/../../../../etc/passwd",
            "nosuchroot/w.pth",
            "~/w.pth",
            "data/\0w.pth",
            "data/" + "x" * 5000,
            "dat a/w.pth",
        ],
    )
    @pytest.mark.parametrize("key", ["weights", "data"])
    def test_anywhere_else_is_refused(self, place: Place, key: str, named: str) -> None:
        value = f"cifar10:{named}" if key == "data" else named
        with pytest.raises(AutosparseError, match="must"):
            settled(place, **{key: value})

    def test_a_link_inside_that_leads_outside(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "outside" / "s.yaml").write_text("a: 1")
        (tmp_path / "data" / "s.yaml").symlink_to(tmp_path / "outside" / "s.yaml")
        with pytest.raises(ConfigError, match="must lie in a folder that jobs may read"):
            settled(place, space="data/s.yaml")

    @pytest.mark.parametrize("model", ["hf:/etc", "hf:./x", "hf:~/x"])
    def test_a_folder_as_a_model_of_a_library(self, place: Place, model: str) -> None:
        with pytest.raises(AutosparseError):
            settled(place, model=model)

    def test_names_that_are_no_files_stay(self, place: Place) -> None:
        found = settled(place, space="cpu", data="digits", recipe="short")
        assert (found["space"], found["data"], found["recipe"]) == ("cpu", "digits", "short")


class TestCode:
    @pytest.fixture(autouse=True)
    def net(self, tmp_path: Path, place: Place) -> None:
        (tmp_path / "data" / "net.py").write_text("raise SystemExit('it ran')\ndef build(): ...\n")

    @pytest.mark.parametrize(
        "settings",
        [
            {"model": "data/net.py:build"},
            {"model": "net.py"},
            {"data": "data/net.py:build"},
            {"model": "/no/such.py:f"},
        ],
    )
    def test_a_factory_is_refused(self, place: Place, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="--allow-code"):
            settled(place, **settings)

    def test_a_loss_in_a_recipe_is_code_too(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "data" / "r.yaml").write_text("loss: data/net.py:build\n")
        with pytest.raises(ConfigError, match=r"loss of recipe.*--allow-code"):
            settled(place, recipe="data/r.yaml")
        name = a_run(place)
        for change in ("loss=x.py:f", " loss = x.py:f"):
            with pytest.raises(ConfigError, match="--allow-code"):
                verb_named("train").settle({"run": name, "set": [change]}, place)

    def test_allowed_it_must_still_lie_below_a_root(self, place: Place, tmp_path: Path) -> None:
        allowed = with_code(place)
        found = settled(allowed, model="data/net.py:build")
        assert found["model"] == f"{tmp_path / 'data' / 'net.py'}:build"
        (tmp_path / "outside" / "net.py").write_text("def build(): ...\n")
        with pytest.raises(ConfigError, match="must lie in a folder"):
            settled(allowed, model=f"{tmp_path / 'outside' / 'net.py'}:build")


class TestCommandLines:
    def test_a_search_reads_a_file_that_is_a_config(self, place: Place, tmp_path: Path) -> None:
        folder = tmp_path / "results" / "jobs" / "1"
        folder.mkdir(parents=True)
        settings = settled(place, latency_budget="5ms", since="latest")
        words = VERBS["search"].command(settings, folder, place)
        assert words == ["search", "--config", str(folder / "config.yaml"), "--json"]
        config = SearchConfig.from_yaml(folder / "config.yaml")
        assert (config.latency_budget, config.out, config.since) == (5000.0, place.results, "latest")
        assert config.database == place.database and config.address is None
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"] == "resnet20"

    def test_a_training_takes_flags(self, place: Place, tmp_path: Path) -> None:
        name = a_run(place)
        asked = {"run": name[:16], "pick": ["knee", "fastest"], "set": "lr=0.1", "share_training": True}
        settings = verb_named("train").settle(asked, place)
        assert VERBS["train"].command(settings, tmp_path, place) == [
            *("train", name, "--out", str(place.results), "--json"),
            *("--pick", "knee", "--pick", "fastest", "--set", "lr=0.1", "--share-training"),
        ]

    @pytest.mark.parametrize("run", ["/etc", "../outside", "nosuch", "", "jobs"])
    def test_a_run_is_one_of_the_daemons(self, place: Place, tmp_path: Path, run: str) -> None:
        a_run(place)
        with RunFolder.create(
            tmp_path / "outside", model="m", hardware_id="0" * 12, config_yaml="", fingerprint="f"
        ) as other:
            pass
        for named in (run, str(other.path)):
            with pytest.raises(AutosparseError, match="run"):
                verb_named("train").settle({"run": named}, place)
            with pytest.raises(AutosparseError):
                settled(place, since=named or "nosuch")


def test_every_verb_can_be_named() -> None:
    assert set(VERBS) >= {"search", "tune", "train"}
    assert all(verb_named(name).name == name for name in VERBS)
