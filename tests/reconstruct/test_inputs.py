"""Columns of inputs: a weight times a row of them is what torch's layer gives."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from autosparse.reconstruct import inputs
from autosparse.reconstruct.inputs import columns_of, draw_positions, output_positions, width


def rebuilt(layer, images, positions):
    """Gives the layer's outputs at some positions, ``[samples, outputs, positions]``."""
    columns = torch.cat(list(columns_of(layer, images, positions)))
    flat = layer.weight.reshape(len(layer.weight), -1)
    out = (columns @ flat.T).reshape(len(images), len(positions), -1).transpose(1, 2)
    return out if layer.bias is None else out + layer.bias[:, None]


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (1, 3), "padding": (0, 2), "stride": (2, 1)},
        {"kernel_size": 3, "dilation": (2, 3), "padding": 2},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": (2, 4), "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
        *(
            {"kernel_size": 3, "padding": (1, 2), "padding_mode": mode, "stride": 2}
            for mode in ("reflect", "replicate", "circular")
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding=")
def test_columns_times_the_weight_are_a_convolution(how):
    torch.manual_seed(0)
    layer, images = nn.Conv2d(3, 5, **how).double(), torch.randn(4, 3, 9, 7, dtype=torch.float64)
    wanted = layer(images).flatten(2)
    every = torch.arange(output_positions(layer, images))
    torch.testing.assert_close(rebuilt(layer, images, every), wanted)
    some = draw_positions(len(every), 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(rebuilt(layer, images, some), wanted[:, :, some])


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_columns_of_a_linear_layer_are_its_inputs(leading):
    layer, rows = nn.Linear(6, 4).double(), torch.randn(3, *leading, 6, dtype=torch.float64)
    every = torch.arange(output_positions(layer, rows))
    wanted = layer(rows).reshape(3, -1, 4).transpose(1, 2)
    torch.testing.assert_close(rebuilt(layer, rows, every), wanted)


def test_chunks_hold_every_row_once(monkeypatch):
    layer, images = nn.Conv2d(2, 3, 3, padding=1), torch.randn(5, 2, 4, 4)
    every = torch.arange(16)
    whole = torch.cat(list(columns_of(layer, images, every)))
    monkeypatch.setattr(inputs, "_CHUNK_BYTES", 2 * 4 * 16 * width(layer))
    parts = list(columns_of(layer, images, every))
    assert [len(part) for part in parts] == [32, 32, 16]
    assert torch.equal(torch.cat(parts), whole)


def test_positions_are_drawn_once_each_and_all_alike():
    drawn = [draw_positions(6, 2, torch.Generator().manual_seed(seed)).tolist() for seed in range(600)]
    assert {tuple(pair) for pair in drawn} == set(itertools.combinations(range(6), 2))
    counts = torch.tensor(drawn).flatten().bincount(minlength=6)
    assert counts.min() > 150 and counts.max() < 250  # 200 each
    assert draw_positions(3, 0, torch.Generator()).tolist() == [0, 1, 2]
    assert draw_positions(3, 9, torch.Generator()).tolist() == [0, 1, 2]
