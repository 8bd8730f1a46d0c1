"""Images of a packed set that are read when they are asked for.

Owns the picking of rows from the mapped files. The operating system keeps its pages: a set that fits in memory is
read once, one that does not still trains, and neither is copied into the process.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels
from convlens.errors import DataError
from convlens.text import shown


class Parts:
    """Images that lie in several files, one after another: uint8 (N, H, W, C). They are picked by row number, or by an
    array of row numbers (N,), as those of a mapped array are."""

    def __init__(self, mapped: Sequence[Pixels]) -> None:
        self._mapped = tuple(mapped)
        self._starts = np.cumsum([0, *(len(one) for one in mapped)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *mapped[0].shape[1:])
        self.dtype, self.itemsize = mapped[0].dtype, mapped[0].itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Pixels:
        parts = np.searchsorted(self._starts, which, "right") - 1
        if parts.ndim == 0:
            one: Pixels = self._mapped[parts][which - self._starts[parts]]
            return one
        picked = np.empty((len(which), *self.shape[1:]), self.dtype)
        for part in np.unique(parts):
            here = parts == part
            picked[here] = self._mapped[part][which[here] - self._starts[part]]
        return picked


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The images of some rows of a mapped array, or of several: uint8 (N, H, W, C).

    `images[a:b]` and `images[positions]` read and copy, `images[i]` and iteration give read-only views of the mapping,
    `np.asarray(images)` copies all of them. `keys`, uint64 (N,), are the starts of the SHA-256 that the images had when
    they were packed, `path` is their file, and `remedy` what helps where they are others now.
    """

    mapped: Pixels | Parts
    rows: NDArray[np.int64]
    keys: NDArray[np.uint64] | None = None
    path: Path | None = None
    remedy: str = "mend it with convlens pack DATA --verify, or pack it anew"

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.rows), *self.mapped.shape[1:])

    @property
    def nbytes(self) -> int:
        """What a copy of all of them would take."""
        return math.prod(self.shape) * self.mapped.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice | NDArray[Any]) -> Pixels:
        picked: Pixels = self.mapped[self.rows[which]]
        return picked

    def __iter__(self) -> Iterator[Pixels]:
        return (self.mapped[row] for row in self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def only(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Those where `keep`, bool (N,), is true, or at these positions, int64; nothing is read."""
        return replace(self, rows=self.rows[keep], keys=None if self.keys is None else self.keys[keep])

    def damaged(self) -> NDArray[np.bool_]:
        """bool (N,): which images are not those that were packed."""
        if self.keys is None:
            return np.zeros(len(self), bool)
        keys = np.fromiter((key_of(image) for image in self), np.uint64, len(self))
        return np.not_equal(keys, self.keys)

    def check(self, which: slice | NDArray[np.int64] = slice(None)) -> None:
        """Raises DataError where one of these images is not the one that was packed: whoever measures asks first."""
        some = replace(self, rows=self.rows[which], keys=None if self.keys is None else self.keys[which])
        if (damaged := some.damaged()).any():
            raise DataError(
                f"{shown(self.path, 200)} is damaged: {int(damaged.sum()):,} of {len(some):,} images looked at are not "
                f"those that were packed (row {some.rows[int(damaged.argmax())]:,} is the first): {self.remedy}"
            )


def evenly(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many of some values (N,), evenly spread, the first and the last among them."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def key_of(image: Pixels) -> int:
    """An image's key: the first eight bytes of the SHA-256 of its pixels."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8], "little")
