"""What a finished model learns from its validation images: how sure it may be, what it was not trained on, and what it
may promise.

Owns the choice of the images and the decision whether there are enough. Temperature, the score of what is unfamiliar
and thresholds then travel in the model file.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens import thresholds
from convlens.checks import checked, real
from convlens.classifier import Classifier, load
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import evenly
from convlens.data.packed.pack import reopen
from convlens.errors import DataError, UsageError
from convlens.evaluation.cross_validation import folds_of, read_held_out
from convlens.metrics import Scaling, best_scaling, best_temperature, cross_entropies, cross_entropy
from convlens.modelfile import Calibration, ModelCard, read_model, write_model
from convlens.progress import Progress
from convlens.run import Run
from convlens.seen import Seen
from convlens.text import counted
from convlens.thresholds import wishes
from convlens.training.trainer import MOST_HELD_OUT, MOST_LEARNED
from convlens.training.warm_start import measured_validation
from convlens.unfamiliarity import LEAST_IMAGES, Unfamiliarity, distances_by_folds, layers_to_look_at

_LEAST, _MULTIPLY_ADDS = 500, 4e11  # of either, however large the network is, and what they may take of it: seconds
_SURE = 1.645  # standard errors, by which a scaling must lower the loss on the half that it was not fitted to


def held_out(card: ModelCard, dataset: Dataset) -> tuple[NDArray[np.bool_], bool]:
    """Which validation images of its data set a model may be measured on, bool (N,), and whether a model that it began
    with may have seen some of them."""
    before = None if card.seen is None else Seen(card.seen.parts[1:])
    return measured_validation(dataset, card.input_spec, before, is_grown=card.has_parent)


def calibrate(path: Path, dataset: Dataset, device: str, bar: Progress) -> None:
    """Fit what a trained model file lacks to the validation images of its data set, say so, and write it into the file.

    Nothing is fitted where they are fewer than 100, or may have been learned from. Raises ModelFileError, StorageError.
    """
    classifier = load(path, device)
    card = classifier.card
    measured, may_be_seen = held_out(card, dataset)
    num = int(measured.sum())
    if may_be_seen or num < LEAST_IMAGES:
        why = "validation images may be among those that its parent was made with" if may_be_seen else _few(num)
        bar.line(f"not calibrated, and what is unfamiliar is not told: {why}")
        return
    most = _most_images(classifier)
    rows = evenly(dataset.rows("val")[measured], min(MOST_HELD_OUT, most))
    learned = evenly(dataset.rows("train"), min(MOST_LEARNED, most))
    addresses = layers_to_look_at(classifier.network.plan, len(learned))
    logits_NK, statistics = classifier.outputs(dataset.images_at(rows), addresses)
    calibration = calibration_of(logits_NK, dataset.labels_at(rows))
    bar.line(_said(calibration))
    found = None
    if addresses:
        _, learned_from = classifier.outputs(dataset.images_at(learned), addresses)
        found = Unfamiliarity.fitted(addresses, learned_from, dataset.labels_at(learned), statistics, logits_NK)
    _rewritten(classifier, calibration=calibration, unfamiliarity=found)


def calibrate_by_folds(run: Run, dataset: Dataset, device: str, bar: Progress) -> None:
    """The same for a model that learned from all of its images: the scaling is fitted to the answers that the networks
    of its folds gave to images that they did not learn from, and taken over (as scikit-learn's CalibratedClassifierCV
    does with `ensemble=False`), and so is the threshold of what is unfamiliar."""
    logits_NK = read_held_out(run)
    measured = ~np.isnan(logits_NK[:, 0])
    if (num := int(measured.sum())) < LEAST_IMAGES:
        bar.line(f"not calibrated, and what is unfamiliar is not told: {_few(num)}")
        return
    classifier, labels_N = load(run.model, device), dataset.labels("train")
    calibration = calibration_of(logits_NK[measured], labels_N[measured])
    bar.line(_said(calibration))
    some_N = evenly(np.flatnonzero(measured), min(MOST_LEARNED, _most_images(classifier)))
    addresses = layers_to_look_at(classifier.network.plan, len(some_N))
    found = None
    if addresses:
        fold_N = folds_of(dataset, run.record.folds or 0, run.record.seed)[some_N]
        _, statistics = classifier.outputs(dataset.images_at(dataset.rows("train")[some_N]), addresses)
        found = Unfamiliarity.fitted_by_folds(addresses, statistics, labels_N[some_N], fold_N, logits_NK[some_N])
    _rewritten(classifier, calibration=calibration, unfamiliarity=found)


def held_out_by_folds(
    classifier: Classifier, dataset: Dataset, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]:
    """Of a model of folds: so many rows of its (merged) data that were held out, evenly spread, what the networks of
    their folds answered, logits (N, K), and which would have been called unfamiliar; None where that cannot be told.
    Raises DataError."""
    run, known = Run(classifier.path.parent), classifier.card.unfamiliarity
    logits_NK = read_held_out(run)
    some_N = evenly(np.flatnonzero(~np.isnan(logits_NK[:, 0])), most)
    rows, logits_NK = dataset.rows("train")[some_N], logits_NK[some_N]
    if known is None:
        return rows, logits_NK, None
    _, statistics = classifier.outputs(dataset.images_at(rows), known.addresses)
    fold_N = folds_of(dataset, run.record.folds or 0, run.record.seed)[some_N]
    distances = distances_by_folds(statistics, dataset.labels_at(rows), fold_N, logits_NK.shape[1])
    return rows, logits_NK, known.record.scores(distances, logits_NK) > known.record.threshold


def _most_images(classifier: Classifier) -> int:
    """How many images are looked at to fit what is unfamiliar, so that it takes seconds."""
    return max(_LEAST, int(_MULTIPLY_ADDS / max(1, classifier.network.plan.multiply_adds)))


def promised(
    classifier: Classifier,
    require: Sequence[str],
    reject: float | None,
    folds: tuple[Dataset, NDArray[np.float32]] | None,
    data_root: str | Path | None,
    progress: str | Progress,
) -> Classifier:
    """The classifier with thresholds that keep what is asked of it, set by its own validation images (of a run
    with `folds` by its data and the logits of what was held out) and written into its file; without any where nothing
    is asked. Raises DataError where it cannot be promised, UsageError."""
    if require and reject is not None:
        raise UsageError("`require` and `reject` are two ways to choose thresholds: ask for one of them")
    card = classifier.card
    if not classifier.is_as_trained:
        raise UsageError("what is promised is promised of the model's own answers: leave `raw` and other views away")
    wanted = wishes(require, card.class_names)
    if not wanted and reject is None:
        return _rewritten(classifier, thresholds=None)
    if reject is not None:
        reject = checked("reject", reject, real(1e-6, 0.5, open_high=True))
    if card.dataset is None:
        raise DataError("nothing can be promised: the model has no validation images of its own")
    if folds is not None:
        dataset, logits_NK = folds
        measured = ~np.isnan(logits_NK[:, 0])
        rows, logits_NK = dataset.rows("train")[measured], logits_NK[measured]
    elif card.dataset.is_merged:
        raise DataError("the model has no validation images: a promise is set by its folds, with `split=folds`")
    else:
        dataset = reopen(card.dataset, data_root=data_root, progress=progress)
        measured, may_be_seen = held_out(card, dataset)
        if may_be_seen or not measured.any():
            why = (
                "validation images may be among those that its parent learned from" if may_be_seen else "there are none"
            )
            raise DataError(f"nothing can be promised by the validation images: {why}")
        rows = dataset.rows("val")[measured]
        logits_NK = classifier.logits(dataset.images_at(rows))
    p_NK = classifier.probabilities(logits_NK)
    labels_N, groups_N = dataset.labels_at(rows), dataset.groups_at(rows)
    found = (
        thresholds.reject(p_NK, labels_N, reject, groups_N)
        if reject is not None
        else thresholds.require(p_NK, labels_N, wanted, card.class_names, groups_N)
    )
    return _rewritten(classifier, thresholds=found.replace(by_folds=folds is not None))


def calibration_of(logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer]) -> Calibration:
    """The scaling with the lowest loss on these held-out images: none unless a temperature, fitted to either half,
    clearly lowers the loss on the other, and no curvature unless that does so once more.

    A share 1 / (N + 2) of each label is spread over all classes (as in J. Platt, 1999), so that images that are all
    right do not ask for certainty.
    """
    smoothing, num = 1 / (len(labels_N) + 2), len(labels_N)

    def cooled(rows: slice) -> Scaling:
        return Scaling(best_temperature(logits_NK[rows], labels_N[rows], smoothing)[0])

    def curved(rows: slice) -> Scaling:
        return best_scaling(logits_NK[rows], labels_N[rows], smoothing)

    def none(rows: slice) -> Scaling:
        return Scaling()

    found, before = Scaling(), none
    for fitted in (cooled, curved):
        gains = np.empty(num)
        for half in (0, 1):
            here, there = slice(half, None, 2), slice(1 - half, None, 2)
            losses = [cross_entropies(way(there).of(logits_NK[here]), labels_N[here]) for way in (before, fitted)]
            gains[here] = losses[0] - losses[1]
        if not gains.mean() > _SURE * gains.std() / np.sqrt(num):
            break
        found, before = fitted(slice(None)), fitted
    before_after = [cross_entropy(way.of(logits_NK), labels_N) for way in (Scaling(), found)]
    return Calibration(
        temperature=found.temperature,
        curvature=found.curvature,
        num_images=num,
        loss_before=before_after[0],
        loss_after=before_after[1],
    )


def _few(num: int) -> str:
    return f"{counted(num, 'image')} held out, and {LEAST_IMAGES} are needed (`val_frac` holds more out)"


def _said(found: Calibration) -> str:
    if found.scaling == Scaling():
        return f"not calibrated: no temperature lowered the loss on the {found.num_images:,} held-out images"
    return (
        f"calibrated: {found.scaling}, loss {found.loss_before:.4f} to {found.loss_after:.4f} on the "
        f"{found.num_images:,} held-out images that it was fitted to"
    )


def _rewritten(classifier: Classifier, **values: Any) -> Classifier:
    """The model file with other values in its card, loaded anew."""
    file = read_model(classifier.path)
    write_model(file.path, replace(file.card, **values), file.tensors)
    return load(file.path, classifier.device)
