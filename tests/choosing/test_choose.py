"""What is chosen for data that nobody described, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.architecture import parse
from convlens.choosing import choose as choosing
from convlens.choosing.choose import Choices
from convlens.choosing.probe import material_of
from convlens.data.packed.headers import is_mostly_ink
from convlens.data.sources.recognise import open_source
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.request import TrainRequest
from tests.conftest import write_folders


class Said(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_a_folder_needs_no_options(folders: Path, workplace: Path) -> None:
    """train FOLDER alone: goes through, says and keeps each choice with its reason, leaves a picture of its inputs."""
    said = Said()
    run = convlens.train(folders, time=20, progress=said)
    assert run.status == "complete"
    reasons = run.record.choices
    for what in ("colour", "framing pad", "input 20×20 px", "network of preset natural", "augmentation", "batch 32"):
        assert any(line.startswith(what) and len(line) > len(what) + 8 for line in reasons), (what, reasons)
    assert set(reasons) <= set(said.lines)
    assert (run.path / "inputs.png").is_file()
    assert run.record.recipe["batch_size"] == 32
    again = convlens.train(resume=run.path, progress="none")
    assert again.record.choices == reasons


def test_what_is_said_is_not_chosen(folders: Path, workplace: Path) -> None:
    """Size, channels, framing, epochs, augmentation given by a person are kept."""
    run = convlens.train(
        folders,
        size=16,
        channels=1,
        framing="crop",
        augment="flip,cutout",
        progress="none",
        recipe={"epochs": 1, "batch_size": 8, "balance": "sampling"},
    )
    recipe, spec = Recipe.from_json(run.record.recipe), convlens.load(run).card.input_spec
    assert (spec.height, spec.channels, spec.framing) == (16, 1, "crop")
    assert (recipe.epochs, recipe.batch_size, recipe.balance) == (1, 8, "sampling")
    assert recipe.flip and recipe.cutout_frac and not recipe.shift_px and not recipe.crop_frac


def test_mnist_as_files_is_ink(tmp_path: Path) -> None:
    """Grey pictures that already are drawn as MNIST's are framed so later too."""
    images = convlens.pack("mnist").images("val")[:20]
    for i, image in enumerate(images):
        (tmp_path / "d" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(tmp_path / "d" / "ab"[i % 2] / f"{i}.png")
    assert is_mostly_ink(open_source(tmp_path / "d"), 64)
    assert not is_mostly_ink(open_source(write_folders(tmp_path / "other", 5)), 64)


def test_trials_never_see_test(folders: Path) -> None:
    """What trials learn from and are measured on is train and val, each image once, none of it test."""
    dataset = convlens.pack(folders)
    material = material_of(dataset)
    used = np.concatenate([material.rows, material.held_out])
    assert len(np.unique(used)) == len(used)
    assert not np.isin(used, dataset.rows("test")).any()
    assert set(used.tolist()) == {*dataset.rows("train").tolist(), *dataset.rows("val").tolist()}


def test_named_sets_take_a_time_and_augmentation_too(workplace: Path) -> None:
    """What is asked for is done for MNIST as well, whose preset stays what it is."""
    run = convlens.train("mnist", time=3, augment="crop", progress="none", stop=lambda: True)
    recipe = run.record.recipe
    assert recipe["crop_frac"] and not recipe["shift_px"] and recipe["epochs"] < 1
    assert run.record.architecture == str(parse(convlens.PRESETS["standard"].architecture))


def test_wrong_wishes_are_found_before_anything_is_packed(folders: Path, workplace: Path) -> None:
    """A preset, recipe, seed or setting that cannot be is refused at once, in one line, and no folder is packed."""
    from convlens.errors import ConvlensError
    from convlens.files import cache_folder

    before = sorted((cache_folder() / "packed").glob("*"))
    wishes: list[dict[str, Any]] = [
        {"preset": "natrual"},
        {"recipe": "adam"},
        {"seed": -1},
        {"seed": 1.5},
        {"recipe": {"lr": -1}},
        {"recipe": {"nothing": 1}},
        {"augment": "flop"},
        {"time": "soon"},
        {"architecture": "conv("},
    ]
    for wish in wishes:
        with pytest.raises(ConvlensError):
            convlens.train(folders, progress="none", **wish)
    assert sorted((cache_folder() / "packed").glob("*")) == before


def test_choices_depend_on_the_data_and_the_rate_alone(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under one rate of images a second the same is chosen, word for word; a machine that is half as fast gets half the
    epochs in the same time, and everything else alike."""

    def chosen(rate: float) -> Choices:
        monkeypatch.setattr(choosing, "rate_of", lambda *_, **__: rate)
        request = TrainRequest(data=folders, time="10s", augment="none").with_defaults()
        return choosing.choose(request, request.draft(None), Progress())

    first, again, slower = chosen(200.0), chosen(200.0), chosen(100.0)
    assert first.draft == again.draft and first.reasons == again.reasons
    assert slower.draft.recipe.epochs == pytest.approx(first.draft.recipe.epochs / 2, abs=1)
    same = first.draft.recipe.replace(epochs=1), slower.draft.recipe.replace(epochs=1)
    assert same[0] == same[1] and first.draft.options == slower.draft.options
