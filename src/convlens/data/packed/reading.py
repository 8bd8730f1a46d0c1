"""A sample read as it is packed: decoded, framed, and with the keys that it is known by.

Owns what is kept of a picture, and why one is quarantined.
"""

import hashlib
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.image.decode import Pixels, content_digest, read_header
from convlens.data.image.framing import InputSpec, fit, framed, spare
from convlens.data.image.values import is_finer, to_uint8
from convlens.data.packed.splits import split_key_of
from convlens.data.sources.base import Sample
from convlens.errors import ImageError


class OtherwiseError(Exception):
    """A picture is not as the first ones that were looked at."""


class Image(NamedTuple):
    """One image on its way into the packed folder: framed, with its key and split key; its (height, width) if it is
    much larger than its input, whether it is a JPEG decoded at a fraction, and whether its values are no bytes."""

    pixels: Pixels
    key: int
    split_key: int
    size: tuple[int, int] | None = None
    is_reduced: bool = False
    is_wide: bool = False


class Read(NamedTuple):
    """What came of a sample: its image (None where there is nothing to pack), its status, and what else its line
    says."""

    image: Image | None
    status: str
    known: dict[str, Any]


class Expected(NamedTuple):
    """What pictures are like: their (height, width), None where it does not matter, and at most so many channels."""

    size: tuple[int, int] | None
    channels: int

    def compare(self, size: tuple[int, int], channels: int) -> None:
        """Raises OtherwiseError."""
        if self.size not in (None, size) or channels > self.channels:
            raise OtherwiseError


@dataclass(frozen=True)
class Reader:
    """Reads samples for an input; those that are excluded by name are not read."""

    spec: InputSpec
    excluded: Set[str] = frozenset()
    expected: Expected | None = None

    def __call__(self, sample: Sample) -> Read:
        """Raises OtherwiseError where a picture is not as expected."""
        if sample.name in self.excluded:
            return Read(None, "excluded", {"reason": "named in the list of exclusions"})
        known: dict[str, Any] = {}
        content: bytes | NDArray[Any] = b""
        try:
            content = sample.read()
            if not isinstance(content, bytes):
                return Read(self._of_pixels(content), "ok", known)
            known["sha256"] = files.sha256_of(content)
            return Read(self._of_file(content, known), "ok", known)
        except ImageError as error:
            if self.expected is not None and isinstance(content, bytes):
                with suppress(ImageError):  # its header counts, as it does where all of them are read
                    header = read_header(content)
                    self.expected.compare((header.height, header.width), header.channels)
            return Read(None, "quarantined", known | {"reason": str(error)})

    def _of_file(self, content: bytes, known: dict[str, Any]) -> Image:
        pixels, decoded = framed(content, self.spec)
        if self.expected is not None:
            self.expected.compare(decoded.whole, decoded.pixels.shape[2])
        digest = _digest(pixels)
        known["pixels_sha256"] = digest.hex()
        if decoded.is_first:
            known["remark"] = "the first of several frames or pages"
        split_key = split_key_of(content_digest(content, decoded))
        is_large = decoded.is_reduced or spare(*decoded.whole, self.spec) >= 2
        size = decoded.whole if is_large else None
        return Image(pixels, _key(digest), split_key, size, decoded.is_reduced, self._is_finer(decoded.pixels))

    def _of_pixels(self, image: NDArray[Any]) -> Image:
        """Pixels of the asked-for size are their own convention: they are not framed a second time. The split key is
        that of the array before it is framed, as bytes, so that the split depends neither on the framing nor on the
        type that the numbers are kept in."""
        spec = self.spec
        whole = to_uint8(image, spec.value_range)
        digest = _digest(whole)
        if image.shape == (spec.height, spec.width, spec.channels) and spec.region is None:
            return Image(whole, _key(digest), split_key_of(digest), is_wide=self._is_finer(image))
        pixels, (height, width) = fit(image, spec), image.shape[:2]
        size = (height, width) if spare(height, width, spec) >= 2 else None
        return Image(pixels, _key(_digest(pixels)), split_key_of(digest), size, is_wide=self._is_finer(image))

    def _is_finer(self, values: NDArray[Any]) -> bool:
        return is_finer(values, self.spec.value_range)


def _digest(pixels: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def _key(digest: bytes) -> int:
    """An image's key: the first eight bytes of its SHA-256."""
    return int.from_bytes(digest[:8], "little")
