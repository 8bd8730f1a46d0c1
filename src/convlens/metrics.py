"""Numbers that say how good a classifier is, from NumPy arrays alone.

Owns the formulas; knows nothing of networks, files or splits. N samples, K classes throughout.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens.records import Amount, Count, Name, Record, Share
from convlens.text import percent, shown

IMBALANCED = 2.0  # the largest class has so many times the images of the smallest
SUSPICIOUS_N = 1_000  # so many images, all right, are rarely an honest result
Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def wilson_interval(num_right: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (E. B. Wilson, JASA 22, 1927) of a proportion, both ends in 0..1.

    Unlike the normal approximation it stays inside 0..1 and is not empty at 0 or n right.
    Raises ValueError unless 0 <= num_right <= n and n > 0.
    """
    if n <= 0 or not 0 <= num_right <= n:
        raise ValueError(f"{num_right} right of {n} is not a proportion")
    return _wilson(num_right / n, n, z)


def _wilson(p: float, n: float, z: float = Z_95) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At p = 0 and p = 1 the ends are exactly 0 and 1; rounding must not move them.
    return (0.0 if p == 0 else centre - half, 1.0 if p == 1 else centre + half)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial distribution of n trials with a chance p of success, to 1e-7 (relative)."""
    if k < 0 or k >= n or p <= 0 or p >= 1:
        return float(k >= n or (k >= 0 and p <= 0))
    i = np.arange(1, k + 1)
    log_terms = np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i) + math.log(p) - math.log1p(-p))])
    top = float(log_terms.max())
    return min(1.0, math.exp(n * math.log1p(-p) + top + math.log(float(np.exp(log_terms - top).sum()))))


def clopper_pearson_interval(num: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (C. Clopper and E. Pearson, Biometrika 26, 1934), both ends in 0..1, by
    bisection. Each end alone holds with (1 + confidence) / 2. Raises ValueError unless 0 <= num <= n and n > 0."""
    if n <= 0 or not 0 <= num <= n:
        raise ValueError(f"{num} of {n} is not a proportion")
    risk = (1 - confidence) / 2

    def highest(wrong: int) -> float:  # the chance at which so few or fewer would be as rare as the risk
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if binomial_cdf(wrong, n, middle) > risk else (low, middle)
        return high

    return (0.0 if num == 0 else 1 - highest(n - num), 1.0 if num == n else highest(num))


def fisher_exact(num: int, n: int, other_num: int, other_n: int) -> float:
    """The p-value (two-sided) of R. A. Fisher's exact test (1935) for num of n and other_num of other_n being of one
    chance: of all ways to share them out, those that are no likelier than this one."""
    total, both = num + other_num, n + other_n
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, both + 1)))])  # of factorials
    k = np.arange(max(0, total - other_n), min(n, total) + 1)
    log_ways = -(logs[k] + logs[n - k] + logs[total - k] + logs[other_n - total + k])
    ways = np.exp(log_ways - log_ways.max())
    own = ways[num - int(k[0])]
    return min(1.0, float(ways[ways <= own * (1 + 1e-7)].sum() / ways.sum()))


def kolmogorov_smirnov(x_N: NDArray[np.floating], y_M: NDArray[np.floating]) -> tuple[float, float]:
    """The largest distance between two distribution functions, 0..1, and its p-value (two-sided), after the limit of A.
    Kolmogorov with M. Stephens' correction for few samples (J. Royal Stat. Soc. B 32, 1970)."""
    both = np.sort(np.concatenate([x_N, y_M]))
    here, there = (np.searchsorted(np.sort(one), both, side="right") / len(one) for one in (x_N, y_M))
    distance = float(np.abs(here - there).max())
    root = math.sqrt(len(x_N) * len(y_M) / (len(x_N) + len(y_M)))
    reach = (root + 0.12 + 0.11 / root) * distance
    if reach < 0.2:
        return distance, 1.0
    terms = [(-1) ** (j - 1) * math.exp(-2 * j * j * reach * reach) for j in range(1, 101)]
    return distance, min(1.0, max(0.0, 2 * sum(terms)))


