"""Thresholds and the promises that they keep."""

import re
from dataclasses import replace
from math import sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

import convlens
from convlens import thresholds
from convlens.errors import DataError, ModelFileError, UsageError
from convlens.evaluation.promises import promises_kept
from convlens.metrics import binomial_cdf, clopper_pearson_interval, softmax
from convlens.modelfile import read_model, write_model
from convlens.thresholds import Thresholds, wishes
from tests.conftest import QUICK, TINY, shapes

NAMES = ("a", "b", "c")


def drawn(num: int, rng: np.random.Generator, spread: float = 1.2) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of a classifier that is right for some nine in ten of the labels that it is given."""
    labels = rng.integers(0, 3, num)
    logits = rng.normal(size=(num, 3)) * spread
    logits[np.arange(num), labels] += 1.5 * rng.gamma(2, 1, num)
    return softmax(logits), labels


@pytest.mark.parametrize(
    ("promise", "num"),
    [("reject 0.02", 1_500), ("reject 0.05", 400), ("b recall>=0.95", 600), ("b precision>=0.9", 900)],
)
def test_a_promise_is_kept_in_nine_of_ten_draws(promise: str, num: int) -> None:
    """Of 200 simulated validation sets at least nine in ten (less two standard errors of chance) give thresholds that
    keep the promise on what they did not see; a set that cannot promise it breaks nothing, and not all are such."""
    rng = np.random.default_rng(1)
    p_NK, labels_N = drawn(100_000, rng)
    broken = refused = 0
    for _ in range(200):
        try:
            if promise.startswith("reject"):
                at_most = float(promise.split()[1])
                made = thresholds.reject(*drawn(num, rng), at_most)
                answers = made.answers(p_NK, NAMES)
                given = ~answers.uncertain_N
                broken += (answers.labels_N != labels_N)[given].mean() > at_most
                continue
            wanted = wishes([promise], NAMES)
            made = thresholds.require(*drawn(num, rng), wanted, NAMES)
        except DataError:
            refused += 1
            continue
        called, is_class = made.answers(p_NK, NAMES).labels_N == 1, labels_N == 1
        broken += (called & is_class).sum() < wanted[0].at_least * (is_class if "recall" in promise else called).sum()
    assert broken / 200 <= 0.1 + 2 * sqrt(0.1 * 0.9 / 200)
    assert refused < 150


def test_ninety_nine_percent_recall_needs_230_without_a_miss() -> None:
    """What the issue of promises names: 229 are too few, 230 do, of which the least sure sets the threshold."""
    p_NK = np.full((700, 3), 0.05)
    p_NK[:, 0] = 0.9
    labels_N = np.zeros(700, np.int64)
    p_NK[:230] = np.linspace(0.2, 0.9, 230)[:, None] * [0, 1, 0] + [0.05, 0, 0.05]
    labels_N[:230] = 1
    wanted = wishes(["b recall>=99%"], NAMES)
    made = thresholds.require(p_NK, labels_N, wanted, NAMES)
    assert made.require[0].threshold == pytest.approx(0.2) and made.require[0].num_images == 230
    with pytest.raises(
        DataError, match=r"229 images of it, and 230 without a miss are needed; with them .*recall>=0.989"
    ):
        thresholds.require(p_NK[1:], labels_N[1:], wanted, NAMES)


def test_a_recall_may_miss_as_many_as_the_binomial_distribution_allows() -> None:
    """Of 1,000 of a class, 95 %: the threshold is the (k+1)-th lowest score, k the most misses that a recall of 95 %
    has with a chance of a tenth or less."""
    scores = np.arange(1, 1_001) / 1_001
    p_NK = np.stack([1 - scores, scores, np.zeros(1_000)], axis=1)
    made = thresholds.require(p_NK, np.ones(1_000, np.int64), wishes(["b recall>=0.95"], NAMES), NAMES)
    missed = made.require[0].num_wrong
    assert binomial_cdf(missed, 1_000, 0.05) <= 0.1 < binomial_cdf(missed + 1, 1_000, 0.05)
    assert made.require[0].threshold == scores[missed]


def test_images_of_one_group_count_once() -> None:
    """300 images of 30 groups tell as much as 30: what 300 independent ones can promise is refused."""
    rng = np.random.default_rng(0)
    p_NK = softmax(rng.normal(size=(300, 3)) + 8 * np.eye(3)[np.ones(300, int)])
    labels_N, groups_N = np.ones(300, np.int64), np.arange(300) // 10
    thresholds.reject(p_NK, labels_N, 0.01)
    with pytest.raises(DataError, match="30 validation images"):
        thresholds.reject(p_NK, labels_N, 0.01, groups_N)
    thresholds.require(p_NK, labels_N, wishes(["b recall>=0.99"], NAMES), NAMES)
    with pytest.raises(DataError, match="30 groups of it"):
        thresholds.require(p_NK, labels_N, wishes(["b recall>=0.99"], NAMES), NAMES, groups_N)


def test_promises_of_groups_are_said_and_measured_by_group(tmp_path: Path) -> None:
    """Wrong groups are ten times as large as right ones: of groups it can be promised, and is; of images it would be
    false, and is not what is said."""
    rng = np.random.default_rng(0)
    sizes = np.where(rng.random(600) < 0.03, 10, 1)
    groups_N, labels_N = np.repeat(np.arange(600), sizes), np.ones(sizes.sum(), np.int64)
    answers_N = np.where(np.repeat(sizes, sizes) == 10, 0, 1)
    made = thresholds.reject(softmax(8.0 * np.eye(3)[answers_N]), labels_N, 0.1, groups_N)
    assert made.by_group and "counted by groups" in str(made)
    assert (answers_N != labels_N).mean() > 0.15
    fake = SimpleNamespace(
        thresholds=made,
        class_names=NAMES,
        labels=lambda p: made.answers(p, NAMES),
        probabilities=softmax,
    )
    promise = promises_kept(fake, 8.0 * np.eye(3)[answers_N], labels_N, groups_N)[0]  # type: ignore[arg-type]
    assert promise.n == 600 and promise.num_kept == (sizes == 1).sum() and "groups" in str(promise)


def test_the_share_that_is_rejected_says_what_chance_does_to_it() -> None:
    """Of 60 sets drawn from one source, nine in ten or so are rejected a share within what one of them says; where
    nothing can be promised by some of its samples, up to all."""
    shares, spans = [], []
    for seed in range(60):
        p_NK, labels_N = drawn(400, np.random.default_rng(seed))
        found = thresholds.reject(p_NK, labels_N, 0.07).reject
        assert found is not None
        shares.append(float((p_NK.max(axis=1) < found.threshold).mean()))
        if seed < 5:
            spans.append(thresholds.rejected_again(p_NK, labels_N, 0.07))
    inside = [np.mean([low <= share <= high for share in shares]) for low, high in spans]
    assert np.median(inside) > 0.6 and all(low < high for low, high in spans)
    p_NK, labels_N = drawn(60, np.random.default_rng(0))
    assert thresholds.rejected_again(p_NK, labels_N, 0.05)[1] == 1
    groups_N = np.arange(400) // 4
    p_NK, labels_N = drawn(400, np.random.default_rng(1))
    assert thresholds.rejected_again(p_NK, labels_N, 0.2, groups_N) != thresholds.rejected_again(p_NK, labels_N, 0.2)


def test_how_many_images_are_needed_is_about_as_many_as_do() -> None:
    """What is refused with 300 images is granted by about as many as the line says, in most draws."""
    p_NK, labels_N = drawn(300, np.random.default_rng(2))
    with pytest.raises(DataError, match="val_frac") as caught:
        thresholds.reject(p_NK, labels_N, 0.02)
    needed = int(re.findall(r"some ([\d,]+) images", str(caught.value))[0].replace(",", ""))
    granted = 0
    for seed in range(20):
        try:
            thresholds.reject(*drawn(2 * needed, np.random.default_rng(100 + seed)), 0.02)
            granted += 1
        except DataError:
            pass
    assert 300 < needed < 20_000 and granted >= 10


def test_answers_follow_the_thresholds() -> None:
    """The first class whose threshold is reached, else the likeliest of the others, else uncertain."""
    one = thresholds.Requirement("b", "recall", 0.9, 0.2, 100, 0)
    p_NK = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.1, 0.1, 0.8]])
    found = Thresholds(confidence=0.9, require=(one,)).answers(p_NK, NAMES)
    assert found.labels_N.tolist() == [1, 0, 2] and not found.uncertain_N.any()
    both = Thresholds(confidence=0.9, require=(one, replace_class(one, "c", 0.3)))
    assert both.answers(p_NK, NAMES).labels_N.tolist() == [1, 2, 2]
    every = Thresholds(confidence=0.9, require=(*both.require, replace_class(one, "a", 0.6)))
    assert every.answers(np.array([[0.5, 0.1, 0.25]]), NAMES).uncertain_N.tolist() == [True]


def replace_class(one: thresholds.Requirement, name: str, threshold: float) -> thresholds.Requirement:
    return one.replace(class_name=name, threshold=threshold)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["b recall=0.9"], "must be as"),
        (["b recall>=1"], "a number from"),
        (["b recall>=ninety"], "must be as"),
        (["b recall>=0"], "a number from"),
        (["bb recall>=0.9"], "does not know class 'bb'"),
        (["b recall>=0.9", "b recall>=0.8"], "twice"),
        (["recall>=0.9"], "must be as"),
        (["b recall>=1e400"], "a number from"),
        (["b recall>=e"], "a number from"),
        ([5], "must be texts"),
    ],
)
def test_a_requirement_that_cannot_be_read_is_refused(texts: list[str], words: str) -> None:
    """One line says what it must be."""
    with pytest.raises(UsageError, match=words):
        wishes(texts, NAMES)


def test_both_of_one_class_need_a_threshold_that_keeps_both() -> None:
    """Recall from low thresholds, precision from high ones: where they do not meet, that is said."""
    p_NK, labels_N = drawn(3_000, np.random.default_rng(3))
    made = thresholds.require(p_NK, labels_N, wishes(["b recall>=0.5", "b precision>=0.9"], NAMES), NAMES)
    assert len({one.threshold for one in made.require}) == 1
    with pytest.raises(DataError, match="both cannot be promised"):
        thresholds.require(p_NK, labels_N, wishes(["b recall>=0.97", "b precision>=0.9"], NAMES), NAMES)


def test_clopper_and_pearson_agree_with_scipy() -> None:
    """Intervals and binomial sums to many digits, at the ends and in the middle."""
    from scipy.stats import binom, binomtest

    for num, n in [(0, 10), (10, 10), (3, 17), (118, 120), (9_000, 10_000)]:
        expected = binomtest(num, n).proportion_ci(0.9, method="exact")
        assert clopper_pearson_interval(num, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-9)
    for k, n, p in [(0, 230, 0.01), (3, 1_000, 0.01), (500, 1_000, 0.5), (99_000, 100_000, 0.99), (5, 5, 0.2)]:
        assert binomial_cdf(k, n, p) == pytest.approx(binom.cdf(k, n, p), rel=1e-7)


# ---------------------------------------------------------------- in a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """Bars and discs with a few labels that are wrong."""
    x, y = shapes(2_000)
    out = tmp_path_factory.mktemp("promising") / "run"
    y[::40] = (y[::40] + 1) % 3
    recipe = QUICK.replace(label_smoothing=0.2)
    return convlens.train((x, y), architecture=TINY, recipe=recipe, out=out, progress="none", val_frac=0.4)


def test_a_promise_is_kept_in_the_model_file_and_changes_answers(trained: convlens.Run) -> None:
    """`reject` leaves pictures without an answer, in Python, JSON and report; `raw` knows none, none takes it out."""
    report = convlens.evaluate(trained, reject=0.1, progress="none")
    kept = read_model(trained.model).card.thresholds
    assert kept is not None and kept.reject is not None and kept.reject.at_most == 0.1
    assert report.promises[0].n + report.promises[0].num_others == report.n
    assert report.to_json()["promises"][0]["n"] == report.promises[0].n
    assert "promised: at most 10 % of its answers wrong, with 90 % confidence" in str(report)
    assert "promised: at most 10 %" in report.text(".html")
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    answers = convlens.predict(trained, list(noise), progress="none")
    assert {p.uncertain for p in answers} <= {True, False} and "uncertain" in answers[0].to_json()
    expected = [p.probability < kept.reject.threshold for p in answers]
    assert [p.uncertain for p in answers] == expected
    assert all(p.uncertain is None for p in convlens.predict(trained, list(noise), raw=True, progress="none"))
    convlens.evaluate(trained, require="none", progress="none")
    assert read_model(trained.model).card.thresholds is None


def test_a_required_class_is_called_from_its_threshold_on(trained: convlens.Run) -> None:
    """`require` several, on validation: labels of predict are those of the thresholds, and found ones add up."""
    report = convlens.evaluate(trained, split="val", require=["1 recall>=0.9", "0 recall>=0.5"], progress="none")
    kept = read_model(trained.model).card.thresholds
    assert kept is not None and [one.class_name for one in kept.require] == ["1", "0"]
    assert report.promises[0].num_kept >= 0.9 * report.promises[0].n
    assert "thresholds were set by" in str(report)
    x, _ = shapes(60, seed=9)
    classifier = convlens.load(trained)
    p_NK = classifier.probabilities(classifier.logits(x[..., None]))
    expected = kept.answers(p_NK, classifier.class_names).labels_N
    answers = convlens.predict(trained, list(x), progress="none")
    assert [int(p.label) for p in answers] == expected.tolist()


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"reject": 0.0001}, DataError, "cannot be promised by .* validation images"),
        ({"reject": 0.1, "require": "1 recall>=0.9"}, UsageError, "ask for one of them"),
        ({"reject": 0.1, "raw": True}, UsageError, "leave `raw`"),
        ({"reject": 0.7}, UsageError, "reject must be"),
        ({"reject": 1e-310}, UsageError, "reject must be"),
        ({"require": 0.99}, UsageError, "must be texts"),
        ({"require": "1 recall>=0.9999"}, DataError, "without a miss are needed"),
    ],
)
def test_what_cannot_be_promised_leaves_the_model_as_it_is(
    trained: convlens.Run, asked: dict[str, object], error: type[Exception], words: str
) -> None:
    """One line says why, and the file is the same."""
    before = trained.model.read_bytes()
    with pytest.raises(error, match=words):
        convlens.evaluate(trained, progress="none", **asked)  # type: ignore[arg-type]
    assert trained.model.read_bytes() == before


def test_a_file_with_thresholds_of_another_class_is_refused(trained: convlens.Run, tmp_path: Path) -> None:
    """A stranger's card cannot name a class that there is not."""
    file = read_model(trained.model)
    one = thresholds.Requirement("nine", "recall", 0.9, 0.2, 100, 0)
    card = replace(file.card, thresholds=Thresholds(confidence=0.9, require=(one,)))
    write_model(tmp_path / "m.safetensors", card, file.tensors)
    with pytest.raises(ModelFileError, match="no class 'nine'"):
        read_model(tmp_path / "m.safetensors")
