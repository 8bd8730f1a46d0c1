"""Which samples of a source become test when it has no split of its own, and what straddles one that it has.

Owns the split_key: a number for each sample from its content or its group. Validation is drawn from the same numbers
when a set is opened (`dataset.py`).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.packed.dataset import are_among, in_split
from convlens.data.sources.base import SPLITS

TEST_FRAC = 0.2


def split_key_of(digest: bytes) -> int:
    """A number in 0..2^64 from a SHA-256: its second eight bytes (the first are an image's key)."""
    return int.from_bytes(digest[8:16], "little")


def split_key_of_group(group: str) -> int:
    """The split_key that all samples of a group share."""
    return split_key_of(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest())


def join_equal(index: NDArray[Any], twins: Sequence[tuple[int, int]] = ()) -> None:
    """Samples that share a picture, pixel for pixel as framed, get one split_key, and so do whole groups that share
    one: they must not straddle a split. `twins` are rows that show one picture too."""
    keys = np.sort(index["pixels"])
    several = keys[1:][keys[1:] == keys[:-1]]
    if len(several) == 0 and not twins:
        return
    lowest: dict[int, int] = {}  # split_key -> a lower split_key of the same component (union-find)

    def root(split_key: int) -> int:
        while split_key in lowest:
            split_key = lowest[split_key]
        return split_key

    def join(one: int, other: int) -> None:
        a, b = root(one), root(other)
        if a != b:
            lowest[max(a, b)] = min(a, b)

    first_key: dict[int, int] = {}
    repeated = index[are_among(index["pixels"], several)]
    for key, split_key in zip(repeated["pixels"].tolist(), repeated["split_key"].tolist(), strict=True):
        join(split_key, first_key.setdefault(key, split_key))
    for row, other in twins:
        join(int(index["split_key"][row]), int(index["split_key"][other]))
    if lowest:
        moved = np.array(sorted(lowest), np.uint64)
        roots = np.array([root(split_key) for split_key in moved.tolist()], np.uint64)
        rows = np.flatnonzero(are_among(index["split_key"], moved))
        index["split_key"][rows] = roots[np.searchsorted(moved, index["split_key"][rows])]


def draw_test(index: NDArray[Any], labels_N: NDArray[np.int64]) -> None:
    """Fix the test split: about 20 % by split_key, whole groups at a time. A validation split of the source's stays."""
    if len(index) == 0:
        return
    # Validation is drawn from the same number when the set is opened, so test takes another part of the hash:
    # the split_key is mixed once more (splitmix64's finaliser, S. Vigna), which keeps equal split_keys equal.
    is_test = in_split(mixed(index["split_key"]), labels_N, TEST_FRAC) & (index["split"] != SPLITS.index("val"))
    index["split"][is_test] = SPLITS.index("test")


def mixed(split_key_N: NDArray[np.uint64], times: int = 1) -> NDArray[np.uint64]:
    """Other split_keys made of these, equal where these are equal."""
    split_key = np.array(split_key_N, np.uint64)
    with np.errstate(over="ignore"):
        for _ in range(times):
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                split_key ^= split_key >> np.uint64(shift)
                split_key *= np.uint64(factor)
            split_key ^= split_key >> np.uint64(31)
    return split_key


def overlap_notes(index: NDArray[Any], groups_N: NDArray[np.uint64] | None) -> list[str]:
    """Equal pictures, and groups (a number each, 0 for none; None where there are none), on both sides of a split that
    came with the data: counted, not moved."""
    notes = []
    parts = {name: index["split"] == number for number, name in enumerate(SPLITS)}
    for a, b in (("train", "test"), ("val", "test"), ("train", "val")):
        shared = int(are_among(index["pixels"][parts[b]], index["pixels"][parts[a]]).sum())
        if shared:
            num = int(parts[b].sum())
            notes.append(f"{shared:,} of the {num:,} {b} images are, pixel for pixel, in {a} too, and are not measured")
        if groups_N is None:
            continue
        straddling = np.intersect1d(groups_N[parts[a]], groups_N[parts[b]])
        if num_straddling := np.count_nonzero(straddling):
            notes.append(
                f"{num_straddling:,} groups are in both {a} and {b}, as the split that came with the data has it"
            )
    return notes


_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: multiples lie far apart


def deal(split_key_N: NDArray[np.uint64], labels_N: NDArray[np.int64], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each image, 0 to folds - 1. Images of one split_key (a group, equal pictures) stay together, and the
    classes are spread evenly: the split_keys of each class, in an order of their own (another for each seed), go to the
    folds in turn."""
    label_of: dict[int, Counter[int]] = {}
    for split_key, label in zip(split_key_N.tolist(), labels_N.tolist(), strict=True):
        label_of.setdefault(split_key, Counter())[label] += 1
    split_keys = np.array(list(label_of), np.uint64)
    labels = np.array([counts.most_common(1)[0][0] for counts in label_of.values()])
    other = np.uint64(seed * _GOLDEN % 2**64)
    order = np.lexsort((mixed(split_keys ^ other, times=3), labels))
    fold_of = dict(zip(split_keys[order].tolist(), (np.arange(len(order)) % folds).tolist(), strict=True))
    return np.array([fold_of[split_key] for split_key in split_key_N.tolist()], np.int64)
