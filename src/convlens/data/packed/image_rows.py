"""Images of a packed set that are read when they are asked for.

Owns the picking of rows from the mapped images.npy. The operating system keeps its pages: a set that fits in memory
is read once, one that does not still trains, and neither is copied into the process.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The images of some rows of a mapped array: uint8 (N, H, W, C).

    `images[a:b]` and `images[positions]` read and copy, `images[i]` and iteration give read-only views of the mapping,
    `np.asarray(images)` copies all of them.
    """

    mapped: Pixels
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.rows), *self.mapped.shape[1:])

    @property
    def nbytes(self) -> int:
        """What a copy of all of them would take."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice | NDArray[Any]) -> Pixels:
        picked: Pixels = self.mapped[self.rows[which]]
        return picked

    def __iter__(self) -> Iterator[Pixels]:
        return (self.mapped[row] for row in self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def only(self, keep: NDArray[np.bool_]) -> Self:
        """Those where `keep`, bool (N,), is true; nothing is read."""
        return replace(self, rows=self.rows[keep])
