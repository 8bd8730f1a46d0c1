"""Labels in doubt: those that networks contradict which did not learn from the pictures.

Owns the ranking, and what is put before a person: the suspects, and of test as many others, chosen at random, for
whoever looks only at what contradicts a model makes the model look better.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.choosing.budget import batch_size_for, growth_for, least_epochs
from convlens.choosing.pretrained import LEAST_SIDE
from convlens.data.packed.corrections import Correction
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.headers import Headers
from convlens.data.packed.options import PackOptions
from convlens.errors import DataError
from convlens.evaluation.cross_validation import held_out_logits
from convlens.evaluation.test_ledger import inspect_test
from convlens.experiment import resolve
from convlens.metrics import label_doubt, softmax, suspect_labels
from convlens.presets import PHOTO
from convlens.progress import Progress
from convlens.text import percent
from convlens.training.request import TrainRequest

FOLDS = 5
_LEAST = 20  # images a class, on average, below which networks contradict labels by chance
_LEAST_LISTED, _SHARE = 25, 0.04  # of the images are listed, the most doubtful first, however few are suspects
_SHARE_OF_EPOCHS = 0.5  # of those that the data needs: labels are contradicted as well by networks that are nearly done
_LEAST_SKILL = 0.25  # of the way from always the largest class to all right, below which contradictions say nothing
_SIDE, _MANY, _SIDE_OF_MANY = 224, 3_000, 128  # pixels that the pretrained network is given of photographs
_SOURCE = 16  # characters of a file's hash


def suspects(
    data: Any, options: PackOptions, data_root: Any, headers: Headers | None, bar: Progress
) -> tuple[list[Correction], float]:
    """Samples whose labels a person should look at, the most doubtful first, then those of test that are looked at for
    comparison; and the accuracy of the networks, 0..1. Trains five folds: of photographs (colour files of more than 64
    pixels, by their `headers`) heads on the pretrained network, half a minute for a thousand; of others preset natural,
    up to half a minute each. Its look at test is written down as an inspection: no network of it is kept. Raises
    DataError where there are too few images, or networks learn too little, and as `train` does."""
    are_photographs = headers is not None and headers.median_longer_side() > LEAST_SIDE and headers.num_channels == 3
    preset: dict[str, Any] = {"preset": "natural", "augment": "auto"}
    if headers is not None and are_photographs:
        preset = {"preset": PHOTO.name, "size": _SIDE if headers.sizes.total() <= _MANY else _SIDE_OF_MANY}
    request = TrainRequest(
        data=data,
        folds=FOLDS,
        **preset,
        exclude=options.exclude or None,
        data_root=data_root,
        **{name: value for name, value in options.read._asdict().items() if value is not None},
    )
    plan, _ = resolve(request, bar)
    # No clock decides: a busy machine must not make networks that contradict labels because they learned too little.
    if not are_photographs:
        num_learned = (FOLDS - 1) * len(plan.dataset) // FOLDS
        epochs, batch_size = _SHARE_OF_EPOCHS * least_epochs(num_learned), batch_size_for(num_learned)
        growth = growth_for(*plan.dataset.input_spec.shape[1:])
        plan = replace(plan, recipe=plan.recipe.replace(epochs=epochs, batch_size=batch_size, grow_from=growth))
    splits, dataset = _splits(plan.dataset), plan.dataset
    num, num_classes = len(dataset), len(dataset.class_names)
    if num < _LEAST * num_classes:
        raise DataError(
            f"{dataset.name} has {num:,} images of {num_classes} classes: whether a label is wrong can be told from "
            f"about {_LEAST * num_classes:,} on; look at all of them instead"
        )
    plan = replace(plan, dataset=inspect_test(dataset, "check --labels"))  # its networks are for this alone
    dataset = plan.dataset
    logits_NK, measured_N = held_out_logits(plan, bar)
    rows, labels_N = dataset.rows("train"), dataset.labels("train")
    accuracy = float((logits_NK.argmax(axis=1) == labels_N)[measured_N].mean())
    majority = float(np.bincount(labels_N[measured_N]).max() / measured_N.sum())
    if accuracy < majority + _LEAST_SKILL * (1 - majority):
        raise DataError(
            f"{dataset.name}: networks are right for {percent(accuracy, 1)} of what they did not learn from (always "
            f"the largest class: {percent(majority, 1)}), so that what they contradict says nothing of labels"
        )
    doubt_N, p_NK = label_doubt(logits_NK, labels_N), softmax(logits_NK)
    twice_N = _under_two_labels(dataset, labels_N)
    doubt_N[~measured_N] = -np.inf
    order = np.lexsort((-doubt_N, ~twice_N))
    suspect_N = (suspect_labels(p_NK, labels_N) & measured_N & (doubt_N > 0)) | twice_N
    listed = order[: max(int(suspect_N.sum()), _LEAST_LISTED, round(_SHARE * num))]
    listed = listed[(doubt_N[listed] > 0) | twice_N[listed]]
    others = _others(splits[rows], listed)
    names, hashes, classes = dataset.sample_names(), dataset.source_hashes(), dataset.class_names
    p_NK[np.arange(len(labels_N)), labels_N] = -1
    found = [
        Correction(
            path=names[rows[n]],
            label=classes[labels_N[n]],
            split=str(splits[rows[n]]),
            suggested=classes[int(p_NK[n].argmax())] if is_suspect else "",
            doubt="same picture under two labels" if twice_N[n] else f"{doubt_N[n]:.2f}" if is_suspect else "",
            is_suspect=is_suspect,
            source=hashes[rows[n]][:_SOURCE],
        )
        for part, is_suspect in ((listed, True), (others, False))
        for n in part.tolist()
    ]
    return found, accuracy


def _splits(dataset: Dataset) -> NDArray[np.str_]:
    """The split of each row, as it is when the folds are not merged."""
    parted = replace(dataset, is_merged=False)
    found = np.full(len(dataset), "val", object)  # val holds back what is in train
    for split in ("train", "test"):
        found[parted.rows(split)] = split
    return found.astype(str)


def _under_two_labels(dataset: Dataset, labels_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pictures that are there twice, pixel for pixel, under different labels."""
    labels_of: dict[int, set[int]] = defaultdict(set)
    keys = dataset.pixel_keys("train").tolist()
    for key, label in zip(keys, labels_N.tolist(), strict=True):
        labels_of[key].add(label)
    return np.array([len(labels_of[key]) > 1 for key in keys])


def _others(splits_N: NDArray[np.str_], listed: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many other test images as are listed, at random."""
    num = int((splits_N[listed] == "test").sum())
    rest = np.setdiff1d(np.flatnonzero(splits_N == "test"), listed)
    return np.sort(np.random.default_rng(0).permutation(rest)[:num])
