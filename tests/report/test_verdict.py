from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.report import summary, words
from autosparse.report.document import Document, load
from autosparse.report.verdict import (
    accuracy_change,
    best,
    dense_reference,
    sentence,
    smallest_feasible_ms,
    speedup,
    status,
)

RunWriter = Callable[..., Path]


def made(make_run: RunWriter, **options: Any) -> Document:
    return load(make_run(**options))


def test_speed_ups_count_from_the_fastest_dense_run(make_run: RunWriter) -> None:
    ours = made(make_run)
    chosen = best(ours)
    assert ours.dense.latency is not None and chosen is not None and chosen.measured_latency_ms
    ratio = ours.dense.latency.median_ms / chosen.measured_latency_ms
    assert speedup(ours, chosen) == pytest.approx(ratio, rel=1e-12)

    def faster_torch(d: dict[str, Any]) -> None:
        d["dense"]["peers"]["torch"].update(median_ms=20.0, ci_low_ms=19.9, ci_high_ms=20.1)

    theirs = made(make_run, edit=faster_torch)
    reference = dense_reference(theirs)
    assert reference is not None
    assert (reference.engine, reference.beaten) == ("torch", ("autosparse",))
    assert speedup(theirs, chosen) == pytest.approx(20.0 / chosen.measured_latency_ms)
    assert "the dense model in torch (20.00 ms)" in sentence(theirs)


@pytest.mark.parametrize(("high_ms", "suffices"), [(14.0, True), (14.1, False)])
def test_a_dense_run_within_the_budget_is_told(
    make_run: RunWriter, high_ms: float, suffices: bool
) -> None:
    def fast(d: dict[str, Any]) -> None:
        d["dense"]["peers"]["torch"].update(median_ms=13.9, ci_low_ms=13.8, ci_high_ms=high_ms)

    text = sentence(made(make_run, edit=fast))
    told = "The dense model in torch is within it as it is (13.90 ms, with 97.2 % test accuracy)."
    assert text.endswith(told) is suffices
    assert ("as it is" in text) is suffices


def test_accuracies_of_different_splits_are_not_compared(make_run: RunWriter) -> None:
    def one_shot(d: dict[str, Any]) -> None:
        d["dense"]["accuracy"].update(split="validation")
        for config in d["configs"]:
            config["accuracy_kind"] = "one-shot"

    document = made(make_run, edit=one_shot)
    assert accuracy_change(document, document.configs[0]) is None
    assert "against dense" not in sentence(document)


def test_a_trained_configuration_is_set_against_dense_trained_as_long(make_run: RunWriter) -> None:
    document = made(make_run)
    first = document.configs[0]
    assert accuracy_change(document, first) == pytest.approx(first.accuracy - 0.9806)
    assert "against dense trained as long" in sentence(document)
    longer = first.model_copy(update={"epochs": 5})
    assert accuracy_change(document, longer) is None, "no dense model was trained for 5 epochs"
    untrained = first.model_copy(update={"accuracy_kind": "one-shot", "epochs": 0})
    assert accuracy_change(document, untrained) == pytest.approx(first.accuracy - 0.9722)
    seen = untrained.model_copy(update={"accuracy_split": "validation"})
    assert accuracy_change(document, seen) == pytest.approx(first.accuracy - 0.9790)


def test_without_a_dense_model_trained_as_long_nothing_is_claimed(make_run: RunWriter) -> None:
    text = sentence(made(make_run, edit=lambda d: d["dense"].pop("trained")))
    assert "points" not in text
    assert "no dense model trained as long to compare with" in text


def test_a_configuration_without_zeros_is_called_dense(make_run: RunWriter) -> None:
    def dense_wins(d: dict[str, Any]) -> None:
        chosen = next(c for c in d["configs"] if c["id"] == d["verdict"]["id"])
        chosen.update(sparsity=0.0, accuracy=0.9806)

    text = sentence(made(make_run, edit=dense_wins))
    assert "±0.0 points against dense trained as long" in text
    assert "It has no zeros: it is the dense model." in text
    assert "no zeros" not in sentence(made(make_run))


@pytest.mark.parametrize("given", [True, False, None])
def test_given_weights_are_said_to_have_seen_validation_images(
    make_run: RunWriter, given: bool | None
) -> None:
    document = made(make_run, edit=lambda d: d.update(given_weights=given))
    assert ("perhaps trained on images of the validation split" in summary(document)) is bool(given)


@pytest.mark.smoke
def test_the_sentence_of_a_met_budget(make_run: RunWriter) -> None:
    document = made(make_run)
    chosen = best(document)
    assert chosen is not None and status(document) == "met"
    text = sentence(document)
    for part in (
        words.ms_ci(chosen.measured_latency_ms, chosen.latency_ci_ms),
        "within the budget of 14 ms",
        words.percent(chosen.accuracy) + " test accuracy (short training",
        words.points(accuracy_change(document, chosen)) + " against dense",
    ):
        assert part in text


def test_an_infeasible_budget_names_the_smallest_feasible_one(make_run: RunWriter) -> None:
    document = made(make_run, budget_ms=3.0)
    bound = smallest_feasible_ms(document)
    assert status(document) == "infeasible" and bound is not None
    assert f"smallest feasible budget is {words.least_ms(bound)}" in sentence(document)
    assert float(words.least_ms(bound).removesuffix(" ms")) >= bound
    printed = summary(document)
    suggested = float(printed.split("--latency-budget ")[1].split("ms")[0])
    assert bound <= suggested < bound * 1.01


