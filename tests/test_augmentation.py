"""Augmentation, kind by kind."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlens.augmentation import (
    KIND_NAMES,
    KINDS,
    Affine,
    Augmentation,
    Colour,
    Crop,
    Cutout,
    Kind,
    Stroke,
    Turn,
    parse_augment,
)
from convlens.errors import RecipeError, UsageError
from convlens.presets import NATURAL
from convlens.recipe import Recipe


def applied(kind: Kind, images_NHWC: torch.Tensor, draw: Any, **values: Any) -> torch.Tensor:
    """What a kind makes of a batch, which stays as it is."""
    done: torch.Tensor = kind.apply(torch, images_NHWC.clone(), torch.as_tensor(draw), Augmentation(**values))
    return done


def noise(num: int = 6, height: int = 9, width: int = 12, channels: int = 3) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (num, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(values)


def test_augment_is_parsed() -> None:
    """auto, none, or kinds; unknown ones are named with the nearest."""
    assert parse_augment("auto") is None and parse_augment("none") == ()
    assert parse_augment("flip, crop") == ("flip", "crop")
    with pytest.raises(UsageError, match="did you mean 'shift'"):
        parse_augment("flip,shfit")
    recipe = NATURAL.recipe.with_kinds((), 32)
    assert recipe.without_augmentation() == recipe and recipe.augmentation_words() == "none"


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_every_kind(kind: Kind) -> None:
    """Named, it is on and in the words; its draw repeats with the seed and has a row an image; a batch keeps shape and
    dtype, and changes; and images of one channel go through it too."""
    values = Augmentation(**kind.usual(12))
    assert kind.is_on(values) and values.kinds == (kind,) and not kind.is_on(Augmentation())
    assert kind.words(values) == values.augmentation_words() != "none"
    draws = [kind.draw(np.random.default_rng((seed, kind.stream)), 50, values) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert all(len(draw) == 50 for draw in draws)
    for channels in (1, 3):
        images = noise(50, channels=channels)
        done = applied(kind, images, draws[0], **kind.usual(12))
        assert done.shape == images.shape and done.dtype == torch.uint8 and done.is_contiguous()
        assert not torch.equal(done, images)


def test_no_two_kinds_share_random_numbers_or_fields() -> None:
    """Each kind has a stream and fields of its own, and together they are the recipe's."""
    assert len({kind.stream for kind in KINDS}) == len(KINDS)
    own = [name for kind in KINDS for name in kind.own]
    assert sorted(own) == sorted(f.name for f in fields(Augmentation))


