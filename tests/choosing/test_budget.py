"""How long a training is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.choosing.budget import (
    LEAST_SHARE,
    SIZES,
    USUAL_S,
    batch_size_for,
    epochs_within,
    least_epochs,
    packing_s,
    rates_for,
    size_for,
    usual_training_s,
)
from convlens.choosing.choose import _ENDING_S, choose
from convlens.choosing.probe import images_in
from convlens.data.sources.named import mnist_arrays
from convlens.errors import UsageError
from convlens.presets import PRESETS
from convlens.progress import Progress
from convlens.training.request import TrainRequest, parse_time
from tests.choosing.conftest import RATE
from tests.helpers import TINY_COLOUR


def test_lengths() -> None:
    """Epochs and batches follow the data, fewer the more images there are; what fits into a time is rounded down."""
    assert [least_epochs(n) for n in (20, 219, 4_988, 50_000, 10_000_000)] == [60, 60, 16, 5.1, 1]
    assert [batch_size_for(n) for n in (100, 2_000, 5_000, 60_000)] == [32, 64, 128, 512]
    assert epochs_within(60, 1000, 250) == 14 and epochs_within(1, 10_000, 10) == 0
    assert images_in(10, 110) == images_in(10, 130) == 1024
    assert [parse_time(t) for t in ("90s", "5m", "1.5h", 7, None)] == [90, 300, 5400, 7, None]
    bad: list[Any] = ["", "90", "m", "-5m", "0", "soon", "nan", "1e99h", True]
    for text in bad:
        with pytest.raises(UsageError, match="time must be like"):
            parse_time(text)


def test_most_of_the_usual_time_is_training() -> None:
    """Of three minutes at least 65 % are training, unless packing alone takes long; and never less than 30 %."""
    assert usual_training_s(packing_s(60_000, 2_000)) >= 0.65 * USUAL_S
    assert usual_training_s(0) <= 0.8 * USUAL_S
    assert usual_training_s(packing_s(20_000, 200_000)) < usual_training_s(0)
    assert usual_training_s(1e6) == pytest.approx(0.3 * USUAL_S)


def test_larger_networks_for_more_time() -> None:
    """The size grows with the seconds and with the machine, and shrinks where there is too little to learn enough."""

    def sizes(num_images: int, rate: float) -> list[int]:
        cost = {size: size.width**2 * size.depth / 1024 for size in SIZES}
        every = [2.0**n for n in range(14)]
        return [
            list(SIZES).index(size_for(num_images, 3_000 * num_images, s, lambda size: rate / cost[size]))
            for s in every
        ]

    for num_images in (100, 5_000, 50_000):
        slow, fast = sizes(num_images, 300.0), sizes(num_images, 3000.0)
        assert slow == sorted(slow) and fast == sorted(fast)
        assert all(a <= b for a, b in zip(slow, fast, strict=True))
        assert slow[0] == 0 or num_images == 100
    assert size_for(1_400, 1_400 * 64, 1e6, lambda _: 1e6).width <= 24, "little data fills no large network"


def test_time_is_kept(folders: Path, workplace: Path) -> None:
    """--time becomes epochs before the first step, by sizes and the rate alone: no clock is asked, so that a busy
    machine changes no plan; of a short time a third is trained. A run that says epochs itself keeps them."""
    for seconds, left in ((60, 60 - _ENDING_S), (6, LEAST_SHARE * 6)):
        run = convlens.train(folders, time=seconds, augment="none", architecture=TINY_COLOUR, progress="none")
        num_images = run.record.dataset.num_samples.train
        assert run.record.recipe["epochs"] == pytest.approx(epochs_within(left, num_images, RATE), rel=0.05)
    kept = convlens.train(folders, time="6s", recipe={"epochs": 2}, architecture=TINY_COLOUR, progress="none")
    assert kept.record.recipe["epochs"] == 2


def test_a_time_is_shared_by_all_trainings(folders: Path, workplace: Path) -> None:
    """Seeds and folds divide the time between them."""
    from convlens.choosing.choose import _Choosing

    dataset = convlens.pack(folders)

    def epochs(**said: Any) -> float:
        request = TrainRequest(data=dataset, architecture=TINY_COLOUR, time=600, **said).with_defaults()
        return _Choosing(request, request.draft(None), Progress()).epochs_for(dataset, 1.0, 1)

    alone, shared = epochs(), epochs(folds=5)
    assert alone == pytest.approx(6 * shared, rel=0.2)


@pytest.mark.parametrize("preset", ["natural", "accurate"])
def test_a_time_sizes_the_presets_of_the_family(workplace: Path, preset: str) -> None:
    """--preset natural --time: more time gives a wider network, not only more epochs; the rest of the preset stays,
    and so does a network that was said."""

    pictures = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8), np.arange(400) % 2

    def chosen(**wishes: Any) -> Any:
        request = TrainRequest(data=pictures, device="cpu", preset=preset, **wishes).with_defaults()
        return choose(request, request.draft(None), Progress()).draft

    short, long, plain = chosen(time=2), chosen(time=6000), PRESETS[preset]
    widths = [int(re.findall(r"conv\((\d+), 3", one.architecture)[0]) for one in (short, long)]
    assert widths[0] == 16 < widths[1]
    assert long.recipe.augmentation == plain.recipe.augmentation and long.recipe.views == plain.recipe.views
    own = chosen(time=6000, architecture=TINY_COLOUR)
    assert own.architecture == TINY_COLOUR


def test_rates_follow_large_batches() -> None:
    """Learning rates grow with batches of more than 256 images, and with no smaller ones."""
    recipe = PRESETS["natural"].recipe
    for batch_size, factor in ((64, 1.0), (256, 1.0), (512, 2.0)):
        found = rates_for(recipe.replace(batch_size=batch_size))
        assert found == {"lr": factor * recipe.lr, "muon_lr": factor * recipe.muon_lr}


def test_what_is_seen_often_is_covered(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long time brings cutout to colour pictures, unless it was said or turned off; a short one and strokes do
    without."""
    monkeypatch.setattr("convlens.choosing.choose.orientation_of", lambda *_: None)
    colour = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
    x, y = mnist_arrays("train")

    def cutout(pictures: Any, labels: Any, time: float, **wishes: Any) -> float:
        request = TrainRequest(data=(pictures, labels), device="cpu", time=time, **wishes).with_defaults()
        recipe = choose(request, request.draft(None), Progress()).draft.recipe
        return recipe.cutout_frac

    labels = np.arange(400) % 2
    assert cutout(colour, labels, 6_000) == 0.3 and cutout(colour, labels, 60) == 0
    assert cutout(colour, labels, 6_000, recipe={"cutout_frac": 0.1}) == 0.1
    assert cutout(colour, labels, 6_000, augment="flip") == 0
    assert cutout(x[:400], y[:400], 6_000) == 0
