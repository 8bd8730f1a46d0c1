"""Photographs of handwriting that the tests render themselves: ink on paper, light, lines, lens.

A sign (alpha of its ink, 0..1) is laid on paper with a place, tilt and perspective of its own; the paper has texture,
ruling and shade; the camera blurs and adds noise. Everything is drawn from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float64]
SIDE = 480
KINDS = (
    "plain",
    "gradient",
    "shadow",
    "ruled",
    "squared",
    "texture",
    "perspective",
    "faint",
    "chalk",
    "corner",
    "everything",
)


@dataclass(frozen=True)
class Photograph:
    """The picture, uint8 (H, W), and the ink alone in the same place, uint8 (H, W), bright on 0."""

    picture: NDArray[np.uint8]
    ink: NDArray[np.uint8]


def photograph(sign: NDArray[np.uint8], kind: str, seed: int) -> Photograph:
    """A photograph of `sign` (uint8, bright on 0, any size) of one of the KINDS."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    everything = kind == "everything"
    ink = _placed(sign, rng, near_corner=kind == "corner" or everything)
    if kind == "perspective" or everything:
        warp = _perspective(rng)
    else:
        warp = None
    lines = _ruling(rng, squared=kind == "squared" or (everything and rng.random() < 0.5))
    if kind not in ("ruled", "squared") and not everything:
        lines = np.zeros((SIDE, SIDE))
    if warp is not None:
        ink, lines = (_warped(x, warp) for x in (ink, lines))
    reflectance = _paper(rng, rough=kind == "texture" or everything)
    reflectance *= 1 - lines * rng.uniform(0.15, 0.4)
    contrast = rng.uniform(0.35, 0.5) if kind == "faint" else rng.uniform(0.6, 0.9)
    grain = 1 - 0.15 * _noise(rng, 2)  # of the pen
    reflectance *= 1 - ink * contrast * grain
    light = np.full((SIDE, SIDE), rng.uniform(0.75, 0.95))
    if kind in ("gradient", "faint") or everything:
        light *= _gradient(rng)
    if kind == "shadow" or everything:
        light *= _shadow(rng)
    picture = reflectance * light
    if kind == "chalk":
        board = 0.22 + 0.05 * _noise(rng, 40) + 0.02 * _noise(rng, 1)
        picture = (board + ink * rng.uniform(0.4, 0.6) * (0.75 + 0.25 * _noise(rng, 1))) * _gradient(rng)
    blurred = Image.fromarray(np.clip(255 * picture, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0))
    )
    noisy = np.asarray(blurred).astype(np.float64) + rng.normal(0, 3, (SIDE, SIDE))
    return Photograph(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), np.rint(255 * ink).astype(np.uint8))


def _placed(sign: NDArray[np.uint8], rng: np.random.Generator, *, near_corner: bool) -> Floats:
    """The sign's ink, smoothed while it is enlarged, at a place and a size of its own."""
    size = int(SIDE * (rng.uniform(0.3, 0.4) if near_corner else rng.uniform(0.45, 0.75)))
    large = (
        Image.fromarray(sign).resize((size, size), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(size / 70))
    )
    values = np.asarray(large).astype(np.float64)
    values = np.clip((values - 85) / 60, 0, 1)
    room = SIDE - size
    if near_corner:
        x, y = (int(room * (0.04 if rng.random() < 0.5 else 0.96)) for _ in range(2))
    else:
        x, y = (int(room * rng.uniform(0.3, 0.7)) for _ in range(2))
    ink = np.zeros((SIDE, SIDE))
    ink[y : y + size, x : x + size] = values
    return ink


def _ruling(rng: np.random.Generator, *, squared: bool) -> Floats:
    """Lines of ruled or squared paper, a little tilted, 0..1."""
    image = Image.new("L", (SIDE, SIDE), 0)
    draw, gap = ImageDraw.Draw(image), int(rng.integers(28, 42) if squared else rng.integers(50, 90))
    width, tilt = int(rng.integers(1, 4)), rng.uniform(-0.05, 0.05) * SIDE
    for at in range(int(rng.integers(0, gap)) - gap, SIDE + gap, gap):
        draw.line((0, at, SIDE, at + tilt), fill=255, width=width)
        if squared:
            draw.line((at, 0, at - tilt, SIDE), fill=255, width=width)
    return np.asarray(image).astype(np.float64) / 255


def _noise(rng: np.random.Generator, scale: int) -> Floats:
    """Smooth noise in 0..1, its specks about `scale` pixels wide."""
    size = max(2, SIDE // scale)
    small = Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.float64) / 255


def _paper(rng: np.random.Generator, *, rough: bool) -> Floats:
    strength = 0.12 if rough else 0.02
    return 1 - strength * _noise(rng, 3) - strength * _noise(rng, 60)


def _gradient(rng: np.random.Generator) -> Floats:
    """Light that falls off across the sheet, to a third at the worst, with a bend."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.55)
    along = x * np.cos(angle) + y * np.sin(angle)
    light: Floats = 1 - strength * (along + 0.5) - 0.2 * strength * (x**2 + y**2)
    return light


def _shadow(rng: np.random.Generator) -> Floats:
    """The soft-edged shadow of a hand or a telephone over part of the sheet."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
    softness, depth = rng.uniform(0.01, 0.06), rng.uniform(0.3, 0.5)
    light: Floats = 1 - depth / (1 + np.exp(-(x * np.cos(angle) + y * np.sin(angle) - edge) / softness))
    return light


def _perspective(rng: np.random.Generator) -> tuple[float, ...]:
    """The eight numbers of Pillow's perspective transform: corners moved by up to a tenth."""
    corners = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], float)
    moved = corners + rng.uniform(-0.1, 0.1, (4, 2)) * SIDE
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):  # output (x, y) is taken from (u, v)
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)))


def _warped(values: Floats, warp: tuple[float, ...]) -> Floats:
    image = Image.fromarray(np.rint(255 * values).astype(np.uint8))
    turned = image.transform((SIDE, SIDE), Image.Transform.PERSPECTIVE, warp, Image.Resampling.BICUBIC)
    return np.asarray(turned).astype(np.float64) / 255
