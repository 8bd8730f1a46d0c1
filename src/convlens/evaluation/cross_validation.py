"""Cross-validation: every image is measured once, by a network that did not learn from it.

Owns how images are dealt into folds. Where a test split would have a few dozen images, its accuracy says little; over
all folds each image counts. The ledger of openings is written first: all of test is looked at.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from convlens.choosing.trial import Material, run_trial
from convlens.data.packed.splits import mixed
from convlens.errors import DataError, TrainingError, UsageError
from convlens.evaluation.test_ledger import record_opening
from convlens.metrics import Score, score
from convlens.progress import Progress
from convlens.text import shown
from convlens.training.setup import Setup

MOST_FOLDS = 100


def check_folds(folds: int) -> None:
    """Raises UsageError unless it is a number of folds."""
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= MOST_FOLDS:
        raise UsageError(f"folds must be a whole number from 2 to {MOST_FOLDS}, not {shown(folds)}")


def cross_validate(setup: Setup, folds: int, bar: Progress) -> Score:
    """Train `folds` times with the setup's plan, each time without one fold, and score every image by the network that
    did not see it. `setup.dataset` has every image in train.

    Raises DataError where a class is too small, TrainingError where a training diverges.
    """
    dataset = setup.dataset
    rows = dataset.rows("train")
    fold_N = deal(dataset.split_keys(rows), dataset.labels("train"), folds)
    for fold in range(folds):
        kept = np.bincount(dataset.labels("train")[fold_N != fold], minlength=len(dataset.class_names))
        if (kept == 0).any() or not (fold_N == fold).any():
            raise DataError(
                f"{dataset.name} cannot be dealt into {folds} folds: class "
                f"{shown(dataset.class_names[int(kept.argmin())])!r} has too few images or groups; use fewer folds"
            )
    if dataset.test_fingerprint is not None:
        record_opening(dataset.test_fingerprint, str(setup.plan.architecture), setup.recipe, setup.seed)
    logits_NK = np.zeros((len(rows), len(dataset.class_names)), np.float32)
    for fold in range(folds):
        bar.start(f"fold {fold + 1} of {folds}", 1)
        out = fold_N == fold
        material = Material(
            dataset,
            dataset.images_at(rows[~out]),
            dataset.labels_at(rows[~out]),
            dataset.images_at(rows[out]),
            dataset.labels_at(rows[out]),
        )
        trial = run_trial(material, setup.plan, setup.recipe, setup.seed, setup.compute)
        if not np.isfinite(trial.logits_NK).all():
            raise TrainingError(
                f"fold {fold + 1} of {folds} has diverged: try a lower learning rate (it was {setup.recipe.rates})"
            )
        logits_NK[out] = trial.logits_NK
        bar.line(f"fold {fold + 1} of {folds}: {100 * trial.accuracy:.2f} % of {int(out.sum()):,}")
    return score(logits_NK, dataset.labels("train"))


def deal(split_key_N: NDArray[np.uint64], labels_N: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The fold of each image, 0 to folds - 1. Images of one split_key (a group, equal pictures) stay together, and the
    classes are spread evenly: the split_keys of each class, in an order of their own, go to the folds in turn."""
    label_of: dict[int, Counter[int]] = {}
    for split_key, label in zip(split_key_N.tolist(), labels_N.tolist(), strict=True):
        label_of.setdefault(split_key, Counter())[label] += 1
    split_keys = np.array(list(label_of), np.uint64)
    labels = np.array([counts.most_common(1)[0][0] for counts in label_of.values()])
    order = np.lexsort((mixed(split_keys, times=3), labels))
    fold_of = dict(zip(split_keys[order].tolist(), (np.arange(len(order)) % folds).tolist(), strict=True))
    return np.array([fold_of[split_key] for split_key in split_key_N.tolist()], np.int64)
