"""Images that begin small and grow."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convlens
from convlens.errors import RecipeError
from convlens.modelfile import read_model
from convlens.recipe import Recipe
from convlens.training.step import shrunk
from tests.conftest import TINY, shapes
from tests.helpers import NET, PLAIN, trained

GROWING = PLAIN.replace(grow_from=0.5, batch_size=16)


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 500))
def test_sides_grow_to_all_of_it(height: int, width: int, first: float, until: float, num_steps: int) -> None:
    """Sides never shrink and never exceed the images'; they are whole after `grow_until` of the steps; in between the
    shorter one is a multiple of four."""
    recipe = Recipe(grow_from=first, grow_until=until)
    sides = [recipe.sides_at(step, num_steps, height, width) for step in range(num_steps)]
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(sides))
    assert all(1 <= h <= height and 1 <= w <= width for h, w in sides)
    assert all(min(side) % 4 == 0 or side == (height, width) for side in sides)
    assert all(side == (height, width) for step, side in enumerate(sides) if step >= until * num_steps)


def test_the_cost_is_that_of_the_pixels() -> None:
    """The share of the arithmetic is the mean area over the steps."""
    recipe = Recipe(grow_from=0.5, grow_until=0.7)
    areas = [np.prod(recipe.sides_at(step, 1_000, 128, 128)) / 128**2 for step in range(1_000)]
    assert recipe.growth_cost == pytest.approx(np.mean(areas), rel=0.02)
    assert Recipe().growth_cost == 1


def test_smaller_images_are_averages() -> None:
    """uint8 in, uint8 out; an even image stays even, the mean stays, and the same size is the same image."""
    even = torch.full((2, 16, 16, 3), 77, dtype=torch.uint8)
    assert torch.equal(shrunk(even, 8, 8), even[:, :8, :8])
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8))
    small = shrunk(noise, 8, 8)
    assert small.dtype == torch.uint8 and small.shape == (2, 8, 8, 1) and small.is_contiguous()
    assert abs(float(small.float().mean() - noise.float().mean())) < 3
    assert shrunk(noise, 16, 16) is noise


def test_a_growing_training_resumes_to_the_same_bits(workplace: Path) -> None:
    """Interrupted where images are still small, it goes on with the size that the step has."""
    x, y = shapes(240, 3)
    whole = trained((x, y), architecture=NET, recipe=GROWING)
    assert whole.record.recipe["grow_from"] == 0.5
    calls = iter(range(10_000))
    part = trained((x, y), architecture=NET, recipe=GROWING, stop=lambda: next(calls) > 6)
    assert part.status == "interrupted"
    convlens.train((x, y), resume=part.path, progress="none")
    one, other = read_model(whole.model), read_model(part.model)
    assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    plain = read_model(trained((x, y), architecture=NET, recipe=GROWING.replace(grow_from=1)).model)
    assert any(not np.array_equal(one.tensors[name], plain.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize(
    ("architecture", "values", "reason"),
    [
        (TINY, {"grow_from": 0.5}, "globalavgpool"),
        ("conv(4, 9) relu globalavgpool flatten linear(classes)", {"grow_from": 0.1}, "cannot take"),
    ],
)
def test_networks_that_cannot_grow(workplace: Path, architecture: str, values: dict[str, Any], reason: str) -> None:
    """A network whose layers depend on the size, or whose windows do not fit the first one, is refused in a line that
    says what would do."""
    with pytest.raises(RecipeError, match=reason):
        trained(shapes(60, 2), architecture=architecture, recipe=PLAIN.replace(**values))


def test_what_frozen_layers_cannot_do_is_not_inherited(workplace: Path) -> None:
    """A model that grew and classifies with mirrored views is a parent all the same: with its layers frozen, images
    are whole and seen once. Said outright, either is refused in a line."""
    data = shapes(120, 4)
    parent = trained(data, architecture=NET, recipe=GROWING.replace(flip=True, views="mirror"))
    head = convlens.train(data, parent=parent.path, recipe={"freeze": "head", "epochs": 1}, progress="none")
    assert (head.record.recipe["grow_from"], head.record.recipe["views"]) == (1.0, "none")
    report = convlens.evaluate(head, views="mirror", progress="none")  # measured so, though not trained so
    assert report.n and any("was not kept" in note for note in report.asides)
    on = convlens.train(data, parent=parent.path, recipe={"epochs": 1}, progress="none")
    assert (on.record.recipe["grow_from"], on.record.recipe["views"]) == (0.5, "mirror")
    for field, value in (("grow_from", 0.5), ("views", "mirror")):
        with pytest.raises(RecipeError, match=field):
            recipe = PLAIN.replace(freeze="head", **{field: value})
            convlens.train(data, parent=parent.path, recipe=recipe, progress="none")
