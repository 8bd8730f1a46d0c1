"""Arrays, lists and data sets in memory as a source: NumPy, pandas, tensors, what scikit-learn, Keras and torch hand
out.

Owns telling images from labels, the checks of shapes, types, ranges and lengths, and the numbering of classes. Knows
libraries by what their objects can do, and imports none of them.
"""

import math
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import pixels_of, read_bytes
from convlens.data.image.values import SIGNED, Range, range_in
from convlens.data.sources.base import SPLITS, ArraySource, ArraySplit, Images, limit_classes
from convlens.data.sources.class_names import alike
from convlens.data.sources.split_words import split_of, words_of
from convlens.errors import DataError, ImageError
from convlens.files import sha256_of
from convlens.text import counted, listed, shown

Pair = tuple[Any, Any]
IMAGES = ["images", "image", "imgs", "img", "x", "data", "pixels", "features"]
LABELS = ["labels", "label", "y", "target", "targets", "class", "classes"]
_FORMS = (
    "arrays come as (x, y), ((x_train, y_train), (x_test, y_test)), four of them, or by name: x_train, y_train, "
    "train_images, train_labels, data, target …"
)


def from_arrays(what: Any) -> ArraySource:
    """(x, y), ((x, y), (x_test, y_test)), four arrays in either order, a dictionary by split or by name, or a data set
    with `len` and items. Raises DataError."""
    if isinstance(what, Mapping) and what and all(_is_data_set(value) for value in what.values()):
        return array_source(_by_split({key: _named(*_of_data_set(value)) for key, value in what.items()}))
    if isinstance(what, Mapping):
        if what and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in what.values()):
            return array_source(_by_split({key: (pair[0], pair[1]) for key, pair in what.items()}))
        splits, names, notes = named_pairs(what, "the arrays")
        return array_source(splits, class_names=names, notes=notes)
    if _is_data_set(what):
        return array_source({None: _named(*_of_data_set(what))})
    parts = list(what)
    if 2 <= len(parts) <= 3 and all(_is_pair(part) for part in parts):
        order = SPLITS if len(parts) == 3 else ("train", "test")
        return array_source({split: (x, y) for split, (x, y) in zip(order, parts, strict=True)})
    if len(parts) == 2:
        return array_source({None: (parts[0], parts[1])})
    if len(parts) in (4, 6):
        pairs = in_pairs(parts)
        return array_source(dict(zip(SPLITS if len(pairs) == 3 else ("train", "test"), pairs, strict=True)))
    raise DataError(f"{_FORMS}; not as {len(parts)} of them")


def _named(pair: Pair, names: tuple[str, ...] | None) -> Pair:
    """Images with labels by name, where a data set names its classes: two sets may number theirs otherwise."""
    if names is None:
        return pair
    labels = np.asarray(pair[1])
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
        return pair
    return pair[0], np.array(names, str)[labels]


def _by_split(pairs: Mapping[Any, Pair]) -> dict[str | None, Pair]:
    """Pairs by the split that their keys are called after. Raises DataError."""
    found: dict[str | None, Pair] = {}
    for key, pair in pairs.items():
        split = split_of(str(key))
        if split is None or split in found:
            raise DataError(f"arrays by split are keyed train, val and test, each once, not {shown(list(pairs))}")
        found[split] = pair
    return found


def _is_pair(part: Any) -> bool:
    """Whether a part is (images, labels) of a split, and not itself images or labels."""
    return isinstance(part, tuple | list) and len(part) == 2 and np.ndim(_first(part)) >= 2 and _ndim(part[0]) >= 3


def _first(part: Any) -> Any:
    return part[0] if hasattr(part[0], "shape") else ()


def _ndim(value: Any) -> int:
    return len(getattr(value, "shape", ()))


