"""Tables that hold the pixels themselves: a row a picture, a label and a column for each pixel (`label,pixel0,pixel1
…`).

Owns telling them from tables of files, and their reading.
"""

import csv
import io
import math
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.arrays import array_source
from convlens.data.sources.base import SPLITS, ArraySource
from convlens.data.sources.layouts import NO_LABEL, NO_PICTURE, other_files, unused_note
from convlens.data.sources.listing import Folder
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tables import SUFFIXES, is_label_name
from convlens.data.sources.tree import Tree, suffix_of
from convlens.errors import DataError
from convlens.text import listed, shown

_LEAST = 64  # pixels: fewer columns are measurements
_FIRST_OR_LAST = -1  # where the label's column is without a header


def pixel_tables(tree: Tree) -> list[str]:
    """The tables at the top of a tree that hold pixels."""
    return [file for file in tree.files("") if suffix_of(file) in SUFFIXES and holds_pixels(tree, file)]


def holds_pixels(tree: Tree, file: str) -> bool:
    """Whether a table has a column for each pixel of a square picture, and perhaps one of labels."""
    return _columns(tree, file) is not None


def _columns(tree: Tree, file: str) -> tuple[int | None, bool] | None:
    """The label's column (None without one), and whether there is a header; None where the table holds no pixels.
    Without a header the label may be first or last."""
    try:
        with tree.open(file) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            first, second = ([cell.strip() for cell in next(csv.reader(text), [])] for _ in range(2))
    except (OSError, csv.Error, ValueError):
        return None
    if len(first) < _LEAST or len(second) != len(first):
        return None
    has_header = not all(_is_number(cell) for cell in first[1:-1])
    named = next((k for k, name in enumerate(first) if is_label_name(name)), None)
    label = named if has_header else _FIRST_OR_LAST if _is_square(len(first) - 1) else None
    ends = (0, len(second) - 1) if label == _FIRST_OR_LAST else (label,)  # a name may stand in one of them
    pixels = [cell for k, cell in enumerate(second) if k not in ends]
    num_pixels = len(second) - (label is not None)
    return (label, has_header) if _is_square(num_pixels) and all(map(_is_number, pixels)) else None


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def from_pixels(tree: Tree, files: Sequence[str], name: str, root: Folder | None = None) -> ArraySource:
    """The source of one table, or of one for each split; those without labels are left aside, and whatever else lies in
    the tree. Raises DataError."""
    pairs: dict[str | None, tuple[NDArray[np.generic], NDArray[np.str_]]] = {}
    unlabelled: list[str] = []
    for file in files:
        found = _columns(tree, file)
        assert found is not None, "whoever asks has looked"
        if found[0] is None:
            unlabelled.append(file)
            continue
        split = split_of(posixpath.splitext(file)[0]) if len(files) > 1 else None
        if split in pairs or (pairs and None in (split, *pairs)):
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
    unused = {NO_LABEL: unlabelled} | (
        {} if root is None else {k: v for k, v in other_files(root).items() if k != NO_PICTURE}
    )
    others = [] if root is None else [path for path in other_files(root).get(NO_PICTURE, []) if path not in files]
    left = {reason: tuple(paths) for reason, paths in (unused | {NO_PICTURE: others}).items() if paths}
    notes = tuple(unused_note(reason, paths) for reason, paths in left.items())
    where = tree.where(files[0] if len(files) == 1 else "")
    source = array_source(ordered, name, tree.resolved(files[0] if len(files) == 1 else ""), where, None, notes)
    return replace(source, unused=left)


def _order(columns: list[str], label: int) -> list[int] | None:
    """Where the pixels of a picture stand, in their order, by columns that are numbered; None where they are not."""
    del columns[label]
    found = [re.fullmatch(r"\s*(\D*)(\d+)\s*", column) for column in columns]
    numbers = [int(one.group(2)) for one in found if one is not None]
    is_numbered = len(numbers) == len(columns) and len({one.group(1) for one in found if one is not None}) == 1
    if not is_numbered or sorted(numbers) != list(range(min(numbers), min(numbers) + len(numbers))):
        return None
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def _label_at_an_end(rows: list[list[str]], where: str) -> int:
    """The first column (0) or the last (-1) of these, whichever holds few values, each several times. Raises DataError
    where it may be both or neither."""
    times = {place: Counter(row[place] for row in rows) for place in (0, -1)}
    best = [place for place in times if 2 <= len(times[place]) <= len(rows) / 2]
    # Of two those that count up from somewhere, or are names; then those whose values are about as frequent, as a dark
    # corner's are not; then the one that has far fewer values.
    for is_better in (_count_up, _are_even):
        best = [place for place in best if is_better(times[place])] or best if len(best) > 1 else best
    if len(best) > 1 and (fewest := min(len(times[place]) for place in best)) * 4 <= max(map(len, times.values())):
        best = [place for place in best if len(times[place]) == fewest]
    if len(best) != 1:
        raise DataError(
            f"{where}: without a header it is not clear which column is the label, the first or the last: give the "
            "columns names, `label` among them"
        )
    return best[0]


def _count_up(times: Counter[str]) -> bool:
    """Whether values are names, or whole numbers without a gap."""
    numbers = sorted(int(value) for value in times if value.isascii() and value.isdigit())
    return not numbers or (len(numbers) == len(times) and numbers == list(range(numbers[0], numbers[0] + len(numbers))))


def _are_even(times: Counter[str]) -> bool:
    """Whether the commonest value is at most twenty times as frequent as the rarest."""
    return max(times.values()) <= 20 * min(times.values())


def _read(tree: Tree, file: str, label: int, *, has_header: bool) -> tuple[NDArray[np.generic], NDArray[np.str_]]:
    """Pixels (N, D) and labels (N,). Raises DataError."""
    where = tree.where(file)
    try:
        with tree.open(file) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            lines = csv.reader(text)
            order = _order([*next(lines)], label) if has_header else None
            ends = (0, -1) if label == _FIRST_OR_LAST else (label,)
            said: list[list[str]] = []
            pixels: list[NDArray[np.float32]] = []  # a line at a time: as text they take ten times the memory
            for line in lines:
                if line:
                    said.append([line[place].strip() for place in ends])
                    pixels.append(
                        np.array(line[1:-1] if len(ends) == 2 else [*line[:label], *line[label + 1 :]], np.float32)
                    )
        values, labels = np.stack(pixels), [one[0] for one in said]
        if len(ends) == 2:
            is_first = _label_at_an_end(said, where) == 0
            labels = [one[0 if is_first else -1] for one in said]
            others = np.array([[one[-1 if is_first else 0]] for one in said]).astype(np.float32)
            values = np.concatenate([values, others] if is_first else [others, values], axis=1)
        values = values if order is None else values[:, order]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as a table of pixels: {shown(error)}") from error
    if (values == np.rint(values)).all() and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8), np.array(labels)
    return values, np.array(labels)
