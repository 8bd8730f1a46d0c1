"""Augmentation: what may happen to training images before they are learned from, one object a kind.

Owns for each kind the recipe's fields and their ranges, the draw (a pure function of seed and epoch), what it does to a
batch, and its words. A new kind is written here alone: fields in `Augmentation`, a class, a place in `KINDS`, whose
order is that of application. Knows nothing of batches' order (`training/batches.py`). Stands above the torch wall:
images come as tensors on any device, and torch itself, as `xp`, is handed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from convlens.checks import Check, boolean, real, whole
from convlens.errors import UsageError
from convlens.text import did_you_mean, shown

Draw = NDArray[Any]  # one row an image of the epoch
CUTOUT_FRAC, _CROP_FRAC, _SHIFT_SHARE = 0.3, 0.4, 0.08  # of a kind that is named without a strength


def value(check: Check, default: Any, *, added: bool = False) -> Any:
    """A field of a recipe: how it is checked, and its default. `added`: recipes of before do not have it, and its
    default changes nothing there."""
    return field(default=default, metadata={"check": check, "added": added})


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The fields of a recipe that change images before they are learned from. Each default changes nothing.

    shift_px         each image is moved by up to so many pixels in both directions, edges repeated
    flip             each image is mirrored left to right with probability 1/2
    quarter_turns    each image is turned by a random number of quarters; one that is not square by none or by half
    rotate_deg       each image is turned by up to so many degrees to either side
    scale_frac       each image is enlarged or reduced by a factor between 1 / (1 + scale_frac) and 1 + scale_frac
    shear_deg        each image is sheared by up to so many degrees; edges are repeated in all three
    stroke_frac      each image is mixed with up to this share of its local maxima or minima (3×3 pixels), which makes
                     strokes thicker or thinner
    gap_frac         in each image a band of random place and direction, up to this share of its sides wide, is covered
                     by its ground, the median of its edge: strokes are cut or broken
    crop_frac        each image is enlarged from a random part of it, whose sides are down to 1 - crop_frac of its own
    cutout_frac      in each image a square of this share of its sides is covered by the image's mean (DeVries and
                     Taylor, 2017)
    brightness_frac  each image is made brighter or darker by a factor of up to 1 ± brightness_frac
    contrast_frac    each image's differences from its mean are multiplied by up to 1 ± contrast_frac
    saturation_frac  each colour's difference from its grey is multiplied by up to 1 ± saturation_frac
    """

    shift_px: int = value(whole(0, 64), 0)
    flip: bool = value(boolean, False)
    quarter_turns: bool = value(boolean, False, added=True)
    rotate_deg: float = value(real(0, 180), 0.0, added=True)
    scale_frac: float = value(real(0, 2), 0.0, added=True)
    shear_deg: float = value(real(0, 60), 0.0, added=True)
    stroke_frac: float = value(real(0, 1), 0.0, added=True)
    gap_frac: float = value(real(0, 0.9), 0.0, added=True)
    crop_frac: float = value(real(0, 0.9), 0.0, added=True)
    cutout_frac: float = value(real(0, 0.9), 0.0, added=True)
    brightness_frac: float = value(real(0, 1), 0.0, added=True)
    contrast_frac: float = value(real(0, 1), 0.0, added=True)
    saturation_frac: float = value(real(0, 1), 0.0, added=True)

    @property
    def augmentation(self) -> Augmentation:
        """These fields alone."""
        return Augmentation(**{name: getattr(self, name) for name in FIELDS})

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that are on, in the order of application."""
        return tuple(kind for kind in KINDS if kind.is_on(self))

    def without_augmentation(self) -> Self:
        """The same, learning from the images as they are."""
        plain: dict[str, Any] = {f.name: f.default for f in fields(Augmentation)}
        return replace(self, **plain)

    def with_kinds(self, names: Iterable[str], side: int) -> Self:
        """The same with these kinds and no others, at their usual strength for images whose shorter side is `side`
        pixels."""
        plain, names = self.without_augmentation(), set(names)
        for kind in KINDS:
            if kind.name in names:
                plain = replace(plain, **kind.usual(side))
        return plain

    def augmentation_words(self) -> str:
        """What images go through before they are learned from, in words."""
        return ", ".join(kind.words(self) for kind in self.kinds) or "none"


FIELDS = tuple(f.name for f in fields(Augmentation))


class Kind(ABC):
    """One kind of augmentation. `stream` numbers its random numbers, which no two kinds share."""

    name: ClassVar[str]
    stream: ClassVar[int]
    own: ClassVar[tuple[str, ...]]  # the fields that switch it on

    def is_on(self, values: Augmentation) -> bool:
        """Whether a recipe has it."""
        return any(getattr(values, name) for name in self.own)

    @abstractmethod
    def usual(self, side: int) -> dict[str, Any]:
        """The fields of this kind named without a strength, for images whose shorter side is `side` pixels."""

    @abstractmethod
    def words(self, values: Augmentation) -> str:
        """What it does, in words."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        """What happens to each image of an epoch, (N, …)."""

    @abstractmethod
    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        """A batch after it: uint8 (B, H, W, C), from the same, which it may change, and the batch's rows of the draw, a
        tensor (B, …) beside it. Of sizes that no value decides, and without a tensor made from Python's numbers: a GPU
        records it once and replays it."""


class Flip(Kind):
    """Mirrored left to right."""

    name, stream, own = "flip", 2, ("flip",)

    def usual(self, side: int) -> dict[str, Any]:
        return {"flip": True}

    def words(self, values: Augmentation) -> str:
        return "flips"

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        return rng.random(num_images) < 0.5

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        return xp.where(draw[:, None, None, None], images_NHWC.flip(2), images_NHWC)


class Turn(Kind):
    """Turned by quarters, against the clock."""

    name, stream, own = "turn", 7, ("quarter_turns",)

    def usual(self, side: int) -> dict[str, Any]:
        return {"quarter_turns": True}

    def words(self, values: Augmentation) -> str:
        return "quarter turns"

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        return rng.integers(0, 4, num_images, np.int8)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        is_square, turned = images_NHWC.shape[1] == images_NHWC.shape[2], images_NHWC
        for quarters in (1, 2, 3) if is_square else (2,):
            is_turned = (draw == quarters if is_square else draw >= 2)[:, None, None, None]
            turned = xp.where(is_turned, xp.rot90(images_NHWC, quarters, (1, 2)), turned)
        return turned.contiguous()


class Shift(Kind):
    """Moved by whole pixels (down, right), edges repeated."""

    name, stream, own = "shift", 1, ("shift_px",)

    def usual(self, side: int) -> dict[str, Any]:
        return {"shift_px": min(64, max(1, round(_SHIFT_SHARE * side)))}

    def words(self, values: Augmentation) -> str:
        return f"shifts up to {values.shift_px} px"

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        return rng.integers(-values.shift_px, values.shift_px + 1, (num_images, 2), np.int8)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        num, height, width, channels = images_NHWC.shape
        if images_NHWC.device.type == "cpu":
            # All places that an image can be moved to are windows of the padded one: a fifth of the time of looking up
            # each pixel.
            reach, moves = values.shift_px, draw.numpy().astype(np.int64)
            padded = np.pad(images_NHWC.numpy(), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
            lines = padded.reshape(num, height + 2 * reach, -1)
            windows = sliding_window_view(lines, (height, width * channels), axis=(1, 2))[:, :, ::channels]
            moved = windows[np.arange(num), reach - moves[:, 0], reach - moves[:, 1]]
            return xp.from_numpy(moved.reshape(images_NHWC.shape))
        down, right = draw.long()[:, :, None].unbind(1)
        rows, columns = (
            (xp.arange(n, device=draw.device) - by).clamp_(0, n - 1) for n, by in ((height, down), (width, right))
        )
        return images_NHWC[xp.arange(num, device=draw.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


class Affine(Kind):
    """Turned, scaled and sheared around the middle, in one bilinear resampling; edges repeated."""

    name, stream, own = "affine", 5, ("rotate_deg", "scale_frac", "shear_deg")

    def usual(self, side: int) -> dict[str, Any]:
        return {"rotate_deg": 10.0, "scale_frac": 0.1, "shear_deg": 5.0}

    def words(self, values: Augmentation) -> str:
        parts = [f"rotations up to {values.rotate_deg:g}°"] if values.rotate_deg else []
        parts += [f"scales up to {1 + values.scale_frac:g} times"] if values.scale_frac else []
        return ", ".join(parts + ([f"shears up to {values.shear_deg:g}°"] if values.shear_deg else []))

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        """float32 (N, 2, 2): where the places (x, y) around the middle of the result come from."""
        turn, grow, lean = 2 * rng.random((3, num_images)) - 1
        angle, shear = np.deg2rad(values.rotate_deg) * turn, np.tan(np.deg2rad(values.shear_deg) * lean)
        cos, sin, size = np.cos(angle), np.sin(angle), (1 + values.scale_frac) ** grow
        # The inverse of scale · rotation · shear.
        rows = [[cos + shear * sin, sin - shear * cos], [-sin, cos]]
        inverse: Draw = np.moveaxis(np.array(rows), -1, 0) / size[:, None, None]
        return inverse.astype(np.float32)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        _, height, width, _ = images_NHWC.shape
        y, x = (xp.arange(n, device=images_NHWC.device) - (n - 1) / 2 for n in (height, width))
        places = xp.stack(xp.broadcast_tensors(x[None, :], y[:, None]), -1).reshape(1, -1, 2)  # in pixels
        across, down = xp.matmul(places, draw.transpose(1, 2)).unbind(-1)
        grid = xp.stack([across / (width / 2), down / (height / 2)], -1).view(-1, height, width, 2)
        moved = xp.nn.functional.grid_sample(
            images_NHWC.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        return _as_bytes(xp, moved.permute(0, 2, 3, 1))


class Stroke(Kind):
    """Strokes thicker or thinner, by grey dilation and erosion, then cut or broken by a band of ground."""

    name, stream, own = "stroke", 8, ("stroke_frac", "gap_frac")

    def usual(self, side: int) -> dict[str, Any]:
        return {"stroke_frac": 0.5, "gap_frac": 0.1}

    def words(self, values: Augmentation) -> str:
        parts = [f"strokes thicker and thinner by {values.stroke_frac:g}"] if values.stroke_frac else []
        return ", ".join(parts + ([f"gaps up to {values.gap_frac:g} of the sides"] if values.gap_frac else []))

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        """float32 (N, 4): by how much thicker; the band's direction (radians), its middle's distance from the image's
        and its width, in shares of the shorter side."""
        thicker, angle, place, width = rng.random((4, num_images))
        thicker, place = values.stroke_frac * (2 * thicker - 1), place - 0.5
        return np.stack([thicker, np.pi * angle, place, values.gap_frac * width], 1).astype(np.float32)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        _, height, width, _ = images_NHWC.shape
        maps = images_NHWC.permute(0, 3, 1, 2).float()
        thicker, angle, place, band = draw[:, :, None, None, None].unbind(1)
        if values.stroke_frac:
            up = thicker.sign()  # minima are maxima of the negative
            extremes = up * xp.nn.functional.max_pool2d(up * maps, 3, 1, 1)
            maps = maps + thicker.abs() * (extremes - maps)
        if values.gap_frac:
            edges = [maps[:, :, 0], maps[:, :, -1], maps[:, :, :, 0], maps[:, :, :, -1]]
            ground = xp.cat(edges, 2).sort(2).values[:, :, height + width][:, :, None, None]  # median() warns on GPUs
            y, x = (xp.arange(n, device=maps.device) - (n - 1) / 2 for n in (height, width))
            across = (x * xp.cos(angle) + y[:, None] * xp.sin(angle)) / min(height, width)
            maps = xp.where((across - place).abs() < band / 2, ground, maps)
        return _as_bytes(xp, maps.permute(0, 2, 3, 1))


class Crop(Kind):
    """A part (top, left, side), in shares of the image, enlarged to its size, bilinearly.

    Rows and columns are interpolated one after the other, each by a matrix of its own for each image.
    """

    name, stream, own = "crop", 3, ("crop_frac",)

    def usual(self, side: int) -> dict[str, Any]:
        return {"crop_frac": _CROP_FRAC}

    def words(self, values: Augmentation) -> str:
        return f"crops down to {1 - values.crop_frac:.2g} of the sides"

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        draws = rng.random((num_images, 3), np.float32)
        draws[:, 2] = 1 - values.crop_frac * draws[:, 2]
        draws[:, :2] *= 1 - draws[:, 2:]
        return draws

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        num, height, width, channels = images_NHWC.shape
        down = self._interpolation(xp, height, draw[:, 0], draw[:, 2])
        across = self._interpolation(xp, width, draw[:, 1], draw[:, 2])
        rows = xp.bmm(down, images_NHWC.float().reshape(num, height, -1)).view(num, height, width, channels)
        columns = xp.bmm(across, rows.transpose(1, 2).reshape(num, width, -1))
        return columns.view(num, width, height, channels).transpose(1, 2).round_().to(xp.uint8).contiguous()

    @staticmethod
    def _interpolation(xp: Any, size: int, start: Any, share: Any) -> Any:
        """float32 (B, size, size): row i holds the weights of the two pixels that place i of the part lies between."""
        places = xp.arange(size, device=start.device) + 0.5
        at = (start[:, None] * size + places * share[:, None] - 0.5).clamp(0, size - 1)
        return (1 - (at[:, :, None] - xp.arange(size, device=start.device)).abs()).clamp_(min=0)


class Cutout(Kind):
    """A square around (down, right), in shares of the image, covered by the image's mean colour."""

    name, stream, own = "cutout", 4, ("cutout_frac",)

    def usual(self, side: int) -> dict[str, Any]:
        return {"cutout_frac": CUTOUT_FRAC}

    def words(self, values: Augmentation) -> str:
        return f"cutout of {values.cutout_frac:.2g} of the sides"

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        return rng.random((num_images, 2), np.float32)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        height, width = images_NHWC.shape[1:3]
        half = values.cutout_frac * min(height, width) / 2

        def near(middle: Any, size: int) -> Any:
            places = xp.arange(size, device=images_NHWC.device) + 0.5
            return (places - middle[:, None] * size).abs() <= half

        hole = (near(draw[:, 0], height)[:, :, None] & near(draw[:, 1], width)[:, None, :])[..., None]
        mean = images_NHWC.float().mean(dim=(1, 2), keepdim=True).round_().to(xp.uint8)
        return xp.where(hole, mean, images_NHWC)


