"""Dense int8 by post-training quantisation: the rival of sparsity that needs no training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autosparse.compare import checks, int8, verify
from autosparse.compare.peer import Unsupported, find
from autosparse.compare.records import Asked, Subject
from autosparse.compare.session import SessionRequest, run_session
from autosparse.compare.task import Task
from autosparse.errors import DataError

Make = Callable[..., SessionRequest]


@pytest.fixture(scope="module")
def task(model: str, tmp_path_factory: pytest.TempPathFactory) -> Task:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: it makes or runs quantised files")
    folder = tmp_path_factory.mktemp("int8")
    return Task(Subject(model=model), (1, 3, 12, 12), threads=1, folder=folder)


def test_weights_are_int8_per_output_channel_and_their_error_is_half_a_step(task: Task) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(int8.qdq_file(task))).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    weights = {
        name: module.weight
        for name, module in task.module().named_modules()
        if hasattr(module, "weight")
    }
    for name, weight in weights.items():
        if name == "fc":
            continue  # which axis a matrix keeps its outputs in is the exporter's affair
        quantised = stored[f"{name}.weight_quantized"]
        scale = stored[f"{name}.weight_scale"]
        assert quantised.dtype == np.int8
        assert scale.shape == (weight.shape[0],)
        assert (stored[f"{name}.weight_zero_point"] == 0).all()
        restored = quantised * scale.reshape(-1, 1, 1, 1).astype(np.float64)
        worst = np.abs(restored - weight.detach().numpy()).reshape(len(scale), -1).max(1)
        assert (worst <= 0.5 * scale * (1 + 1e-5)).all()


def test_both_engines_run_one_file_to_what_int8_can_hold(task: Task) -> None:
    expected = verify.reference(task)
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name, reason=f"{name} is not installed")
        [variant] = [each for each in find(name).variants if each.dtype == "int8"]
        running = variant.open(task)
        error = verify.error(running.outputs(), expected)
        assert 1e-5 < error <= verify.TOLERANCE["int8"], "quantised, and right"
        assert "random inputs" in running.note
        running.close()
    assert len(list(task.folder.glob("*-int8.onnx"))) == 1
    assert not list(task.folder.glob("*.prepared")), "nothing unfinished stays"


def test_ranges_come_from_the_data_that_are_named(model: str, tmp_path: Path) -> None:
    named = Task(Subject(model=model, calibration="digits"), (4, 3, 12, 12), 1, tmp_path)
    batches = list(int8.samples(named))
    assert [batch.shape for batch in batches] == [(4, 3, 12, 12)] * 8
    assert "digits" in int8.note(named)
    # Images of digits are grey: their channels agree up to the normalisation, unlike random inputs'.
    grey = np.corrcoef(np.concatenate(batches)[:, 0].ravel(), np.concatenate(batches)[:, 1].ravel())
    assert grey[0, 1] > 0.99
    again = list(int8.samples(named))
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))


def test_random_ranges_are_not_taken_from_the_input_that_is_timed(task: Task) -> None:
    assert not any((sample == task.x()).any() for sample in int8.samples(task))


def test_calibration_data_that_do_not_exist_are_refused_at_once(model: str) -> None:
    with pytest.raises(DataError, match="nothing-like-it"):
        checks.check(Asked(subject=Subject(model=model, calibration="nothing-like-it")))


def test_images_that_cannot_have_the_inputs_shape_are_refused(model: str, tmp_path: Path) -> None:
    oblong = Task(Subject(model=model, calibration="digits"), (1, 3, 12, 14), 1, tmp_path)
    with pytest.raises(DataError, match="12x14"):
        next(int8.samples(oblong))


def test_without_the_quantiser_the_variant_says_what_to_install(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str, *rest: Any) -> Any:
        return None if name == "onnxruntime" else importlib.util.find_spec(name, *rest)

    monkeypatch.setattr(int8, "find_spec", without)
    with pytest.raises(Unsupported, match="pip install onnxruntime"):
        int8.qdq_file(Task(Subject(model=model), (1, 3, 12, 12), 1, tmp_path))


def test_a_session_sets_ours_beside_dense_int8(task: Task, request_for: Make) -> None:
    found = run_session(request_for(peers=("onnxruntime",)))
    assert [result.contestant.dtype for result in found.results] == ["f32", "int8"]
    exact, quantised = found.results
    assert exact.note == "" and "random inputs" in quantised.note
    assert exact.ratios["int8"].over == "onnxruntime int8"
    assert quantised.rates.limit_gflops is None
