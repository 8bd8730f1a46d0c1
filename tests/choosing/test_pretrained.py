"""When photographs start from a pretrained network, and what is then chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.architecture import parse, plan
from convlens.architecture.families import FAMILIES, family
from convlens.choosing import choose as choosing
from convlens.choosing import pretrained
from convlens.choosing.choose import Choices
from convlens.choosing.pretrained import SIDES, rate_of_outputs, rate_of_tuning, side_for, tuned_from, tuning_epochs
from convlens.errors import UsageError
from convlens.modelfile import read_model
from convlens.recipe import Recipe
from convlens.training.request import TrainRequest
from tests.choosing.conftest import RATE
from tests.choosing.test_choose import Said

LITE = "efficientnet-lite0"


def photographs(root: Path, num: int, side: int = 100) -> Path:
    """Discs and squares, large enough to be taken for photographs."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side, :side] - side / 2
    for number in range(num):
        shape = (np.maximum(abs(x), abs(y)) if number % 2 else np.hypot(x, y)) < side * rng.uniform(0.2, 0.4)
        colours = rng.integers(0, 256, (2, 3))
        noise = rng.normal(0, 12, (side, side, 3))
        pixels = np.where(shape[:, :, None], colours[0], colours[1]) + noise
        place = root / ("disc", "square")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return root


def chosen(data: Path, said: Said | None = None, **wishes: Any) -> Choices:
    from convlens.training.warm_start import read_parent

    request = TrainRequest(data=data, **wishes).with_defaults()
    parent = None if request.start is None else read_parent(request.start)
    return choosing.choose(request, request.draft(parent), said or Said())


def test_photographs_are_tried_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large colour pictures: a head on the pretrained network against a training from nothing, on held-out images; the
    better one is taken, and both are said."""
    data, said = photographs(tmp_path / "data", 60), Said()
    pick = chosen(data, said, size=96)
    tried = [line for line in said.lines if line.strip().startswith("tried")]
    assert len(tried) >= 2 and "pretrained, 96 px" in tried[0] and "from nothing, 64 px" in tried[1]
    losses = [float(line.rpartition(" ")[2]) for line in tried[:2]]
    assert (pick.draft.parent is not None) is (losses[0] <= losses[1])
    for better in (True, False):
        monkeypatch.setattr(pretrained, "_why_pretrained", lambda *_, why="it is" if better else None: why)
        one = chosen(data, said, size=96)
        assert (one.draft.parent is not None) is better
        assert (one.draft.recipe.head == "logistic") is better
        assert any("starts from efficientnet-lite0" in line for line in one.reasons) is better


def test_too_few_to_try_both(tmp_path: Path) -> None:
    """A picture a class: none can be held out, so that nothing is tried, and nothing said of what was better."""
    pick = chosen(photographs(tmp_path / "data", 2), size=96)
    assert pick.draft.parent is not None and any("too few to hold any out" in line for line in pick.reasons)
    assert not any("nan" in line or "better" in line for line in pick.reasons)
    alone = chosen(photographs(tmp_path / "data", 2), parent="none", augment="none")
    assert not any("nan" in line for line in alone.reasons)


@pytest.mark.parametrize(
    "wishes", [{"parent": "none"}, {"channels": 1}, {"framing": "ink", "channels": 1}, {"size": 32}], ids=str
)
def test_what_speaks_against_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any]) -> None:
    """`parent=none`, grey, ink or a small size asked for: no pretrained network is read."""
    monkeypatch.setattr(pretrained, "read_parent", lambda *_: pytest.fail("it is not asked for"))
    assert chosen(photographs(tmp_path / "data", 30), augment="none", time=20, **wishes).draft.parent is None


def test_small_pictures_are_tried_as_they_are(tmp_path: Path) -> None:
    """Some small colour pictures: enlarged for the pretrained network, against a training from nothing at their own
    size, and on all of them."""
    said = Said()
    chosen(photographs(tmp_path / "data", 60, side=40), said)
    tried = [line for line in said.lines if line.strip().startswith("tried")]
    assert "pretrained, 128 px" in tried[0] and "from nothing, 40 px" in tried[1]


@pytest.mark.parametrize("why", ["tiny", "many"])
def test_small_pictures_stay_with_small_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Pictures of a few pixels, and small ones of which there are many, are not enlarged for a pretrained network."""
    monkeypatch.setattr(pretrained, "read_parent", lambda *_: pytest.fail("they are small"))
    monkeypatch.setattr(pretrained, "MOST_SMALL", 20 if why == "many" else 10_000)
    data = photographs(tmp_path / "data", 30, side=24 if why == "tiny" else 64)
    assert chosen(data, augment="none").draft.parent is None


