"""Differences of classifiers on the same images: against other libraries, against the bootstrap, and in simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from convlens.metrics import t_quantile, t_two_sided
from convlens.paired import compared, holm, mcnemar

Right = NDArray[np.bool_]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (5, 5), (3, 14), (121, 59), (1_000, 1_100)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    """SciPy's two-sided test of a fair coin, and 1 where nothing differs."""
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-6)


def test_holm_agrees_with_his_definition() -> None:
    """By hand, for S. Holm's procedure: sorted, times what is left, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


def test_the_interval_of_two_models_is_bonett_and_prices() -> None:
    """Their formula by hand for 36 both, 12 one, 2 the other, 0 none: (13 - 3) / 52 and its spread."""
    one = np.array([True] * 36 + [True] * 12 + [False] * 2)
    other = np.array([True] * 36 + [False] * 12 + [True] * 2)
    found = compared(one[None], other[None])
    centre, plus, minus = 10 / 52, 13 / 52, 3 / 52
    reach = 1.959964 * np.sqrt((plus + minus - centre**2) / 52)
    assert (found.low, found.high) == pytest.approx((centre - reach, centre + reach), abs=1e-6)
    assert (found.gained, found.lost) == (12, 2) and found.estimate == pytest.approx(0.2)
    assert found.p == pytest.approx(stats.binomtest(2, 14).pvalue)


@pytest.mark.parametrize("degrees", [1, 1.5, 3, 12, 250, 4e4])
def test_students_distribution_is_scipys(degrees: float) -> None:
    """Tails and quantile, of whole degrees of freedom and others."""
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-4)
    for t in (0.3, 2.5, -6):
        assert t_two_sided(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), abs=1e-6)


def plan(rng: np.random.Generator, hard_N: NDArray[np.float64], seeds: int, spread: float) -> Right:
    """Models of some seeds of one plan: images are hard for all of them, and each has its own good days."""
    own = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.8, (seeds, len(hard_N)))
    found: Right = hard_N + own > 0
    return found


_EQUAL = [(1, 0.0), (3, 0.1), (5, 0.1), (10, 0.1), (10, 0.0)]
_ALL = [pytest.param(*one, 2_000, marks=pytest.mark.slow) for one in _EQUAL]


@pytest.mark.parametrize(("seeds", "spread", "pairs"), [(1, 0.0, 400), (3, 0.1, 400), *_ALL])
def test_of_equal_plans_a_winner_is_named_in_at_most_six_of_a_hundred(seeds: int, spread: float, pairs: int) -> None:
    """Pairs that differ by chance alone: single models, and groups of 3, 5 and 10 seeds; of 2,000 at most 6 %, of fewer
    two standard errors more."""
    rng = np.random.default_rng(seeds)
    named = 0
    for _ in range(pairs):
        hard_N = rng.normal(2, 1.2, 400)
        found = compared(plan(rng, hard_N, seeds, spread), plan(rng, hard_N, seeds, spread))
        named += found.p < 0.05 and not found.spans_zero
    assert named / pairs <= 0.06 + (0 if pairs == 2_000 else 2 * np.sqrt(0.05 / pairs))


def test_of_images_in_groups_it_is_no_more() -> None:
    """Fifty images of each of 20 patients: as if they were independent, a fifth of equal pairs had a winner."""
    rng = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(20), 50)
    named = naive = 0
    for _ in range(600):
        hard_N = rng.normal(2, 1, 20)[patient_N]
        one, other = ((hard_N + rng.normal(0, 0.6, 20)[patient_N] + rng.normal(0, 1, 1_000) > 0)[None] for _ in "ab")
        found, plain = compared(one, other, patient_N), compared(one, other)
        named += found.p < 0.05 and not found.spans_zero
        naive += plain.p < 0.05
    assert named / 600 <= 0.07 < 0.2 < naive / 600


def bootstrapped(rng: np.random.Generator, draw: object, times: int = 1_500) -> tuple[float, float]:
    """Percentiles of a statistic that is drawn anew."""
    found = [draw(rng) for _ in range(times)]  # type: ignore[operator]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def test_with_many_groups_it_agrees_with_the_bootstrap_over_groups() -> None:
    """150 groups: both ends within a tenth of the interval's width."""
    rng = np.random.default_rng(1)
    group_N = np.repeat(np.arange(150), 8)
    hard_N = rng.normal(1.5, 1, 150)[group_N]
    one, other = (hard_N + rng.normal(0, 0.7, 150)[group_N] + rng.normal(0, 1, 1_200) > 0 for _ in "ab")
    found = compared(one[None], other[None], group_N)
    apart_G = (one.astype(float) - other).reshape(150, 8).mean(axis=1)
    low, high = bootstrapped(rng, lambda r: apart_G[r.integers(0, 150, 150)].mean())
    width = found.high - found.low
    assert abs(found.low - low) < width / 10 and abs(found.high - high) < width / 10


