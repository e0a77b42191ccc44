"""The main job for a GPU that is not here, on a small network, from its rows to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosparse.config import SearchConfig
from autosparse.database import TuningDatabase
from autosparse.hosts.recorded import RecordedHost
from autosparse.pipeline.subject.survey import survey
from autosparse.progress import Progress

import gpu_rows  # isort: skip

pytest.importorskip("triton", reason="triton, which kernels of GPUs are written in, is not installed")

SPACE = """
version: 1
device: cuda
pattern: [tw16k16, tw32k16, tvw32k16]
sparsity: [0.5, 0.75]
dense: [first, last]
study: {trials: 8, batch_size: 2, startup_trials: 3, seed_points: 3, uniform_sparsity: [0.5]}
"""


@pytest.fixture
def recorded(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Gives the host as it is named, and the URL of its rows."""
    monkeypatch.setenv("AUTOSPARSE_HOME", str(shop.home))
    profile = tmp_path / "gpu-host.json"
    profile.write_text(json.dumps(gpu_rows.host().to_json()))
    (shop.folder / "gpu.yaml").write_text(SPACE)
    url = f"sqlite:///{tmp_path}/rows.db"
    config = SearchConfig(
        model=f"{shop.folder}/net.py:build",
        data=f"{shop.folder}/my_data.py:load",
        data_resolution=12,
        input_shape="3x96x96",
        space=str(shop.folder / "gpu.yaml"),
        device="cuda",
        host=f"recorded:{profile}",
    )
    subject = survey(config, Progress(), host=RecordedHost(profile))
    assert subject.dtypes == ("bf16",)
    with TuningDatabase(url) as database:
        assert gpu_rows.fill(subject.tune_request("bf16"), subject.device, database) > 20
    return f"recorded:{profile}", url


def test_a_search_for_a_gpu_from_its_rows_to_the_report(shop: Any, recorded: tuple[str, str]) -> None:
    host, url = recorded
    words = shop.words("--dtype", "auto", "--device", "cuda", "--host", host, "--database", url)
    words[words.index("space.yaml")] = "gpu.yaml"
    done = shop._called(shop.folder, [*words, "--train", "short", "--json"])
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["hardware_id"] == gpu_rows.GPU.device_id
    assert document["recorded"] == gpu_rows.GPU.name and document["dtypes"] == ["bf16"]
    text = document["verdict"]["text"]
    assert "in bf16 in a predicted" in text and f"recorded on {gpu_rows.GPU.name}" in text
    kernels = {layer["kernel"] for config in document["configs"] for layer in config["layers"]}
    assert all(kernel.startswith("bf16_") and "__cuda_" in kernel for kernel in kernels)
    labels = {layer["label"] for config in document["configs"] for layer in config["layers"]}
    assert any(label.startswith("t") for label in labels), labels
    for config in document["configs"]:
        assert config["measured_latency_ms"] is None
        for layer in config["layers"]:
            assert layer["predicted_us"] <= layer["dense_us"] or layer["label"] != "dense"
    trained = [config for config in document["configs"] if config["accuracy_kind"] == "short"]
    assert trained and all(config["weights"] for config in trained)
    report = (shop.latest / "report.html").read_text()
    assert "No model was run" in report


def test_here_there_is_no_gpu_and_the_same_command_says_so(shop: Any) -> None:
    done = shop.verb("search", "--model", "resnet20", "--device", "cuda", "--out", "results")
    if done.returncode == 0:
        pytest.skip("this host has a GPU")
    assert done.returncode == 7
    assert "device cuda was asked for, but" in done.stderr and "--host recorded:FILE" in done.stderr
