"""Which samples of a source become test when it has no split of its own, and what straddles one that it has.

Owns the draw: a number for each sample from its content or its group. Validation is drawn from the same numbers when
a set is opened (`dataset.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.dataset import lowest_share
from convlens.data.samples import SPLITS

TEST_FRAC = 0.2


def draw_of(digest: bytes) -> int:
    """A number in 0..2^64 from a SHA-256: its second eight bytes (the first are an image's key)."""
    return int.from_bytes(digest[8:16], "little")


def draw_of_group(group: str) -> int:
    """The draw that all samples of a group share."""
    return draw_of(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest())


def join_equal(index: NDArray[Any]) -> None:
    """Samples that share a picture, pixel for pixel as framed, get one draw, and so do whole groups that share one:
    they must not straddle a split."""
    keys, inverse, counts = np.unique(index["pixels"], return_inverse=True, return_counts=True)
    if len(keys) == len(index):
        return
    lowest: dict[int, int] = {}  # draw -> a lower draw of the same component (union-find)

    def root(draw: int) -> int:
        while draw in lowest:
            draw = lowest[draw]
        return draw

    first_draw: dict[int, int] = {}
    repeated = index[counts[inverse] > 1]
    for key, draw in zip(repeated["pixels"].tolist(), repeated["draw"].tolist(), strict=True):
        a, b = root(draw), root(first_draw.setdefault(key, draw))
        if a != b:
            lowest[max(a, b)] = min(a, b)
    if lowest:
        index["draw"] = [root(draw) for draw in index["draw"].tolist()]


def draw_test(index: NDArray[Any], labels_N: NDArray[np.int64]) -> None:
    """Fix the test split: about 20 % by draw, whole groups at a time. A validation split of the source's stays."""
    if len(index) == 0:
        return
    # Validation is drawn from the same number when the set is opened, so test takes another part of the hash:
    # the draw is mixed once more (splitmix64's finaliser, S. Vigna), which keeps equal draws equal.
    is_test = lowest_share(mixed(index["draw"]), labels_N, TEST_FRAC) & (index["split"] != SPLITS.index("val"))
    index["split"][is_test] = SPLITS.index("test")


def mixed(draw_N: NDArray[np.uint64], times: int = 1) -> NDArray[np.uint64]:
    """Other draws made of these, equal where these are equal."""
    draw = draw_N.copy()
    with np.errstate(over="ignore"):
        for _ in range(times):
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                draw = (draw ^ (draw >> np.uint64(shift))) * np.uint64(factor)
            draw ^= draw >> np.uint64(31)
    return draw


def overlap_notes(index: NDArray[Any], groups: Sequence[str | None]) -> list[str]:
    """Equal pictures, and groups, on both sides of a split that came with the data: counted, not moved."""
    notes = []
    parts = {name: index["split"] == number for number, name in enumerate(SPLITS)}
    names = np.array([g or "" for g in groups], dtype=object)
    for a, b in (("train", "test"), ("val", "test"), ("train", "val")):
        shared = int(np.isin(index["pixels"][parts[b]], index["pixels"][parts[a]]).sum())
        if shared:
            notes.append(f"{shared:,} of the {int(parts[b].sum()):,} {b} images are, pixel for pixel, in {a} too")
        straddling = set(names[parts[a]]) & set(names[parts[b]]) - {""}
        if straddling:
            notes.append(
                f"{len(straddling):,} groups are in both {a} and {b}, as the split that came with the data has it"
            )
    return notes