def grouped_interval(is_right_N: NDArray[np.bool_], groups_N: NDArray[Any]) -> tuple[float, float]:
    """Wilson's interval where samples of one group are not independent: of as many samples as would tell as much.
    `is_right_N` bool (N,), `groups_N` (N,) the same for samples of one group, N > 0; both ends in 0..1.

    n is divided by the design effect, the variance of a ratio over groups against that of independent samples, and by
    the square of Student's t against that of n samples (Korn and Graubard, Survey Methodology 24, 1998). Where all or
    none are right, groups say nothing of their spread, and count as one sample each.
    """
    n, (_, group_N) = len(is_right_N), np.unique(groups_N, return_inverse=True)
    num_groups, p = int(group_N.max()) + 1, float(is_right_N.mean())
    if num_groups == n:
        return wilson_interval(int(is_right_N.sum()), n)
    if p in (0.0, 1.0):
        return wilson_interval(round(p * num_groups), num_groups)
    if num_groups == 1:
        return 0.0, 1.0  # whatever other groups would give
    sums_G = np.bincount(group_N, weights=is_right_N - p)
    variance = num_groups / (num_groups - 1) * float((sums_G**2).sum()) / n**2
    effect = max(1.0, variance / (p * (1 - p) / n)) * (t_quantile(num_groups - 1) / Z_95) ** 2
    return _wilson(p, n / effect)


def interval_of(is_right_N: NDArray[np.bool_], groups_N: NDArray[Any] | None) -> tuple[float, float]:
    """95 % interval of the share that is right: Wilson's, or that of groups. N > 0."""
    if groups_N is None:
        return wilson_interval(int(is_right_N.sum()), len(is_right_N))
    return grouped_interval(is_right_N, groups_N)


def t_two_sided(t: float, degrees: float) -> float:
    """P(|T| > |t|) of Student's distribution of at least one degree of freedom, whole or not, within 1e-6."""
    angles, share = _t_shares(degrees)
    return max(0.0, 1 - float(np.interp(math.atan(abs(t) / math.sqrt(min(degrees, _MOST_DEGREES))), angles, share)))


def t_quantile(degrees: float) -> float:
    """The 97.5 % quantile of Student's distribution, within 0.01 %."""
    angles, share = _t_shares(degrees)
    return math.tan(float(np.interp(0.95, share, angles))) * math.sqrt(min(degrees, _MOST_DEGREES))


_MOST_DEGREES = 1e5  # beyond them it is the normal distribution