def test_preset_photo_asks_for_it(tmp_path: Path, workplace: Path) -> None:
    """preset=photo and parent=efficientnet-lite0 start from it without a trial, at a size that may be said; few
    pictures end with the head, which says so; the model keeps where its weights come from."""
    data = photographs(tmp_path / "data", 60)
    run = convlens.train(data, preset="photo", size=96, progress="none")
    recipe = Recipe.from_json(run.record.recipe)
    assert (recipe.freeze, recipe.epochs, recipe.head) == ("head", 0, "logistic")
    assert any("the head alone is fitted" in line for line in run.record.choices)
    assert not any("tried" in line for line in run.record.choices)
    card = read_model(run.model).card
    assert card.origin is not None and card.origin.name == LITE
    assert (card.input_spec.height, card.input_spec.framing, card.input_spec.mean) == (96, "stretch", (127.0,) * 3)
    assert run.record.learning_curve is not None and (run.path / "learning-curve.png").is_file()
    named = convlens.train(data, parent=LITE, size=96, recipe={"epochs": 0}, progress="none")
    assert named.record.recipe == run.record.recipe
    folds = convlens.train(data, preset="photo", size=96, folds=2, progress="none")
    assert folds.cross_validation is not None and folds.cross_validation.n == 60
    with pytest.raises(UsageError, match="starts from a pretrained network"):
        convlens.train(data, preset="photo", parent="none", progress="none")


def _asked(rate: Callable[..., float], found: list[float], *asked: Any) -> float:
    """The clock is asked, and decides nothing."""
    found.append(rate(*asked))
    return RATE


def test_enough_pictures_are_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pictures to learn from and to judge by, and time, the last stages are tuned; with less time, or none of
    these, the head alone is fitted, and why is said; what was said of the recipe is kept."""
    data = photographs(tmp_path / "data", 60)
    monkeypatch.setattr(pretrained, "LEAST_TO_TUNE", 20)
    monkeypatch.setattr(pretrained, "LEAST_TO_JUDGE", 3)
    rates: list[float] = []
    for name, rate in (("rate_of_outputs", rate_of_outputs), ("rate_of_tuning", rate_of_tuning)):
        monkeypatch.setattr(pretrained, name, partial(_asked, rate, rates))
    pick = chosen(data, preset="photo", size=96)
    recipe = pick.draft.recipe
    assert len(rates) == 3 and min(rates) > 1
    network = plan(parse(pick.draft.architecture), (3, 96, 96), 2)
    assert recipe.freeze == tuned_from(network, 1 / 3, 1 / 2) and recipe.epochs > 2 and recipe.patience == recipe.epochs
    assert recipe.flip and recipe.precision == "float32" and recipe.frozen_precision != "auto"
    assert chosen(data, preset="photo", size=96, augment="crop").draft.recipe.kinds[0].name == "crop"
    own = chosen(data, preset="photo", size=96, recipe={"epochs": 1, "freeze": "head"}).draft.recipe
    assert (own.epochs, own.freeze) == (1, "head")
    folds = chosen(data, preset="photo", size=96, folds=3)
    assert (folds.draft.recipe.epochs, folds.draft.recipe.patience) == (0, 0)
    assert any("with folds" in line for line in folds.reasons)
    short = chosen(data, preset="photo", size=96, time=2)
    assert short.draft.recipe.epochs == 0 and any("more time or room than there is" in line for line in short.reasons)


def test_places_to_tune_from() -> None:
    """As much of the work is still to come there as is asked for, and what is kept of an image is small."""
    for name in FAMILIES:
        network = plan(parse(family(name).sentence()), (3, family(name).side, family(name).side), 10)
        for low, high in ((1 / 3, 1 / 2), (1 / 2, 3 / 4)):
            at = network.index_of(tuned_from(network, low, high))
            left = sum(node.multiply_adds for node in network.nodes[at:]) / network.multiply_adds
            assert low <= left <= high, (name, left)


def test_size_follows_the_time() -> None:
    """The larger the folder and the shorter the time, the smaller the input, down to 96 pixels."""
    sides = [side_for(num, 100.0, 180.0) for num in (100, 5_000, 8_000, 12_000, 18_000, 100_000)]
    assert sides == sorted(sides, reverse=True) and (sides[0], sides[-1]) == (SIDES[0], SIDES[-1]) == (224, 96)
    assert side_for(100_000, 100.0, 36_000.0) == 224


def test_epochs_fill_the_time() -> None:
    """Views are paid for once, epochs each time; where not one fits there is none."""
    assert tuning_epochs(1_000, 100.0, 100.0, 100.0, 3) == 6
    assert tuning_epochs(1_000, 15.0, 100.0, 100.0, 3) == 0
    for seconds in (30.0, 60.0, 200.0):
        epochs = tuning_epochs(1_000, seconds, 100.0, 50.0, 3)
        assert 1_000 * (epochs / 100 + min(epochs, 3) / 50) <= seconds