class Colour(Kind):
    """Brightness, then contrast around the image's mean, then saturation around each pixel's grey (ITU-R 601)."""

    name, stream, own = "colour", 6, ("brightness_frac", "contrast_frac", "saturation_frac")

    def usual(self, side: int) -> dict[str, Any]:
        return {"brightness_frac": 0.2, "contrast_frac": 0.2, "saturation_frac": 0.2}

    def words(self, values: Augmentation) -> str:
        names = [name for name in self.own if getattr(values, name)]
        return ", ".join(f"{name.removesuffix('_frac')} up to ±{100 * getattr(values, name):g} %" for name in names)

    def draw(self, rng: np.random.Generator, num_images: int, values: Augmentation) -> Draw:
        """float32 (N, 3): the three factors."""
        reach = np.array([getattr(values, name) for name in self.own])
        factors: Draw = 1 + reach * (2 * rng.random((num_images, 3)) - 1)
        return factors.astype(np.float32)

    def apply(self, xp: Any, images_NHWC: Any, draw: Any, values: Augmentation) -> Any:
        brightness, contrast, saturation = draw[:, :, None, None, None].unbind(1)
        colours = images_NHWC.float() * brightness
        mean = colours.mean(dim=(1, 2, 3), keepdim=True)
        colours = mean + (colours - mean) * contrast
        if colours.shape[3] == 3:
            red, green, blue = colours.split(1, 3)
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            colours = grey + (colours - grey) * saturation
        return _as_bytes(xp, colours)


def _as_bytes(xp: Any, values: Any) -> Any:
    return values.round_().clamp_(0, 255).to(xp.uint8).contiguous()


KINDS: tuple[Kind, ...] = (Flip(), Turn(), Shift(), Affine(), Stroke(), Crop(), Cutout(), Colour())
KIND_NAMES = tuple(kind.name for kind in KINDS)


def parse_augment(text: str | None) -> tuple[str, ...] | None:
    """`none`, `auto` (None) or kinds like `flip,shift`. Raises UsageError."""
    if text is None or text == "auto":
        return None
    if text == "none":
        return ()
    names = tuple(part.strip() for part in str(text).split(","))
    for name in names:
        if name not in KIND_NAMES:
            raise UsageError(
                f"unknown augmentation {shown(name)!r}{did_you_mean(name, KIND_NAMES)}: there are auto, none, "
                f"{', '.join(KIND_NAMES)} (several with commas)"
            )
    return names