def test_an_infeasible_budget_without_a_bound_uses_the_fastest_measured(make_run: RunWriter) -> None:
    document = made(make_run, budget_ms=3.0, edit=lambda d: d.pop("feasibility"))
    fastest = min(c.latency_ci_ms[1] for c in document.configs if c.latency_ci_ms)
    assert smallest_feasible_ms(document) == fastest


def test_a_predicted_bound_that_measurements_miss_is_raised_to_them(make_run: RunWriter) -> None:
    def optimistic(d: dict[str, Any]) -> None:
        d["feasibility"]["smallest_feasible_ms"] = 2.0

    missed = made(make_run, budget_ms=3.0, edit=optimistic)
    fastest = min(c.latency_ci_ms[1] for c in missed.configs if c.latency_ci_ms)
    assert smallest_feasible_ms(missed) == fastest > 3.0
    assert smallest_feasible_ms(made(make_run, edit=optimistic)) == 2.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04381, "0.0439 ms"),
        (0.1, "0.100 ms"),
        (3.501, "3.51 ms"),
        (5.0, "5.00 ms"),
        (123.41, "123.5 ms"),
    ],
)
def test_a_budget_to_ask_for_is_never_rounded_down(value: float, text: str) -> None:
    assert words.least_ms(value) == text


def test_a_model_in_a_file_goes_by_the_files_name(make_run: RunWriter) -> None:
    document = made(make_run, edit=lambda d: d.update(model="/home/me/nets/net.py:build"))
    assert sentence(document).startswith("net.py:build runs in")


def test_no_budget_and_nothing_at_all(make_run: RunWriter) -> None:
    free = made(make_run, budget_ms=None)
    assert status(free) == "front" and "8 configurations on the front" in sentence(free)
    nothing = made(make_run, configs=0, budget_ms=50.0)
    assert status(nothing) == "none"
    assert sentence(nothing) == "No configuration of resnet18 within 50 ms could be evaluated."


def test_an_unmeasured_configuration_is_never_called_measured(make_run: RunWriter) -> None:
    def unmeasured(d: dict[str, Any]) -> None:
        for config in d["configs"]:
            config.update(measured_latency_ms=None, latency_ci_ms=None)

    document = made(make_run, edit=unmeasured)
    assert "predicted" in sentence(document) and "(not measured)" in sentence(document)
    assert speedup(document, document.configs[0]) is None


def test_the_summary_lists_every_configuration_and_marks_the_best(make_run: RunWriter) -> None:
    document = made(make_run)
    lines = summary(document, width=80).splitlines()
    table = {
        line.split()[-9 if line.startswith("*") else 0]: line for line in lines if "% test" in line
    }
    for config in document.configs:
        line = next(line for line in lines if config.id in line)
        assert words.ms_ci(config.measured_latency_ms, config.latency_ci_ms) in line
        assert words.percent(config.accuracy) in line
        assert line.startswith("*") == (config == best(document))
        assert ("met" in line) == config.feasible
    assert len(table) >= 8
    assert all(len(line) <= 100 for line in lines)


def test_a_long_summary_is_cut_but_keeps_the_best(make_run: RunWriter) -> None:
    document = made(make_run, configs=24)
    text = summary(document, limit=3)
    chosen = best(document)
    assert chosen is not None and f"*  {chosen.id}" in text
    assert "and 21 more in pareto.csv" in text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (4.712, (4.68, 4.744), "4.71 ± 0.03 ms"),
        (4.712, (4.68, 4.75), "4.71 ms (4.68 to 4.75)"),
        (4.712, (4.711, 4.713), "4.712 ± 0.001 ms"),
        (4.712, (4.711, 4.714), "4.712 ms (4.711 to 4.714)"),
        (0.4712, (0.47, 0.475), "0.471 ms (0.470 to 0.475)"),
        (1234.0, (1230.0, 1238.0), "1234 ± 4 ms"),
        (1234.0, (1230.0, 1240.0), "1234 ms (1230 to 1240)"),
        (4.71, (4.71, 4.71), "4.71 ± 0.00 ms"),
        # Within 5 ms, which its larger half would not look like.
        (4.38, (3.73, 4.9), "4.38 ms (3.73 to 4.90)"),
        (12.0, None, "12.00 ms"),
        (None, None, words.NONE),
    ],
)
def test_latencies_in_words(
    value: float | None, interval: tuple[float, float] | None, text: str
) -> None:
    assert words.ms_ci(value, interval) == text


def test_other_words() -> None:
    assert words.points(-0.0061) == f"{words.MINUS}0.6 points"
    assert words.points(0.00001) == "±0.0 points"
    assert words.points(0.012) == "+1.2 points"
    assert words.times(2.0789) == f"2.08{words.TIMES}"
    assert words.budget(5.0) == "5 ms"
    assert words.count(1, "trial") == "1 trial" and words.count(12345, "trial") == "12 345 trials"
    assert words.plain(0) == "0.00"
    assert words.glue("4.71 ± 0.04 ms, 95 % of 3 models") == (
        "4.71 ±\xa00.04\xa0ms, 95\xa0% of 3 models"
    )


def test_shapes_in_words() -> None:
    key = "conv2d_b1_i64x56x56_o128_k3x3_s2x2_p1x1_d1x1_g1_relu_res"
    assert words.shape(key).split(", ")[1:] == [
        f"input 56{words.TIMES}56",
        f"3{words.TIMES}3",
        "stride 2",
        "relu",
        "residual",
    ]
    assert words.shape("linear_b1_i512x1x1_o1000").startswith("512")
    assert words.shape("something else") == "something else"