def in_pairs(parts: Sequence[Any]) -> list[Pair]:
    """Images and labels, each with its own, of arrays that come in any order. Raises DataError."""
    images = [part for part in parts if _ndim(part) >= 3 or (_ndim(part) == 2 and part.shape[1] >= 64)]
    labels = [part for part in parts if not any(part is image for image in images)]
    if len(images) != len(labels) or [len(image) for image in images] != [len(label) for label in labels]:
        shapes = ", ".join(str(tuple(getattr(part, "shape", (len(part),)))) for part in parts)
        raise DataError(f"{_FORMS}; these are {len(parts)} of the shapes {shapes}")
    return list(zip(images, labels, strict=True))


def named_pairs(
    named: Mapping[str, Any], where: str
) -> tuple[dict[str | None, Pair], tuple[str, ...] | None, tuple[str, ...]]:
    """The splits that names speak of, names of classes where there are, and a note on what is not used. Raises
    DataError, with what there is."""
    found: dict[tuple[str | None, str], str] = {}
    rivals: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for name in named:
        words = [word for word in words_of(str(name)) if split_of(word) is None]
        kind = "x" if set(words) & set(IMAGES) else "y" if set(words) & set(LABELS) else None
        if kind is not None and not set(words) & {"names", "name", "weights", "weight", "source", "index", "ids"}:
            # A name that says nothing else comes first, and images before the same as flat data.
            rivals[split_of(str(name)), kind].append(name)
            rank = (len(words), -_ndim(named[name]))
            other = found.get((split_of(str(name)), kind))
            if other is None or rank < _rank(other, named):
                found[split_of(str(name)), kind] = name
    for key, names_of in rivals.items():
        best = [name for name in names_of if _rank(name, named) == _rank(found[key], named)]
        if len(best) > 1:
            raise DataError(
                f"{where} has several {'images' if key[1] == 'x' else 'labels'}: {listed(best)}; leave one there"
            )
    if not found and named and all(str(name).startswith("arr_") for name in named):
        parts = [named[name] for name in sorted(named, key=lambda name: int(name[4:]))]
        pairs = in_pairs(parts) if len(parts) in (2, 4, 6) else []
        if pairs:
            order = {1: (None,), 2: ("train", "test"), 3: SPLITS}[len(pairs)]
            return dict(zip(order, pairs, strict=True)), None, ()
    splits = {split for split, _ in found}
    if len(splits) > 1:
        splits.discard(None)
    missing = [f"{kind}_{split or ''}".rstrip("_") for split in splits for kind in "xy" if (split, kind) not in found]
    if not splits or missing or (None not in splits and "train" not in splits):
        has = ", ".join(f"{shown(name, 30)} {tuple(getattr(value, 'shape', ()))}" for name, value in named.items())
        lacks = "has no images and labels by a name that is known"
        if missing and len(found) > 1:
            lacks = f"has no {missing[0]}"
        if splits == {"test"} and not missing:
            lacks = "has test images and nothing to learn from; call them x and y to measure a model on them"
        raise DataError(f"{where} {lacks}: x_train, y_train, x_test, y_test, or x and y; it has {has or 'nothing'}")
    if splits == {"train"}:
        found = {(None, kind): name for (split, kind), name in found.items() if split == "train"}
        splits = {None}
    used = {name for (split, _), name in found.items() if split in splits}
    pairs_by_split: dict[str | None, Pair] = {
        split: (named[found[split, "x"]], named[found[split, "y"]]) for split in (None, *SPLITS) if split in splits
    }
    names = next((named[n] for n in ("target_names", "class_names", "label_names") if n in named), None)
    unused = [name for name in named if name not in used and _ndim(named[name]) > 0 and named[name] is not names]
    notes = (f"unused: {listed(unused)}, neither images nor labels of a split",) if unused else ()
    return pairs_by_split, None if names is None else tuple(str(n) for n in names), notes


def _rank(name: str, named: Mapping[str, Any]) -> tuple[int, int]:
    return len([word for word in words_of(str(name)) if split_of(word) is None]), -_ndim(named[name])


# ---------------------------------------------------------------- data sets of other libraries


