"""Cross-validation: images are measured once each, by a network that did not learn from them.

Owns how images are dealt into folds. Where a test split would have a few dozen images, its accuracy says little; over
all folds each image counts. All of test is looked at: the data set comes with the permit for it.
"""

import io

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.splits import deal
from convlens.errors import DataError, TrainingError
from convlens.metrics import Score, score
from convlens.progress import Progress
from convlens.run import Run, update_record
from convlens.text import percent, shown
from convlens.training.plan import TrainingPlan
from convlens.training.trial import run_trial
from convlens.training.warm_start import is_comparable

HELD_OUT_FILE = "held-out.npy"  # in the run folder; nothing is known of an image whose row has no numbers
_MOST_BYTES = 4 << 30


def cross_validate(plan: TrainingPlan, bar: Progress) -> tuple[Score, NDArray[np.float32]]:
    """Train `plan.folds` times, each time without one fold, and score every image by the network that did not see it.

    With the score the logits, float32 (N, K) in the order of the data set, NaN for images that were never held out.
    Raises as `held_out_logits` does.
    """
    dataset = plan.dataset
    logits_NK, measured_N = held_out_logits(plan, bar)
    groups_N, labels_N = dataset.split_keys(dataset.rows("train")), dataset.labels("train")
    found = score(logits_NK[measured_N], labels_N[measured_N], groups_N[measured_N])
    logits_NK[~measured_N] = np.nan
    return found, logits_NK


def keep_held_out(run: Run, logits_NK: NDArray[np.float32]) -> None:
    """Write the logits of a cross-validation into its run, and their SHA-256 into its record. Raises StorageError."""
    written = io.BytesIO()
    np.save(written, logits_NK, allow_pickle=False)
    files.write_bytes(run.path / HELD_OUT_FILE, written.getvalue())
    update_record(run.path, held_out_sha256=files.sha256_of(written.getvalue()))


def read_held_out(run: Run) -> NDArray[np.float32]:
    """The logits of a run's cross-validation, float32 (N, K), NaN for images that were never held out. Raises DataError
    where there are none, or others than those that were written."""
    path = run.path / HELD_OUT_FILE
    where, expected = shown(path, 200), run.record.held_out_sha256
    if expected is None:
        raise DataError(f"{shown(run.path, 200)} has no answers of folds: train with `folds` to have some")
    try:
        data = files.read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise DataError(f"cannot read the answers of the folds in {where}: {error.strerror or error}") from error
    if files.sha256_of(data) != expected:
        raise DataError(f"{where} is damaged: it is not what the run's record has")
    logits_NK: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    return logits_NK


def folds_of(dataset: Dataset, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each image of a data set that has every image in train, int64 (N,)."""
    return deal(dataset.split_keys(dataset.rows("train")), dataset.labels("train"), folds, seed)


def held_out_logits(plan: TrainingPlan, bar: Progress) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The logits for each image, float32 (N, K), of a network that did not learn from it, and which images have some,
    bool (N,): those that the plan's parent was made with, and whatever shares a group with one of them, are learned
    from in every fold and never held out.

    `plan.dataset` has every image in train. Raises DataError where too little is left to hold out, or a class is too
    small; TrainingError where a training diverges.
    """
    dataset, folds, bar_name = plan.dataset, plan.folds or 0, plan.dataset.name
    rows, labels_N = dataset.rows("train"), dataset.labels("train")
    fold_N = folds_of(dataset, folds, plan.seed)
    known_N = _known_to_parent(plan, rows)
    fold_N[known_N] = -1  # in no fold
    for fold in range(folds):
        kept = np.bincount(labels_N[fold_N != fold], minlength=len(dataset.class_names))
        if (kept == 0).any() or not (fold_N == fold).any():
            few = f"class {shown(dataset.class_names[int(kept.argmin())])!r} has too few images or groups"
            few = few if (kept == 0).any() else "too few images that the parent was not made with are left to hold out"
            raise DataError(f"{bar_name} cannot be dealt into {folds} folds: {few}; use fewer folds")
    logits_NK = np.zeros((len(rows), len(dataset.class_names)), np.float32)
    for fold in range(folds):
        bar.start(f"fold {fold + 1} of {folds}", 1)
        out = fold_N == fold
        trial = run_trial(plan, rows[~out], rows[out], bar)
        if not np.isfinite(trial.logits_NK).all():
            raise TrainingError(
                f"fold {fold + 1} of {folds} has diverged: try a lower learning rate (it was {plan.recipe.rates})"
            )
        logits_NK[out] = trial.logits_NK
        bar.line(f"fold {fold + 1} of {folds}: {percent(trial.accuracy)} of {int(out.sum()):,}")
    return logits_NK, ~known_N


def _known_to_parent(plan: TrainingPlan, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images the parent was made with, or share a split key (a group, equal images) with one that it was."""
    if plan.parent is None:
        return np.zeros(len(rows), bool)
    if plan.parent.seen is None or not is_comparable(plan.dataset, plan.parent.card.input_spec, plan.parent.seen):
        raise DataError(
            "which images the parent was made with is not known any more, so that none could be held out from it: "
            "leave `folds` away"
        )
    split_keys = plan.dataset.split_keys(rows)
    known = plan.parent.seen.has(plan.dataset.pixel_keys("train"))
    return np.isin(split_keys, split_keys[known])
