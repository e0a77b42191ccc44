"""Numbers and YAML that a person, a script or a broken disk may hand over: refused with the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosparse import values
from autosparse.config import SearchConfig
from autosparse.errors import ConfigError, PlanError, got
from autosparse.plans.plan import Plan
from autosparse.searching import space
from autosparse.storage.yaml_text import YamlError, parse_yaml, read_yaml


@pytest.mark.parametrize("text", ["1_000", "٣", "1.0", "1e3", "0x10", "", " ", "--1", "9" * 5000, "½"])
def test_whole_numbers_are_ascii_digits(text: str) -> None:
    with pytest.raises(ConfigError, match="--trials must be a whole number from 1 on, but got"):
        values.count(1)(text, "--trials")


@pytest.mark.parametrize(("text", "number"), [("7", 7), (" 7 ", 7), ("+7", 7), ("007", 7), (7, 7)])
def test_whole_numbers_as_people_write_them(text: object, number: int) -> None:
    assert values.count(1)(text, "--trials") == number


@pytest.mark.parametrize("number", [2**31, 2**64, 10**300, "9" * 300])
def test_counts_have_an_upper_end(number: object) -> None:
    with pytest.raises(ConfigError, match="--trials must be a whole number up to 2147483647, but got"):
        values.count(1)(number, "--trials")


def test_seeds_are_those_that_every_generator_takes() -> None:
    assert SearchConfig(model="resnet18", seed=str(2**32 - 1)).seed == 2**32 - 1
    for seed in (2**32, 2**64, -1):
        with pytest.raises(ConfigError, match="seed must be a whole number"):
            SearchConfig(model="resnet18", seed=seed)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("seed: 1\nseed: 2\n", "line 2: the key 'seed' is given twice"),
        ("a: {b: 1, b: 2}\n", "line 1: the key 'b' is given twice"),
        ("a: 2001-02-30\n", "day is out of range"),
        ("a: !!int ''\n", "not what it looks like"),
        ("a: !!bool x\n", "not what it looks like"),
        ("a: !!timestamp x\n", "not what it looks like"),
        ("a: " + "9" * 5000, "not what it looks like"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: *b\n", "line 1: found undefined alias"),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("? [a]\n: b\n", "unhashable key"),
        ("a: \x00", "special characters are not allowed"),
        ("a\nb: c\n", "line 2: mapping values are not allowed here"),
    ],
)
def test_yaml_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_anchors_merges_and_other_scripts_stay() -> None:
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: [模型, ~, .inf]\n"
    assert parse_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": ["模型", None, float("inf")],
    }


def test_yaml_of_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfmodel: a\n")
    assert read_yaml(file) == {"model": "a"}
    file.write_bytes("modèle: a\n".encode("latin-1"))
    with pytest.raises(YamlError, match="byte 3 is no UTF-8"):
        read_yaml(file)


LAUGHS = "x0: &x0 [lol, lol, lol]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def test_what_stands_for_more_than_memory_holds_is_shown_short(tmp_path: Path) -> None:
    values_of = parse_yaml(LAUGHS)
    assert len(got(values_of)) < 500
    assert len(got("x" * 10**6)) < 200
    assert got(10**5000) == "a whole number of 16610 bits"
    assert got([10**5000]) == "a list"
    file = tmp_path / "space.yaml"
    file.write_text(LAUGHS + "version: *x11\n")
    with pytest.raises(ConfigError) as caught:
        space.load(file)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "{schema: 1, model: [a], layers: {}}",
            "model of Plan cannot be read: it must be text, but got",
        ),
        ("{schema: 1, model: a, layers: [b]}", "layers of Plan cannot be read: it must be a mapping"),
        ("{schema: 1, model: a, layers: {b: 3}}", "LayerChoice must be a mapping of fields, but got 3"),
        ("{schema: 1, model: a, layers: {b: {sparsity: x}}}", "sparsity of LayerChoice"),
        ("{schema: 1, model: a, layers: {b: {sparsity: true}}}", "it must be a number, but got True"),
        ("{schema: 1, model: a, 7: 8}", "Plan has no field 7"),
    ],
)
def test_wrong_types_at_every_key_are_named(text: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(PlanError) as caught:
        Plan.load(file)
    assert part in str(caught.value)
