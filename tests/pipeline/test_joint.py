"""Fronts over several hosts: the slowest one, the weighted mean, and what cannot run everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosparse import config as config_module
from autosparse.config import SearchConfig, resolve, validate
from autosparse.errors import ConfigError, ExitCode
from autosparse.pipeline.results.joint import JointConfig, JointOutcome, joint_outcome
from autosparse.pipeline.subject.opening import command
from autosparse.pipeline.subject.survey import survey
from autosparse.progress import Progress
from autosparse.records import WholeLatency

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def took(ms: float) -> WholeLatency:
    return WholeLatency(
        median_ms=ms, ci_low_ms=ms, ci_high_ms=ms, repeats=9, threads=1, batch_size=1, dtype="f32"
    )


def config(name: str, accuracy: float, *ms: float) -> JointConfig:
    return JointConfig(
        id=name, runs=("r",), plan=f"r/{name}.yaml", weights=None, dtype="f32", sparsity=0.5,
        accuracy=accuracy, accuracy_kind="short", accuracy_split="test",
        latencies=dict(zip((A, B), map(took, ms), strict=False)),
        why_not={} if len(ms) == 2 else {B: "no such kernels"},
    )  # fmt: skip


CONFIGS = (
    config("even", 0.8, 3.0, 3.0),
    config("quick-a", 0.8, 1.0, 4.0),
    config("best", 0.9, 5.0, 5.0),
    config("bad", 0.7, 6.0, 6.0),
    config("half", 0.99, 0.5),
)


def outcome(budget_ms: float | None = None, **weights: float) -> JointOutcome:
    return joint_outcome(
        CONFIGS,
        runs={A: "run-a", B: "run-b"},
        weights={A: 1.0, B: 1.0} | weights,
        budget_ms=budget_ms,
        dense={A: took(7.0), B: took(8.0)},
        disturbed={},
        file="results/joint/x.json",
    )


def test_each_front_is_of_its_own_latency() -> None:
    found = outcome()
    assert found.front_worst == ("even", "best")
    assert found.front_mean == ("quick-a", "best")  # 2.5 ms against 3 ms
    assert outcome(**{B: 9.0}).front_mean == ("even", "best")  # 3.7 ms against 3 ms
    assert [each.id for each in found.configs] == ["even", "quick-a", "best", "bad"]


def test_a_budget_is_to_be_met_on_every_host() -> None:
    found = outcome(4.0)
    assert (found.front_worst, found.front_mean) == (("even",), ("quick-a",))
    assert found.exit_code is ExitCode.DONE
    none = outcome(2.0)
    assert (none.front_worst, none.front_mean) == ((), ())
    assert none.exit_code is ExitCode.INFEASIBLE
    assert "no configuration takes at most 2 ms on every host" in none.text()


def test_what_cannot_run_everywhere_is_left_out_and_told() -> None:
    found = outcome()
    assert [each.id for each in found.skipped] == ["half"]
    assert f"half is left out: {B}: no such kernels" in found.text()
    values = json.loads(json.dumps(found.to_json()))
    quick = next(row for row in values["configs"] if row["id"] == "quick-a")
    assert (quick["worst_ms"], quick["worst_on"], quick["mean_ms"]) == (4.0, B, 2.5)
    assert values["exit_code"] == 0


# -------------------------------------------------------------------------------------- its settings


def test_hosts_are_words_from_everywhere_and_define_no_run(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"model: resnet20\naddress: auto\nhosts: [{A}, {B}]\nhost_weights: {A}=2\n")
    read = resolve({}, {}, file)
    assert (read.hosts, read.weights_of_hosts()) == ((A, B), {A: 2.0})
    again = resolve({"hosts": [f"{A},{B}"]}, {"AUTOSPARSE_HOST_WEIGHTS": f"{A}=2"}, file)
    assert again == read
    assert SearchConfig.from_yaml(file).fingerprint() == SearchConfig(model="resnet20").fingerprint()
    assert f"--hosts {A} --hosts {B} --host-weights {A}=2" in command(read)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hosts": "all"}, "add --address"),
        ({"hosts": A}, "add --address"),
        ({"hosts": "x", "address": "auto"}, "12 hexadecimal digits"),
        ({"hosts": f"all,{A}", "address": "auto"}, "12 hexadecimal digits"),
        ({"hosts": "all", "host": "node:x", "address": "auto"}, "one host or for several"),
        ({"host_weights": f"{A}=1"}, "add --hosts"),
        ({"hosts": "all", "address": "auto", "host_weights": A}, "ID=WEIGHT"),
        ({"hosts": "all", "address": "auto", "host_weights": f"{A}=0"}, "ID=WEIGHT"),
        ({"hosts": "all", "address": "auto", "host_weights": f"{A}=nan"}, "ID=WEIGHT"),
        ({"hosts": "all", "address": "auto", "host_weights": f"{A}=inf"}, "ID=WEIGHT"),
        ({"hosts": "all", "address": "auto", "host_weights": "=2"}, "ID=WEIGHT"),
    ],
)
def test_hosts_that_cannot_be_meant_are_refused(settings: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(SearchConfig(model="resnet20", out=tmp_path / "r", **settings))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("where", [{"host": "node:x"}, {"hosts": A}, {}])
def test_what_nodes_can_do_is_not_judged_by_this_machine(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "check_address", lambda address: None)
    asked = SearchConfig(model="resnet20", threads=4096, address="auto", out=tmp_path / "r", **where)
    if where:
        validate(asked)
    else:
        with pytest.raises(ConfigError, match="threads must be at most"):
            validate(asked)


def test_what_is_of_one_host_refuses_several() -> None:
    with pytest.raises(ConfigError, match=r"one host at a time.*write --host hardware:ID"):
        survey(SearchConfig(model="resnet20", hosts=A, address="auto"), Progress())
