from __future__ import annotations

import math

import numpy as np
import pytest

from autosparse.compare.verify import TOLERANCE, error, why_wrong


def test_the_error_is_relative_to_the_largest_output() -> None:
    expected = [np.array([[1.0, -4.0]], np.float32), np.array([0.5], np.float32)]
    got = [np.array([[1.2, -4.0]], np.float32), np.array([0.5], np.float32)]
    assert error(got, expected) == pytest.approx(0.05)
    assert error(expected, expected) == 0


@pytest.mark.parametrize(
    "got", [[], [np.zeros((1, 3))], [np.array([[1.0, np.nan]])], [np.array([[np.inf, 1.0]])]]
)
def test_another_form_or_a_value_that_is_not_finite_is_infinitely_wrong(got: list[np.ndarray]) -> None:
    found = error(got, [np.ones((1, 2), np.float32)])
    assert math.isinf(found)
    assert "another shape" in why_wrong(found, "f32")


def test_outputs_of_zero_are_compared_too() -> None:
    nothing = [np.zeros(3, np.float32)]
    assert error(nothing, nothing) == 0
    assert error([np.full(3, 1e-6, np.float32)], nothing) > 1


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_type_has_its_own_tolerance(dtype: str) -> None:
    assert why_wrong(TOLERANCE[dtype], dtype) == ""
    assert f"in {dtype} must be within" in why_wrong(1.01 * TOLERANCE[dtype], dtype)
