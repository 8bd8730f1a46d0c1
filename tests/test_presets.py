"""The presets: what they are, and which images they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convlens.architecture import parse, plan
from convlens.cli import main
from convlens.errors import SentenceError, UsageError
from convlens.presets import PRESETS, natural_for, preset_named
from tests.helpers import FROM_NOTHING


@pytest.mark.parametrize("preset", FROM_NOTHING)
def test_a_preset_says_what_images_it_needs(preset: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images too small for it: one line with the sizes that it takes, exit code 2, no run."""
    rng = np.random.default_rng(0)
    np.savez("small.npz", x=rng.integers(0, 255, (60, 3, 3), dtype=np.uint8), y=np.arange(60) % 3)
    assert main(["train", "small.npz", "--preset", preset]) == 2
    error = capsys.readouterr().err
    assert f"preset '{preset}' cannot take images of 3×3 pixels with 1 channel: it needs" in error
    needed = int(error.partition("it needs ")[2].partition("×")[0])
    fits = plan(parse(PRESETS[preset].architecture), (1, needed, needed), 3)
    assert fits.num_parameters and not Path("runs").exists()
    with pytest.raises(SentenceError):
        plan(parse(PRESETS[preset].architecture), (1, needed - 1, needed - 1), 3)


@pytest.mark.parametrize("side", [1, 3, 7, 8, 20, 30, 48, 49, 64, 128, 224, 400])
def test_natural_takes_every_size(side: int) -> None:
    """The sentence fits inputs of any size, and costs about as much at each."""
    found = plan(parse(natural_for(side, side)), (3, side, side), 8)
    assert found.multiply_adds < 120e6


def test_presets_fit_mnist_and_are_named() -> None:
    """Each preset's sentence is canonical and fits MNIST; an unknown name gets the nearest."""
    for preset in map(PRESETS.__getitem__, FROM_NOTHING):
        assert str(parse(preset.architecture)) == preset.architecture
        assert plan(parse(preset.architecture), (1, 28, 28), 10).num_parameters > 0
    assert all(preset.about and "%" in preset.expected for preset in PRESETS.values())
    with pytest.raises(UsageError, match="did you mean 'standard'"):
        preset_named("standart")


def test_the_tutorial_preset_is_the_tutorial() -> None:
    """Adam at a constant 0.01, batches of 200, ten epochs, float32, and the published network."""
    preset = PRESETS["tutorial"]
    recipe = preset.recipe
    assert (recipe.optimizer, recipe.lr, recipe.betas, recipe.schedule) == ("adam", 0.01, (0.9, 0.999), "constant")
    assert (recipe.batch_size, recipe.epochs, recipe.precision, recipe.weight_decay) == (200, 10, "float32", 0)
    assert recipe.shift_px == 0 and not recipe.flip and not recipe.ema and not recipe.label_smoothing
    assert {recipe.lr_at(step, 3000) for step in range(3000)} == {0.01}
