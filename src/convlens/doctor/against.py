"""New pictures held against those that a model was validated on: are they of the kind that it knows?

Owns what is compared. No labels are needed. The differences are tested together (Holm), and each says how large it
would have to be to be seen: that nothing was found means little where little could have been.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.classifier import Classifier, load, pictures_of
from convlens.data.image.decode import SUFFIXES, Pixels, quiet_pillow, read_bytes, read_header
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import evenly, key_of
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data, reopen
from convlens.data.sources.base import ReadOptions
from convlens.data.sources.recognise import open_source
from convlens.data.sources.tree import suffix_of
from convlens.doctor.findings import CALLED, NOTE, WARNING, Finding, Findings, PropertyShift, Shift
from convlens.errors import ConvlensError, DataError, ImageError
from convlens.evaluation.calibration import held_out, held_out_by_folds
from convlens.evaluation.test_ledger import inspect_test
from convlens.metrics import binomial_cdf, fisher_exact, kolmogorov_smirnov
from convlens.paired import POWER, holm
from convlens.progress import Progress
from convlens.text import counted, shown
from convlens.unfamiliarity import LEAST_IMAGES

_MOST, _BATCH, _MOST_SIZES = 5_000, 256, 1_000  # pictures of either kind; headers for their sizes
_LEAST_NEW = 5


class _Seen(NamedTuple):
    """What was measured of pictures: how each is called, whether it is unfamiliar (None: the model cannot tell), and
    its brightness (0..255), contrast (standard deviation) and sharpness as framed; the longer sides as they came, px.
    """

    answers_N: NDArray[np.int64]
    unfamiliar_N: NDArray[np.bool_] | None
    looks: dict[str, NDArray[np.float64]]
    sides: NDArray[np.float64]
    num_known: int = 0  # that the model was made with


def look_against(data: Any, model: Any, read: ReadOptions, data_root: str | Path | None, bar: Progress) -> Findings:
    """Hold pictures (a folder of them, files, or whatever `evaluate` takes) against the validation images of a model.
    Raises DataError where either are too few, and as `load` and `predict` do."""
    classifier = load(model)
    card = classifier.card
    if card.dataset is None:
        raise DataError(f"{shown(classifier.path, 200)} was not trained by convlens: there is nothing to compare with")
    own = reopen(card.dataset, data_root=data_root, progress=bar)
    may_be_seen, by_folds, which = False, None, "validation image"
    if card.dataset.is_merged:  # each answered by the network of a fold that did not learn from it
        own, which = inspect_test(own, "check"), "held-out image"
        by_folds = held_out_by_folds(classifier, own, _MOST)
        rows = by_folds[0]
    else:
        measured, may_be_seen = held_out(card, own)
        rows = evenly(own.rows("val")[measured], _MOST)
    if may_be_seen or len(rows) < LEAST_IMAGES:
        num = 0 if may_be_seen else len(rows)
        raise DataError(
            f"{shown(classifier.path, 200)} has {counted(num, which)} that it did not learn from: {LEAST_IMAGES} are "
            "needed to compare with (`val_frac` of train sets more aside)"
        )
    bar.line(f"looking at {counted(len(rows), which)} of the model")
    images = own.images_at(rows)
    there = _seen(classifier, (np.asarray(images[n : n + _BATCH]) for n in range(0, len(rows), _BATCH)))
    if by_folds is not None:
        answers_N = classifier.labels(classifier.probabilities(by_folds[1])).labels_N
        there = there._replace(answers_N=answers_N, unfamiliar_N=by_folds[2])
    there = there._replace(sides=_sides_of(own, rows))
    here, name, num_unread = _new(classifier, data, read, data_root, bar)
    num = len(here.answers_N)
    if num < _LEAST_NEW:
        raise DataError(f"{name} has {counted(num, 'picture')} that can be read: {_LEAST_NEW} at least are needed")
    shift = Shift(num, len(rows), num_unread, tuple(_differences(classifier.class_names, here, there)))
    facts = [("compared", f"{counted(num, 'picture')} with {counted(len(rows), which)} of {own.name}")]
    facts += [("cannot be read", f"{num_unread:,}")] if num_unread else []
    facts += [one.row for one in shift.differences]
    found = []
    if here.num_known:
        title = f"{here.num_known:,} of the {counted(num, 'picture')} are some that the model was made with"
        remedy = "leave them out: they cannot be unlike those, and hide how unlike the others are"
        found.append(Finding("known", WARNING, title, remedy))
    if num_told := sum(one.is_told for one in shift.differences):
        remedy = "look at some of them; measure the model on labelled ones of the kind (evaluate), or train with some"
        title = f"{num_told} of {len(shift.differences)} properties differ by more than chance"
        found.append(Finding("shift", WARNING, title, remedy))
    if num_unread:
        title = f"{counted(num_unread, 'picture')} cannot be read: nothing is known of them"
        found.append(
            Finding("quarantined", WARNING, title, "look at what they are; predict says why each cannot be read")
        )
    if own.has_groups:
        line = "the model's pictures are of groups, which are not independent: differences may be told that are none"
        found.append(Finding("groups", NOTE, line, "take new pictures of as many different groups"))
    return Findings(name, shown(data, 200), tuple(facts), tuple(found), shift=shift)


def _new(
    classifier: Classifier, data: Any, read: ReadOptions, data_root: str | Path | None, bar: Progress
) -> tuple[_Seen, str, int]:
    """The new pictures, what they are called, and how many cannot be read."""
    spec = classifier.card.input_spec
    paths = _pictures(data)
    if not paths:
        dataset = open_data(data, PackOptions.for_input(spec, read, all_test=True), data_root=data_root, progress=bar)
        dataset = inspect_test(dataset, "check").merged()
        rows = dataset.rows("train")
        rows = evenly(rows, _MOST)
        images = dataset.images_at(rows)
        seen = _seen(classifier, (np.asarray(images[n : n + _BATCH]) for n in range(0, len(rows), _BATCH)))
        return seen._replace(sides=_sides_of(dataset, rows)), dataset.name, dataset.num_quarantined
    paths = evenly(np.array(paths, object), _MOST).tolist()
    sides: list[float] = []
    num_unread = 0

    def batches() -> Iterator[Pixels]:
        nonlocal num_unread
        batch: list[Pixels] = []
        for path in paths:
            try:
                header = read_header(content := read_bytes(Path(path)))
                batch.append(classifier.frame(content))
                sides.append(max(header.height, header.width))
            except ImageError:
                num_unread += 1
            if len(batch) == _BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    with quiet_pillow():
        seen = _seen(classifier, batches())
    return seen._replace(sides=np.array(sides)), shown(Path(str(data)).name, 60), num_unread


def _pictures(data: Any) -> list[Any]:
    """The pictures in a folder, of a pattern, or a picture file; empty where data is something else."""
    if not isinstance(data, str | Path):
        return []
    is_pattern = "*" in str(data) and not os.path.lexists(data)
    if not (files.is_folder(data) or is_pattern or suffix_of(str(data)) in SUFFIXES):
        return []
    with suppress(ImageError):  # a packed folder, say
        return pictures_of(data)
    return []


def _seen(classifier: Classifier, batches: Iterator[Pixels]) -> _Seen:
    answers, unfamiliar = [np.empty(0, np.int64)], list[NDArray[np.bool_]]()
    record, num_known = classifier.card.seen, 0
    looks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _LOOKS}
    for images in batches:
        logits_NK, found = classifier.are_unfamiliar(images)
        answers.append(classifier.labels(classifier.probabilities(logits_NK)).labels_N)
        unfamiliar += [] if found is None else [found]
        if record is not None:
            num_known += int(record.has(np.array([key_of(one) for one in images], np.uint64)).sum())
        grey_NHW = images.mean(axis=3, dtype=np.float32)
        for name, look in _LOOKS.items():
            looks[name].append(look(grey_NHW))
    empty = np.empty(0)
    return _Seen(
        np.concatenate(answers),
        np.concatenate(unfamiliar) if unfamiliar else None,
        {name: np.concatenate([empty, *values]) for name, values in looks.items()},
        empty,
        num_known,
    )


def _brightness(grey_NHW: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = grey_NHW.mean(axis=(1, 2), dtype=np.float64)
    return found


def _contrast(grey_NHW: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = grey_NHW.std(axis=(1, 2), dtype=np.float64)
    return found


def _sharpness(grey_NHW: NDArray[np.float32]) -> NDArray[np.float64]:
    """The variance of the Laplacian over that of the pixels, as a logarithm: blur lowers it, contrast does not."""
    middle = grey_NHW[:, 1:-1, 1:-1]
    around = grey_NHW[:, :-2, 1:-1] + grey_NHW[:, 2:, 1:-1] + grey_NHW[:, 1:-1, :-2] + grey_NHW[:, 1:-1, 2:]
    edges = (around - 4 * middle).reshape(len(grey_NHW), -1)
    pixels = grey_NHW.reshape(len(grey_NHW), -1)
    found: NDArray[np.float64] = np.log((edges.var(axis=1) + 1e-3) / (pixels.var(axis=1) + 1e-3)).astype(np.float64)
    return found


_LOOKS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float64]]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "sharpness": _sharpness,
}


def _sides_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The longer sides of some of its pictures as they came, px; empty where the source is not there any more, or has
    one size."""
    if dataset.card.arrays is not None:
        return np.empty(0)
    names = np.array(dataset.sample_names(), object)[rows[:: max(1, len(rows) // _MOST_SIZES)]]
    wanted, sides = set(names.tolist()), []
    with suppress(ConvlensError, OSError), quiet_pillow():
        for sample in open_source(dataset.source, dataset.card.options.read).samples():
            if sample.name in wanted and isinstance(content := sample.read(), bytes):
                header = read_header(content)
                sides.append(float(max(header.height, header.width)))
    return np.array(sides)


def _differences(class_names: tuple[str, ...], here: _Seen, there: _Seen) -> Iterator[PropertyShift]:
    """Every property, the share of unfamiliar ones first; p-values are adjusted for their number."""
    shares = []
    if here.unfamiliar_N is not None and there.unfamiliar_N is not None:
        shares.append(("share unfamiliar", here.unfamiliar_N, there.unfamiliar_N))
    for k, name in enumerate(class_names):
        shares.append((f"{CALLED} {shown(name, 40)}", here.answers_N == k, there.answers_N == k))
    found: list[tuple[str, NDArray[np.float64], NDArray[np.float64], float, bool]] = []
    for what, is_x_N, is_y_M in shares:
        p = fisher_exact(int(is_x_N.sum()), len(is_x_N), int(is_y_M.sum()), len(is_y_M))
        found.append((what, is_x_N.astype(np.float64), is_y_M.astype(np.float64), p, True))
    looks = [(name, here.looks[name], there.looks[name]) for name in _LOOKS]
    if len(here.sides) and len(there.sides):
        looks.append(("longer side in px", here.sides, there.sides))
    found += [(what, x_N, y_M, kolmogorov_smirnov(x_N, y_M)[1], False) for what, x_N, y_M in looks]
    adjusted = holm([p for *_, p, _ in found])
    risk = 0.05 / len(found)
    for (what, x_N, y_M, _, is_share), p in zip(found, adjusted, strict=True):
        spread = float(y_M.std()) or float(x_N.std()) or 1.0
        middle = np.mean if is_share else np.median
        apart = float(middle(x_N) - middle(y_M))
        seen = _share_seen(x_N, y_M, risk) if is_share else _shift_seen(len(x_N), len(y_M), risk)
        here_is, there_is = float(middle(x_N)), float(middle(y_M))
        yield PropertyShift(what, there_is, here_is, apart if is_share else apart / spread, p, seen, is_share)


def _share_seen(x_N: NDArray[np.float64], y_M: NDArray[np.float64], risk: float) -> float:
    """How much larger a share would have to be here for Fisher's test to tell it with a chance of 80 %; infinite where
    not even all of them would be told."""
    n, other, m = len(x_N), int(y_M.sum()), len(y_M)
    low, high = int(n * other / m), n + 1  # the fewest that are told, between these
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fisher_exact(middle, n, other, m) <= risk else (middle, high)
    if high > n:
        return math.inf
    share, top = other / m, 1.0
    for _ in range(30):
        middle_share = (share + top) / 2
        is_told = 1 - binomial_cdf(high - 1, n, middle_share) >= POWER
        share, top = (share, middle_share) if is_told else (middle_share, top)
    return top - other / m


def _shift_seen(n: int, m: int, risk: float) -> float:
    """By how many standard deviations a normal distribution would have to be shifted for Kolmogorov's and Smirnov's
    test to tell it with a chance of 80 %: where the distance of the two, 2 Φ(shift / 2) - 1, is the critical one. (That
    of samples lies a little above it, which makes up for its spread: 79 to 84 %, simulated.) Infinite where none is.
    """
    distance = math.sqrt(-math.log(risk / 2) / 2 * (1 / n + 1 / m))
    return 2 * NormalDist().inv_cdf((1 + distance) / 2) if distance < 1 else math.inf
