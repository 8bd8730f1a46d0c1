"""The formulas, held against scikit-learn, SciPy and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as sk_confusion
from sklearn.metrics import log_loss, precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier

from convlens import metrics


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    """The interval is SciPy's, for any count."""
    right, n = case
    low, high = metrics.wilson_interval(right, n)
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= right / n <= high <= 1


def test_wilson_refuses_impossible_counts() -> None:
    """No interval without samples, or with more right than there are."""
    for right, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="not a proportion"):
            metrics.wilson_interval(right, n)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5))
def test_confusion_and_scores_agree_with_scikit_learn(seed: int, n: int, k: int) -> None:
    """Matrix, precision, recall, F1 and support are scikit-learn's; the undefined ones are NaN."""
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, k, n), rng.integers(0, k, n)
    confusion = metrics.confusion_matrix(labels, predicted, k)
    assert np.array_equal(confusion, sk_confusion(labels, predicted, labels=range(k)))
    ours = metrics.class_scores(confusion)
    theirs = precision_recall_fscore_support(labels, predicted, labels=range(k), zero_division=np.nan)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b)


def test_cross_entropy_agrees_with_scikit_learn_and_does_not_overflow() -> None:
    """Mean log loss in nats, also for logits of a thousand."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (50, 4)), rng.integers(0, 4, 50)
    assert metrics.cross_entropy(logits, labels) == pytest.approx(
        log_loss(labels, metrics.softmax(logits), labels=range(4))
    )
    assert metrics.cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])) == pytest.approx(1000.0)


def test_calibration_error_by_hand() -> None:
    """Two bins with known gaps give their weighted mean; perfect confidence that is right gives 0."""
    p = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [1] * 3 + [0] * 7)
    assert metrics.calibration_error(p, labels) == pytest.approx(0.5 * 0.1 + 0.5 * 0.3)
    assert metrics.calibration_error(np.eye(3), np.arange(3)) == 0.0


def test_score_reads_well() -> None:
    """A score never stands without its interval and its n."""
    score = metrics.score(np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1]))
    assert score.n == 3 and score.accuracy == pytest.approx(2 / 3)
    assert "interval" in str(score) and "n = 3" in str(score)


def test_best_temperature_is_the_minimum() -> None:
    """Against a fine grid, for logits too sure, too timid, and right; within the bounds where every answer is right."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 500)
    logits = rng.normal(size=(500, 4)) + 1.5 * np.eye(4)[labels]
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2_000))
    for scale in (0.2, 1.0, 7.0):
        losses = [metrics.cross_entropy(scale * logits / t, labels) for t in grid]
        temperature, loss = metrics.best_temperature(scale * logits, labels)
        assert loss <= min(losses) + 1e-7 and temperature == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)
    assert 0.05 <= metrics.best_temperature(50.0 * np.eye(4)[labels], labels)[0] < 0.06


def test_an_interval_of_groups() -> None:
    """Groups of one are Wilson's interval; alike within groups it is that of so many groups, at least; a simulated
    population is covered; nothing is known from one group."""
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.8
    assert metrics.grouped_interval(right, np.arange(200)) == metrics.wilson_interval(int(right.sum()), 200)
    few = np.repeat(right[:20], 10)
    low, high = metrics.grouped_interval(few, np.repeat(np.arange(20), 10))
    wilson = metrics.wilson_interval(int(right[:20].sum()), 20)
    assert low <= wilson[0] and high >= wilson[1] - 0.02
    assert metrics.grouped_interval(np.ones(160, bool), np.repeat(np.arange(4), 40)) == metrics.wilson_interval(4, 4)
    assert metrics.grouped_interval(np.arange(9) < 4, np.zeros(9)) == (0.0, 1.0)
    for num_groups in (5, 12, 40):
        inside = 0
        for _ in range(400):
            chance = rng.beta(4, 1, num_groups)  # of being right, each group its own: 0.8 in the mean
            sizes = rng.integers(5, 30, num_groups)
            groups = np.repeat(np.arange(num_groups), sizes)
            low, high = metrics.grouped_interval(rng.random(len(groups)) < chance[groups], groups)
            inside += low <= 0.8 <= high
        assert inside >= 0.92 * 400, num_groups


def test_with_many_groups_the_interval_is_the_bootstraps() -> None:
    """150 groups of 8: both ends within a tenth of the width of the percentile bootstrap over groups (2,000 draws)."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(150), 8)
    right = rng.random(1_200) < rng.beta(9, 1, 150)[groups]
    low, high = metrics.grouped_interval(right, groups)
    means = right.reshape(150, 8).mean(axis=1)
    other = np.quantile(means[rng.integers(0, 150, (2_000, 150))].mean(axis=1), [0.025, 0.975])
    assert np.abs(np.array([low, high]) - other).max() < (high - low) / 10


def test_nearest_neighbours_are_scikit_learns() -> None:
    """Where no two classes have as many votes, and over more queries than are asked at once."""
    rng = np.random.default_rng(0)
    x, y, asked = rng.normal(size=(400, 6)), rng.integers(0, 2, 400), rng.normal(size=(600, 6))
    expected = KNeighborsClassifier(5, algorithm="brute").fit(x, y).predict(asked)
    assert (metrics.nearest_neighbours(x, y, asked, 5) == expected).all()


def test_coverage_begins_with_the_surest_and_ends_with_all() -> None:
    """Five samples by hand: the surest is right, the second wrong."""
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.55, 0.45]])
    curve = metrics.coverage_curve(p, np.array([0, 0, 0, 1, 0]))
    assert curve == [pytest.approx(v) for v in ((0.2, 1), (0.4, 0.5), (0.6, 2 / 3), (0.8, 0.75), (1, 0.8))]


def test_classes_that_are_confused_stand_together() -> None:
    """Two pairs that are taken for one another, in any numbering, are neighbours in the order; without a mistake the
    order stays."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        number = rng.permutation(6)
        confusion = np.diag(np.full(6, 90))
        for a, b in ((0, 1), (2, 3), (4, 5)):
            confusion[number[a], number[b]] = confusion[number[b], number[a]] = 10
        confusion[number[1], number[2]] = confusion[number[3], number[4]] = 1
        place = np.argsort(metrics.seriated(confusion))
        assert all(abs(place[number[a]] - place[number[b]]) == 1 for a, b in ((0, 1), (2, 3), (4, 5)))
    assert metrics.seriated(np.diag([3, 4, 5])).tolist() == [0, 1, 2]