def test_quarter_turns() -> None:
    """Each image is turned by as many quarters as were drawn; an oblong one by none or by half."""
    square, oblong = noise(4, 9, 9), noise(4, 9, 12)
    turned = applied(Turn(), square, np.arange(4, dtype=np.int8), quarter_turns=True)
    assert all(torch.equal(turned[k], torch.rot90(square[k], k, (0, 1))) for k in range(4))
    half = applied(Turn(), oblong, np.arange(4, dtype=np.int8), quarter_turns=True)
    assert all(torch.equal(half[k], torch.rot90(oblong[k], 2 * (k // 2), (0, 1))) for k in range(4))


def affine(draw: list[list[float]], images: torch.Tensor) -> torch.Tensor:
    return applied(Affine(), images, np.array([draw] * len(images), np.float32), rotate_deg=90)


def test_affine_turns_scales_and_shears() -> None:
    """No change is the identity; a quarter turn is numpy's, both ways; half a turn too; enlarging repeats pixels;
    shearing moves rows against one another."""
    square = noise(2, 8, 8)
    assert torch.equal(affine([[1, 0], [0, 1]], square), square)
    assert torch.equal(affine([[0, 1], [-1, 0]], square), torch.rot90(square, -1, (1, 2)))
    assert torch.equal(affine([[0, -1], [1, 0]], square), torch.rot90(square, 1, (1, 2)))
    assert torch.equal(affine([[-1, 0], [0, -1]], square), torch.rot90(square, 2, (1, 2)))
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 24, 1).repeat(1, 24, 1, 1)
    larger = affine([[0.5, 0], [0, 0.5]], ramp).float()[0, 12, 1:-1, 0].diff()
    assert (larger - 5).abs().max() <= 1
    sheared = affine([[1, -1], [0, 1]], ramp)[0, :, :, 0].float()
    assert (sheared[12, 5:-5] - sheared[11, 5:-5] + 10).abs().max() <= 1


@given(st.floats(0, 180), st.floats(0, 2), st.floats(0, 60), st.integers(0, 10))
def test_affine_draws_within_its_range(rotate: float, scale: float, shear: float, seed: int) -> None:
    """Each drawn matrix is a turn, a size and a shear within the ranges, and undoes scale · rotation · shear."""
    values = Augmentation(rotate_deg=rotate, scale_frac=scale, shear_deg=shear)
    inverse = Affine().draw(np.random.default_rng(seed), 20, values).astype(float)
    size = 1 / np.sqrt(np.linalg.det(inverse))
    assert (size <= 1 + scale + 1e-4).all() and (size >= 1 / (1 + scale) - 1e-4).all()
    unit = inverse * size[:, None, None]  # = inverse of rotation · shear: its second row is (-sin, cos)
    angle = np.rad2deg(np.arctan2(-unit[:, 1, 0], unit[:, 1, 1]))
    assert (np.abs(angle) <= rotate + 1e-2).all()
    cos, sin = unit[:, 1, 1], -unit[:, 1, 0]
    lean = np.rad2deg(np.arctan(unit[:, 0, 0] * sin - unit[:, 0, 1] * cos))  # what is left without the turn
    assert (np.abs(lean) <= shear + 1e-1).all()


def test_strokes_thicken_thin_and_break() -> None:
    """At full strength a line is its dilation or its erosion, whichever way round ink and ground are; a band of ground
    cuts it where it was drawn, and only there."""
    image = torch.zeros(1, 11, 11, 1, dtype=torch.uint8)
    image[:, :, 4:7] = 200
    for ink in (image, 255 - image):
        thick, thin = (applied(Stroke(), ink, np.array([[by, 0, 0, 0]], np.float32), stroke_frac=1) for by in (1, -1))
        assert sorted(int((one == ink[0, 0, 5, 0]).sum()) for one in (thick, thin)) == [11, 55]
        half = applied(Stroke(), ink, np.array([[0.5, 0, 0, 0]], np.float32), stroke_frac=1)
        assert len(half.unique()) == 3
        broken = applied(Stroke(), ink, np.array([[0, np.pi / 2, 0, 0.25]], np.float32), gap_frac=0.25)
        assert bool((broken[0, 4:7] == ink[0, 0, 0, 0]).all())
        assert torch.equal(broken[0, :4], ink[0, :4]) and torch.equal(broken[0, 7:], ink[0, 7:])


def test_colour_by_hand() -> None:
    """Brightness, then contrast around the mean, then saturation around grey, each as its formula has it; rounded and
    kept within 0 and 255."""
    pixels = torch.tensor([[10, 60, 110], [200, 150, 100]], dtype=torch.uint8).view(1, 1, 2, 3)
    plain = applied(Colour(), pixels, np.ones((1, 3), np.float32), contrast_frac=0.5)
    assert torch.equal(plain, pixels)
    brighter = applied(Colour(), pixels, np.array([[1.5, 1, 1]], np.float32), brightness_frac=0.5)
    assert brighter.flatten().tolist() == [15, 90, 165, 255, 225, 150]
    flat = applied(Colour(), pixels, np.array([[1, 0, 1]], np.float32), contrast_frac=1)
    assert flat.flatten().tolist() == [105] * 6
    grey = applied(Colour(), pixels, np.array([[1, 1, 0]], np.float32), saturation_frac=1)
    wanted = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in pixels[0, 0].tolist()]
    assert grey[0, 0].tolist() == [[value] * 3 for value in wanted]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotate_deg", 181),
        ("rotate_deg", -1),
        ("rotate_deg", float("nan")),
        ("scale_frac", 2.5),
        ("scale_frac", -0.1),
        ("shear_deg", 61),
        ("shear_deg", "much"),
        ("brightness_frac", 1.5),
        ("contrast_frac", -1),
        ("saturation_frac", float("inf")),
        ("saturation_frac", True),
    ],
)
def test_values_out_of_range(name: str, value: Any) -> None:
    """One line that names the field, what it may be and what was said."""
    with pytest.raises(RecipeError, match=name) as caught:
        Recipe(**{name: value})
    assert "from 0 to" in str(caught.value) and "\n" not in str(caught.value)


def test_enlarging_is_bilinear_and_covering_covers() -> None:
    """The whole as its own part is unchanged; half of a ramp comes out twice as wide; the hole has the mean."""
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 24, 1).repeat(2, 24, 1, 1)
    assert torch.equal(applied(Crop(), ramp, [[0.0, 0.0, 1.0]] * 2, crop_frac=0.5), ramp)
    half = applied(Crop(), ramp, [[0.0, 0.25, 0.5]] * 2, crop_frac=0.5).float()
    assert torch.allclose(half[0, 5, 2:-2, 0].diff(), torch.tensor(5.0), atol=1)
    hole = applied(Cutout(), ramp, [[0.5, 0.5]] * 2, cutout_frac=0.25)
    assert (hole[0, 9:15, 9:15, 0] == 115).all() and torch.equal(hole[0, :9], ramp[0, :9])