def _t_shares(degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angles a with P(|T| < sqrt(degrees) tan a), by Simpson's rule: over them the density is a power of the cosine."""
    free = min(degrees, _MOST_DEGREES)
    reach = math.atan(40 / math.sqrt(free)) if free > 100 else math.pi / 2  # beyond it there is nothing to speak of
    angles = np.linspace(0, reach, 20_001)
    density = np.cos(angles).clip(0, 1) ** (free - 1)
    shares = np.concatenate([[0.0], np.cumsum(density[:-2:2] + 4 * density[1:-1:2] + density[2::2])])
    return angles[::2], shares / shares[-1]


def confusion_matrix(
    labels_N: NDArray[np.integer], predicted_N: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """int64 (K, K): row = the true class, column = the predicted one, entry = how many."""
    flat = labels_N.astype(np.int64) * num_classes + predicted_N.astype(np.int64)
    return np.bincount(flat, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


class ClassScores(NamedTuple):
    """Per class, each float64 (K,) in 0..1 and NaN where undefined; support int64 (K,)."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def class_scores(confusion_KK: NDArray[np.int64]) -> ClassScores:
    """Precision, recall, F1 and support of each class.

    Undefined values are NaN, not 0: a class that was never predicted has no precision, and one without
    samples no recall. F1 = 2·TP / (2·TP + FP + FN).
    """
    right = np.diag(confusion_KK).astype(np.float64)
    support = confusion_KK.sum(axis=1)
    predicted = confusion_KK.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / predicted, right / support
        f1 = 2 * right / (support + predicted)
    return ClassScores(precision, recall, f1, support)


def softmax(logits_NK: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities, float64 (N, K), each row summing to 1, of the logits over a temperature above 0."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    e = np.exp(shifted / temperature)
    probabilities: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return probabilities


def cross_entropies(logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer]) -> NDArray[np.float64]:
    """-log p(true class) of each sample, float64 (N,), in nats, from logits (log-sum-exp, so that it cannot
    overflow)."""
    logits = logits_NK.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    found: NDArray[np.float64] = log_sum - logits[np.arange(len(logits)), labels_N]
    return found


def cross_entropy(logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer]) -> float:
    """Mean of -log p(true class), in nats."""
    return float(cross_entropies(logits_NK, labels_N).mean())


_LEAST_T, _MOST_T = math.log(0.05), math.log(20.0)


def best_temperature(
    logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer], smoothing: float = 0.0
) -> tuple[float, float]:
    """The temperature, in 0.05 to 20, that logits are divided by for the lowest mean cross-entropy, and that (nats).

    Guo et al., ICML 2017. By golden section over its logarithm: the loss has one minimum there. `smoothing` is the
    share of each label that is spread over all classes.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = _LEAST_T, _MOST_T
    above_true = float((logits_NK[np.arange(len(logits_NK)), labels_N] - logits_NK.mean(axis=1)).mean())

    def loss_at(place: float) -> tuple[float, float]:
        temperature = math.exp(place)
        return cross_entropy(logits_NK / temperature, labels_N) + smoothing * above_true / temperature, place

    left, right = loss_at(high - ratio * (high - low)), loss_at(low + ratio * (high - low))
    for _ in range(24):  # the interval is then 6e-5 wide
        if left[0] <= right[0]:
            high, right = right[1], left
            left = loss_at(high - ratio * (high - low))
        else:
            low, left = left[1], right
            right = loss_at(low + ratio * (high - low))
    loss, place = min(left, right)
    return math.exp(place), loss


class Scaling(NamedTuple):
    """How logits become those of calibrated probabilities: of a class whose logit lies d below the largest,
    -(d / temperature + curvature · d²). The order of the classes stays; without curvature it is temperature scaling."""

    temperature: float = 1.0
    curvature: float = 0.0

    def of(self, logits_NK: NDArray[np.floating]) -> NDArray[np.floating]:
        """Calibrated logits (N, K): the very same, or float64 with 0 as the largest of each row."""
        if self == Scaling():
            return logits_NK
        below_NK = logits_NK.max(axis=1, keepdims=True) - logits_NK.astype(np.float64)
        found: NDArray[np.float64] = -(below_NK / self.temperature + self.curvature * below_NK**2)
        return found

    def __str__(self) -> str:
        return f"temperature {self.temperature:.2f}" + (f", curvature {self.curvature:.2f}" if self.curvature else "")


_NEWTON_STEPS, _MOST_CURVATURE, _LEAST_SLOPE = 50, 1e5, 1e-2


def best_scaling(logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer], smoothing: float = 0.0) -> Scaling:
    """The scaling with the lowest mean cross-entropy, which is convex in 1 / temperature and curvature (Newton's
    method); with no curvature where it would be negative, for the order of the classes could then change. `smoothing`
    as for `best_temperature`."""
    start = 1 / best_temperature(logits_NK, labels_N, smoothing)[0]
    n = len(logits_NK)
    below_NK = logits_NK.max(axis=1, keepdims=True) - logits_NK.astype(np.float64)
    powers_2NK = np.stack([below_NK, below_NK**2])
    labelled_2 = powers_2NK[:, np.arange(n), labels_N].mean(axis=1)
    own_2 = (1 - smoothing) * labelled_2 + smoothing * powers_2NK.mean(axis=(1, 2))
    here_2 = np.array([start, 0.0])

    def loss_of(at_2: NDArray[np.float64]) -> float:  # infinite beyond what can be computed
        with np.errstate(over="ignore"):
            return float(at_2 @ own_2 + np.log(np.exp(-np.tensordot(at_2, powers_2NK, 1)).sum(axis=1)).mean())

    loss = loss_of(here_2)
    for _ in range(_NEWTON_STEPS):
        p_NK = softmax(-np.tensordot(here_2, powers_2NK, 1))
        means_2N = (p_NK * powers_2NK).sum(axis=2)
        slope_2 = own_2 - means_2N.mean(axis=1)
        bend_22 = np.einsum("nk,ank,bnk->ab", p_NK, powers_2NK, powers_2NK) / n - means_2N @ means_2N.T / n
        step_2 = np.linalg.solve(bend_22 + 1e-12 * np.trace(bend_22) * np.eye(2), slope_2)
        share = 1.0
        while share > 1e-6 and not (nearer := loss_of(here_2 - share * step_2)) < loss:
            share /= 2
        if share <= 1e-6 or loss - nearer < 1e-12:
            break
        here_2, loss = here_2 - share * step_2, nearer
    if not (0 < here_2[1] < _MOST_CURVATURE and here_2[0] > _LEAST_SLOPE):
        return Scaling(1 / start)
    return Scaling(float(1 / here_2[0]), float(here_2[1]))


class CalibrationBin(NamedTuple):
    """Samples whose top probability lies in low..high: how many, their mean confidence, their accuracy (0..1)."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


_LEAST_IN_BIN = 10


def calibration_bins(
    probabilities_NK: NDArray[np.floating], labels_N: NDArray[np.integer], num_bins: int = 15
) -> list[CalibrationBin]:
    """The samples in `num_bins` bins of equal mass, by top probability; fewer, where one had less than ten."""
    confidence = probabilities_NK.max(axis=1).astype(np.float64)
    right = probabilities_NK.argmax(axis=1) == labels_N
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, max(1, min(num_bins, len(order) // _LEAST_IN_BIN)))
    return [
        CalibrationBin(
            float(confidence[here[0]]),
            float(confidence[here[-1]]),
            len(here),
            float(confidence[here].mean()),
            float(right[here].mean()),
        )
        for here in bins
    ]


def calibration_error(
    probabilities_NK: NDArray[np.floating], labels_N: NDArray[np.integer], num_bins: int = 15
) -> float:
    """Expected calibration error (Guo et al., ICML 2017; bins of equal mass as in Nguyen and O'Connor, EMNLP 2015), in
    0..1: the mean |accuracy - confidence| over the bins of `calibration_bins`, weighted by their number of samples."""
    bins = calibration_bins(probabilities_NK, labels_N, num_bins)
    return sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / len(labels_N)


def coverage_curve(
    probabilities_NK: NDArray[np.floating], labels_N: NDArray[np.integer], most: int = 100
) -> list[tuple[float, float]]:
    """Accuracy of the surest alone (Y. Geifman and R. El-Yaniv, NeurIPS 2017): shares of the samples, at most `most`
    of them, and the accuracy of those whose top probability is highest, both in 0..1."""
    order = np.argsort(-probabilities_NK.max(axis=1), kind="stable")
    right_N = (probabilities_NK.argmax(axis=1) == labels_N)[order]
    accuracy_N = np.cumsum(right_N) / np.arange(1, len(right_N) + 1)
    at = np.unique(np.linspace(1, len(right_N), min(most, len(right_N))).round().astype(int)) - 1
    return [((int(n) + 1) / len(right_N), float(accuracy_N[n])) for n in at]


def nearest_neighbours(
    learned_ND: NDArray[np.floating], labels_N: NDArray[np.int64], asked_MD: NDArray[np.floating], num: int
) -> NDArray[np.int64]:
    """The class of most of the `num` nearest samples (Euclidean), int64 (M,); of classes alike the smallest number."""
    found = np.empty(len(asked_MD), np.int64)
    squares_N = (learned_ND.astype(np.float32) ** 2).sum(axis=1)
    num, num_classes = min(num, len(learned_ND)), int(labels_N.max()) + 1
    for start in range(0, len(asked_MD), 256):
        far_BN = squares_N - 2 * asked_MD[start : start + 256] @ learned_ND.T
        nearest = labels_N[np.argpartition(far_BN, num - 1, axis=1)[:, :num]]
        votes = np.zeros((len(nearest), num_classes), np.int64)
        np.add.at(votes, (np.arange(len(nearest))[:, None], nearest), 1)
        found[start : start + 256] = votes.argmax(axis=1)
    return found


def suspect_labels(p_NK: NDArray[np.float64], labels_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool (N,): labels that confident learning (C. Northcutt et al., JAIR 70, 2021) puts in question: some other
    class is as likely as it is, on average, for pictures that are labelled so, and likelier than not. `p_NK` are
    probabilities of a classifier that did not learn from the pictures."""
    num = p_NK.shape[1]
    usual_K = np.array([p_NK[labels_N == k, k].mean() if (labels_N == k).any() else np.inf for k in range(num)])
    others_NK = p_NK.copy()
    others_NK[np.arange(len(labels_N)), labels_N] = 0
    best_N = others_NK.argmax(axis=1)
    found: NDArray[np.bool_] = others_NK[np.arange(len(labels_N)), best_N] >= np.maximum(usual_K[best_N], 0.5)
    return found


def label_doubt(logits_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 (N,): by how much the likeliest other class is above the label, in logits; the larger, the more a label
    is in doubt."""
    own_N, others_NK = logits_NK[np.arange(len(labels_N)), labels_N], logits_NK.astype(np.float64)
    others_NK[np.arange(len(labels_N)), labels_N] = -np.inf
    found: NDArray[np.float64] = others_NK.max(axis=1) - own_N
    return found


def seriated(confusion_KK: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of the classes in which those that are confused stand together: that of the eigenvector to the second
    smallest eigenvalue of the confusions' Laplacian (M. Fiedler, 1973). As they are where nothing is confused."""
    rates = confusion_KK / np.maximum(1, confusion_KK.sum(axis=1, keepdims=True))
    alike = rates + rates.T
    np.fill_diagonal(alike, 0.0)
    if not alike.any():
        return np.arange(len(alike))
    alike += 1e-6 * alike.max()  # in one piece
    np.fill_diagonal(alike, 0.0)
    _, vectors = np.linalg.eigh(np.diag(alike.sum(axis=1)) - alike)
    order = np.argsort(vectors[:, 1], kind="stable")
    found: NDArray[np.int64] = order if order[0] < order[-1] else order[::-1].copy()
    return found


MAY_COUNT_SEEN = "may count pictures it was made with"


class Score(Record, frozen=True):
    """An accuracy that can be trusted: never without its interval and its n.

    `balanced_accuracy` is the mean recall of the classes there are, `majority_baseline` the accuracy of always
    answering the largest class, `imbalance` how many times larger that is than the smallest. None in scores of before.
    `may_count_seen`: pictures that the model was made with may be among those measured. `num_groups`: how many groups
    they are of, whose pictures are not independent; the interval is then theirs (`grouped_interval`). `num_classes` of
    which there are pictures.
    """

    accuracy: Share
    interval: tuple[Share, Share]
    n: Count
    loss: Amount
    balanced_accuracy: Share | None = None
    majority_baseline: Share | None = None
    imbalance: Amount | None = None
    may_count_seen: bool = False
    num_groups: Count | None = None
    num_classes: Count | None = None

    @property
    def is_chance(self) -> bool:
        """Whether it may be no better than to look at no picture: always to answer the largest class, or, where the
        classes differ much in size, any class as often as another (within two standard errors at the most). Of one
        class, or where all are right, nothing is said."""
        if self.majority_baseline is None or self.interval[0] > self.majority_baseline:
            return False
        if self.accuracy == 1 or self.majority_baseline == 1:
            return False
        if not self.is_imbalanced or not self.balanced_accuracy or not self.num_classes or not self.imbalance:
            return True
        fewest = max(1.0, self.majority_baseline * self.n / self.imbalance)
        return self.balanced_accuracy - 1 / self.num_classes <= 1 / math.sqrt(self.num_classes * fewest)

    def chance_warning(self, largest: str | None = None) -> str | None:
        """One line where it `is_chance`; `largest` is the name of the largest class."""
        if not self.is_chance or self.majority_baseline is None:
            return None
        always = "the largest class" if largest is None else shown(largest, 40)
        advice = (
            "Try another learning rate, more epochs, or more pictures, and look whether labels and pictures belong "
            "together (convlens check DATA)"
        )
        baseline = f"always answering {always} ({percent(self.majority_baseline)})"
        if self.accuracy > self.majority_baseline:
            return f"{self.n:,} images do not tell it from {baseline}. {advice}"
        return f"no better than {baseline}: the network has learned nothing that shows. {advice}"

    @property
    def is_imbalanced(self) -> bool:
        """Whether the classes differ so much in size that the accuracy alone misleads."""
        return self.imbalance is not None and self.imbalance >= IMBALANCED

    @property
    def leak_warning(self) -> str | None:
        """One line where a score is too good to be believed: every one of 1,000 images or more is right."""
        if self.accuracy < 1 or self.n < SUSPICIOUS_N:
            return None
        return (
            f"every one of {self.n:,} images is right, which is rarely true: look for training images among them, or "
            "for something that gives the class away (convlens check DATA)"
        )

    def __str__(self) -> str:
        return f"{MAY_COUNT_SEEN}: {self.text}" if self.may_count_seen else self.text

    @property
    def text(self) -> str:
        """The numbers alone."""
        low, high = self.interval
        groups = "" if self.num_groups is None else f" in {self.num_groups:,} groups"
        line = (
            f"{100 * self.accuracy:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {self.n:,}{groups})"
        )
        if not self.is_imbalanced or self.balanced_accuracy is None or self.majority_baseline is None:
            return line
        by_chance = f" (by chance {percent(1 / self.num_classes)})" if self.num_classes else ""
        first = f"balanced accuracy {percent(self.balanced_accuracy)}{by_chance}"
        return f"{first}, accuracy {line}, always the largest class {percent(self.majority_baseline)}"


def score(
    logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer], groups_N: NDArray[Any] | None = None
) -> Score:
    """Accuracy with its 95 % Wilson interval, n and mean cross-entropy; balanced accuracy and what to beat. `groups_N`
    are numbers of which samples that belong together have the same."""
    is_right = logits_NK.argmax(axis=1) == labels_N
    num_right, n = int(is_right.sum()), len(labels_N)
    counts = np.bincount(labels_N)
    present = counts > 0
    recalls = np.bincount(labels_N, weights=is_right)[present] / counts[present]
    balance = float(recalls.mean()), float(counts.max() / n), float(counts.max() / counts[present].min())
    found = Score(
        *(num_right / n, wilson_interval(num_right, n), n, cross_entropy(logits_NK, labels_N), *balance),
        num_classes=int(present.sum()),
    )
    if groups_N is None or (num_groups := len(np.unique(groups_N))) == n:
        return found
    return found.replace(interval=grouped_interval(is_right, groups_N), num_groups=num_groups)


class CurvePoint(Record, frozen=True):
    """Accuracy after learning from so many images: its 95 % interval, and that of each class."""

    num_images: Count
    accuracy: Share
    interval: tuple[Share, Share]
    classes: tuple[Share | None, ...]


class LearningCurve(Record, frozen=True):
    """Accuracy against the number of training images, on images held out, and between what twice as many would give
    (95 % interval; None where it cannot be told). `gains` names the class whose accuracy would grow most."""

    points: tuple[CurvePoint, ...]
    num_held_out: Count
    forecast: tuple[Share, Share] | None
    gains: Name | None

    def __str__(self) -> str:
        nums = ", ".join(f"{point.num_images:,}" for point in self.points)
        accuracies = ", ".join(f"{100 * point.accuracy:.1f}" for point in self.points)
        words = f"after {nums} training images {accuracies} % (n = {self.num_held_out:,})"
        if self.forecast is None:
            return words
        low, high = self.forecast
        words += f"; twice as many, {2 * self.points[-1].num_images:,}: {100 * low:.0f} to {100 * high:.0f} %"
        return words if self.gains is None else f"{words}; class {self.gains} would gain most"


_DRAWS = 2_000


def learning_curve_of(
    nums: Sequence[int], right_FPN: NDArray[np.bool_], labels_N: NDArray[np.integer], class_names: Sequence[str]
) -> LearningCurve:
    """The curve of what was right (F sizes, P parts of each, N held-out images), and its forecast.

    Error falls as a power of the number of images (Hestness et al., 2017, arXiv:1712.00409): a line through the
    logarithms of the last three sizes, which goes on for another doubling. The interval is that of 2,000 bootstrap
    draws of the held-out images and of the parts; each draw goes on with a random share of the slope, from none (the
    curve ends here) to all of it, and with the spread that the parts of the last size but one have: which pictures
    will come is not known either.
    """
    num_sizes, num_parts, num_held = right_FPN.shape
    rng = np.random.default_rng(0)
    accuracy_F = right_FPN.mean(axis=(1, 2))
    points = []
    for place, num in enumerate(nums):
        interval = wilson_interval(round(float(accuracy_F[place]) * num_held), num_held)
        by_class = [
            float(right_FPN[place][:, labels_N == k].mean()) if (labels_N == k).any() else None
            for k in range(len(class_names))
        ]
        points.append(CurvePoint(num, float(accuracy_F[place]), interval, tuple(by_class)))
    if num_sizes < 3:
        return LearningCurve(tuple(points), num_held, None, None)
    log_nums = np.log(nums[-3:])
    centred = log_nums - log_nums.mean()
    found, spread = np.empty(_DRAWS), float(right_FPN[-2].mean(axis=1).std(ddof=1)) if num_parts > 1 else 0.0
    for draw in range(_DRAWS):
        images = rng.integers(0, num_held, num_held)
        parts = [int(rng.integers(num_parts)) for _ in range(num_sizes)]
        errors = np.array([1 - right_FPN[f][parts[f]][images].mean() for f in range(num_sizes - 3, num_sizes)])
        slope = float(centred @ np.log(np.maximum(errors, 0.5 / num_held))) / float(centred @ centred)
        ahead = errors[-1] * 2 ** (rng.random() * min(0.0, max(-1.0, slope)))
        found[draw] = 1 - ahead + rng.normal() * spread
    low, high = np.quantile(found, [0.025, 0.975]).clip(0, 1)
    gains = [
        b - a if a is not None and b is not None else -1.0
        for a, b in zip(points[-2].classes, points[-1].classes, strict=True)
    ]
    best = int(np.argmax(gains))
    return LearningCurve(
        tuple(points), num_held, (float(low), float(high)), class_names[best] if gains[best] > 0 else None
    )
