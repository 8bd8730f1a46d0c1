"""What `train FOLDER` chooses by itself, and what people say instead."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import convlens
from convlens.architecture import parse, plan
from convlens.augmentation import TRIED, parse_augment
from convlens.choosing.augmenting import _DESIGN, _main_effects, effects
from convlens.choosing.budget import EPOCHS, batch_size_for, epochs_for, epochs_within
from convlens.choosing.previews import is_grey_inside
from convlens.choosing.probe import images_in, material_of
from convlens.choosing.sizes import Tried, best_of
from convlens.data.packed.headers import is_mostly_ink
from convlens.data.sources.recognise import open_source
from convlens.errors import UsageError
from convlens.network.compute import resolve_compute
from convlens.presets import NATURAL, natural_for
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.request import TrainRequest, parse_time
from convlens.training.trial import Trial
from tests.conftest import write_folders

TINY_COLOUR = (
    "conv(8, 3, padding=1, bias=False) batchnorm relu maxpool(2) conv(16, 3, padding=1) relu globalmaxpool "
    "flatten linear(classes)"
)


class Said(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def hands(root: Path, num: int = 60) -> Path:
    """Left and right hands: thumbs on one side or the other. Mirroring makes one of them the other."""
    rng = np.random.default_rng(4)
    for label in ("left", "right"):
        (root / label).mkdir(parents=True)
        for i in range(num):
            image = Image.new("RGB", (24, 24), tuple(int(v) for v in rng.integers(0, 60, 3)))
            draw, colour = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(150, 255, 3))
            x, y = (int(v) for v in rng.integers(7, 10, 2))
            draw.rectangle((x, y, x + 7, y + 9), fill=colour)
            thumb = (x + 8, y + 5, x + 11, y + 7) if label == "left" else (x - 4, y + 5, x - 1, y + 7)
            draw.rectangle(thumb, fill=colour)
            image.save(root / label / f"{i}.png")
    return root


def test_a_folder_needs_no_options(folders: Path, workplace: Path) -> None:
    """train FOLDER alone: goes through, says and keeps each choice with its reason, leaves a picture of its inputs."""
    said = Said()
    run = convlens.train(folders, time=20, progress=said)
    assert run.status == "complete"
    reasons = run.record["choices"]
    for what in ("colour", "framing pad", "input 20×20 px", "preset natural", "augmentation", "batch 32"):
        assert any(line.startswith(what) and len(line) > len(what) + 8 for line in reasons), (what, reasons)
    assert set(reasons) <= set(said.lines)
    assert (run.path / "inputs.png").is_file()
    assert run.record["recipe"]["batch_size"] == 32
    again = convlens.train(resume=run.path, progress="none")
    assert again.record["choices"] == reasons


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
    recipe, spec = Recipe.from_json(run.record["recipe"]), convlens.load(run).card.input_spec
    assert (spec.height, spec.channels, spec.framing) == (16, 1, "crop")
    assert (recipe.epochs, recipe.batch_size, recipe.balance) == (1, 8, "sampling")
    assert recipe.flip and recipe.cutout_frac and not recipe.shift_px and not recipe.crop_frac


def test_mirroring_is_refused_where_it_hurts(tmp_path: Path) -> None:
    """Left and right hands: the trial shows that flips are harmful, and they are left out."""
    dataset = convlens.pack(hands(tmp_path / "hands"))
    network = plan(parse(TINY_COLOUR), dataset.input_spec.shape, 2)
    recipe = Recipe(lr=0.02, epochs=12, batch_size=16, precision="float32")
    tried = TrainingPlan(
        dataset=dataset, network=network, recipe=recipe, seed=0, compute=resolve_compute("cpu", "float32")
    )
    found = {e.kind: e for e in effects(material_of(dataset), tried, Progress())}
    assert found["flip"].loss > 0 and not found["flip"].helps
    assert found["flip"].loss > 2 * max(abs(e.loss) for kind, e in found.items() if kind in ("shift", "cutout"))


def test_main_effects_are_what_was_put_in() -> None:
    """The design of eight trainings gives each kind's own effect back, clear of interactions of two."""
    rng = np.random.default_rng(0)
    truth = dict(zip(TRIED, (-0.3, 0.2, 0.0, -0.1), strict=True))
    base = rng.normal(1, 0.3, 400)
    losses = np.stack(
        [
            base
            + sum(truth[k] for k, on in zip(TRIED, row, strict=True) if on)
            + 0.5 * (row[0] and row[1])
            + rng.normal(0, 0.01, 400)
            for row in _DESIGN
        ]
    )
    found = {e.kind: e for e in _main_effects(losses, (losses < 1).astype(np.float64))}
    for kind, effect in truth.items():  # the interaction of flip and shift adds half of itself to both
        expected = effect + (0.25 if kind in ("flip", "shift") else 0)
        assert abs(found[kind].loss - expected) < 0.01
    assert found["flip"].standard_error > 0.1, "what interacts shows in the contrasts that are left over"


