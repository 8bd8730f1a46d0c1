"""Augmentation, kind by kind."""

from __future__ import annotations

import pytest

from convlens.augmentation import parse_augment
from convlens.errors import UsageError
from convlens.presets import NATURAL


def test_augment_is_parsed() -> None:
    """auto, none, or kinds; unknown ones are named with the nearest."""
    assert (
        parse_augment("auto") is None
        and parse_augment("none") == ()
        and parse_augment("flip, crop") == ("flip", "crop")
    )
    with pytest.raises(UsageError, match="did you mean 'shift'"):
        parse_augment("flip,shfit")
    recipe = NATURAL.recipe.with_kinds((), 32)
    assert recipe.without_augmentation() == recipe and recipe.augmentation_words() == "none"


def test_enlarging_is_bilinear_and_covering_covers() -> None:
    """The whole as its own part is unchanged; half of a ramp comes out twice as wide; the hole has the mean."""
    import torch

    from convlens.augmentation import Augmentation, Crop, Cutout

    def enlarged(images: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = Crop().apply(torch, images, parts, Augmentation(crop_frac=0.5))
        return done

    def covered(images: torch.Tensor, middles: torch.Tensor, share: float) -> torch.Tensor:
        done: torch.Tensor = Cutout().apply(torch, images, middles, Augmentation(cutout_frac=share))
        return done

    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 24, 1).repeat(2, 24, 1, 1)
    assert torch.equal(enlarged(ramp, torch.tensor([[0.0, 0.0, 1.0]] * 2)), ramp)
    half = enlarged(ramp, torch.tensor([[0.0, 0.25, 0.5]] * 2)).float()
    assert torch.allclose(half[0, 5, 2:-2, 0].diff(), torch.tensor(5.0), atol=1)
    hole = covered(ramp, torch.tensor([[0.5, 0.5]] * 2), 0.25)
    assert (hole[0, 9:15, 9:15, 0] == 115).all() and torch.equal(hole[0, :9], ramp[0, :9])
