"""How long a training is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import convlens
from convlens.architecture import parse, plan
from convlens.choosing.budget import EPOCHS, batch_size_for, epochs_for, epochs_within
from convlens.choosing.probe import images_in, material_of, rate_of
from convlens.errors import UsageError
from convlens.network.compute import resolve_compute
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.request import TrainRequest, parse_time
from tests.choosing.conftest import RATE
from tests.helpers import TINY_COLOUR


def test_lengths() -> None:
    """Epochs and batches follow the data; time is rounded down to the ladder and never to nothing."""
    assert [epochs_for(n) for n in (20, 219, 4_988, 50_000, 10_000_000)] == [60, 60, 16, 5, 4]
    assert [batch_size_for(n) for n in (100, 2_000, 5_000, 60_000)] == [32, 64, 128, 256]
    assert epochs_within(60, 1000, 250) == 12 and epochs_within(1, 10_000, 10) == 1
    assert all(a < b for a, b in pairwise(EPOCHS))
    assert images_in(10, 110) == images_in(10, 130) == 1024
    assert [parse_time(t) for t in ("90", "90s", "5m", "1.5h", 7, None)] == [90, 90, 300, 5400, 7, None]
    bad: list[Any] = ["", "m", "-5m", "0", "soon", "nan", "1e99h", True]
    for text in bad:
        with pytest.raises(UsageError, match="time must be like"):
            parse_time(text)


def test_time_is_kept(folders: Path, workplace: Path) -> None:
    """--time becomes epochs before the first step; a run that says epochs itself keeps them."""
    run = convlens.train(folders, time="6s", augment="none", architecture=TINY_COLOUR, progress="none")
    num_images = run.record.dataset.num_samples.train
    assert run.record.recipe["epochs"] == round(0.9 * 6 * RATE / num_images, 2)
    kept = convlens.train(folders, time="6s", recipe={"epochs": 2}, architecture=TINY_COLOUR, progress="none")
    assert kept.record.recipe["epochs"] == 2


def test_the_rate_is_what_a_training_does(folders: Path) -> None:
    """The one answer of the clock: images a second of a dozen steps, a positive number, and no more steps than that."""
    dataset = convlens.pack(folders)
    network = plan(parse(TINY_COLOUR), dataset.input_spec.shape, 2)
    compute = resolve_compute("cpu", "float32")
    timed = TrainingPlan(dataset=dataset, network=network, recipe=Recipe(batch_size=8), seed=0, compute=compute)
    assert 1 < rate_of(material_of(dataset), timed) < 1e7


def test_a_time_is_shared_by_all_trainings(folders: Path, workplace: Path) -> None:
    """Seeds and folds divide the time between them."""
    from convlens.choosing.choose import _Choosing

    dataset = convlens.pack(folders)

    def epochs(**said: Any) -> float:
        request = TrainRequest(data=dataset, architecture=TINY_COLOUR, time=60, **said).with_defaults()
        return _Choosing(request, request.draft(None), Progress()).epochs_in_budget(dataset, 10.0)

    alone, shared = epochs(), epochs(folds=5)
    assert alone == pytest.approx(6 * shared, rel=0.05)
