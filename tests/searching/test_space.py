"""Search spaces: what they accept, refuse, and allow per layer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autosparse.errors import ConfigError
from autosparse.records import LayerInfo, LayerShape
from autosparse.searching import space
from autosparse.searching.samplers import SAMPLERS


def conv(name: str, inputs: int, outputs: int, why: tuple[str, ...] = ()) -> LayerInfo:
    shape = LayerShape(
        op="conv2d",
        batch_size=1,
        in_channels=inputs,
        out_channels=outputs,
        in_height=8,
        in_width=8,
        kernel=(3, 3),
        padding=(1, 1),
    )
    return LayerInfo(name=name, shape=shape, why_dense=why)


LAYERS = (
    conv("conv1", 3, 64),
    conv("layer1.conv1", 64, 64),
    conv("layer1.downsample.0", 64, 12),
    conv("dw", 64, 64, ("grouped convolution",)),
    LayerInfo(name="odd", shape=None),
    LayerInfo(name="fc", shape=LayerShape(op="linear", batch_size=1, in_channels=64, out_channels=10)),
)


def make(**keys: object) -> space.SearchSpace:
    return space.SearchSpace.parse({"version": 1} | keys, "test")


@pytest.mark.parametrize("name", space.names())
def test_shipped_spaces_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    loaded = space.load(name)
    assert loaded.dense == ("first",)
    assert all(sparsity in loaded.sparsity for sparsity in loaded.study.uniform_sparsity)
    copy = tmp_path / "copy.yaml"
    copy.write_text(loaded.to_yaml())
    assert space.load(copy) == loaded
    assert space.load(copy).fingerprint == loaded.fingerprint


def test_the_shipped_spaces() -> None:
    assert {"cpu", "cpu-wide", "cpu-cifar"} <= set(space.names())
    assert space.load("cpu-wide").block_n == (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nsparsty: [0.5]", ("'sparsty'", "'sparsity'")),
        ("version: 1\nstudy: {smapler: tpe}", ("'smapler'", "'sampler'", "'study'")),
        ("version: 1\nsparsity: [0.5, 1.2]", ("below 1", "1.2")),
        ("version: 1\nsparsity: [1.0]", ("below 1",)),
        ("version: 1\nsparsity: [-0.1]", ("at least 0",)),
        ("version: 1\nsparsity: []", ("sparsity",)),
        ("version: 1\nblock_n: [12]", ("powers of two", "12")),
        ("version: 1\nblock_n: 128", ("powers of two", "128")),
        ("version: 1\ndevice: gpu", ("device", "'gpu'")),
        ("version: 2", ("version", "2")),
        ("block_n: [8]", ("version",)),
        ("version: 1\nstudy: {trials: 0}", ("study.trials", "0")),
        ("version: 1\nstudy: {sampler: magic}", ("nsga2, random, tpe", "magic")),
        ("version: 1\ndense: [middle]", ("dense",)),
        ("- 1", ("mapping", "list")),
        ("version: [", ("YAML",)),
        ("", ("mapping", "NoneType")),
    ],
)
def test_bad_files_are_refused_with_the_rule(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        space.load(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    assert "\n" not in message


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cpuu'.*did you mean 'cpu'"):
        space.load("cpuu")
    with pytest.raises(ConfigError, match="readable YAML"):
        space.load(tmp_path / "absent.yaml")


def test_the_space_knows_exactly_the_samplers_there_are() -> None:
    for name in SAMPLERS:
        assert make(study={"sampler": name}).study.sampler == name


def test_applicable_gives_choices_or_reasons() -> None:
    scopes = {s.name: s for s in make(block_n=[8, 16], sparsity=[0.5, 0.75]).applicable(LAYERS)}
    assert [s for s in scopes] == [layer.name for layer in LAYERS]
    assert scopes["conv1"].why_dense == ("the space keeps the first layer dense",)
    assert [c.label for c in scopes["layer1.conv1"].choices] == [
        "1x8@0.5",
        "1x8@0.75",
        "1x16@0.5",
        "1x16@0.75",
    ]
    assert scopes["dw"].why_dense == ("grouped convolution",)
    assert scopes["odd"].why_dense and not scopes["odd"].choices
    narrow = scopes["layer1.downsample.0"]
    assert {c.pattern.group_out for c in narrow.choices} == {8}
    assert any("1x16" in reason and "12" in reason for reason in narrow.refused)
    assert scopes["fc"].choices


def test_a_layer_smaller_than_every_block_stays_dense_with_the_reason() -> None:
    (scope,) = make(block_n=[16], dense=[]).applicable([conv("c", 16, 10)])
    assert not scope.choices
    assert "larger than the layer's 10" in scope.why_dense[0]


def test_steps_that_change_nothing_are_left_out() -> None:
    (scope,) = make(block_n=[8], sparsity=[0.1, 0.5, 0.6, 0.75], dense=[]).applicable([conv("c", 4, 8)])
    assert [choice.sparsity for choice in scope.choices] == [0.5, 0.75]
    assert any("0.1 prunes none" in reason for reason in scope.refused)
    assert any("0.6 keeps 2 blocks" in reason for reason in scope.refused)


def test_globs_and_positions() -> None:
    wanted = make(include=["layer*", "fc"], exclude="*.downsample.*", dense=["first", "last"])
    scopes = {s.name: s for s in wanted.applicable(LAYERS)}
    assert scopes["layer1.conv1"].choices
    assert scopes["layer1.downsample.0"].why_dense == ("excluded by '*.downsample.*'",)
    assert "the space keeps the last layer dense" in scopes["fc"].why_dense
    narrowed = make().narrowed(include=["fc"], exclude=["conv*"])
    assert narrowed.include == ("fc",) and narrowed.exclude == ("conv*",)
    assert make().narrowed().include == ("*",)


def test_size_is_the_exact_product() -> None:
    wanted = make(block_n=[8, 16], sparsity=[0.5, 0.75])
    per_layer = [1 + len(scope.choices) for scope in wanted.applicable(LAYERS)]
    size = wanted.size(LAYERS)
    assert size.configurations == math.prod(per_layer) == 5 * 3 * 3
    assert size.log10 == pytest.approx(math.log10(45))
    assert (size.sparse_layers, size.choices) == (3, 8)


def test_size_stays_exact_where_floats_end() -> None:
    layers = [conv(f"l{i}", 64, 64) for i in range(400)]
    size = make(block_n=[8, 16], sparsity=[0.5, 0.75], dense=[]).size(layers)
    assert size.configurations == 5**400
    assert size.log10 == pytest.approx(400 * math.log10(5))
