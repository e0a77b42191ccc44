"""Moments of inputs: what is summed, in which mode, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autosparse.errors import DataError, PlanError, Stopped
from autosparse.reconstruct.hessians import Calibration, batch_statistics, calibration_batches


def calibration(*batches, positions=0, check=lambda: None):
    return Calibration(tuple(batches), positions, 0, check)


def columns(images, kernel, **how):
    unfolded = functional.unfold(images, kernel, **how).numpy().astype(np.float64)
    return np.concatenate(list(unfolded.transpose(0, 2, 1)))


def test_moment_is_the_mean_outer_product_of_columns():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1, stride=2)
    images = [torch.randn(3, 2, 5, 5), torch.randn(2, 2, 5, 5)]
    moments = calibration(*images).collect_one(layer, "", 1)
    rows = columns(torch.cat(images), 3, padding=1, stride=2)
    np.testing.assert_allclose(moments.own.numpy(), rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
    assert (moments.rows, moments.cross) == (len(rows), None)


def test_positions_bound_the_rows_and_change_with_the_seed():
    layer, images = nn.Conv2d(1, 2, 1), torch.randn(4, 1, 6, 6)
    some = calibration(images, positions=5).collect_one(layer, "", 1)
    other = Calibration((images,), 5, 1, lambda: None).collect_one(layer, "", 1)
    again = calibration(images, positions=5).collect_one(layer, "", 1)
    assert some.rows == 20
    assert torch.equal(some.own, again.own) and not torch.equal(some.own, other.own)


class Twice(nn.Module):
    """Runs one layer twice, and another that nothing needs."""

    def __init__(self):
        super().__init__()
        self.shared, self.after, self.idle = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)
        self.ran = 0

    def forward(self, x):
        x = self.shared(torch.relu(self.shared(x)))
        self.ran += 1
        return self.after(x)


def test_layer_that_runs_twice_sums_both():
    torch.manual_seed(0)
    model, x = Twice(), torch.randn(6, 4)
    layers = {"after": model.after, "shared": model.shared}
    calls = calibration(x).calls(model, layers)
    assert list(calls.items()) == [("shared", 2), ("after", 1)]  # as they run, not as they are named
    with torch.no_grad():
        rows = torch.cat([x, torch.relu(model.shared(x))]).double()
    for moments in (
        calibration(x).collect_one(model, "shared", 2),
        calibration(x).collect(model, layers)["shared"],
    ):
        torch.testing.assert_close(moments.own, rows.T @ rows / 12, rtol=1e-5, atol=1e-6)
        assert moments.rows == 12


def test_forward_pass_ends_where_nothing_more_is_wanted():
    model, x = Twice(), torch.randn(3, 4)
    calibration(x).collect_one(model, "shared", 2)
    assert model.ran == 0


def test_cross_moment_pairs_rows_of_both_models():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 3))
    dense = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.mul_(0.5)
    images = torch.randn(3, 2, 6, 6)
    moments = calibration(images, positions=7).collect_one(model, "1", 1, dense)
    same = calibration(images, positions=7).collect_one(dense, "1", 1, dense)
    torch.testing.assert_close(same.cross, same.own)
    assert moments.cross is not None
    assert not torch.allclose(moments.cross, moments.cross.T)  # rows are the dense model's
    with torch.no_grad():
        own, other = (columns(net[0](images), 3) for net in (model, dense))
    every = calibration(images).collect_one(model, "1", 1, dense)
    np.testing.assert_allclose(every.cross.numpy(), other.T @ own / len(own), rtol=1e-4, atol=1e-5)


def test_norms_use_the_batch_and_keep_what_they_tracked():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 1, 1))
    model.train()
    model[1].eval()
    images = torch.randn(8, 2, 4, 4) * 5 + 3
    before = copy.deepcopy(model.state_dict())
    moments = calibration(images).collect_one(model, "2", 1)
    torch.testing.assert_close(
        moments.own.diagonal(), torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=1e-4
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model] == [True, False, True]
    with pytest.raises(ZeroDivisionError), batch_statistics(model):
        raise ZeroDivisionError
    assert model[0].training and model.training


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_name_their_layer(wrong):
    images = torch.randn(4, 2, 3, 3)
    images[1, 0, 2, 2] = wrong
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1))
    with pytest.raises(DataError, match=r"finite.*'1' hold NaN or infinity; check the images"):
        calibration(images).collect_one(model, "1", 1)
    with pytest.raises(DataError, match="'0' hold"):
        calibration(images).collect(model, {"0": model[0]})


def test_layer_that_does_not_run_is_named():
    model = Twice()
    with pytest.raises(PlanError, match="must run on the calibration images, but 'idle' does not"):
        calibration(torch.randn(2, 4)).calls(model, {"shared": model.shared, "idle": model.idle})


def test_a_stop_ends_the_look_at_images():
    def stop():
        raise Stopped("stopped")

    with pytest.raises(Stopped):
        calibration(torch.randn(2, 4), check=stop).collect_one(nn.Linear(4, 2), "", 1)


def test_batches_are_taken_up_to_the_wanted_samples():
    pairs = [(torch.full((4, 1), float(k)), torch.zeros(4)) for k in range(3)]
    taken = calibration_batches(nn.Linear(1, 1), pairs, 6)
    assert [len(images) for images in taken] == [4, 2] and float(taken[1][0]) == 1.0
    endless = (torch.zeros(2, 1) for _ in iter(int, 1))
    assert len(calibration_batches(nn.Linear(1, 1), endless, 5)) == 3


def test_norms_need_batches_of_two():
    images = [torch.randn(1, 2, 1, 1), torch.randn(3, 2, 1, 1)]
    assert [len(b) for b in calibration_batches(nn.BatchNorm2d(2), images, 9)] == [3]
    assert [len(b) for b in calibration_batches(nn.Linear(1, 1), images, 9)] == [1, 3]
    with pytest.raises(DataError, match="at least 2 images, but got none"):
        calibration_batches(nn.BatchNorm2d(2), images[:1], 9)
    with pytest.raises(DataError, match="at least 1 images, but got none"):
        calibration_batches(nn.Linear(1, 1), [], 9)
