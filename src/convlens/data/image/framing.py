"""Framing: fitting any picture to a network's input the way its training pictures were made.

Owns `InputSpec` and the four framings. All of it is decided once, because a change moves every fingerprint:
Pillow's antialiased bicubic filter; pictures smaller than the input are enlarged like any other, so that an
object has one size; `pad` fills with the mean colour of the edges it extends; RGB becomes grey by ITU-R 601.
"""

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.checks import checked, choice, real, whole
from convlens.data.image.decode import Box, Pixels, Reduced, decode_reduced, without_transparency
from convlens.data.image.ink import MAX_INK_SIDE, framed_ink
from convlens.data.image.values import BYTES, LADDER, SIGNED, to_uint8
from convlens.errors import ImageError, UsageError
from convlens.records import Number, Record

FRAMINGS = {  # and what each does, in words
    "pad": "all of it, with bars",
    "crop": "its middle",
    "stretch": "stretched",
    "ink": "the drawing cut out and centred",
}
FRAMING_VERSION = 2  # raised whenever the same pixels would be framed otherwise
MAX_SIDE = 1024
MAX_ASPECT = 200  # a longer strip leaves less than a pixel of its shorter side

_OVERSAMPLING = 2  # what a reduced JPEG keeps beyond the size it is resized to: the bicubic filter needs it


Region = tuple[int, int, int, int]  # x, y, width, height, in pixels of the upright picture


class InputSpec(Record, frozen=True):
    """What a network takes: size in pixels, channels (1 or 3), mean and std per channel in 0..255, framing.

    `region` (x, y, width, height) is cut from every upright picture, in its own pixels, before it is framed; None
    takes all of it. `value_range` is what black and white are in pictures that are no bytes (0..4,095 of 12 bits).
    `crop_frac` is the share of the sides that the framing `crop` keeps of the largest part of the right shape:
    ImageNet's protocol resizes to 256 and cuts 224 out, 0.875.
    """

    height: int
    width: int
    channels: int
    framing: str = "pad"
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()
    region: Region | None = None
    value_range: tuple[Number, Number] = BYTES
    crop_frac: float = 1.0

    def __post_init__(self) -> None:
        checked("framing", self.framing, choice(FRAMINGS))
        for name in ("height", "width", "channels"):
            checked(name, getattr(self, name), whole(1, MAX_SIDE))
        if self.channels not in (1, 3):
            raise UsageError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels}")
        if self.framing == "ink" and self.channels != 1:
            raise UsageError("framing 'ink' is for grey pictures: add `channels=1`")
        checked("crop_frac", self.crop_frac, real(0.1, 1.0))
        if self.crop_frac != 1 and self.framing != "crop":
            raise UsageError("crop_frac is for framing 'crop' alone")
        if (self.mean or self.std) and not self.has_statistics:
            raise UsageError("mean and std must have one value in 0..255 for each channel, std above 0")
        if self.value_range != SIGNED and (self.value_range[0] != 0 or self.value_range[1] not in LADDER):
            raise UsageError(f"value_range must be 0 to one of {', '.join(map(str, LADDER))}, or -1 to 1")
        if self.region is not None and (min(self.region) < 0 or min(self.region[2:]) < 1):
            raise UsageError(f"region must be x, y, width, height in pixels, not {self.region}")

    @property
    def has_statistics(self) -> bool:
        """Whether mean and std are known, for each channel."""
        sound = all(0 <= m <= 255 for m in self.mean) and all(0 < s <= 255 for s in self.std)
        return sound and len(self.mean) == len(self.std) == self.channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W), as architectures take it."""
        return (self.channels, self.height, self.width)

    def with_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The same with the training images' mean and standard deviation per channel, in 0..255."""
        return self.replace(mean=mean, std=std)


def picture(data: bytes, spec: InputSpec) -> Pixels:
    """The bytes of a picture file, decoded and framed: uint8 (spec.height, spec.width, C).

    Packing and prediction both come through here, so that the same bytes give the same input. Large JPEGs are
    decoded at a fraction of their size (a quarter of the pixels or less), never to less than twice what is needed (ink:
    than what is looked at). Raises ImageError.
    """
    return framed(data, spec)[0]


def framed(data: bytes, spec: InputSpec) -> tuple[Pixels, Reduced]:
    """As `picture`, with the decoded picture beside it."""
    decoded = decode_reduced(data, lambda height, width: spare(height, width, spec))
    return _fit(_pixels(decoded.pixels, spec), decoded.box, decoded.whole, spec), decoded


def _pixels(values: NDArray[Any], spec: InputSpec) -> Pixels:
    """Values as pixels; grey stays grey until it is framed, when it is small."""
    pixels = to_uint8(values, spec.value_range)
    return to_channels(pixels, 1 if pixels.ndim == 2 or pixels.shape[-1] == 1 else spec.channels)


def spare(height: int, width: int, spec: InputSpec) -> float:
    """How many times larger than needed a picture of height × width pixels is, for being framed to `spec`."""
    if spec.region is not None:
        width, height = spec.region[2:]
    if spec.framing == "ink":
        return max(height, width) / MAX_INK_SIDE
    ratios = height / spec.height, width / spec.width
    return (max(ratios) if spec.framing == "pad" else min(ratios) * spec.crop_frac) / _OVERSAMPLING


