"""Whether the class can be told without looking at what is shown: from sizes, formats, dates, borders, brightness.

Owns what is known of a picture beside its contents, and the measuring: a small decision tree (Breiman et al.,
"Classification and Regression Trees", 1984), cross-validated, against always answering the largest class.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.data.image.decode import FORMATS, SOFTWARE
from convlens.metrics import wilson_interval

Floats = NDArray[np.float64]
MOST_MEASURED = 2_000
_DEPTH, _THRESHOLDS, _FOLDS = 4, 12, 5
_MODEL, _TIMES = 0x0110, (0x9003, 0x0132)  # of EXIF: the camera, when it was taken or changed
UNKNOWN = -1.0


@dataclass(frozen=True)
class Shortcut:
    """How well a tree tells the class from some features: share right of n, what always answering the largest class
    gives, and the features that it asks first."""

    accuracy: float
    majority: float
    n: int
    features: tuple[str, ...]

    @property
    def is_one(self) -> bool:
        """Whether more than half of what could be told is told, with 95 % confidence."""
        low, _ = wilson_interval(round(self.accuracy * self.n), self.n)
        return low > self.majority + 0.5 * (1 - self.majority)


class _File(NamedTuple):
    """What is known of a file: numbers by name, camera and software."""

    numbers: dict[str, float]
    camera: str = ""
    software: str = ""


def file_features(contents: Iterable[bytes]) -> dict[str, Floats]:
    """What stands in picture files beside their pixels: each (N,), -1 where it is not there."""
    files = [_of_file(content) for content in contents]
    found = {name: np.array([file.numbers.get(name, UNKNOWN) for file in files]) for name in _NUMBERS}
    for name, words in (("camera", [f.camera for f in files]), ("software", [f.software for f in files])):
        known = {word: number for number, word in enumerate(sorted(set(words)))}
        found[name] = np.array([float(known[word]) for word in words])
    return found


_NUMBERS = ("width", "height", "width / height", "format", "bytes a pixel", "JPEG quality", "date")


def _of_file(content: bytes) -> _File:
    numbers: dict[str, float] = {}
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            numbers |= {"width": width, "height": height, "width / height": width / height}
            numbers |= {"format": FORMATS.index(image.format), "bytes a pixel": len(content) / (width * height)}
            if tables := getattr(image, "quantization", None):
                numbers["JPEG quality"] = float(sum(map(sum, tables.values())))
            exif = image.getexif()
            camera, software = (str(exif.get(tag, "")).strip() for tag in (_MODEL, SOFTWARE))
            taken = next((str(exif[tag]) for tag in _TIMES if tag in exif), None)
            if taken is not None:
                with suppress(ValueError):
                    numbers["date"] = datetime.strptime(taken[:19], "%Y:%m:%d %H:%M:%S").timestamp()
            return _File(numbers, camera, software)
    except Exception:  # whatever a stranger's file makes Pillow raise: nothing more is known of it
        return _File(numbers)


def look_features(images_NHWC: NDArray[np.uint8]) -> dict[str, Floats]:
    """Brightness and borders of small pictures, uint8 (N, H, W, C): each (N,)."""
    images = images_NHWC
    grey = images.mean(axis=3, dtype=np.float32)
    found = {"brightness": grey.mean(axis=(1, 2)).astype(float), "contrast": grey.std(axis=(1, 2)).astype(float)}
    sides = {"top": images[:, :2], "bottom": images[:, -2:], "left": images[:, :, :2], "right": images[:, :, -2:]}
    for side, pixels in sides.items():
        for channel, colour in zip(range(images.shape[3]), ("red", "green", "blue"), strict=False):
            found[f"{side} border's {colour}"] = pixels[..., channel].mean(axis=(1, 2))
    return found


def shortcut(features: Mapping[str, Floats], labels_N: NDArray[np.int64]) -> Shortcut | None:
    """How well the features tell the classes, cross-validated; None where there are too few samples to know."""
    usable = {name: values for name, values in features.items() if len(values) and values.min() < values.max()}
    if not usable or len(labels_N) < 4 * _FOLDS:
        return None
    x, y = np.stack(list(usable.values()), axis=1), labels_N
    fold_N = np.zeros(len(y), np.int64)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        fold_N[own] = np.arange(len(own)) % _FOLDS
    num_classes, right = int(y.max()) + 1, 0
    for fold in range(_FOLDS):
        learned = fold_N != fold
        answer = _grown(x[learned], y[learned], num_classes, _DEPTH)[0]
        right += int((answer(x[~learned]) == y[~learned]).sum())
    asked = _grown(x, y, num_classes, _DEPTH)[1]
    names = list(usable)
    counts = np.bincount(y)
    first = tuple(dict.fromkeys(names[feature] for feature in asked))[:3]
    return Shortcut(right / len(y), float(counts.max() / len(y)), len(y), first)


Answer = Callable[[Floats], NDArray[np.int64]]


def _grown(x_ND: Floats, y_N: NDArray[np.int64], num_classes: int, depth: int) -> tuple[Answer, list[int]]:
    """A tree over features (N, D), by Gini's impurity, and the features that it asks, the first first."""
    counts = np.bincount(y_N, minlength=num_classes)
    common = int(counts.argmax())
    least = max(3, len(y_N) // 100)
    best = (0.0, -1, 0.0)
    impurity = _gini(counts[None])[0] * len(y_N)
    if depth > 0 and len(y_N) >= 2 * least and counts.max() < len(y_N):
        for feature in range(x_ND.shape[1]):
            gain, threshold = _best_cut(x_ND[:, feature], y_N, counts, least)
            best = max(best, (impurity - gain, feature, threshold))
    gain, feature, threshold = best
    if feature < 0 or gain <= 1e-9:
        return lambda x: np.full(len(x), common), []
    low = x_ND[:, feature] <= threshold
    (below, asked_below), (above, asked_above) = (
        _grown(x_ND[part], y_N[part], num_classes, depth - 1) for part in (low, ~low)
    )

    def answer(x: Floats) -> NDArray[np.int64]:
        is_low = x[:, feature] <= threshold
        answers = np.empty(len(x), np.int64)
        answers[is_low], answers[~is_low] = below(x[is_low]), above(x[~is_low])
        return answers

    return answer, [feature, *asked_below, *asked_above]


def _best_cut(values_N: Floats, y_N: NDArray[np.int64], counts_K: NDArray[np.int64], least: int) -> tuple[float, float]:
    """The impurity, times samples, that the best threshold of one feature leaves, and that threshold."""
    thresholds = np.unique(np.quantile(values_N, np.linspace(0, 1, _THRESHOLDS + 2)[1:-1], method="lower"))
    places = np.searchsorted(thresholds, values_N) * len(counts_K) + y_N
    shape = (len(thresholds) + 1, len(counts_K))
    below = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0)[:-1]
    above = counts_K - below
    left = _gini(below) * below.sum(axis=1) + _gini(above) * above.sum(axis=1)
    left[np.minimum(below.sum(axis=1), above.sum(axis=1)) < least] = np.inf
    return float(left.min()), float(thresholds[left.argmin()])


def _gini(counts_PK: NDArray[np.int64]) -> Floats:
    shares = counts_PK / np.maximum(counts_PK.sum(axis=1, keepdims=True), 1)
    return np.asarray(1 - (shares * shares).sum(axis=1))
