"""The zoo: sizes and names as published, structure as described, random weights as promised."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from autosparse.models import names, registry, resolve

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "vgg16_bn": 138_365_992,
    "resnet20": 269_722,  # option A; the often quoted 272,474 counts option B's convolutions
    "resnet32": 464_154,
    "resnet56": 853_018,
}

# Hashes of "key shape" lines, in order, of torchvision's own models (0.29), which our modules also
# reproduced bit for bit when given the same state dict.
TORCHVISION_KEYS = {
    "resnet18": "f77af260c2dbd0ec",
    "resnet34": "711a38316e70a2c9",
    "resnet50": "a9e37deb781a9d89",
    "mobilenet_v2": "fbbd7a5246d03de8",
    "vgg16_bn": "3b23644c6cb2848b",
}


def without_memory(name: str) -> nn.Module:
    with torch.device("meta"):
        return registry.builder(name)(registry.entries()[name].classes).eval()


def test_the_zoo_holds_exactly_the_models_with_known_sizes() -> None:
    assert set(names()) == set(PARAMETERS)


@pytest.mark.parametrize("name", names())
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert sum(p.numel() for p in without_memory(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", names())
def test_classes_and_shape_are_as_declared(name: str) -> None:
    entry = registry.entries()[name]
    images = torch.empty(2, *entry.input_shape, device="meta")
    assert without_memory(name)(images).shape == (2, entry.classes)
    assert entry.summary


@pytest.mark.parametrize("name", TORCHVISION_KEYS)
def test_state_dicts_are_torchvisions(name: str) -> None:
    state = without_memory(name).state_dict()
    lines = [f"{key} {'x'.join(map(str, value.shape))}" for key, value in state.items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == TORCHVISION_KEYS[name]


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 3), ("resnet32", 5), ("resnet56", 9)])
def test_cifar_networks_have_the_public_names(name: str, depth: int) -> None:
    keys = [key for key in without_memory(name).state_dict() if key.endswith("weight")]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(depth)]
    parts = [f"{block}.{part}.weight" for block in blocks for part in ("conv1", "bn1", "conv2", "bn2")]
    assert keys == ["conv1.weight", "bn1.weight", *parts, "linear.weight"]


def test_bottlenecks_put_the_stride_on_the_3x3() -> None:
    modules = dict(without_memory("resnet50").named_modules())
    assert modules["layer2.0.conv1"].stride == (1, 1)
    assert modules["layer2.0.conv2"].stride == (2, 2)


def test_mobilenet_v1_alternates_depthwise_and_pointwise() -> None:
    modules = dict(without_memory("mobilenet_v1").named_modules())
    for index in range(1, 14):
        depthwise = modules[f"features.{index}.depthwise.conv"]
        pointwise = modules[f"features.{index}.pointwise.conv"]
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
        assert pointwise.kernel_size == (1, 1)
        assert pointwise.groups == 1
    assert modules["classifier"].in_features == 1024


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_option_a_takes_every_second_pixel_and_pads_channels(size: tuple[int, int]) -> None:
    from autosparse.models.zoo.resnet_cifar import PaddedShortcut

    x = np.random.default_rng(0).standard_normal((2, 4, *size))
    expected = np.zeros((2, 8, (size[0] + 1) // 2, (size[1] + 1) // 2))
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            expected[:, 2:6, row, column] = x[:, :, 2 * row, 2 * column]
    got = PaddedShortcut(4, 8)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("side", [8, 31])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "mobilenet_v1", "mobilenet_v2"])
def test_small_and_odd_images_pass(name: str, side: int) -> None:
    logits = without_memory(name)(torch.empty(1, 3, side, side, device="meta"))
    assert logits.shape == (1, registry.entries()[name].classes)


def test_listing_names_needs_no_torch() -> None:
    code = (
        "import sys, autosparse.models as m; m.names(); m.check_source('resnet18'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.smoke
def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (resolve("resnet20", seed=seed).module.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_convolutions_are_he_normal_by_fan_out() -> None:
    module = resolve("resnet20").module
    weight = dict(module.named_parameters())["layer3.2.conv2.weight"]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert abs(weight.mean().item()) < 0.001


def test_resolve_says_what_it_made() -> None:
    loaded = resolve("resnet20", classes=7)
    assert (loaded.source, loaded.classes, loaded.input_shape) == ("resnet20", 7, (3, 32, 32))
    assert (loaded.pretrained, loaded.weights_hash) == (False, None)
    assert not loaded.module.training
    assert all(p.dtype == torch.float32 for p in loaded.module.parameters())
    assert loaded.module(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
