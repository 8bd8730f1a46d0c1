"""Batches are a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlens.augmentation import Augmentation
from convlens.data.packed.image_rows import ImageRows
from convlens.presets import PRESETS
from convlens.training.batches import Batches, drawn_of, gather
from convlens.training.step import class_weights_of
from tests.conftest import shapes
from tests.helpers import PLAIN


def test_balanced_sampling_draws_small_classes_more_often() -> None:
    """Places in an epoch go by the square roots of the sizes, spread evenly, each image as often as the others of its
    class; with the weights of the loss each class counts alike; batches do not change it."""
    labels = np.array([0] * 900 + [1] * 100 + [2] * 25)
    batches = Batches.of(PLAIN.replace(balance="sampling", batch_size=205), labels, 3)
    epoch = np.concatenate([batches.at(step).positions for step in range(5)])
    drawn = np.bincount(labels[epoch])
    assert drawn.tolist() == drawn_of(np.array([900, 100, 25])).tolist() == [683, 228, 114]
    assert np.ptp(np.bincount(epoch, minlength=1025)[900:1000]) <= 1
    assert np.ptp(np.bincount(epoch, minlength=1025)[1000:]) <= 1
    for step in range(5):
        assert abs(np.bincount(labels[batches.at(step).positions], minlength=3) - drawn / 5).max() <= 2
    weights = class_weights_of(torch.from_numpy(labels), 3, "sampling")
    assert weights is not None and np.allclose(weights.numpy() * drawn, 1025 / 3)
    again = Batches.of(PLAIN.replace(balance="sampling", batch_size=41), labels, 3)
    assert np.array_equal(epoch, np.concatenate([again.at(step).positions for step in range(25)]))


def test_new_augmentation_is_a_function_of_seed_and_step() -> None:
    """Crops and cutout are drawn per (seed, epoch), alike for every rank, and leave uint8 images of the same shape."""
    import torch

    from convlens.data.packed.image_rows import ImageRows
    from convlens.training.batches import gather

    x = np.random.default_rng(0).integers(0, 256, (50, 12, 10, 3), dtype=np.uint8)
    recipe = PLAIN.replace(batch_size=20, crop_frac=0.4, cutout_frac=0.3)
    batches, images = Batches.of(recipe, np.zeros(50, int), 4), ImageRows(x, np.arange(50))
    whole = gather(images, batches.at(7), "cpu")
    assert whole.dtype == torch.uint8 and whole.shape == (20, 12, 10, 3)
    parts = [gather(images, batches.at(7, rank, 2), "cpu") for rank in range(2)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1])
    assert torch.equal(gather(torch.from_numpy(x), batches.at(7), "cpu"), whole)
    plain = Batches.of(recipe.without_augmentation(), np.zeros(50, int), 4)
    assert np.array_equal(plain.at(7).positions, batches.at(7).positions)


@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**63 - 1), st.integers(0, 12))
def test_batches_cover_each_epoch_once(num: int, size: int, seed: int, epoch: int) -> None:
    """Any stretch of one epoch's places names each image once, whatever the batch size."""
    batches = Batches(num, size, seed)
    first = epoch * num // size
    positions = np.concatenate([batches.at(step).positions for step in range(first, first + num // size + 3)])
    offset = epoch * num - first * size
    assert sorted(positions[offset : offset + num]) == list(range(num))


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 1000), st.integers(0, 9), st.integers(1, 5))
def test_batches_do_not_depend_on_rank_or_history(num: int, size: int, seed: int, step: int, ranks: int) -> None:
    """The ranks' parts together are the whole batch, and asking for other steps before changes nothing."""
    augmentation = Augmentation(shift_px=2, flip=True, rotate_deg=9, brightness_frac=0.2)
    batches = Batches(num, size, seed, augmentation)
    whole = batches.at(step)
    assert set(whole.draws) == {"shift", "flip", "affine", "colour"}
    for rank in range(ranks):
        part = Batches(num, size, seed, augmentation).at(step, rank, ranks)
        assert np.array_equal(part.positions, whole.positions[rank::ranks])
        for name, drawn in whole.draws.items():
            assert np.array_equal(part.draws[name], drawn[rank::ranks])
    assert np.abs(whole.draws["shift"]).max(initial=0) <= 2


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.integers(0, 3))
def test_gather_moves_and_mirrors(seed: int, flip: bool, shift: int) -> None:
    """Against pixel by pixel: mirrored first, then moved, with the edge repeated; on the device as from the map."""
    images = np.random.default_rng(seed).integers(0, 255, (6, 5, 7, 2), dtype=np.uint8)
    batch = Batches(6, 6, seed, Augmentation(shift_px=shift, flip=flip)).at(0)
    there = gather(torch.from_numpy(images), batch, "cpu").numpy()
    rows = np.arange(6)[::-1]
    got = gather(ImageRows(images[::-1], rows), batch, "cpu").numpy()
    assert np.array_equal(there, got)
    for i, position in enumerate(batch.positions):
        image = images[position]
        if flip and batch.draws["flip"][i]:
            image = image[:, ::-1]
        if shift:
            down, right = batch.draws["shift"][i].astype(int)
            rows, columns = np.clip(np.arange(5) - down, 0, 4), np.clip(np.arange(7) - right, 0, 6)
            image = image[rows][:, columns]
        assert np.array_equal(got[i], image)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_batches_of_each_preset_do_not_depend_on_rank(preset: str) -> None:
    """Whatever the number of processes, the same images get the same shifts in the same step."""
    batches = Batches.of(PRESETS[preset].recipe, np.zeros(1000, int), 7)
    images = ImageRows(shapes(1000)[0][..., None], np.arange(1000))
    for step in (0, 3, 9):
        whole = gather(images, batches.at(step), "cpu")
        for rank in range(3):
            part = gather(images, batches.at(step, rank, 3), "cpu")
            assert torch.equal(part, whole[rank::3])
