"""Tables that hold the pixels themselves: a row a picture, a label and a column for each pixel (`label,pixel0,pixel1
…`).

Owns telling them from tables of files, and their reading.
"""

import csv
import io
import math
import posixpath
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.arrays import array_source
from convlens.data.sources.base import SPLITS, ArraySource
from convlens.data.sources.layouts import NO_LABEL, unused_note
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tables import SUFFIXES, is_label_name
from convlens.data.sources.tree import Tree, suffix_of
from convlens.errors import DataError
from convlens.text import listed, shown

_LEAST = 64  # pixels: fewer columns are measurements


def pixel_tables(tree: Tree) -> list[str]:
    """The tables at the top of a tree that hold pixels."""
    return [file for file in tree.files("") if suffix_of(file) in SUFFIXES and holds_pixels(tree, file)]


def holds_pixels(tree: Tree, file: str) -> bool:
    """Whether a table has a column for each pixel of a square picture, and perhaps one of labels."""
    return _columns(tree, file) is not None


def _columns(tree: Tree, file: str) -> tuple[int | None, bool] | None:
    """The label's column (None without one), and whether there is a header; None where the table holds no pixels."""
    try:
        with tree.open(file) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            first, second = ([cell.strip() for cell in next(csv.reader(text), [])] for _ in range(2))
    except (OSError, csv.Error, ValueError):
        return None
    if len(first) < _LEAST or len(second) != len(first):
        return None
    has_header = not all(_is_number(cell) for cell in first[1:])
    named = next((k for k, name in enumerate(first) if is_label_name(name)), None)
    label = named if has_header else 0 if _is_square(len(first) - 1) else None
    pixels = [cell for k, cell in enumerate(second) if k != label]
    return (label, has_header) if _is_square(len(pixels)) and all(map(_is_number, pixels)) else None


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def from_pixels(tree: Tree, files: Sequence[str], name: str) -> ArraySource:
    """The source of one table, or of one for each split; those without labels are left aside. Raises DataError."""
    pairs: dict[str | None, tuple[NDArray[np.generic], NDArray[np.str_]]] = {}
    unlabelled: list[str] = []
    for file in files:
        found = _columns(tree, file)
        assert found is not None, "whoever asks has looked"
        if found[0] is None:
            unlabelled.append(file)
            continue
        split = split_of(posixpath.splitext(file)[0]) if len(files) > 1 else None
        if split in pairs:
            raise DataError(
                f"{tree.where('')} has several tables of pixels ({listed(files)}): name the one that is meant"
            )
        pairs[split] = _read(tree, file, found[0], has_header=found[1])
    if not pairs:
        raise DataError(
            f"{tree.where(unlabelled[0])} has a column for each pixel, but none of labels: `predict` needs files"
        )
    if len(pairs) == 1:
        pairs = {None: next(iter(pairs.values()))}
    ordered = {split: pairs[split] for split in (None, *SPLITS) if split in pairs}
    notes = (unused_note(NO_LABEL, unlabelled),) if unlabelled else ()
    where = tree.where(files[0] if len(files) == 1 else "")
    return array_source(ordered, name, tree.resolved(files[0] if len(files) == 1 else ""), where, None, notes)


def _read(tree: Tree, file: str, label: int, *, has_header: bool) -> tuple[NDArray[np.generic], NDArray[np.str_]]:
    """Pixels (N, D) and labels (N,). Raises DataError."""
    where = tree.where(file)
    try:
        with tree.open(file) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            lines = csv.reader(text)
            if has_header:
                next(lines)
            labels, pixels = [], []
            for line in lines:
                if line:
                    labels.append(line.pop(label).strip())
                    pixels.append(np.array(line, np.float32))
        values = np.stack(pixels)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as a table of pixels: {shown(error)}") from error
    if (values == np.rint(values)).all() and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8), np.array(labels)
    return values, np.array(labels)
