"""How accuracy grows, and what is forecast of it."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.metrics import learning_curve_of


def simulated(rng: np.random.Generator, exponent: float, floor: float, num_held: int) -> tuple[list[int], np.ndarray]:
    """Hits after 100 to 800 images of a learner whose error is floor + a · n^-exponent, on images of own difficulty."""
    nums, scale = [100, 200, 400, 800], 0.5 * 100**exponent
    difficulty = rng.random(num_held)
    hits = [
        np.stack([difficulty + rng.normal(0, 0.02, num_held) > floor + scale * n**-exponent for _ in range(4)])
        for n in nums
    ]
    return nums, np.stack(hits)


@pytest.mark.parametrize("exponent", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_the_forecast_holds_what_comes(exponent: float, floor: float) -> None:
    """Learners with a power law, with a floor too: the interval holds the true accuracy after twice as many images at
    least nine times in ten."""
    rng = np.random.default_rng(int(100 * exponent) + int(1000 * floor))
    truth = 1 - floor - 0.5 * 100**exponent * 1600**-exponent
    inside = 0
    for _ in range(40):
        nums, hits = simulated(rng, exponent, floor, 300)
        curve = learning_curve_of(nums, hits, rng.integers(0, 3, 300), ("a", "b", "c"))
        assert curve.forecast is not None
        inside += curve.forecast[0] <= truth <= curve.forecast[1]
    assert inside >= 36, inside


def test_a_curve_says_what_was_measured() -> None:
    """Points are the accuracies with Wilson's interval, by class too; the class that grew most is named; where every
    answer is right there is no gain to forecast."""
    right = np.zeros((4, 2, 10), bool)
    right[0, :, :2] = right[1, :, :4] = right[2, :, :6] = right[3, :, :9] = True
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    curve = learning_curve_of([1, 2, 4, 8], right, labels, ("ant", "bee"))
    assert [point.accuracy for point in curve.points] == pytest.approx([0.2, 0.4, 0.6, 0.9])
    assert curve.points[2].classes == pytest.approx((1.0, 0.2)) and curve.gains == "bee"
    words = "after 1, 2, 4, 8 training images 20.0, 40.0, 60.0, 90.0 % (n = 10); twice as many, 16:"
    assert str(curve).startswith(words)
    assert str(curve).endswith("class bee would gain most")
    whole = learning_curve_of([1, 2, 4, 8], np.ones((4, 2, 10), bool), labels, ("ant", "bee"))
    assert whole.forecast == (1.0, 1.0) and whole.gains is None
