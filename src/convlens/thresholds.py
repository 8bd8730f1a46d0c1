"""What a classifier promises of its answers, and the thresholds that keep the promise; they travel in the model file.

Owns the words of a requirement, how thresholds are set by held-out images, and how they change answers. A promise holds
with 90 % confidence: were the held-out images drawn anew again and again, and thresholds set by each, nine in ten would
keep it. Images of one group are not independent: where there are groups, groups are what is promised of and counted, a
group being wrong where one image of it is.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from convlens.checks import checked, real
from convlens.errors import DataError, UsageError
from convlens.metrics import binomial_cdf
from convlens.records import Count, Name, Record, Share
from convlens.text import counted, did_you_mean, shown

CONFIDENCE = 0.9
_RISK = 1 - CONFIDENCE
_MOST_STARTS, _STEPS = 5, 100  # of the tests in a fixed order, which go on by a hundredth of the images at a time
_SAMPLES = 100  # of the bootstrap
_DRAWS, _MOST_TIMES = 10, 20  # of sets that are larger, up to so many times
_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # of the error rates that are offered instead
_MOST_IMAGES = 10_000_000  # beyond which a number of images is no help
_SHARE = real(1e-6, 1 - 1e-6)
_WISH = re.compile(r"\s*(?P<name>.*\S)\s+(?P<measure>recall|precision)\s*>=\s*(?P<least>[0-9.eE+-]+)\s*(?P<sign>%?)\s*")

Measure = Literal["recall", "precision"]
Probability = Annotated[float, Meta(ge=0, le=1)]


class Requirement(Record, frozen=True):
    """Of a class: `recall` (of its pictures, the share that is called so) or `precision` (of the pictures called so,
    the share that are of it), and the probability from which on a picture is called so; set by `num_images` (or as many
    groups), of which `num_wrong` break it."""

    class_name: Name
    measure: Measure
    at_least: Share
    threshold: Probability
    num_images: Count
    num_wrong: Count

    def __str__(self) -> str:
        return f"{shown(self.class_name, 40)} {self.measure} >= {100 * self.at_least:g} %"


class Rejection(Record, frozen=True):
    """At most a share `at_most` of the answers is wrong, for pictures whose probability is below the threshold get
    none; set by `num_images`, of which `num_answered` were answered, `num_wrong` of them wrong."""

    at_most: Share
    threshold: Probability
    num_images: Count
    num_answered: Count
    num_wrong: Count

    def __str__(self) -> str:
        return f"at most {100 * self.at_most:g} % of its answers wrong"


class Answers(NamedTuple):
    """Class numbers, int64 (N,), and for which pictures there is no answer but that it is uncertain, bool (N,)."""

    labels_N: NDArray[np.int64]
    uncertain_N: NDArray[np.bool_]


class Thresholds(Record, frozen=True, kw_only=True):
    """What was promised, with which confidence: a rejection, or requirements of classes; `by_group`: not of images but
    of groups of them, each of which counts as wrong where one image of it is; `by_folds`: set by what the networks of
    the folds answered, which learned from fewer pictures than the one that promises."""

    confidence: Share
    by_group: bool = False
    by_folds: bool = False
    reject: Rejection | None = None
    require: Annotated[tuple[Requirement, ...], Meta(max_length=100)] = ()

    def __post_init__(self) -> None:
        if (self.reject is None) == (not self.require):
            raise ValueError("a rejection or requirements, one of the two")

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raises ValueError where a requirement is of a class that there is not."""
        unknown = [one.class_name for one in self.require if one.class_name not in class_names]
        if unknown:
            raise ValueError(f"thresholds: there is no class {shown(unknown[0])!r}")

    def answers(self, p_NK: NDArray[np.floating], class_names: Sequence[str]) -> Answers:
        """The answers that keep the promise, of probabilities (N, K).

        With requirements a picture is called the first class of theirs whose threshold it reaches, else the likeliest
        of the others; where there are no others it is uncertain.
        """
        if self.reject is not None:
            return Answers(p_NK.argmax(axis=1), p_NK.max(axis=1) < self.reject.threshold)
        labels_N, numbers = np.full(len(p_NK), -1), {name: k for k, name in enumerate(class_names)}
        for one in self.require:
            k = numbers[one.class_name]
            labels_N[(labels_N < 0) & (p_NK[:, k] >= one.threshold)] = k
        others_NK = p_NK.copy()
        others_NK[:, [numbers[one.class_name] for one in self.require]] = -1
        left_N = labels_N < 0
        is_all = len({one.class_name for one in self.require}) == len(class_names)
        labels_N[left_N] = (p_NK if is_all else others_NK).argmax(axis=1)[left_N]
        return Answers(labels_N, left_N & is_all)

    def __str__(self) -> str:
        what = [self.reject] if self.reject is not None else self.require
        return f"{', '.join(map(str, what))} ({'each ' if len(what) > 1 else ''}{self.terms})"

    @property
    def terms(self) -> str:
        """With which confidence, and what is counted."""
        counted_by = ", counted by groups: one is wrong where one picture of it is" if self.by_group else ""
        taken_over = (
            ", kept by the networks of the folds, not measured of this one, which learned from all pictures"
            if self.by_folds
            else ""
        )
        return f"with {100 * self.confidence:g} % confidence{taken_over}{counted_by}"


