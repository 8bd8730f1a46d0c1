"""What a model promised of its answers, and what came of it on the images that were measured."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convlens.classifier import Classifier
from convlens.metrics import interval_of
from convlens.text import counted, percent
from convlens.thresholds import rejected_again


@dataclass(frozen=True)
class Promise:
    """What was promised, in words; of `n` images (those of a class, those called so, or those answered) `num_kept` keep
    it, with its 95 % interval; None where there are none, or where they set it. `others` says what it costs."""

    words: str
    kept: str
    num_kept: int
    n: int
    interval: tuple[float, float] | None
    num_others: int
    others: str

    def __str__(self) -> str:
        if self.n == 0:
            return f"promised: {self.words}. There are no images to tell; {self.others}"
        share = percent(self.num_kept / self.n)
        if self.interval is not None:
            share += f" (95 % interval {100 * self.interval[0]:.2f} to {100 * self.interval[1]:.2f})"
        return f"promised: {self.words}. {self.kept} {self.num_kept:,} of {self.n:,}, {share}; {self.others}"


def promises_kept(
    classifier: Classifier,
    logits_NK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.uint64] | None,
    *,
    is_own: bool = False,
) -> tuple[Promise, ...]:
    """One for each thing that the classifier promises, from logits (N, K) and labels (N,); without an interval where it
    was set by these very images (`is_own`)."""
    made = classifier.thresholds
    if made is None:
        return ()
    answers_N, uncertain_N = classifier.labels(classifier.probabilities(logits_NK))
    right_N, terms = answers_N == labels_N, made.terms

    def promise(words: str, kept: str, among_N: NDArray[np.bool_], num_others: int, others: str) -> Promise:
        right, groups = right_N[among_N], None if groups_N is None else groups_N[among_N]
        if made.by_group and groups is not None and len(right):  # a group is right where all of it is
            _, number_N = np.unique(groups, return_inverse=True)
            right, groups = np.bincount(number_N, weights=~right) == 0, None
            kept = f"{kept} (groups)"
        interval = interval_of(right, groups) if len(right) and not is_own else None
        return Promise(f"{words}, {terms}", kept, int(right.sum()), len(right), interval, num_others, others)

    if made.reject is not None:
        num, groups = int(uncertain_N.sum()), groups_N if made.by_group else None
        if is_own:
            low, high = rejected_again(classifier.probabilities(logits_NK), labels_N, made.reject.at_most, groups)
            spread = f"; set by others such as these, in nine of ten cases {percent(low, 1)} to {percent(high, 1)}"
        else:
            low, high = interval_of(uncertain_N, groups_N)
            spread = f", 95 % interval {100 * low:.1f} to {100 * high:.1f}"
        share = percent(num / len(labels_N), 1)
        others = (
            f"{num:,} of {counted(len(labels_N), 'picture')} called uncertain ({share}{spread}): those below a "
            f"probability of {made.reject.threshold:.3f}, set by "
            f"{counted(made.reject.num_images, 'image')} (more would set it lower)"
        )
        return (promise(str(made.reject), "right", ~uncertain_N, num, others),)
    found = []
    for one in made.require:
        k = classifier.class_names.index(one.class_name)
        is_class_N, called_N = labels_N == k, (answers_N == k) & ~uncertain_N
        if one.measure == "recall":
            num, all_others = int((called_N & ~is_class_N).sum()), int((~is_class_N).sum())
            others = f"{counted(num, 'false alarm')} in {all_others:,} others"
            found.append(promise(str(one), "found", is_class_N, num, others))
        else:
            num = int((is_class_N & ~called_N).sum())
            others = f"{num:,} of the {int(is_class_N.sum()):,} of the class not called so"
            found.append(promise(str(one), "right", called_N, num, others))
    share = percent(float(right_N[~uncertain_N].mean()) if not uncertain_N.all() else None)
    others = f"{found[-1].others}; all answers together, as the thresholds have them, are right for {share}"
    return (*found[:-1], replace(found[-1], others=others))