def _is_data_set(what: Any) -> bool:
    """Whether something is a data set as torch and Hugging Face have them: items by number, and no array or list."""
    has_items = hasattr(what, "__getitem__") and hasattr(what, "__len__")
    return has_items and not isinstance(what, list | tuple | Mapping | str | bytes) and not hasattr(what, "dtype") and (
        not hasattr(what, "iloc")
    )  # fmt: skip


def _of_data_set(what: Any) -> tuple[Pair, tuple[str, ...] | None]:
    """Images (each read when it is asked for) and labels of a data set. Raises DataError."""
    try:
        if hasattr(what, "features") and hasattr(what, "column_names"):
            return _of_columns(what)
        labels = getattr(what, "targets", getattr(what, "labels", None))
        if labels is None or len(labels) != len(what) or not _are_those_of_items(labels, what):
            labels = [what[number][1] for number in range(len(what))]
        names = getattr(what, "classes", None)
        return (Items(what, lambda item: item[0]), labels), None if names is None else tuple(map(str, names))
    except DataError:
        raise
    except Exception as error:  # whatever a stranger's data set raises
        raise DataError(f"a data set whose items are no (image, label): {shown(error)}") from error


def _are_those_of_items(labels: Any, what: Any) -> bool:
    """Whether the labels that a data set has by itself are those that its items come with: they may be transformed."""
    if getattr(what, "target_transform", None) is not None:
        return False
    sampled = range(0, len(what), max(1, len(what) // 8))
    return all(np.array_equal(np.asarray(labels[number]), np.asarray(what[number][1])) for number in sampled)


def _of_columns(what: Any) -> tuple[Pair, tuple[str, ...] | None]:
    """Hugging Face's: the column of images and that of labels."""
    images = [name for name in what.column_names if name.lower() in IMAGES]
    labels = [name for name in what.column_names if name.lower() in (*LABELS, "fine_label")]
    if not images or not labels:
        raise DataError(
            f"a data set without a column of images and one of labels; its columns are {listed(what.column_names)}"
        )
    feature = what.features[labels[0]] if hasattr(what.features, "__getitem__") else None
    names = getattr(feature, "names", None)
    return (Items(what, lambda item: item[images[0]]), list(what[labels[0]])), None if names is None else tuple(names)


class Items(Sequence[Any]):
    """Images that come one by one, of any size: arrays, PIL images, paths, bytes, tensors; `items[i]` gives the bytes
    of a file or values (H, W, C). Raises ImageError there where one is no picture."""

    def __init__(self, items: Any, pick: Any = None, numbers: range | None = None) -> None:
        self._items, self._pick = items, pick
        self._numbers = range(len(items)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, which: int) -> Any: ...
    @overload
    def __getitem__(self, which: slice) -> "Items": ...
    def __getitem__(self, which: int | slice) -> Any:
        if isinstance(which, slice):
            return Items(self._items, self._pick, self._numbers[which])
        try:
            items = self._items.iloc if hasattr(self._items, "iloc") else self._items
            item = items[self._numbers[which]]
            return _content(item if self._pick is None else self._pick(item))
        except ImageError:
            raise
        except Exception as error:  # whatever a stranger's data set raises
            raise ImageError(f"cannot be had from the data set: {shown(error)}") from error


def _content(item: Any) -> bytes | NDArray[Any]:
    """An item as the bytes of a file or as values (H, W, C). Raises ImageError."""
    if isinstance(item, Mapping) and {"bytes", "path"} & item.keys():  # as Hugging Face keeps them undecoded
        item = item.get("bytes") or item.get("path")
    if isinstance(item, str | os.PathLike):
        return read_bytes(Path(item))
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    if hasattr(item, "getbands"):
        return pixels_of(item)
    values = np.asarray(item)
    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3) or 0 in values.shape:
        raise ImageError(f"not a picture, but {values.dtype} of shape {values.shape}")
    if values.ndim == 2:
        return values[:, :, None]
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        return values.transpose(1, 2, 0)
    return values


# ---------------------------------------------------------------- checks


def array_source(
    splits: Mapping[str | None, Pair],
    name: str = "arrays",
    location: str = "arrays in memory",
    where: str = "the arrays",
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> ArraySource:
    """Check images and labels of each split, and give the classes numbers over all of them. `class_names` are those of
    labels that are numbers from 0. Raises DataError."""
    said: list[str] = []
    images_of: dict[str | None, Images] = {}
    labels_of: dict[str | None, NDArray[Any]] = {}
    for split, (x, y) in splits.items():
        suffix = f"_{split}" if split else ""
        images, labels = _images(x, f"{where}: x{suffix}", said), _labels(y, f"{where}: y{suffix}", said)
        if len(images) != len(labels):
            raise DataError(f"{where}: x{suffix} has {len(images):,} images, y{suffix} {len(labels):,} labels")
        if len(images) == 0:
            raise DataError(f"{where}: x{suffix} is empty")
        images_of[split], labels_of[split] = images, labels
    arrays = [images for images in images_of.values() if isinstance(images, np.ndarray)]
    shapes = {images.shape[1:] for images in arrays}
    if len(shapes) > 1 or 0 < len(arrays) < len(images_of):
        raise DataError(f"{where}: the splits' images differ in shape: {', '.join(map(str, sorted(shapes)))}")
    if len({labels.dtype.kind == "U" for labels in labels_of.values()}) > 1:
        raise DataError(f"{where}: the splits' labels are numbers in one and names in another")
    classes = np.unique(np.concatenate(list(labels_of.values())))
    names = tuple(str(c) for c in classes)
    if class_names is not None and classes.dtype.kind in "iu" and classes[0] >= 0 and classes[-1] < len(class_names):
        names = tuple(unicodedata.normalize("NFC", class_names[int(c)]) for c in classes)
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two classes have one name: {listed(sorted(names))}")
    limit_classes(names, where)
    parts: dict[str | None, ArraySplit] = {
        split: ArraySplit(images, np.searchsorted(classes, labels_of[split]).astype(np.int64))
        for split, images in images_of.items()
    }
    hashes = {
        f"{split or 'all'} {what}": digest
        for split, part in parts.items()
        for what, digest in (("images", _digest(part.images_NHWC, names)), ("labels", _digest(part.labels_N, names)))
    }
    values = _value_range(images_of, where) if arrays else None
    return ArraySource(
        name, location, parts, names, hashes, (*dict.fromkeys(said), *alike(names), *notes), value_range=values
    )


def _digest(values: Images, names: tuple[str, ...]) -> str:
    """SHA-256 of an array, or of all items."""
    if isinstance(values, np.ndarray):
        return sha256_of(np.ascontiguousarray(values).tobytes() + str((values.shape, values.dtype, names)).encode())
    pieces = []
    for number in range(len(values)):
        try:
            item = values[number]
            pieces.append(sha256_of(item if isinstance(item, bytes) else item.tobytes() + str(item.shape).encode()))
        except ImageError as error:
            pieces.append(str(error))
    return sha256_of(repr((pieces, names)).encode())


def _value_range(images_of: Mapping[str | None, Images], where: str) -> Range:
    """The range of arrays: that of all splits. Raises DataError where they cannot be in one, or in any."""
    found: dict[str, Range] = {}
    for split, images in images_of.items():
        assert isinstance(images, np.ndarray)
        what = f"x_{split}" if split else "x"
        if images.dtype == np.bool_:
            found[what] = (0, 1)
            continue
        try:
            found[what] = range_in(images)
        except ImageError as error:
            raise DataError(f"{where}: {what} has {error}") from error
    tops = {high for _, high in found.values()}
    if len(tops) > 1 and 1 in tops:
        said = ", ".join(f"{what} in {low:g}..{high:g}" for what, (low, high) in found.items())
        raise DataError(f"{where}: {said}: give all splits in one range")
    return SIGNED if SIGNED in found.values() else (0, max(tops))


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _labels(y: Any, where: str, notes: list[str]) -> NDArray[Any]:
    """Labels as int64, or as names in NFC. Raises DataError."""
    try:
        labels = np.asarray([y[number] for number in range(len(y))] if _is_data_set(y) else y)
    except Exception as error:  # whatever a stranger's object raises
        raise DataError(f"{where} cannot be read as labels: {shown(error)}") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DataError(
                f"{where} has {labels.shape[1]} columns, but not one 1 in each row: an image has one class here"
            )
        notes.append("labels are one-hot: classes are the numbers of their columns")
        labels = labels.argmax(axis=1)
    if labels.dtype.kind in "OU" and labels.ndim == 1:
        said = y if isinstance(y, list | tuple) and len(y) == len(labels) else labels.tolist()
        if missing := [number for number, label in enumerate(said) if _is_nothing(label)]:
            raise DataError(f"{where} has no label at place {missing[0]:,} (of {len(missing):,} such places)")
    if labels.dtype.kind == "O" and labels.ndim == 1:
        kinds = {type(label) for label in labels.tolist()}
        if kinds <= {str}:
            labels = labels.astype(str)
        elif kinds <= {int, bool}:
            labels = labels.astype(np.int64)
    if (
        labels.dtype.kind == "f"
        and labels.ndim == 1
        and np.isfinite(labels).all()
        and (labels == np.rint(labels)).all()
    ):
        labels = labels.astype(np.int64) if abs(labels).max(initial=0) < 2**53 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        nan = " with NaN" if labels.dtype.kind == "f" and np.isnan(labels).any() else ""
        raise DataError(f"{where} must be whole numbers or names, one each, not {_described(labels)}{nan}")
    if labels.dtype.kind in "biu":
        if labels.dtype == np.uint64 and labels.max(initial=0) > np.iinfo(np.int64).max:
            raise DataError(f"{where} has labels beyond the range of int64")
        if num := int((labels < 0).sum()) if labels.dtype.kind == "i" else 0:
            notes.append(
                f"{counted(num, 'label')} below 0, classes like others: if they mean no label, leave those out"
            )
        return labels.astype(np.int64)
    try:
        names = labels.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} has names that are no text: {error}") from error
    return np.array([unicodedata.normalize("NFC", name) for name in names.tolist()])


def _is_nothing(label: Any) -> bool:
    """Whether a label is missing: empty, None, or not a number."""
    return label is None or str(label).strip() in ("", "nan", "<NA>")


def _images(x: Any, where: str, notes: list[str]) -> Images:
    """Values (N, H, W, C), or images one by one where they differ in size or are no arrays. Raises DataError."""
    if isinstance(x, Items):
        return x
    if _is_data_set(x):
        return Items(x)
    if isinstance(x, list | tuple) or (hasattr(x, "iloc") and _ndim(x) == 1):
        items = list(x)
        shapes = {tuple(getattr(item, "shape", ())) for item in items}
        if len(shapes) != 1 or () in shapes:
            return Items(items)
    try:
        values = np.asarray(x)
    except Exception as error:  # ragged lists, tensors on another device, whatever a stranger's object raises
        raise DataError(f"{where} cannot be read as images: {shown(error)}") from error
    if values.dtype.kind == "O" and values.ndim == 1:
        return Items(values.tolist())
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where} must be numbers, not {_described(values)}")
    if values.ndim == 2 and values.shape[1] >= 16 and math.isqrt(values.shape[1]) ** 2 == values.shape[1]:
        side = math.isqrt(values.shape[1])
        notes.append(f"rows of {values.shape[1]:,} values are read as pictures of {side}×{side}")
        values = values.reshape(-1, side, side)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim == 4 and values.shape[3] not in (1, 3, 4) and values.shape[1] in (1, 3, 4):
        notes.append("the channels stand first, and were moved last")
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[3] not in (1, 3, 4) or 0 in values.shape[1:]:
        bands = f" ({values.shape[3]} bands; grey, RGB and RGBA are read)" if values.ndim == 4 else ""
        raise DataError(f"{where} must be (N, H, W) or (N, H, W, 1, 3 or 4), not {_described(values)}{bands}")
    return values