class Wish(NamedTuple):
    """A requirement as it was asked for: class number, measure and least share; `chance` is 1 / K."""

    class_number: int
    measure: Measure
    at_least: float
    chance: float


def wishes(texts: Sequence[str], class_names: Sequence[str]) -> list[Wish]:
    """Requirements from texts like `scratch recall>=0.99` or `scratch recall>=99%`. Raises UsageError."""
    found: list[Wish] = []
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"require must be texts like 'CLASS recall>=0.99', not {shown(text)!r}")
        match = _WISH.fullmatch(text)
        if match is None:
            raise UsageError(f"require must be as 'CLASS recall>=0.99' or 'CLASS precision>=0.9', not {shown(text)!r}")
        name, measure = match["name"], match["measure"]
        if name not in class_names:
            known = ", ".join(map(repr, class_names[:10]))
            raise UsageError(
                f"the model does not know class {shown(name)!r}{did_you_mean(name, class_names)}; it knows {known}"
            )
        try:
            least: Any = float(match["least"]) / (100 if match["sign"] else 1)
        except ValueError:
            least = match["least"]
        share = checked(f"{measure} of {shown(name, 40)}", least, _SHARE)
        number = list(class_names).index(name)
        kind: Measure = "recall" if measure == "recall" else "precision"
        wish = Wish(number, kind, share, 1 / len(class_names))
        if any(wish[:2] == other[:2] for other in found):
            raise UsageError(f"{measure} of class {shown(name)!r} is required twice")
        found.append(wish)
    return found


class _Sorted(NamedTuple):
    """Images in some order: values, and after each how many units (images, or groups) there were, and how many of them
    had one that is wrong."""

    values_N: NDArray[np.floating]
    units_N: NDArray[np.int64]
    wrong_N: NDArray[np.int64]


def _sorted(
    values_N: NDArray[np.floating], wrong_N: NDArray[np.bool_], groups_N: NDArray[Any] | None, order: NDArray[np.int64]
) -> _Sorted:
    values, wrong = values_N[order], wrong_N[order]
    if groups_N is None:
        return _Sorted(values, np.arange(1, len(order) + 1), np.cumsum(wrong))
    groups = groups_N[order]
    is_first, is_first_wrong = np.zeros(len(order), bool), np.zeros(len(order), bool)
    is_first[np.unique(groups, return_index=True)[1]] = True
    places = np.flatnonzero(wrong)
    is_first_wrong[places[np.unique(groups[wrong], return_index=True)[1]]] = True
    return _Sorted(values, np.cumsum(is_first), np.cumsum(is_first_wrong))


def reject(
    p_NK: NDArray[np.floating], labels_N: NDArray[np.integer], at_most: float, groups_N: NDArray[Any] | None = None
) -> Thresholds:
    """The lowest threshold of the top probability at which at most a share `at_most` of the answers is wrong. Raises
    DataError where that cannot be promised: with what can, and how many images it would need."""
    sure_N, wrong_N = p_NK.max(axis=1), p_NK.argmax(axis=1) != labels_N
    found = _sorted(sure_N, wrong_N, groups_N, np.argsort(-sure_N, kind="stable"))
    place = _last_kept(found, at_most)
    if place is None:
        instead = _instead(found, at_most, "reject={:g}".format)
        raise DataError(f"that at most {100 * at_most:g} % of the answers are wrong {instead}")
    num = int(found.units_N[-1])
    kept = Rejection(at_most, float(found.values_N[place]), num, int(found.units_N[place]), int(found.wrong_N[place]))
    return Thresholds(confidence=CONFIDENCE, by_group=groups_N is not None, reject=kept)


