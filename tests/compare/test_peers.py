from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse import cli
from autosparse.compare import peer as peers
from autosparse.compare import peers as folder
from autosparse.compare.peers.cusparselt import half
from autosparse.compare.records import RIVAL_DTYPES, Subject
from autosparse.compare.session import SessionRequest, run_session
from autosparse.compare.task import Task
from autosparse.errors import MissingDependency, UsageError


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes modules look as if they were not installed, and everything else as if it were."""

    def hide(*hidden: str) -> None:
        monkeypatch.setattr(peers, "find_spec", lambda name: None if name in hidden else object())

    return hide


@pytest.mark.smoke
def test_every_file_is_one_peer_and_names_are_unique() -> None:
    found = peers.all_peers()
    files = [f for f in (Path(peers.__file__).parent / "peers").glob("*.py") if f.stem != "__init__"]
    assert len(found) == len(files)
    assert set(peers.names()) == {
        *("torch", "torch.compile", "onnxruntime", "openvino", "channel-pruned"),
        *("cudnn", "cusparselt"),
    }
    variants = [variant.name for peer in found for variant in peer.variants]
    assert len(set(variants)) == len(variants)
    assert {variant.dtype for peer in found for variant in peer.variants} < set(RIVAL_DTYPES)


def test_listing_peers_imports_no_engine() -> None:
    code = (
        "import sys; from autosparse.compare import peer; peer.all_peers();"
        "print([m for m in ('torch', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_by_default_all_installed_peers_take_part(without: Any) -> None:
    without("openvino")
    assert [peer.name for peer in peers.chosen(None)] == ["onnxruntime", "torch.compile", "torch"]
    assert peers.chosen(()) == ()


def test_an_absent_peer_says_what_to_install(without: Any) -> None:
    without("onnxruntime", "onnx")
    assert peers.find("onnxruntime").hint == "not installed; run: pip install onnxruntime onnx"
    with pytest.raises(MissingDependency, match=r"onnxruntime is not installed; run: pip install"):
        peers.chosen(("torch", "onnxruntime"))


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"one of .*openvino.*, but got 'tensorrt'"):
        peers.chosen(("tensorrt",))


def test_a_peer_named_twice_runs_once(without: Any) -> None:
    without()
    assert [peer.name for peer in peers.chosen(("torch", "torch"))] == ["torch"]


def test_versions_are_those_of_what_is_installed() -> None:
    versions = peers.find("torch").versions()
    assert set(versions) == {"torch"}
    assert (importlib.util.find_spec("openvino") is None) == (
        "openvino" not in peers.find("openvino").versions()
    )


ABACUS = """
from autosparse.compare.peer import Peer, Running, Variant
from autosparse.measuring.stopwatch import python_runner


def opened(task):
    module, image = task.module(), task.tensor()
    return Running(
        run=python_runner(lambda: module(image)), outputs=lambda: [module(image).detach().numpy()]
    )


PEER = Peer(
    name="abacus", needs={"numpy": "numpy"}, variants=(Variant(name="beads", dtype="f32", open=opened),)
)
"""


def test_a_file_of_peers_takes_part(
    add: Callable[..., None], request_for: Callable[..., SessionRequest]
) -> None:
    add(folder, ABACUS)
    assert "abacus" in {peer.name for peer in peers.chosen(None)}, "what is installed takes part"
    found = run_session(request_for(peers=("abacus",)))
    [ran] = found.results
    assert (ran.contestant.name, ran.contestant.engine, found.refused) == ("beads", "abacus", ())
    assert ran.latency.median_ms > 0 and ran.error < 1e-4


def test_peers_are_of_a_device() -> None:
    assert [each.name for each in peers.chosen(None, "cuda")] == [
        "cudnn",
        "cusparselt",
        "torch.compile",
    ]
    names = ("cudnn", "torch-compile", "cusparselt", "channel-pruned")
    found = peers.chosen(names, "cuda")
    assert [each.name for each in found] == ["cudnn", "torch.compile", "cusparselt", "channel-pruned"]
    with pytest.raises(UsageError, match="must run on cuda, but openvino does not; write --against"):
        peers.chosen(("openvino",), "cuda")
    with pytest.raises(UsageError, match="must run on cpu, but cudnn does not"):
        peers.chosen(("cudnn",))


def test_half_of_linear_layers_is_what_the_library_takes(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\n\n\ndef build(classes=5):\n"
        "    found = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 5))\n"
        "    found.input_shape = (2, 8, 8)\n    return found\n"
    )
    task = Task(Subject(model=f"{source}:build"), (2, 2, 8, 8), 1, tmp_path, device="cuda")
    plan = half(task).zeros.plan  # type: ignore[union-attr]
    assert {name: choice.label for name, choice in plan.layers.items()} == {"1": "2:4@0.5"}
    source.write_text(
        source.read_text()
        .replace("nn.Linear(128, 64)", "nn.Linear(128, 60)")
        .replace("nn.Linear(64, 5)", "nn.Linear(60, 5)")
    )
    other = tmp_path / "other.py"
    other.write_text(source.read_text())
    with pytest.raises(peers.Unsupported, match="no linear layer has sizes"):
        half(dataclasses.replace(task, subject=Subject(model=f"{other}:build")))


def test_a_comparison_on_a_gpu_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    words = ("bench", "--model", "resnet20", "--device", "cuda", "--against", "cudnn,torch-compile")
    assert cli.run([*words]) == 7
    assert "device cuda was asked for, but" in capsys.readouterr().err


INTERRUPTED = """
import gc, signal, sys
from pathlib import Path
from autosparse.compare.peers.openvino import f32
from autosparse.compare.records import Subject
from autosparse.compare.task import Task

def opened(threads):
    subject = Subject(model=f"{sys.argv[1]}/net.py:build")
    return f32(Task(subject, (1, 2, 8, 8), threads, Path(sys.argv[1])))

running = [opened(1), opened(2)]
while running:  # the first one that came goes first
    del running[0]
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_that_has_run_openvino_takes_an_interrupt(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build(classes=5):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(128, 5))\n"
    )
    line = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
