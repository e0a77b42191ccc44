"""The verbs: what they print, what they call, and that help answers without heavy libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import autosparse
from autosparse import hardware
from autosparse.cli import options, run
from autosparse.cli.app import command
from autosparse.config import SearchConfig, flag
from autosparse.measuring import checkup
from autosparse.pipeline.subject.arrangement import Arrangement
from autosparse.records import HardwareProfile
from autosparse.run_folders import RunFolder

HEAVY = (
    "torch",
    "ray",
    "optuna",
    "pandas",
    "scipy",
    "plotly",
    "sklearn",
    "sqlalchemy",
    "numpy",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded_after(*arguments: str) -> tuple[str, list[str]]:
    code = (
        "import sys; from autosparse.cli import run;"
        f"code = run({list(arguments)!r}); print(code, file=sys.stderr);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_line, modules = done.stderr.strip().splitlines()
    assert code_line == "0"
    return done.stdout, list(eval(modules))


@pytest.mark.parametrize(
    "verb", ["", "search", "tune", "train", "bench", "profile", "runs", "db", "completion"]
)
def test_help_loads_nothing_heavy(verb: str) -> None:
    text, modules = loaded_after(*verb.split(), "--help")
    assert "Usage: autosparse" in text
    assert modules == []


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"autosparse {autosparse.__version__}\n"


@pytest.mark.smoke
def test_every_setting_is_a_flag_of_search_and_every_flag_of_tune_one_of_them() -> None:
    verbs = command().commands
    of_search = {name for option in verbs["search"].params for name in option.opts}
    assert {flag(key) for key in SearchConfig.model_fields} <= of_search
    of_tune = {name for option in verbs["tune"].params for name in option.opts if name.startswith("--")}
    assert of_tune <= of_search


def test_every_verb_says_what_it_does() -> None:
    def leaves(group: Any) -> list[Any]:
        return [
            leaf
            for each in group.commands.values()
            for leaf in (leaves(each) if hasattr(each, "commands") else [each])
        ]

    for leaf in leaves(command()):
        assert leaf.help and leaf.help.endswith("."), leaf.name
        for option in leaf.params:
            assert option.help or option.name == "help", (leaf.name, option.name)


def fake_pipeline(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    monkeypatch.setattr(autosparse, "pipeline", SimpleNamespace(**functions), raising=False)


class Outcome:
    def to_json(self) -> dict[str, Any]:
        return {"a": 1}

    def text(self) -> str:
        return "as text"


@pytest.mark.smoke
def test_dry_run_prints_the_forecast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pipeline(monkeypatch, forecast=lambda config, progress: Outcome())
    assert run(["search", "-m", "resnet18", "--dry-run"]) == 0
    assert capsys.readouterr().out == "as text\n"
    assert run(["search", "-m", "resnet18", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_tune_passes_its_time_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def tune(config: SearchConfig, *, time_budget_us: float | None, progress: Any) -> Outcome:
        seen.update(model=config.model, time_budget_us=time_budget_us)
        return Outcome()

    fake_pipeline(monkeypatch, tune=tune)
    assert run(["tune", "--model", "resnet50", "--time-budget", "20m"]) == 0
    assert seen == {"model": "resnet50", "time_budget_us": 20 * 60e6}


def make_run(root: Path, model: str = "resnet18") -> Path:
    with RunFolder.create(
        root, model=model, hardware_id="a" * 12, config_yaml="", fingerprint=model
    ) as folder:
        return folder.path


def test_train_finds_the_run_and_passes_its_picks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def train(run: Path, pick: tuple[str, ...], **rest: Any) -> Outcome:
        seen.update(run=run, pick=pick, kind=rest["kind"], epochs=rest["epochs"])
        seen.update(recipe=rest["recipe"], change=rest["change"])
        seen.update(arrangement=rest["arrangement"])
        return Outcome()

    fake_pipeline(monkeypatch, train=train, Arrangement=Arrangement)
    folder = make_run(tmp_path / "results")
    assert run(["train"]) == 0
    usual = {"recipe": None, "change": (), "arrangement": Arrangement()}
    assert seen == {"run": folder.resolve(), "pick": ("knee",), "kind": "full", "epochs": None, **usual}
    line = [
        "train",
        folder.name,
        "--pick",
        "fastest",
        "--pick",
        "ab12",
        "--kind",
        "short",
        "--epochs",
        "3",
        "--recipe",
        "mine.yaml",
        "--set",
        "lr=0.1",
        "--set",
        "settings.tau=0.2",
        "--train-device",
        "cuda",
        "--train-workers",
        "2",
        "--share-training",
        "--share-reach",
        "0.125",
    ]
    assert run(line) == 0
    told = {
        "recipe": "mine.yaml",
        "change": ("lr=0.1", "settings.tau=0.2"),
        "arrangement": Arrangement(device="cuda", workers=2, share_reach=0.125),
    }
    picked = ("fastest", "ab12")
    assert seen == {"run": folder.resolve(), "pick": picked, "kind": "short", "epochs": 3, **told}


def test_runs_are_listed_shown_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["runs", "list"]) == 0
    assert "no runs" in capsys.readouterr().out
    folder = make_run(tmp_path / "elsewhere")
    assert run(["runs", "list", "--out", "elsewhere", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["name"], row["model"]) == (folder.name, "resnet18")
    monkeypatch.setenv("AUTOSPARSE_OUT", "elsewhere")
    assert run(["runs", "list"]) == 0
    assert folder.name in capsys.readouterr().out
    assert run(["runs", "show"]) == 0
    assert "resnet18" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert run(["runs", "rm", folder.name]) == 2
    assert folder.exists()
    assert "--yes" in capsys.readouterr().err
    assert run(["runs", "rm", folder.name, "--yes"]) == 0
    assert not folder.exists()


def test_removing_checks_every_name_first(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "results")
    assert run(["runs", "rm", folder.name, "nothing", "--yes"]) == 2
    assert folder.exists()


def test_models_lists_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    names = capsys.readouterr().out.split()
    assert {"resnet18", "mobilenet_v1", "resnet20"} <= set(names)
    assert run(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == names


def test_doctor_reports_and_fails_only_on_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = hardware.Finding(name="load", severity="warn", message="busy", remedy="wait")
    failure = hardware.Finding(name="kernels", severity="fail", message="gone", remedy="install")
    calm = hardware.Finding(name="host state", severity="ok", message="one")
    monkeypatch.setattr(checkup, "check_states", lambda: iter((calm,)))
    monkeypatch.setattr(hardware, "examine", lambda: (warning,))
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out
    assert told == "WARN  load: busy\n      -> wait\nok    host state: one\n"
    monkeypatch.setattr(hardware, "examine", lambda: (warning, failure))
    assert run(["doctor", "--json"]) == 7
    assert [finding["name"] for finding in json.loads(capsys.readouterr().out)] == ["load", "kernels"]


def test_profile_prints_facts_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = hardware.MachineLimits(
        f32_gflops_core=101.0, f32_gflops_all=199.0, read_gbytes_per_s={"l1": 250.0}
    )
    module = ModuleType("autosparse.measuring.limits")
    module.profile = lambda **rest: limits.apply(hardware.describe())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autosparse.measuring.limits", module)
    monkeypatch.setattr(autosparse.measuring, "limits", module, raising=False)
    assert run(["profile"]) == 0
    text = capsys.readouterr().out
    assert hardware.hardware_id() in text
    assert "101 GFLOP/s on one core, 199 on" in text
    assert run(["profile", "--json"]) == 0
    read = HardwareProfile.from_json(json.loads(capsys.readouterr().out))
    assert read.cpu.read_gbytes_per_s == {"l1": 250.0}


@dataclass(frozen=True)
class Kernel:
    name: str
    family: str
    isa: str
    block_n: int
    tile_out: int = 8
    tile_pixels: int = 48
    dtype: str = "f32"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}


def test_kernels_say_why_they_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, not_here = Kernel("here", "conv_dense", "avx2", 0), Kernel("there", "conv_onexn", "amx", 16)
    asked: list[tuple[str, str]] = []

    def why_not(kernel: Kernel, shape: Any, pattern: Any) -> tuple[str, ...]:
        asked.append((kernel.name, pattern.name))
        return () if kernel is runs else ("this CPU lacks amx",)

    module = ModuleType("autosparse.kernels.spec")
    module.all_kernels = lambda: (runs, not_here)  # type: ignore[attr-defined]
    module.why_not = why_not  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autosparse.kernels.spec", module)
    assert run(["kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("yes")
    assert lines[2].endswith("no: this CPU lacks amx")
    assert asked == [("here", "dense"), ("there", "1x16")]
    assert run(["kernels", "--json"]) == 0
    assert [row["why_not"] for row in json.loads(capsys.readouterr().out)] == [
        [],
        ["this CPU lacks amx"],
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_by_one_command(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["completion", "install", shell]) == 0
    path = Path(capsys.readouterr().out.split(" in ")[1].split(";")[0])
    assert path.is_relative_to(tmp_path)
    assert "_AUTOSPARSE_COMPLETE" in path.read_text()


def test_a_shell_gets_verbs_flags_and_model_names() -> None:
    def complete(words: str, index: int) -> list[str]:
        environ = os.environ | {
            "_AUTOSPARSE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(index),
        }
        program = Path(sys.executable).with_name("autosparse")
        done = subprocess.run([str(program)], env=environ, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("autosparse sea", 1) == ["search"]
    assert "--latency-budget" in complete("autosparse search --la", 2)
    assert complete("autosparse search --model resnet1", 3) == ["resnet18"]


def test_shared_flags_have_one_meaning() -> None:
    shared = [name for name in vars(options) if name[0].isupper()]
    assert {"Model", "Data", "Threads", "Out", "Json"} <= set(shared)
