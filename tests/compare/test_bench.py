"""The verb: what it refuses before any work, and one comparison from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import comparison, result

from autosparse import compare
from autosparse.cli import run
from autosparse.compare import comparison as whole
from autosparse.compare import own
from autosparse.compare import peer as peers
from autosparse.compare.records import SCHEMA, Asked, Comparison, Refusal
from autosparse.records import onexn

FEW = ["--threads", "1", "--against", "torch", "--repeats", "6"]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (
            ["--dtype", "f16"],
            2,
            "dtype must be one that kernels of this build compute in (bf16, f32), but got f16",
        ),
        (["--threads", "9999"], 2, "threads must be at most"),
        (["--threads", "0"], 2, "--threads must be a whole number from 1 on"),
        (["--against", "tensorrt"], 2, "a peer must be one of"),
        (["--against", "none,torch"], 2, "a peer must be one of"),
        (["--against", ""], 2, "--against must have at least one value"),
        (["--against", "none", "--no-dense", "--sparsity", "none"], 2, "needs somebody to run"),
        (["--untuned", "--database", "my.db"], 2, "reads no tuning database, but got my.db"),
        (["--against", "none", "--peers-masked"], 2, "--peers-masked needs other engines"),
        (["--threads", "none"], 2, "--threads must be a whole number"),
        (["--threads", ","], 2, "--threads must have at least one value"),
        (["--dtype", "none"], 2, "--dtype must be f32 or bf16"),
        (["--block-n", "none"], 2, "--block-n must be one of"),
        (["--sparsity", ""], 2, "--sparsity must have at least one value"),
        (["--batch", "0"], 2, "--batch must be a whole number from 1 on"),
        (["--shape", ""], 2, "--shape must be channels"),
        (["--pattern", "4:2"], 2, "--pattern: a pattern must be one that a family knows"),
        (["--sparsity", "1.0"], 2, "must lie between 0 and 1, but got 1"),
        (["--sparsity", "much"], 2, "--sparsity must be a number"),
        (["--block-n", "3"], 2, "--block-n must be one of 1, 2, 4, 8, 16, 32, 64, but got '3'"),
        (["--plan", "nowhere.yaml"], 2, "a plan must be a readable YAML file"),
        (["--artifact", "nowhere"], 2, "--artifact must name a file"),
        (["--weights", "nowhere"], 2, "weights must be a readable file"),
        (["--repeats", "5"], 2, "'--repeats'"),
        (["--repeats", "8", "--seconds", "1"], 2, "--seconds or --repeats, but got both"),
        (["--shape", "3x3"], 2, "--shape must be channels, height and width"),
        (["--database", "foo://x"], 2, "a tuning database must be a path"),
        (["-o", "/proc/nowhere"], 2, "the folder of --out must be a writable folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    model: str, flags: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "--model", model, *flags]) == code
    assert said in capsys.readouterr().err


def test_a_model_must_be_named_and_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == 2
    assert "a model must be named" in capsys.readouterr().err
    assert run(["bench", "--model", "resnet19"]) == 2
    assert "did you mean resnet18" in capsys.readouterr().err


def test_a_named_peer_that_is_absent_ends_the_comparison(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert run(["bench", "--model", model, "--against", "openvino"]) == 7
    assert "openvino is not installed; run: pip install openvino onnx" in capsys.readouterr().err


def test_refusals_load_no_torch(model: str) -> None:
    code = (
        "import sys; from autosparse.cli import run;"
        f"run(['bench', '--model', {model!r}, '--against', 'tensorrt']);"
        "print([m for m in ('torch', 'ray', 'optuna', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_flags_say_what_is_compared(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Asked] = []

    def fake(asked: Asked, progress: Any) -> Comparison:
        seen.append(asked)
        return comparison(result("autosparse 75 %", "f32", 1.0))

    monkeypatch.setattr(compare, "compare", fake, raising=False)
    monkeypatch.setattr(compare, "check", lambda asked: None, raising=False)
    line = ["bench", "-m", model, "--block-n", "16", "--sparsity", "50%,0.875", "--dtype", "f32,bf16"]
    line += ["--threads", "1,2", "--batch", "4", "--exclude", "*down*", "--seconds", "0.5"]
    assert run([*line, "--against", "torch,openvino", "--peers-masked", "--no-dense"]) == 0
    [asked] = seen
    assert (asked.patterns, asked.sparsities) == ((onexn(16),), (0.5, 0.875))
    assert (asked.dtypes, asked.threads, asked.subject.batch_size) == (("f32", "bf16"), (1, 2), 4)
    assert (asked.against, asked.exclude) == (("torch", "openvino"), ("*down*",))
    assert (asked.peers_masked, asked.dense, asked.policy.time_cap_us) == (True, False, 5e5)
    assert not asked.compact_weights
    run(["bench", "-m", model, "--plan", "a.yaml"])
    assert (seen[1].plan, seen[1].sparsities) == ("a.yaml", ())
    run(["bench", "-m", model])
    assert (seen[2].sparsities, seen[2].against) == ((0.75,), None)
    assert seen[2].patterns == (onexn(8), onexn(16), onexn(32))
    run(["bench", "-m", model, "--compact-weights"])
    assert seen[3].compact_weights
    run(["bench", "-m", model, "--against", "none"])
    assert seen[4].against == () and not seen[4].untuned
    run(["bench", "-m", model, "--untuned"])
    assert seen[5].untuned


def test_against_none_runs_no_peer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "-m", model, "--threads", "1", "--repeats", "6", "--sparsity", "none", "--json"]
    assert run([*line, "--against", "none", "-q"]) == 0
    found = Comparison.from_json(json.loads(capsys.readouterr().out))
    [session] = found.sessions
    assert [r.contestant.engine for r in session.results] == ["autosparse"]
    assert found.absent == () and session.refused == ()


def test_untuned_measures_nothing_before_and_reads_no_row(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be tuned")

    monkeypatch.setattr(own, "tune_layers", refuse)
    line = ["bench", "-m", model, "--threads", "1", "--repeats", "6", "--untuned", "--json", "-q"]
    assert run([*line, "--against", "none", "--sparsity", "0.5", "--block-n", "8,16"]) == 0
    found = Comparison.from_json(json.loads(capsys.readouterr().out))
    [session] = found.sessions
    names = [result.contestant.name for result in session.results]
    assert names == ["autosparse dense", "autosparse 50 % 1x8", "autosparse 50 % 1x16"]
    assert session.refused == ()


def test_our_own_failure_is_shown_and_ends_with_an_error(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Refusal(name="autosparse 75 %", kind="wrong", reason="it is off by 0.5", ours=True)
    found = comparison(result("other", "f32", 1.0, engine="other"), refused=(wrong,))
    monkeypatch.setattr(compare, "compare", lambda asked, progress: found, raising=False)
    assert run(["bench", "-m", model, *FEW]) == 1
    assert "autosparse 75 %: not timed, wrong: it is off by 0.5" in capsys.readouterr().out


def test_absent_peers_are_named_with_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "openvino" else object())
    [refusal] = whole.absent()
    assert (refusal.name, refusal.kind) == ("openvino", "absent")
    assert refusal.reason == "not installed; run: pip install openvino"


@pytest.fixture(scope="module")
def benched(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one real comparison; `output` holds what was printed."""
    folder = tmp_path_factory.mktemp("benched")
    environment = {**os.environ, "AUTOSPARSE_HOME": str(tmp_path_factory.mktemp("bench-home"))}
    call = [sys.executable, "-m", "autosparse", "bench", "--model", model, *FEW]
    call += ["--block-n", "8", "--sparsity", "0.5", "-o", str(folder), "--layers"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    (folder / "output").write_text(done.stdout)
    return folder


def test_one_command_compares_everybody(benched: Path) -> None:
    found = Comparison.from_json(json.loads((benched / "bench.json").read_text()))
    assert found.schema == SCHEMA
    [session] = found.sessions
    assert {result.contestant.name for result in session.results} == {
        "torch",
        "torch channels-last",
        "autosparse dense",
        "autosparse 50 %",
    }
    assert not session.refused
    assert {"autosparse", "torch", "python"} <= set(found.versions)
    assert found.hardware.cpu.f32_gflops_core
    for result_ in session.results:
        assert result_.error < result_.tolerance
        assert len(result_.turns_us) == session.rounds
        assert result_.rates.limit_share is not None
    assert found.dense_flops == 2 * 144 * 9 * (3 * 8 + 8 * 16) + 2 * 16 * 5


def test_tuned_layers_are_added_up_against_the_whole(benched: Path) -> None:
    found = Comparison.from_json(json.loads((benched / "bench.json").read_text()))
    ours = {r.contestant.name: r for r in found.sessions[0].results if r.contestant.is_ours}
    for result_ in ours.values():
        assert result_.layer_sum is not None and not result_.layer_sum.untuned
        assert [layer.name for layer in result_.layers] == ["stem", "middle", "fc"]
        assert all(layer.alone_us for layer in result_.layers)


def test_memory_of_peers_is_measured_apart(benched: Path) -> None:
    found = Comparison.from_json(json.loads((benched / "bench.json").read_text()))
    for result_ in found.sessions[0].results:
        if result_.contestant.is_ours:
            assert result_.memory.size_bytes and "as the engine counts" in result_.memory.how
        elif result_.memory.size_bytes is None:
            assert "does not tell" in result_.memory.how
        else:
            assert "process of its own" in result_.memory.how


def test_the_table_and_the_picture_are_there(benched: Path) -> None:
    text = (benched / "output").read_text()
    assert "1x3x12x12, 1 thread" in text
    assert "autosparse 50 %" in text and "predicted" in text and "middle" in text
    assert "bench.json" in text
    assert "plotly" in (benched / "bench.html").read_text()