def test_with_many_seeds_it_agrees_with_the_bootstrap_over_seeds_and_images() -> None:
    """40 seeds of each plan, drawn anew together with the images (A. Owen's pigeonhole bootstrap, which is a little too
    wide): both ends within a fifth of the interval's width."""
    rng = np.random.default_rng(2)
    hard_N = rng.normal(1.5, 1.2, 800)
    one, other = plan(rng, hard_N, 40, 0.25), plan(rng, hard_N + 0.02, 40, 0.25)
    found = compared(one, other)

    def draw(r: np.random.Generator) -> float:
        images = r.integers(0, 800, 800)
        a, b = one[r.integers(0, 40, 40)][:, images], other[r.integers(0, 40, 40)][:, images]
        return float(a.mean() - b.mean())

    low, high = bootstrapped(rng, draw, 600)
    width = found.high - found.low
    assert abs(found.low - low) < width / 5 and abs(found.high - high) < width / 5


def test_as_many_images_as_it_names_tell_the_difference() -> None:
    """A difference that 300 images cannot tell: with the number that is named some eight in ten draws tell it; where
    nothing differs no number is named."""
    rng = np.random.default_rng(3)

    def pair(num: int) -> tuple[Right, Right]:
        hard_N = rng.normal(1.2, 1, num)
        return ((hard_N + rng.normal(0, 0.5, num) + better > 0)[None] for better in (0.25, 0.0))  # type: ignore[return-value]

    estimates = [compared(*pair(20_000)) for _ in range(10)]
    needed = int(np.median([one.num_images for one in estimates if one.num_images is not None]))
    told = sum(compared(*pair(needed)).p < 0.05 for _ in range(200))
    assert 0.65 < told / 200 < 0.93
    same = rng.random(300) < 0.9
    assert compared(same[None], same[None]).num_images is None


def test_more_seeds_are_asked_for_where_images_cannot_tell() -> None:
    """Plans whose seeds differ more than the plans do: no number of images is named, but one of seeds."""
    rng = np.random.default_rng(5)
    hard_N = rng.normal(1.2, 1, 20_000)
    found = compared(plan(rng, hard_N + 0.05, 3, 0.2), plan(rng, hard_N, 3, 0.2))
    assert found.num_images is None and found.num_seeds is not None and found.num_seeds > 3


def test_of_a_plan_with_one_seed_the_spread_is_the_others() -> None:
    """One model against ten of a plan whose seeds differ much: the interval is as wide as seeds make it."""
    rng = np.random.default_rng(6)
    hard_N = rng.normal(1.2, 1, 2_000)
    one, ten = plan(rng, hard_N, 1, 0.3), plan(rng, hard_N, 10, 0.3)
    spread = float(ten.mean(axis=1).std(ddof=1))
    found = compared(one, ten)
    assert found.high - found.low > 2 * 1.96 * spread


def test_few_images_or_groups_name_no_winner() -> None:
    """Two groups that agree to the image, two seeds of which one plan is right for both images: no spread was seen, and
    still nothing is told, as McNemar's test has it for two images."""
    group_N = np.repeat([0, 1], 10)
    worse = np.ones(20, bool)
    worse[[0, 10]] = False
    found = compared(np.ones((1, 20), bool), worse[None], group_N)
    assert found.p > 0.05 and found.spans_zero
    found = compared(np.ones((2, 2), bool), np.zeros((2, 2), bool))
    assert found.p > 0.05 and found.spans_zero
    same = compared(np.ones((3, 50), bool), np.ones((3, 50), bool))
    assert same.estimate == 0 and same.p == 1 and same.low < 0 < same.high
