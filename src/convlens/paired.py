"""Classifiers compared on the same images: the difference of their accuracies, its interval and its p-value.

Owns the formulas; knows nothing of networks or files. Two models are compared by what only one of them has right
(McNemar); two groups of seeds, or images that are not independent, by the variance over seeds and images together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.metrics import Z_95, binomial_cdf, t_quantile, t_two_sided

POWER = 0.8  # the chance of telling a difference, with the number of images or seeds that is named
_Z_POWER = 0.8416212335729143  # the quantile of the standard normal distribution at it
_LEAST_DEGREES = 1.0


@dataclass(frozen=True)
class Difference:
    """Accuracy of A less that of B, in -1..1, with its 95 % interval and p-value (two-sided, for no difference).

    `gained` images only A has right, `lost` only B; of several seeds those that more than half of them have.
    `num_images` tell a difference of this size with a chance of 80 %, from as many seeds; `num_seeds` of each plan do
    on these images. None where nothing differs, or that is not known.
    """

    estimate: float
    low: float
    high: float
    p: float
    gained: int
    lost: int
    num_images: int | None
    num_seeds: int | None

    @property
    def spans_zero(self) -> bool:
        """Whether the interval has zero in it."""
        return self.low <= 0 <= self.high


def mcnemar(gained: int, lost: int) -> float:
    """The exact p-value (two-sided) of McNemar's test (Q. McNemar, Psychometrika 12, 1947): how likely so uneven a
    split is, or a more uneven one, where each of the images that only one has right is as likely either's."""
    return min(1.0, 2 * binomial_cdf(min(gained, lost), gained + lost, 0.5)) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that all hold together (S. Holm, Scand. J. Statist. 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    found, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        found[at] = largest
    return found


def compared(
    right_AN: NDArray[np.bool_], right_BN: NDArray[np.bool_], groups_N: NDArray[Any] | None = None
) -> Difference:
    """The difference of two models, or of two plans by the models of some seeds each.

    `right_AN` bool (seeds of A, N) and `right_BN` (seeds of B, N): which images each has right; `groups_N` (N,) is the
    same for images that are not independent. One model each, of independent images: exact McNemar, and the interval of
    D. Bonett and R. Price (J. Educ. Behav. Stat. 37, 2012). Else Student's t, of the variance over images (or groups)
    and over seeds, less what both of them count (crossed random effects, as A. Owen, Ann. Appl. Stat. 1, 2007), its
    degrees of freedom after F. Satterthwaite (1946). Of a plan with one seed the spread is taken to be the other's.
    """
    share_A, share_B = right_AN.mean(axis=0), right_BN.mean(axis=0)
    gained, lost = int(((share_A > 0.5) & (share_B <= 0.5)).sum()), int(((share_B > 0.5) & (share_A <= 0.5)).sum())
    apart_N = share_A - share_B
    estimate, num = float(apart_N.mean()), len(apart_N)
    if len(right_AN) == len(right_BN) == 1 and groups_N is None:
        low, high = _bonett_price(gained, lost, num)
        variance = (gained + lost) / num - estimate**2
        needed = _num_images(estimate, variance, 0.0, num)
        return Difference(estimate, low, high, mcnemar(gained, lost), gained, lost, needed, None)
    of_images, images_degrees = _variance_over_images(apart_N, groups_N)
    spreads = [(_spread_of_seeds(right_SN), len(right_SN)) for right_SN in (right_AN, right_BN)]
    known = [(found, seeds) for found, seeds in spreads if found is not None]
    parts, twice = [(of_images, images_degrees)], 0.0
    for found, seeds in spreads:
        if known:
            (variance, shared), degrees = (known[0][0], known[0][1] - 1) if found is None else (found, seeds - 1)
            parts.append((variance / seeds, float(degrees)))
            twice += shared / seeds
    total = max(sum(variance for variance, _ in parts) - twice, *(variance for variance, _ in parts))
    of_seeds = max(0.0, total - of_images)
    free = max(_LEAST_DEGREES, total**2 / sum(variance**2 / own for variance, own in parts if variance))
    reach, p = t_quantile(free) * math.sqrt(total), t_two_sided(estimate / math.sqrt(total), free)
    num_images = _num_images(estimate, of_images * num, of_seeds, num)
    seeds_needed = None
    if estimate and known:
        most = max(len(right_AN), len(right_BN))
        wanted = (abs(estimate) / (Z_95 + _Z_POWER)) ** 2 - of_images
        seeds_needed = math.ceil(most * of_seeds / wanted) if wanted > 0 else None
    return Difference(estimate, max(-1.0, estimate - reach), min(1.0, estimate + reach), p, gained, lost, num_images,
                      seeds_needed)  # fmt: skip


def _bonett_price(gained: int, lost: int, num: int) -> tuple[float, float]:
    """95 % interval of the paired difference: one image is added to each of the two counts, and two in all."""
    plus, minus = (gained + 1) / (num + 2), (lost + 1) / (num + 2)
    reach = Z_95 * math.sqrt((plus + minus - (plus - minus) ** 2) / (num + 2))
    return max(-1.0, plus - minus - reach), min(1.0, plus - minus + reach)


def _variance_over_images(apart_N: NDArray[np.float64], groups_N: NDArray[Any] | None) -> tuple[float, float]:
    """The variance of the mean over images that are drawn anew, or groups of them, and its degrees of freedom. It is no
    smaller than where one of them more had each of the two models right alone (as Bonett and Price count)."""
    num = len(apart_N)
    if groups_N is None:
        return max(float(apart_N.var(ddof=1)) / num if num > 1 else 1.0, 2 / (num + 2) ** 2), max(1.0, num - 1)
    _, group_N = np.unique(groups_N, return_inverse=True)
    sums_G = np.bincount(group_N, weights=apart_N - apart_N.mean())
    if len(sums_G) == 1:
        return 1.0, _LEAST_DEGREES  # whatever another group would give
    found = len(sums_G) / (len(sums_G) - 1) * float((sums_G**2).sum()) / num**2
    return max(found, 2 / (len(sums_G) + 2) ** 2), len(sums_G) - 1


def _spread_of_seeds(right_SN: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The variance of the accuracies over seeds, and how much of it comes from seeds differing image by image, which
    the variance over images has too; None of one seed."""
    seeds, num = right_SN.shape
    if seeds == 1:
        return None
    x_SN = right_SN.astype(np.float64)
    accuracy_S = x_SN.mean(axis=1)
    rest_SN = x_SN - accuracy_S[:, None] - x_SN.mean(axis=0) + x_SN.mean()
    return float(accuracy_S.var(ddof=1)), float((rest_SN**2).sum()) / ((seeds - 1) * max(1, num - 1)) / num


def _num_images(estimate: float, variance_an_image: float, of_seeds: float, num: int) -> int | None:
    """How many images would tell a difference of this size; None where none would."""
    wanted = (abs(estimate) / (Z_95 + _Z_POWER)) ** 2 - of_seeds
    return math.ceil(variance_an_image / wanted) if estimate and wanted > 0 else None