def fit(pixels_HWC: NDArray[Any], spec: InputSpec) -> Pixels:
    """Frame one picture: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to uint8 (spec.height, spec.width, C).

    Values of any type are read in the spec's range, as `to_uint8` says. A picture that already meets the convention
    comes back unchanged. Raises ImageError for other arrays."""
    pixels = _pixels(np.asarray(pixels_HWC), spec)
    height, width = pixels.shape[:2]
    return _fit(pixels, (0, 0, width, height), (height, width), spec)


def place_of(height: int, width: int, spec: InputSpec) -> tuple[float, float, float, float]:
    """Where the network's input lies in a picture of height × width pixels: (left, top, right, bottom) in its pixels,
    beyond its edges where it is padded. (Of framing `ink`, which looks for the ink, the whole.)"""
    x, y, w, h = (0, 0, width, height) if spec.region is None else spec.region
    if spec.framing not in ("pad", "crop"):
        return x, y, x + w, y + h
    ratios = spec.height / h, spec.width / w
    scale = min(ratios) if spec.framing == "pad" else max(ratios) / spec.crop_frac
    half_width, half_height = spec.width / scale / 2, spec.height / scale / 2
    return x + w / 2 - half_width, y + h / 2 - half_height, x + w / 2 + half_width, y + h / 2 + half_height


def _region_of(pixels: Pixels, box: Box, whole: tuple[int, int], region: Region) -> tuple[Pixels, Box]:
    """The pixels that a region of the whole picture touches, and the box of them that it fills."""
    x, y, width, height = region
    if x + width > whole[1] or y + height > whole[0]:
        raise ImageError(
            f"the region {x},{y},{width},{height} (x,y,width,height) reaches outside a picture {whole[1]} pixels wide "
            f"and {whole[0]} high"
        )
    across, down = (box[2] - box[0]) / whole[1], (box[3] - box[1]) / whole[0]
    left, top = box[0] + x * across, box[1] + y * down
    right, bottom = left + width * across, top + height * down
    first_row, first_column = math.floor(top), math.floor(left)
    cut = np.ascontiguousarray(pixels[first_row : math.ceil(bottom), first_column : math.ceil(right)])
    return cut, (left - first_column, top - first_row, right - first_column, bottom - first_row)


def _fit(pixels: Pixels, box: Box, whole: tuple[int, int], spec: InputSpec) -> Pixels:
    framed = _framed(pixels, box, whole, spec)
    return framed if framed.shape[2] == spec.channels else np.repeat(framed, spec.channels, axis=2)


def _framed(pixels: Pixels, box: Box, whole: tuple[int, int], spec: InputSpec) -> Pixels:
    if spec.region is not None:
        pixels, box = _region_of(pixels, box, whole, spec.region)
    if spec.framing == "ink":
        return framed_ink(pixels[:, :, 0], spec.height, spec.width)[:, :, None]
    height, width = box[3] - box[1], box[2] - box[0]
    if (height, width) == (spec.height, spec.width):
        return pixels
    if max(height, width) > MAX_ASPECT * min(height, width):
        ratio = max(height, width) / min(height, width)  # of a reduced JPEG's box, too
        raise ImageError(f"a strip whose sides differ {ratio:.0f} times: {MAX_ASPECT} is the limit")
    if spec.framing == "stretch":
        return _resized(pixels, box, spec.height, spec.width)
    if spec.framing == "crop":
        return _cropped(pixels, box, spec.height, spec.width, spec.crop_frac)
    return _padded(pixels, box, spec.height, spec.width)


def to_channels(pixels: NDArray[Any], channels: int) -> Pixels:
    """uint8 pixels as (H, W, channels): RGB to grey by ITU-R 601, grey to RGB by repeating, alpha as `decode` has it.

    Raises ImageError where the array is not a picture.
    """
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels must be uint8 in 0..255, not {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ImageError(f"a picture is an array (height, width) or (height, width, 1, 3 or 4), not {pixels.shape}")
    if pixels.shape[2] == 4:
        pixels = without_transparency(pixels)
    if pixels.shape[2] == channels:
        return np.ascontiguousarray(pixels)
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]


def _resized(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box))
    return resized[:, :, None] if resized.ndim == 2 else resized


def _cropped(pixels: Pixels, box: Box, height: int, width: int, crop_frac: float) -> Pixels:
    rows, columns = box[3] - box[1], box[2] - box[0]
    scale = max(height / rows, width / columns) / crop_frac
    grown = _resized(pixels, box, max(height, round(rows * scale)), max(width, round(columns * scale)))
    top, left = (grown.shape[0] - height) // 2, (grown.shape[1] - width) // 2
    return np.ascontiguousarray(grown[top : top + height, left : left + width])


def _padded(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    rows, columns = box[3] - box[1], box[2] - box[0]
    scale = min(height / rows, width / columns)
    inner = _resized(pixels, box, min(height, max(1, round(rows * scale))), min(width, max(1, round(columns * scale))))
    if inner.shape[:2] == (height, width):
        return inner
    edges = inner[[0, -1]] if inner.shape[0] < height else inner[:, [0, -1]]
    fill = np.rint(edges.reshape(-1, inner.shape[2]).mean(axis=0)).astype(np.uint8)
    framed = np.empty((height, width, inner.shape[2]), np.uint8)
    framed[:] = fill
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    framed[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return framed
