"""NumPy arrays as a source.

Owns the checks of shapes, types, ranges and lengths, and the numbering of classes.
"""

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels
from convlens.data.sources.base import SPLITS, ArraySource, ArraySplit, need_classes
from convlens.errors import DataError
from convlens.files import sha256_of


def from_arrays(what: Any) -> ArraySource:
    """(x, y), (x_train, y_train, x_test, y_test) or a dictionary by split. Raises DataError."""
    if isinstance(what, dict):
        unknown = [k for k in what if k not in SPLITS]
        if unknown:
            raise DataError(f"arrays by split are keyed train, val and test, not {unknown[0]!r}")
        odd = [k for k, pair in what.items() if not isinstance(pair, tuple | list) or len(pair) != 2]
        if odd or not what:
            raise DataError(f"arrays by split are pairs (images, labels){f': not so {odd[0]!r}' if odd else ''}")
        splits: dict[str | None, tuple[Any, Any]] = dict(what)
    elif len(what) == 2:
        splits = {None: (what[0], what[1])}
    elif len(what) == 4:
        splits = {"train": (what[0], what[1]), "test": (what[2], what[3])}
    else:
        raise DataError(f"arrays come as (x, y) or (x_train, y_train, x_test, y_test), not {len(what)} of them")
    return array_source(splits, "arrays", "arrays in memory", "the arrays")


def array_source(splits: dict[str | None, tuple[Any, Any]], name: str, location: str, where: str) -> ArraySource:
    """Check images and labels of each split, and give the classes numbers over all of them."""
    checked: dict[str | None, tuple[Pixels, NDArray[Any]]] = {}
    for split, (x, y) in splits.items():
        suffix = f"_{split}" if split else ""
        images, labels = _images(np.asarray(x), f"{where}: x{suffix}"), np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
            raise DataError(f"{where}: y{suffix} must be whole numbers or names, one each, not {_described(labels)}")
        if len(images) != len(labels):
            raise DataError(f"{where}: x{suffix} has {len(images):,} images, y{suffix} {len(labels):,} labels")
        if len(images) == 0:
            raise DataError(f"{where}: x{suffix} is empty")
        checked[split] = (images, _label_values(labels, f"{where}: y{suffix}"))
    shapes = {images.shape[1:] for images, _ in checked.values()}
    if len(shapes) > 1:
        raise DataError(f"{where}: the splits' images differ in shape: {', '.join(map(str, sorted(shapes)))}")
    kinds = {labels.dtype.kind == "U" for _, labels in checked.values()}
    if len(kinds) > 1:
        raise DataError(f"{where}: the splits' labels are numbers in one and names in another")
    all_labels = np.concatenate([labels for _, labels in checked.values()])
    classes = np.unique(all_labels)
    names = tuple(str(c) for c in classes)
    need_classes(np.ones(len(names), int), names, where)
    arrays: dict[str | None, ArraySplit] = {
        split: ArraySplit(images, np.searchsorted(classes, labels).astype(np.int64))
        for split, (images, labels) in checked.items()
    }
    hashes = {
        f"{s or 'all'} {part}": sha256_of(np.ascontiguousarray(a).tobytes() + str((a.shape, names)).encode())
        for s, split in arrays.items()
        for part, a in (("images", split.images_NHWC), ("labels", split.labels_N))
    }
    return ArraySource(name, location, arrays, names, hashes)


def _label_values(labels: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels as int64, or as names in NFC. Raises DataError."""
    if labels.dtype.kind in "iu":
        if labels.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
            raise DataError(f"{where} has labels beyond the range of int64")
        return labels.astype(np.int64)
    try:
        names = labels.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} has names that are no text: {error}") from error
    return np.array([unicodedata.normalize("NFC", name) for name in names.tolist()])


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _images(x: NDArray[Any], where: str) -> Pixels:
    """uint8 (N, H, W, C) from uint8, or floats in 0..1; the channels last or none. Raises DataError."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape[1:]:
        first = x.ndim == 4 and x.shape[1] in (1, 3)
        hint = "; move the channels last: x.transpose(0, 2, 3, 1)" if first else ""
        raise DataError(f"{where} must be (N, H, W) or (N, H, W, 1 or 3), not {_described(x)}{hint}")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise DataError(f"{where} must be uint8 in 0..255 or floats in 0..1, not {x.dtype}")
    if x.size and not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(
            f"{where} has floats from {x.min():g} to {x.max():g}; they must lie in 0..1 (or give uint8 in 0..255)"
        )
    pixels: Pixels = np.rint(x * 255).astype(np.uint8)
    return pixels