def rejected_again(
    p_NK: NDArray[np.floating], labels_N: NDArray[np.integer], at_most: float, groups_N: NDArray[Any] | None = None
) -> tuple[float, float]:
    """Between which shares of the images, 0..1, nine in ten thresholds would reject, were each set by as many others
    such as these: of a hundred bootstrap samples of the images, or groups (B. Efron, 1979)."""
    sure_N, wrong_N = p_NK.max(axis=1), p_NK.argmax(axis=1) != labels_N
    number_N = np.arange(len(sure_N)) if groups_N is None else np.unique(groups_N, return_inverse=True)[1]
    order = np.argsort(number_N, kind="stable")
    of_unit = np.split(order, np.flatnonzero(np.diff(number_N[order])) + 1)
    rng, shares = np.random.default_rng(0), []
    for _ in range(_SAMPLES):
        drawn = [of_unit[unit] for unit in rng.integers(0, len(of_unit), len(of_unit))]
        rows = np.concatenate(drawn)
        groups = None if groups_N is None else np.repeat(np.arange(len(drawn)), [len(one) for one in drawn])
        sure, wrong = sure_N[rows], wrong_N[rows]
        found = _sorted(sure, wrong, groups, np.argsort(-sure, kind="stable"))
        place = _last_kept(found, at_most)
        shares.append(1.0 if place is None else float((sure < found.values_N[place]).mean()))
    low, high = np.quantile(shares, [0.05, 0.95])
    return float(low), float(high)


def require(
    p_NK: NDArray[np.floating],
    labels_N: NDArray[np.integer],
    wanted: Sequence[Wish],
    class_names: Sequence[str],
    groups_N: NDArray[Any] | None = None,
) -> Thresholds:
    """Thresholds for requirements, in their order: what one class has taken the next cannot. Raises DataError for the
    first that cannot be promised."""
    found: list[Requirement] = []
    taken_N = np.zeros(len(p_NK), bool)
    for k in dict.fromkeys(wish.class_number for wish in wanted):
        score_N = np.where(taken_N, -1.0, p_NK[:, k])
        own = {w.measure: w for w in wanted if w.class_number == k}
        set_by = {m: (_recall if m == "recall" else _precision)(score_N, labels_N == k, w, groups_N)
                  for m, w in own.items()}  # fmt: skip
        for measure, one in set_by.items():
            if one is None:
                raise DataError(_refused(score_N, labels_N == k, own[measure], class_names[k], groups_N))
        kept = {measure: one for measure, one in set_by.items() if one is not None}
        lowest = kept["precision"][0] if "precision" in kept else kept["recall"][0]
        if "recall" in kept and lowest > kept["recall"][0]:
            raise DataError(
                f"class {shown(class_names[k])!r}: its recall is kept up to a probability of {kept['recall'][0]:.3g}, "
                f"its precision only from {lowest:.3g} on: both cannot be promised, ask for less of one"
            )
        found += [
            Requirement(class_names[k], w.measure, w.at_least, lowest, *kept[w.measure][1:]) for w in own.values()
        ]
        taken_N |= score_N >= lowest
    return Thresholds(confidence=CONFIDENCE, by_group=groups_N is not None, require=tuple(found))


def _recall(
    score_N: NDArray[np.floating], is_class_N: NDArray[np.bool_], wish: Wish, groups_N: NDArray[Any] | None
) -> tuple[float, int, int] | None:
    """(threshold, how many units of the class there are, how many are missed): the highest of its images' scores below
    which so few lie that the recall holds, whatever their distribution (S. S. Wilks, 1941)."""
    values = score_N[is_class_N]
    groups = None if groups_N is None else groups_N[is_class_N]
    found = _sorted(values, np.ones(len(values), bool), groups, np.argsort(values, kind="stable"))
    num = int(found.units_N[-1]) if len(values) else 0
    kept = None
    for place in np.flatnonzero(np.diff(found.units_N, prepend=0)).tolist():
        missed = int(found.units_N[place]) - 1
        if binomial_cdf(missed, num, 1 - wish.at_least) > _RISK:
            break
        kept = float(found.values_N[place]), num, missed
    return kept if kept is not None and kept[0] >= 0 else None


def _precision(
    score_N: NDArray[np.floating], is_class_N: NDArray[np.bool_], wish: Wish, groups_N: NDArray[Any] | None
) -> tuple[float, int, int] | None:
    """(threshold, how many units are called so, how many of them wrongly)."""
    found = _called(score_N, is_class_N, groups_N, wish.chance)
    place = _last_kept(found, 1 - wish.at_least)
    return (
        None if place is None else (float(found.values_N[place]), int(found.units_N[place]), int(found.wrong_N[place]))
    )


def _called(
    score_N: NDArray[np.floating], is_class_N: NDArray[np.bool_], groups_N: NDArray[Any] | None, least: float
) -> _Sorted:
    order = np.argsort(-score_N, kind="stable")
    return _sorted(score_N, ~is_class_N, groups_N, order[score_N[order] > least])


