"""Framing: fitting any picture to a network's input the way its training pictures were made.

Owns `InputSpec` and the four framings. All of it is decided once, because a change moves every fingerprint:
Pillow's antialiased bicubic filter; pictures smaller than the input are enlarged like any other, so that an
object has one size; `pad` fills with the mean colour of the edges it extends; RGB becomes grey by ITU-R 601.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.data.decode import Box, Pixels, decode_reduced, without_transparency
from convlens.errors import ImageError, UsageError, did_you_mean, shown

FRAMINGS = ("pad", "crop", "stretch", "ink")
FRAMING_VERSION = 1  # raised whenever the same pixels would be framed otherwise
MAX_SIDE = 1024
MAX_ASPECT = 200  # a longer strip leaves less than a pixel of its shorter side

# Of MNIST: the digit's longer side fills 20 of 28 pixels, its centre of mass lies on index 14 of 0..27.
INK_SIDE = 20 / 28
# The quarter of MNIST with the thinnest pens is thinner than 2.33 of 28 pixels (median 2.66; measured on 300 training
# images, as in `_pen_width`). A finer pen would fade when it is reduced, so its stroke is widened to this.
INK_PEN = 2.33 / 28
_MAX_INK_SIDE = 1024
_OVERSAMPLING = 2  # what a reduced JPEG keeps beyond the size it is resized to: the bicubic filter needs it
_WORK = 4  # ink is cleaned at this many times its final size


@dataclass(frozen=True)
class InputSpec:
    """What a network takes: size in pixels, channels (1 or 3), mean and std per channel in 0..255, framing."""

    height: int
    width: int
    channels: int
    framing: str = "pad"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.framing not in FRAMINGS:
            raise UsageError(
                f"unknown framing {shown(self.framing)!r}{did_you_mean(str(self.framing), FRAMINGS)}: "
                f"there are {', '.join(FRAMINGS)}"
            )
        if any(isinstance(v, bool) or not isinstance(v, int) for v in (self.height, self.width, self.channels)):
            raise UsageError("size and channels must be whole numbers")
        if self.channels not in (1, 3):
            raise UsageError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels}")
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise UsageError(f"size must be from 1 to {MAX_SIDE} pixels a side, not {self.height}×{self.width}")
        if self.framing == "ink" and self.channels != 1:
            raise UsageError("framing 'ink' is for grey pictures: add --channels 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W), as architectures take it."""
        return (self.channels, self.height, self.width)

    def with_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> InputSpec:
        """The same with the training images' mean and standard deviation per channel, in 0..255."""
        return replace(self, mean=mean, std=std)

    def to_json(self) -> dict[str, Any]:
        """As stored in data sets and model files."""
        return {
            "height": self.height, "width": self.width, "channels": self.channels, "framing": self.framing,
            "mean": list(self.mean), "std": list(self.std),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> InputSpec:
        """Raises KeyError, TypeError or UsageError where `value` is not an input spec."""
        mean, std = (tuple(float(v) for v in value[k]) for k in ("mean", "std"))
        spec = cls(int(value["height"]), int(value["width"]), int(value["channels"]), value["framing"], mean, std)
        sound = all(0 <= m <= 255 for m in mean) and all(0 < s <= 255 for s in std)
        if len(mean) != spec.channels or len(std) != spec.channels or not sound:
            raise UsageError("mean and std must have one value in 0..255 for each channel, std above 0")
        return spec


def picture(data: bytes, spec: InputSpec) -> Pixels:
    """The bytes of a picture file, decoded and framed: uint8 (spec.height, spec.width, C).

    Packing and prediction both come through here, so that the same bytes give the same input. Large JPEGs are
    decoded at a fraction of their size (a quarter of the pixels or less), never to less than twice what is needed (ink:
    than what is looked at). Raises ImageError.
    """
    pixels, box = decode_reduced(data, lambda height, width: spare(height, width, spec))
    return _fit(to_channels(pixels, spec.channels), box, spec)


def spare(height: int, width: int, spec: InputSpec) -> float:
    """How many times larger than needed a picture of height × width pixels is, for being framed to `spec`."""
    if spec.framing == "ink":
        return max(height, width) / _MAX_INK_SIDE
    ratios = height / spec.height, width / spec.width
    return (max(ratios) if spec.framing == "pad" else min(ratios)) / _OVERSAMPLING


def fit(pixels_HWC: NDArray[Any], spec: InputSpec) -> Pixels:
    """Frame one picture: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to uint8 (spec.height, spec.width, C).

    A picture that already meets the convention comes back unchanged. Raises ImageError for other arrays.
    """
    pixels = to_channels(pixels_HWC, spec.channels)
    return _fit(pixels, (0, 0, pixels.shape[1], pixels.shape[0]), spec)


def _fit(pixels: Pixels, box: Box, spec: InputSpec) -> Pixels:
    if spec.framing == "ink":
        return _ink(pixels[:, :, 0], spec.height, spec.width)[:, :, None]
    height, width = box[3] - box[1], box[2] - box[0]
    if (height, width) == (spec.height, spec.width):
        return pixels
    if max(height, width) > MAX_ASPECT * min(height, width):
        ratio = max(height, width) / min(height, width)  # of a reduced JPEG's box, too
        raise ImageError(f"a strip whose sides differ {ratio:.0f} times: {MAX_ASPECT} is the limit")
    if spec.framing == "stretch":
        return _resized(pixels, box, spec.height, spec.width)
    if spec.framing == "crop":
        return _cropped(pixels, box, spec.height, spec.width)
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


def _cropped(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    rows, columns = box[3] - box[1], box[2] - box[0]
    scale = max(height / rows, width / columns)
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


# ---------------------------------------------------------------- ink


def is_framed_ink(grey_HW: Pixels) -> bool:
    """Whether a picture already is as MNIST's are: bright ink on 0, longer side 20/28, centred by mass."""
    height, width = grey_HW.shape
    edge = _edge(grey_HW)
    if np.count_nonzero(edge) * 2 > len(edge) or not grey_HW.any():
        return False
    top, bottom, left, right = _box(grey_HW > 0)
    side = round(INK_SIDE * min(height, width))
    if not side - 1 <= max(bottom - top, right - left) <= side:
        return False
    middle = _centre_of_mass(grey_HW.astype(np.float64))
    return bool(abs(middle[0] - height // 2) <= 0.75 and abs(middle[1] - width // 2) <= 0.75)


def _ink(grey_HW: Pixels, height: int, width: int) -> Pixels:
    """MNIST's own recipe (LeCun et al., 1998, and the set's README) for a drawing or photograph of any kind.

    Find the ink whatever its polarity and ground, cut its box, scale its longer side to 20/28, put its centre of
    mass on the middle. Lines too fine to survive the reduction are widened to a pen that MNIST knows.
    """
    if grey_HW.shape == (height, width) and is_framed_ink(grey_HW):
        return grey_HW
    framed = np.zeros((height, width), np.uint8)
    contrast = _contrast_to_ground(_reduced(grey_HW))
    threshold = _otsu(contrast)
    is_ink = contrast > threshold
    if not is_ink.any():
        return framed  # an empty sheet
    full, none = float(np.median(contrast[is_ink])), threshold / 2
    strength = np.clip((contrast - none) / max(full - none, 1.0), 0, 1)
    side = round(INK_SIDE * min(height, width))
    strength = _scaled(_cut(strength, is_ink), side * _WORK)
    strength = strength / strength.max()  # a hair-line is faint after the reduction
    strength = _with_pen(strength, INK_PEN * min(height, width) * _WORK)
    strength = _scaled(strength, side)
    strength = strength / strength.max()
    rows, columns = strength.shape
    middle = _centre_of_mass(strength)
    top = int(np.clip(round(height // 2 - middle[0]), 0, height - rows))
    left = int(np.clip(round(width // 2 - middle[1]), 0, width - columns))
    framed[top : top + rows, left : left + columns] = np.rint(255 * strength)
    return framed


def _reduced(grey_HW: Pixels) -> Pixels:
    """A large photograph averaged down: its ink is still many times finer than the answer, its memory bounded."""
    factor = -(-max(grey_HW.shape) // _MAX_INK_SIDE)
    return grey_HW if factor == 1 else np.asarray(Image.fromarray(grey_HW).reduce(factor))


def _edge(grey_HW: Pixels) -> Pixels:
    return np.concatenate([grey_HW[0], grey_HW[-1], grey_HW[1:-1, 0], grey_HW[1:-1, -1]])


def _contrast_to_ground(grey_HW: Pixels) -> NDArray[np.uint8]:
    """How far each pixel differs from the ground towards the ink, 0..255.

    The ground is a plane through the picture's edge (shade falls off evenly), fitted to what does not stand out
    from its median. The ink is on the side that differs more in all.
    """
    height, width = grey_HW.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    edge = np.zeros((height, width), bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    values, places = grey_HW[edge].astype(np.float64), np.stack([np.ones(edge.sum()), y[edge], x[edge]], axis=1)
    deviation = np.abs(values - np.median(values))
    keep = deviation <= max(16.0, 3 * float(np.median(deviation)))
    plane, *_ = np.linalg.lstsq(places[keep], values[keep], rcond=None)
    difference = grey_HW - (plane[0] + plane[1] * y + plane[2] * x)
    if difference.sum() < 0:
        difference = -difference
    contrast: NDArray[np.uint8] = np.clip(np.rint(difference), 0, 255).astype(np.uint8)
    return contrast


def _otsu(values: NDArray[np.uint8]) -> int:
    """The threshold that best parts the values in two (N. Otsu, IEEE Trans. SMC 9, 1979): above it is ink."""
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, mass = histogram.cumsum(), (histogram * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * below / below[-1] - mass) ** 2 / (below * (below[-1] - below))
    return int(np.nan_to_num(between, nan=-1.0, posinf=-1.0).argmax())


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _cut(strength: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    top, bottom, left, right = _box(mask)
    return strength[top:bottom, left:right]


def _scaled(strength: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Resized so that its longer side is `side`; reduction averages, enlargement interpolates."""
    longer = max(strength.shape)
    rows, columns = (max(1, round(n * side / longer)) for n in strength.shape)
    way = Image.Resampling.BOX if longer >= side else Image.Resampling.BILINEAR
    image = Image.fromarray(strength.astype(np.float32)).resize((columns, rows), way)
    scaled: NDArray[np.float64] = np.clip(np.asarray(image), 0, 1).astype(np.float64)
    return scaled


def _pen_width(mask: NDArray[np.bool_]) -> float:
    """Mean stroke width in pixels: twice the area over the number of pixels on the outline."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return 2 * float(mask.sum()) / max(1, int((mask & ~inside).sum()))


def _with_pen(strength: NDArray[np.float64], pen_px: float) -> NDArray[np.float64]:
    """Strokes thinner than `pen_px` widened to it, by a grey dilation with a disc."""
    radius = (pen_px - _pen_width(strength > 0.5)) / 2
    if radius <= 0:
        return strength
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    within = np.clip(radius + 1 - np.hypot(y, x), 0, 1)  # a soft rim, so that fractions of a pixel count
    ground = np.pad(strength, 2 * reach)
    wide = np.zeros((strength.shape[0] + 2 * reach, strength.shape[1] + 2 * reach))
    rows, columns = wide.shape
    for dy, dx in zip(*np.nonzero(within > 0), strict=True):
        np.maximum(wide, within[dy, dx] * ground[dy : dy + rows, dx : dx + columns], out=wide)
    return _cut(wide, wide > 0.3)


def _centre_of_mass(strength: NDArray[np.float64]) -> tuple[float, float]:
    total = strength.sum()
    rows, columns = (np.arange(n) for n in strength.shape)
    return float(strength.sum(axis=1) @ rows / total), float(strength.sum(axis=0) @ columns / total)
