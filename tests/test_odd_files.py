"""Names that no file has, and files that are none: no pipe is waited for, no device read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import autosparse
from autosparse import data, factories, models
from autosparse.cli import run
from autosparse.config import SearchConfig
from autosparse.errors import ArtifactError, AutosparseError, ConfigError, ModelError, RunError
from autosparse.models.weight_files import check_weights
from autosparse.plans.plan import Plan
from autosparse.searching import space
from autosparse.storage.files import opened, read_json, read_jsonl, write_text


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    made = tmp_path / "pipe"
    os.mkfifo(made)
    return made


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "it is a folder"), ("pipe", "it is a pipe"), ("/dev/zero", "it is a device"),
     ("absent", "No such file"), ("loop", "Too many levels"), ("n" * 300, "File name too long"),
     ("a\0b", "it is no file name"), ("\ud800", "it is no file name")],
)  # fmt: skip
def test_only_files_are_opened(name: str, reason: str, pipe: Path) -> None:
    (pipe.parent / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:
        opened(pipe.parent / name)
    assert reason in str(caught.value.strerror)


def test_a_file_takes_no_place_of_a_pipe_a_device_or_a_folder(pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "stdout").symlink_to("/dev/null")
    for place in (pipe, tmp_path / "stdout", tmp_path):
        with pytest.raises(RunError, match=r"must be writable, but: it is a \w+, not a file"):
            write_text(place, "text")
    assert pipe.is_fifo()
    assert (tmp_path / "stdout").is_symlink()
    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "stdout"}


@pytest.mark.parametrize("ending", ["yaml", "yml", "pt", "safetensors", "json", "autosparse", "py"])
def test_pipes_are_not_waited_for(ending: str, pipe: Path) -> None:
    file = pipe.rename(pipe.with_name(f"pipe.{ending}"))
    readers = {
        "yaml": (lambda: SearchConfig.from_yaml(file), lambda: Plan.load(file)),
        "yml": (lambda: space.load(file),),
        "pt": (lambda: check_weights(file), lambda: models.resolve("resnet20", weights=file)),
        "safetensors": (lambda: check_weights(file),),
        "json": (lambda: read_json(file), lambda: read_jsonl(file)),
        "autosparse": (lambda: autosparse.load(file),),
        "py": (lambda: factories.load(f"{file}:build", ModelError),),
    }  # fmt: skip
    for read in readers[ending]:
        with pytest.raises(AutosparseError) as caught:
            read()
        assert caught.value.exit_code == 2


def test_names_of_artifacts_that_are_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        autosparse.load(tmp_path / os.fsdecode(b"\xff\xfe.autosparse"))


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, '{"a": ' * 5000, "{'a': 1}"])
def test_json_of_other_programs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(RunError, match="must hold JSON"):
        read_json(file)
    file.write_text(text + "\n")
    with pytest.raises(RunError, match="line 1 is not"):
        read_jsonl(file)


@pytest.mark.parametrize(
    "line",
    [
        "search --model resnet18 --dry-run --out {long}",
        "search --model resnet18 --dry-run --data cifar10:{long}",
        "search --model resnet18 --dry-run --config {long}",
        "search --model resnet18 --save-config {long}",
        "runs list --out {long}",
        "report latest --out {long}",
        "db list --database {long}.db",
        "db list --database sqlite:///%00",
        "search --model {long}.py:build --dry-run",
    ],
)
def test_impossible_names(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(line.format(long="/tmp/" + "é" * 200).split())
    said = capsys.readouterr()
    assert code in ((0,) if line.startswith("runs") else (2,))
    assert said.err.count("\n") <= 1
    assert "internal error" not in said.err


def test_home_of_an_impossible_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for home in ("n" * 300, "/dev/null/x", "~nosuchuser/x"):
        monkeypatch.setenv("AUTOSPARSE_HOME", home)
        assert run(["db", "list"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_file_of_another_users_home_is_looked_for_as_it_is_typed() -> None:
    with pytest.raises(ConfigError, match="~nosuchuser"):
        space.load("~nosuchuser/space.yaml")
    with pytest.raises(AutosparseError, match="~nosuchuser"):
        data.check_source("cifar10:~nosuchuser/x")


IN_THE_WAY = ("numpy", "torch", "json", "typer", "yaml", "ray", "selectors")


def test_files_in_the_current_folder_are_not_taken_for_libraries(tmp_path: Path) -> None:
    for name in IN_THE_WAY:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the library')\n")
    program = [sys.executable, "-m", "autosparse", "models"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "resnet18" in done.stdout) == (0, True), done.stderr


def test_measuring_processes_do_not_look_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autosparse.workers.worker import Worker

    for name in IN_THE_WAY:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the library')\n")
    monkeypatch.chdir(tmp_path)
    with Worker() as worker:
        answer = worker.call({}, 60)
    assert (answer.ending, "library" in answer.message) == ("error", False)


@pytest.mark.parametrize(
    "raised", ["BaseException('b')", "GeneratorExit", "SystemExit(3)", "MemoryError"]
)
def test_whatever_a_users_file_raises_is_told(raised: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(f"def build():\n    raise {raised}\n")
    with pytest.raises(ModelError, match=r"net\.py:build.* must return, but it raised"):
        models.resolve(f"{file}:build")
    file.write_text(f"def build(): pass\nraise {raised}\n")
    with pytest.raises(ModelError, match=r"net\.py must run, but it raised"):
        models.resolve(f"{file}:build")


@pytest.mark.parametrize("body", ["(" * 5000, "-" * 50_000 + "1", "1 + " * 20_000 + "1", "9" * 6000])
def test_files_that_no_parser_takes(body: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(f"build = {body}\n")
    with pytest.raises(ModelError):
        models.resolve(f"{file}:build")


def test_tensors_that_show_one_value_many_times_are_not_made_whole(tmp_path: Path) -> None:
    import torch

    state = models.resolve("resnet20").module.state_dict()
    state["conv1.weight"] = torch.zeros(1, 1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"of another shape: conv1\.weight \(1000000x1000000"):
        models.resolve("resnet20", weights=tmp_path / "w.pt")