def _last_kept(found: _Sorted, at_most: float) -> int | None:
    """The last place of the order up to which a share `at_most` of wrong ones can be ruled out.

    Tests in a fixed order, from a place on towards the less sure up to the first that fails; from as many places as the
    number of images allows, which share the risk: the first has half of it (A. Angelopoulos et al., "Learn then Test",
    2021; the test is that of Clopper and Pearson, 1934).
    """
    total = int(found.units_N[-1]) if len(found.values_N) else 0
    if total < _fewest(at_most):
        return None
    num_starts = min(_MOST_STARTS, total // _fewest(at_most))
    risks = [_RISK] if num_starts == 1 else [_RISK / 2] + (num_starts - 1) * [_RISK / 2 / (num_starts - 1)]
    step, first, kept = max(1, total // _STEPS), min(total, _fewest(at_most, risks[0])), None
    for start, risk in enumerate(risks):
        for num in [*range(first + (total - first) * start // num_starts, total, step), total]:
            place = int(np.searchsorted(found.units_N, num))
            place = int(np.searchsorted(-found.values_N, -found.values_N[place], side="right")) - 1  # all as sure
            if binomial_cdf(int(found.wrong_N[place]), int(found.units_N[place]), at_most) > risk:
                break
            kept = max(place, kept or 0)
    return kept


def _fewest(at_most: float, risk: float = _RISK) -> int:
    """How many images without one that is wrong rule out a share of wrong ones."""
    return math.ceil(math.log(risk) / math.log1p(-at_most) - 1e-9)


def _instead(found: _Sorted, at_most: float, words: Callable[[float], str]) -> str:
    """What can be promised instead of a share of wrong ones, in words, and how many images it would need."""
    total = int(found.units_N[-1]) if len(found.units_N) else 0
    rates = (r * 10.0**e for e in (-4, -3, -2, -1) for r in _ROUND)
    can = next((rate for rate in rates if at_most < rate < 0.5 and _last_kept(found, rate) is not None), None)
    offer = "nothing better than chance can" if can is None else f"`{words(can)}` can"
    line = f"cannot be promised by {counted(total, 'validation image')}; {offer}"
    if total < _fewest(at_most):
        return f"{line}. It would need {_fewest(at_most):,} without one that is wrong"
    ends = np.flatnonzero(np.diff(found.units_N, prepend=0))  # of the units, in order
    wrong_U = np.diff(found.wrong_N[ends], prepend=0) > 0
    rng, needed = np.random.default_rng(0), float(total)
    while (needed := needed * 1.4) <= min(_MOST_IMAGES, _MOST_TIMES * total):  # of sets of so many drawn from these
        granted = 0
        for _ in range(_DRAWS):
            drawn = np.sort(rng.integers(0, len(ends), round(needed)))
            again = _Sorted(-drawn.astype(np.float64), np.arange(1, len(drawn) + 1), np.cumsum(wrong_U[drawn]))
            granted += _last_kept(again, at_most) is not None
        if 2 * granted > _DRAWS:
            return (
                f"{line}. By some {float(f'{needed:.2g}'):,.0f} images such as these it could be, more often than not "
                "(hold out more with `val_frac`, or train with `folds`, which hold out all)"
            )
    most = min(_MOST_IMAGES, _MOST_TIMES * total)
    return f"{line}. Too many of the surest are wrong: not even {most:,} images would do it, another model might"


def _refused(
    score_N: NDArray[np.floating],
    is_class_N: NDArray[np.bool_],
    wish: Wish,
    class_name: str,
    groups_N: NDArray[Any] | None,
) -> str:
    what = f"{wish.measure} of {100 * wish.at_least:g} % of class {shown(class_name)!r}"
    if wish.measure == "precision":
        found = _called(score_N, is_class_N, groups_N, wish.chance)
        offer = f"require={class_name} precision>={{:g}}"
        return f"{what} {_instead(found, 1 - wish.at_least, lambda wrong: offer.format(1 - wrong))}"
    num = int(is_class_N.sum()) if groups_N is None else len(np.unique(groups_N[is_class_N]))
    needed = _fewest(1 - wish.at_least)
    has = f"validation has {counted(num, 'image' if groups_N is None else 'group')} of it"
    if num >= needed:
        return f"{what} cannot be promised: classes that were named before take some of its pictures"
    best = math.floor(1000 * _RISK ** (1 / num)) / 1000 if num else 0.0
    offer = f"`require={class_name} recall>={best:g}` can" if best > 0.5 else "nothing of use can"
    return f"{what} cannot be promised: {has}, and {needed:,} without a miss are needed; with them {offer}"
