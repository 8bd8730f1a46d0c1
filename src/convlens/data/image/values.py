"""What the numbers in a picture stand for: from any type and range to uint8.

Owns the ladder of ranges, the one rule by which a set's range is found, and the rule by which one picture is read in
it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.errors import ImageError

Range = tuple[float, float]
BYTES: Range = (0, 255)
SIGNED: Range = (-1, 1)
# Masks and floats, 8 bits, and the bits that cameras, scanners and microscopes have and keep in 16.
LADDER = (1, 255, 1_023, 4_095, 16_383, 65_535)
_SLAB = 1 << 20
# How far fractions may lie beyond a range, by interpolation or rounding: above 1, above the others, below 0 as a share.
_OVER, _ABOVE, _BELOW = 1.5, 1.02, 0.02
_ROUNDING = 1e-3  # of a byte, that float32 leaves of one
_UNKNOWN = "fractions from 0 to {:g}, whose range nobody knows: scale them to 0..1 or 0..255, and clip what is beyond"
_LEAST = 16  # of fractions that are no 0..1: with less nobody can know what white is


def range_of(low: float, high: float, what: str = "values") -> Range:
    """The range that numbers from `low` to `high` lie in: the smallest on the ladder. Raises ImageError where there is
    none."""
    if low >= 0 and high <= LADDER[-1]:
        return 0, next(top for top in LADDER if high <= top)
    if low >= -1 and high <= 1:
        return SIGNED
    raise ImageError(
        f"{what} from {low:g} to {high:g}, whose range nobody knows: they must lie in 0..1, 0..255, 0..65,535 or -1..1"
    )


def range_in(values: NDArray[Any]) -> Range:
    """The range of a set, by all of its numbers or by some pictures; fractions may lie a little beyond. Raises
    ImageError where nobody can know."""
    low, high = limits_of(values)
    if values.dtype.kind != "f" or (high <= 1 and low >= 0) or _are_whole(values):
        return range_of(low, high)
    low = 0 if low >= -_BELOW * high else low
    if low == 0 and high <= _OVER:
        return 0, 1
    if low == 0 and high < _LEAST:
        raise ImageError(_UNKNOWN.format(high))
    return range_of(low, next((top for top in LADDER if top < high <= top * _ABOVE), high))


def check_range_of_set(dtype: np.dtype[Any], own: Range, known: Range) -> None:
    """Raises ImageError where all numbers of a set lie in a smaller range, `own`, than the `known` one that it would be
    read in: a single picture may be dark, or bright, a set is scaled otherwise."""
    if known == BYTES and dtype == np.uint16 and BYTES[1] < own[1] < LADDER[-1]:
        raise ImageError(
            f"values in 0..{own[1]:,g}, and the model was trained on 0..255: scale them to it, or to all of 0..65,535"
        )
    is_smaller = own[1] < known[1] or (known == SIGNED and own[0] >= 0)
    if dtype == np.uint8 or dtype.kind == "b" or not is_smaller or (known != SIGNED and known[1] <= 255):
        return
    (low, high), (bottom, top) = own, known
    raise ImageError(
        f"values in {low:g}..{high:,g}, and the model was trained on {bottom:g}..{top:,g}: scale them as for the "
        "training, or give bytes (uint8)"
    )


def _are_whole(values: NDArray[Any]) -> bool:
    """Whether floats are whole numbers, looked at a part at a time."""
    flat = values.reshape(-1)
    parts = (flat[start : start + _SLAB] for start in range(0, flat.size, _SLAB))
    return all((part == np.rint(part)).all() for part in parts)


def limits_of(values: NDArray[Any]) -> Range:
    """The least and the greatest of numbers. Raises ImageError where one is not finite."""
    if values.dtype.kind not in "biuf":
        raise ImageError(f"pixels must be numbers, not {values.dtype}")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("values that are not finite")
    return float(low), float(high)


def to_uint8(values: Any, known: Range = BYTES) -> NDArray[np.uint8]:
    """Numbers as uint8, black to white over `known`, the range of the set that they belong to.

    Bytes are what they are, but in a set of 0 and 1 where they have nothing else. Numbers that cannot lie in the known
    range (floats in 0..1 for one of 0..255, 16 bits for one of bytes) are read in the range of their own kind; what
    is a little beyond becomes black or white. Raises ImageError where nobody can know.
    """
    if values.dtype == np.uint8:
        pixels: NDArray[np.uint8] = values
        is_mask = known[1] == 1 and known[0] == 0 and pixels.max(initial=0) <= 1
        return pixels * np.uint8(255) if is_mask else pixels
    kind = str(values.dtype.kind)
    if kind == "b":
        return np.where(values, np.uint8(255), np.uint8(0))
    low, high = limits_of(values)
    bottom, top = _range_for(values, low, high, known)
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, _SLAB * len(values) // max(1, values.size))  # at a time: the sums need four times the memory
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        if top == 255 and kind != "f":
            pixels[start : start + rows] = part
        elif top == 65_535 and kind != "f":
            pixels[start : start + rows] = (part.astype(np.uint32) + 128) // 257
        else:
            scaled = (part.astype(np.float32) - np.float32(bottom)) * np.float32(255 / (top - bottom))
            pixels[start : start + rows] = np.clip(np.rint(scaled), 0, 255)
    return pixels


def is_finer(values: NDArray[Any], known: Range = BYTES) -> bool:
    """Whether numbers lose something as bytes, so that the same picture kept as bytes may have other pixels. Bytes that
    were divided by 255, or multiplied by 257, do not."""
    if values.dtype == np.uint8 or values.dtype.kind == "b":
        return False
    bottom, top = _range_for(values, *limits_of(values), known)
    rows = max(1, _SLAB * len(values) // max(1, values.size))
    for start in range(0, len(values), rows):
        steps = (values[start : start + rows].astype(np.float64) - bottom) * (255 / (top - bottom))
        if np.abs(steps - np.rint(steps)).max(initial=0) > _ROUNDING:
            return True
    return False


def _range_for(values: NDArray[Any], low: float, high: float, known: Range) -> Range:
    """The range that one picture's numbers are read in."""
    is_float = values.dtype.kind == "f"
    if is_float and known[1] == 1 and low >= known[0] - _OVER + 1 and high <= _OVER:
        return known
    if is_float:
        low = 0 if -_BELOW * high <= low < 0 else low
        if low >= 0 and known[1] < high <= known[1] * _ABOVE:
            return known
    own = range_of(low, high)
    if own == SIGNED:
        return own
    if known[1] > 255:
        return known
    if is_float and high <= 1:  # of a byte picture there would be next to nothing
        return 0, 1
    if is_float and high < _LEAST and not _are_whole(values):  # of bytes' range and yet no whole numbers
        if high > _OVER:
            raise ImageError(_UNKNOWN.format(high))
        return 0, 1
    # Of bytes, or of 0 and 1: another kind of picture, or bytes that were kept in more.
    if values.dtype == np.uint16 and high > 255:
        return 0, 65_535
    if own[1] > 255:  # no range of one picture's own: it would be read darker than its neighbour
        raise ImageError(f"values up to {high:,g}, among pictures of 0..255: clip them to 255, or scale them")
    return 0, max(own[1], min(known[1], 255))