def test_the_design_is_balanced() -> None:
    """Each kind is on in four of the eight trainings, and each pair of kinds in two."""
    signs = np.where(np.array(_DESIGN), 1, -1)
    assert np.array_equal(signs.T @ signs, 8 * np.eye(4, dtype=int))


def trial(losses: list[float]) -> Trial:
    values = np.array(losses)
    return Trial(np.zeros((len(losses), 2), np.float32), values, values < 0.7, 1000.0)


def test_the_smallest_size_that_is_not_clearly_worse_is_taken() -> None:
    """A larger input must be better by more than a standard error of the paired difference."""
    rng = np.random.default_rng(1)
    base = rng.normal(0.6, 0.2, 100)
    same, better = base + rng.normal(0, 0.2, 100), base - 0.3
    assert best_of([Tried(32, trial(base.tolist()), 1), Tried(64, trial(same.tolist()), 4)]).side == 32
    assert best_of([Tried(32, trial(base.tolist()), 1), Tried(64, trial(better.tolist()), 4)]).side == 64


def test_grey_inside_colour_is_seen(tmp_path: Path) -> None:
    """Colour files without colour are grey; one coloured picture among them is enough to keep colour."""
    for i in range(6):
        (tmp_path / "d" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).convert("RGB").save(
            tmp_path / "d" / "ab"[i % 2] / f"{i}.jpg"
        )
    assert is_grey_inside(open_source(tmp_path / "d"))
    Image.new("RGB", (20, 20), (200, 30, 30)).save(tmp_path / "d" / "a" / "red.png")
    assert not is_grey_inside(open_source(tmp_path / "d"))


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


def test_the_split_does_not_depend_on_the_size(tmp_path: Path) -> None:
    """The same pictures are test at every size, framing and number of channels: a probe of sizes cannot peek."""
    from tests.test_doctor import scene

    for i in range(60):
        (tmp_path / "d" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        scene(i, 300).save(tmp_path / "d" / "ab"[i % 2] / f"{i}.{'jpg' if i % 3 else 'png'}")
    seen = []
    for options in (
        {"size": 16},
        {"size": 200},
        {"size": 48, "channels": 1, "framing": "crop"},
        {"size": 32, "region": "10,10,200,200"},
    ):
        dataset = convlens.pack(tmp_path / "d", **options)
        names = dataset.sample_names()
        seen.append({split: {names[row] for row in dataset.rows(split)} for split in ("train", "val", "test")})
    assert all(a == b for a, b in pairwise(seen))
    assert seen[0]["test"]


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


@pytest.mark.parametrize("side", [1, 3, 7, 8, 20, 30, 48, 49, 64, 128, 224, 400])
def test_natural_takes_every_size(side: int) -> None:
    """The sentence fits inputs of any size, and costs about as much at each."""
    found = plan(parse(natural_for(side, side)), (3, side, side), 8)
    assert found.multiply_adds < 120e6


def test_time_is_kept(folders: Path, workplace: Path) -> None:
    """--time becomes epochs before the first step; a run that says epochs itself keeps them."""
    run = convlens.train(folders, time="6s", augment="none", architecture=TINY_COLOUR, progress="none")
    assert 1 < run.record["recipe"]["epochs"] <= 4 * 60
    kept = convlens.train(folders, time="6s", recipe={"epochs": 2}, architecture=TINY_COLOUR, progress="none")
    assert kept.record["recipe"]["epochs"] == 2


def test_named_sets_take_a_time_and_augmentation_too(workplace: Path) -> None:
    """What is asked for is done for MNIST as well, whose preset stays what it is."""
    run = convlens.train("mnist", time=3, augment="crop", progress="none", stop=lambda: True)
    recipe = run.record["recipe"]
    assert recipe["crop_frac"] and not recipe["shift_px"] and recipe["epochs"] != 7
    assert run.record["architecture"] == str(parse(convlens.PRESETS["standard"].architecture))


def test_a_time_is_shared_by_all_trainings(folders: Path, workplace: Path) -> None:
    """Seeds and folds divide the time between them."""
    from convlens.choosing.choose import _Choosing

    dataset = convlens.pack(folders)

    def epochs(**said: Any) -> float:
        request = TrainRequest(data=dataset, architecture=TINY_COLOUR, time=60, **said).with_defaults()
        return _Choosing(request, request.draft(None), Progress()).epochs_in_budget(dataset, 10.0)

    alone, shared = epochs(), epochs(folds=5)
    assert alone == pytest.approx(6 * shared, rel=0.05)


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


def test_augmentation_that_is_set_stays(workplace: Path) -> None:
    """--set shift_px=3 is kept, whatever the trial says of shifts."""
    data = hands(workplace / "hands")
    run = convlens.train(data, time=8, recipe={"shift_px": 3}, progress="none", stop=lambda: True)
    assert run.record["recipe"]["shift_px"] == 3
    assert any(line.startswith("  tried shift") for line in run.record["choices"])
