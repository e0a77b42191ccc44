"""Settings: precedence, rules, nearest names, round trip, fingerprint."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from autosparse.config import SearchConfig, flag, resolve, variable
from autosparse.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def message_of(
    flags: dict[str, Any], environ: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve({"model": "resnet18"} | flags, environ or {}, file)
    return str(caught.value)


@pytest.mark.smoke
def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "model: resnet18\nseed: 1\ntop_k: 11\nbatch_size: 21\n")
    environ = {"AUTOSPARSE_SEED": "2", "AUTOSPARSE_TOP_K": "12", "PATH": "/bin"}
    config = resolve({"seed": "3", "trials": None, "include": []}, environ, file)
    assert (config.seed, config.top_k, config.batch_size, config.train) == (3, 12, 21, "short")
    assert config.model == "resnet18"


@pytest.mark.smoke
def test_values_are_read_as_typed() -> None:
    config = resolve(
        {
            "model": "resnet18",
            "latency_budget": "800us",
            "time_budget": "2h",
            "input_shape": "3x96x160",
            "threads": "2",
            "include": ["layer1.*", "layer2.*"],
            "exclude": "fc, conv1",
            "weights": "~/w.pt",
        },
        {},
    )
    assert config.latency_budget == pytest.approx(800.0)
    assert config.time_budget == pytest.approx(7.2e9)
    assert config.input_shape == (3, 96, 160)
    assert config.threads == 2
    assert (config.include, config.exclude) == (("layer1.*", "layer2.*"), ("fc", "conv1"))
    assert config.weights == Path.home() / "w.pt"


def test_files_are_absolute_whoever_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    relative = {
        "model": "nets/net.py:build",
        "weights": "w.pt",
        "data": "my_data.py:load",
        "space": "space.yaml",
        "database": "t.db",
        "storage": "sqlite:///study.db",
    }
    absolute = {
        "model": f"{tmp_path}/nets/net.py:build",
        "weights": f"{tmp_path}/w.pt",
        "data": f"{tmp_path}/my_data.py:load",
        "space": f"{tmp_path}/space.yaml",
        "database": f"{tmp_path}/t.db",
        "storage": f"sqlite:///{tmp_path}/study.db",
    }
    file = write(tmp_path / "c.yaml", yaml.safe_dump(relative))
    for config in (resolve(relative, {}), SearchConfig(**relative), SearchConfig.from_yaml(file)):
        plain = config.to_plain()
        assert {key: plain[key] for key in absolute} == absolute
    for key, given, read in (
        ("data", "cifar10:sets/c", f"cifar10:{tmp_path}/sets/c"),
        ("data", "digits", "digits"),
        ("model", "torchvision:resnet18", "torchvision:resnet18"),
        ("model", "hf:local", f"hf:{tmp_path}/local"),
        ("model", "hf:org/name", "hf:org/name"),
        ("space", "cpu", "cpu"),
        ("space", "spaces/mine", f"{tmp_path}/spaces/mine"),
        ("database", "sqlite:///t.db", f"sqlite:///{tmp_path}/t.db"),
        ("database", "sqlite:////abs/t.db", "sqlite:////abs/t.db"),
        ("database", "postgresql://host/x", "postgresql://host/x"),
        ("storage", "sqlite:///:memory:", "sqlite:///:memory:"),
    ):
        assert resolve({"model": "resnet18", key: given}, {}).to_plain()[key] == read


def test_a_switch_is_set_anywhere_and_undone_by_what_comes_later(tmp_path: Path) -> None:
    variable = "AUTOSPARSE_COMPACT_WEIGHTS"
    assert resolve({"model": "m"}, {}).compact_weights is False
    for word, read in (("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)):
        assert resolve({"model": "m"}, {variable: word}).compact_weights is read
    assert resolve({"model": "m", "compact_weights": False}, {variable: "1"}).compact_weights is False
    file = write(tmp_path / "c.yaml", "model: m\ncompact_weights: yes\n")
    config = resolve({"compact_weights": None}, {}, file)
    assert config.compact_weights is True
    assert SearchConfig.from_yaml(write(tmp_path / "again.yaml", config.to_yaml())) == config
    assert resolve({}, {variable: "false"}, file).compact_weights is False


def test_where_a_run_takes_things_from_does_not_define_it(tmp_path: Path) -> None:
    plain = resolve({"model": "resnet18"}, {})
    for since in ("latest", "20260101T000000Z-resnet18-h", f"{tmp_path}/runs/a"):
        config = resolve({"model": "resnet18"}, {"AUTOSPARSE_SINCE": since})
        assert config.since == since
        assert config.fingerprint() == plain.fingerprint()
        assert config.family() == plain.family()
    file = write(tmp_path / "c.yaml", "model: resnet18\nsince: latest\n")
    assert resolve({"since": "none"}, {}, file).since is None
    assert SearchConfig.from_yaml(file).since == "latest"


def test_a_folder_to_take_over_from_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve({"model": "resnet18", "since": "runs/a"}, {}).since == f"{tmp_path}/runs/a"
    assert resolve({"model": "resnet18", "since": "a"}, {}).since == "a"


def test_a_family_is_of_settings_whatever_their_files_hold(tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.yaml", "kind: short\n")
    before = resolve({"model": "resnet18", "recipe": str(recipe)}, {})
    names = before.family(), before.fingerprint()
    recipe.write_text("kind: full\n")
    assert before.family() == names[0] and before.fingerprint() != names[1]
    assert resolve({"model": "resnet18", "seed": "1"}, {}).family() != names[0]


def test_none_on_the_command_line_undoes_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "latency_budget: 5ms\ntrain: full\n")
    config = resolve({"model": "resnet18", "latency_budget": "none", "train": "none"}, {}, file)
    assert config.latency_budget is None
    assert config.train == "none"


@pytest.mark.parametrize(
    ("key", "value", "rule", "advice"),
    [
        ("latency_budget", "5", "no unit", "write 5ms"),
        ("latency_budget", "5 parsecs", "unit 'parsecs'", "write 5ms"),
        ("latency_budget", "0ms", "greater than zero", "write 5ms"),
        ("latency_budget", "-5ms", "number with a unit", "write 5ms"),
        ("time_budget", "soon", "number with a unit", "write 2h"),
        ("input_shape", "224", "channels, height and width", "3x224x224"),
        ("input_shape", "1,3,224,224", "channels, height and width", "batch-size"),
        ("input_shape", "3,0,224", "each at least 1", "3x224x224"),
        ("threads", "0", "'auto' or a whole number from 1", "'0'"),
        ("threads", "many", "'auto' or a whole number from 1", "'many'"),
        ("trials", "0", "whole number from 1", "'0'"),
        ("batch_size", "1.5", "whole number from 1", "'1.5'"),
        ("seed", "-1", "whole number from 0", "'-1'"),
        ("data_resolution", "4", "from 8 on", "'4'"),
        ("dtype", "fp16", "must be f32 or bf16 or f16 or auto", "it is named f16"),
        ("dtype", "f99", "must be f32 or bf16 or f16 or auto", "'f99'"),
        ("device", "gpu", "auto or cpu or cuda", "GPUs are named cuda"),
        ("train", "long", "none or short or full", "'long'"),
        ("study_name", " ", "must be text", "' '"),
        ("compact_weights", "maybe", "must be true or false", "'maybe'"),
    ],
)
def test_broken_rules_name_rule_flag_and_value(key: str, value: str, rule: str, advice: str) -> None:
    text = message_of({key: value})
    assert text.startswith(flag(key))
    assert rule in text
    assert advice in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("latency_budget: 5", "latency_budget must be a number with a unit, but got 5; write 5ms"),
        ("trials: true", "whole number"),
        ("input_shape: [3, 224]", "channels, height and width"),
        ("include: 3", "patterns of layer names"),
        ("weights: 3", "must be a path"),
        ("compact_weights: 2", "must be true or false, but got 2"),
        ("compact_weights: [true]", "must be true or false"),
        ("model: 3", "must be text"),
    ],
)
def test_file_values_are_checked_like_flags(tmp_path: Path, text: str, part: str) -> None:
    file = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        resolve({} if "model" in text else {"model": "resnet18"}, {}, file)
    assert part in str(caught.value)
    assert str(file) in str(caught.value)


def test_bad_environment_value_names_the_variable() -> None:
    assert message_of({}, {"AUTOSPARSE_LATENCY_BUDGET": "5"}).startswith(
        "AUTOSPARSE_LATENCY_BUDGET must"
    )


def test_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    text = message_of({}, file=write(tmp_path / "c.yaml", "latency_bugdet: 5ms\n"))
    assert "latency_bugdet" in text
    assert "did you mean latency_budget?" in text


def test_unknown_variable_names_the_nearest() -> None:
    text = message_of({}, {"AUTOSPARSE_TRAILS": "3"})
    assert "did you mean AUTOSPARSE_TRIALS?" in text


def test_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean latency_budget"):
        SearchConfig(model="resnet18", latency_buget="5ms")


def test_variables_that_are_no_keys_are_left_alone() -> None:
    environ = {"AUTOSPARSE_HOME": "/x", "AUTOSPARSE_DATA": "/y", "AUTOSPARSE_LOG": "debug"}
    assert resolve({"model": "resnet18"}, environ).data == "digits"
    assert variable("data") == "AUTOSPARSE_DATASET"
    assert resolve({"model": "resnet18"}, {"AUTOSPARSE_DATASET": "cifar10:/d"}).data == "cifar10:/d"


def test_empty_variable_counts_as_unset() -> None:
    assert resolve({"model": "resnet18"}, {"AUTOSPARSE_SEED": ""}).seed == 0


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "nothing"), ("- a\n", "list"), ("a: [", "readable YAML"), ("\x00", "readable YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, part: str) -> None:
    assert part in message_of({}, file=write(tmp_path / "c.yaml", text))


def test_missing_file_and_missing_model_are_refused(tmp_path: Path) -> None:
    assert "No such file" in message_of({}, file=tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="--model resnet18"):
        resolve({}, {})


def test_yaml_reads_back_to_an_equal_config(tmp_path: Path) -> None:
    config = resolve(
        {
            "model": "resnet18",
            "latency_budget": "1.2345ms",
            "time_budget": "90s",
            "input_shape": "3x224x224",
            "exclude": ["fc"],
            "weights": "/w.pt",
            "threads": "2",
        },
        {},
    )
    file = write(tmp_path / "c.yaml", config.to_yaml())
    assert SearchConfig.from_yaml(file) == config
    assert resolve({}, {}, file) == config
    assert yaml.safe_load(config.to_yaml())["time_budget"] == "90s"


@pytest.mark.parametrize(
    "text", ["5ms", "1us", "0.3us", "1.1ms", "33.333333333333336ms", "7h", "1e9s", "0.1s"]
)
def test_durations_survive_the_round_trip_exactly(text: str, tmp_path: Path) -> None:
    config = SearchConfig(model="m", latency_budget=text)
    assert SearchConfig.from_yaml(write(tmp_path / "c.yaml", config.to_yaml())) == config


def test_config_is_frozen_and_travels() -> None:
    config = SearchConfig(model="resnet18", latency_budget="5ms")
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.smoke
def test_fingerprint_follows_what_defines_the_run(tmp_path: Path) -> None:
    base = SearchConfig(model="resnet18", latency_budget="5ms")
    same = SearchConfig(
        model="resnet18",
        latency_budget="5000us",
        out=tmp_path,
        parallel=1,
        address="auto",
        host="10.0.0.7",
        database="d",
    )
    assert same.fingerprint() == base.fingerprint()
    for change in (
        {"seed": 1},
        {"latency_budget": "6ms"},
        {"trials": 9},
        {"data": "x"},
        {"exclude": "fc"},
        {"compact_weights": True},
    ):
        given = {"model": "resnet18", "latency_budget": "5ms"} | change
        assert SearchConfig(**given).fingerprint() != base.fingerprint()


def test_fingerprint_follows_the_content_of_files(tmp_path: Path) -> None:
    weights = write(tmp_path / "w.pt", "one")
    script = write(tmp_path / "m.py", "def make(): ...")
    config = SearchConfig(model=f"{script}:make", weights=str(weights))
    before = config.fingerprint()
    weights.write_text("two")
    between = config.fingerprint()
    script.write_text("def make(): return 1")
    assert len({before, between, config.fingerprint()}) == 3
