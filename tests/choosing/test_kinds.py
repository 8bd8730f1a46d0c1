"""What kind of pictures these are, and whether they have a left and an up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import convlens
from convlens.choosing import choose as choosing
from convlens.choosing.kinds import COLOUR, DRAWN, GREY, augmentation_for, found_in, kind_of, parted
from convlens.data.image.ink import is_drawing
from convlens.training.request import TrainRequest
from tests.choosing.test_choose import Said

NAMES = ("a", "b", "c")
LABELS = np.repeat(np.arange(3), 100)


def hands(root: Path, num: int = 100) -> Path:
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


def cells(root: Path, num: int = 150) -> Path:
    """Rings and discs in random places, as under a microscope: nothing is up, nothing left."""
    rng = np.random.default_rng(5)
    for label in ("disc", "ring"):
        (root / label).mkdir(parents=True)
        for i in range(num):
            image = Image.new("RGB", (24, 24), (230, 200, 220))
            x, y, r = (int(v) for v in rng.integers((5, 5, 3), (19, 19, 6)))
            colour = tuple(int(v) for v in rng.integers(40, 140, 3))
            fill = colour if label == "disc" else None
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=colour)
            image.save(root / label / f"{i}.png")
    return root


def shoes(root: Path, num: int = 100) -> Path:
    """Shoes that all point left, high and low ones, and bags: mirrored ones look unlike any of them, so
    that a network which never saw such takes them for something, but none becomes another."""
    rng = np.random.default_rng(6)
    for label in ("high", "low", "bag"):
        (root / label).mkdir(parents=True)
        for i in range(num):
            image = Image.new("L", (24, 24), int(rng.integers(0, 40)))
            draw, grey = ImageDraw.Draw(image), int(rng.integers(150, 255))
            x, y = (int(v) for v in rng.integers(0, 3, 2))
            if label == "bag":
                draw.rectangle((x + 4, y + 6, x + 17, y + 17), fill=grey)
            else:
                draw.rectangle((x + 2, y + 14, x + 19, y + 18), fill=grey)
                draw.rectangle((x + 12, y + (5 if label == "high" else 11), x + 19, y + 14), fill=grey)
            image.save(root / label / f"{i}.png")
    return root


def recipe_for(data: Path, said: Said, **wishes: Any) -> Any:
    request = TrainRequest(data=data, device="cpu", recipe={"precision": "float32"}, **wishes).with_defaults()
    return choosing.choose(request, request.draft(None), said).draft.recipe


def test_hands_are_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrored left hands are taken for right ones: no flips, though colour pictures are usually mirrored; it is said
    which class is taken for which."""
    monkeypatch.setattr(choosing, "rate_of", lambda *_, **__: 2_000.0)
    said = Said()
    recipe = recipe_for(hands(tmp_path / "hands"), said)
    assert not recipe.flip and not recipe.quarter_turns and recipe.shift_px
    assert any("not mirrored" in line and "is taken for" in line for line in said.lines)


@pytest.mark.slow
def test_where_nothing_is_up_pictures_are_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned cells are recognised as well as upright ones: quarter turns and flips."""
    monkeypatch.setattr(choosing, "rate_of", lambda *_, **__: 2_000.0)
    said = Said()
    recipe = recipe_for(cells(tmp_path / "cells"), said)
    assert recipe.flip and recipe.quarter_turns, said.lines


def answers(*shares: float) -> list[np.ndarray[Any, Any]]:
    """Answers of which so many of each class are right, the others the next class."""
    place = np.tile(np.arange(100), 3)
    return [np.where(place < 100 * share, LABELS, (LABELS + 1) % 3) for share in shares]


def test_what_a_trial_says() -> None:
    """Alike whichever way round: mirrored and turned. Mirrored worse: the prior, but for a class that is taken for
    another. A network at chance: the prior, and that it says nothing."""
    alike = found_in(answers(0.9, 0.9, 0.9), LABELS, NAMES)
    assert alike.mirrors_as_well and alike.turns_as_well and not alike.taken
    assert augmentation_for(COLOUR, alike)[0] == ["shift", "flip", "turn"]
    scattered = answers(0.9, 0.6, 0.5)
    scattered[1] = np.where(scattered[1] == LABELS, LABELS, (LABELS + 1 + np.arange(300) % 2) % 3)
    worse = found_in(scattered, LABELS, NAMES)
    assert not worse.mirrors_as_well and not worse.turns_as_well and not worse.taken
    assert augmentation_for(GREY, worse)[0] == ["shift", "flip"]
    assert augmentation_for(DRAWN, worse)[0] == ["shift", "affine"]
    hands = found_in(answers(0.9, 0.2, 0.5), LABELS, NAMES)
    assert hands.taken == (("a", "b"), ("b", "c"), ("c", "a"))
    for kind in (COLOUR, GREY, DRAWN):
        assert "flip" not in augmentation_for(kind, hands)[0]
    chance = found_in(answers(0.34, 0.2, 0.34), LABELS, NAMES)
    assert not chance.is_telling and not chance.taken
    names, why = augmentation_for(COLOUR, chance)
    assert names == ["shift", "flip"] and "says nothing" in why
    assert "too few" in augmentation_for(COLOUR, None)[1]


def test_what_mirrored_pictures_teach_decides() -> None:
    """Of a pair of which one is taken for the other once mirrored: where a training with flips mistakes them for each
    other hardly more often it may be mirrored, said; where it mistakes them they stay, whatever else it gets wrong."""
    before, mirrored, turned = answers(0.9, 0.2, 0.5)
    found = found_in([before, mirrored, turned], LABELS, NAMES)
    apart = parted(found, before, LABELS, LABELS, NAMES)
    assert not apart.taken and apart.told_apart == found.taken
    names, why = augmentation_for(GREY, apart)
    assert names == ["shift", "flip"] and "apart all the same" in why
    assert "flip" not in augmentation_for(DRAWN, apart)[0]
    some, every = np.arange(300) % 2 == 0, np.arange(300)
    mixed = np.where((LABELS == 0) & some, 1, np.where((LABELS == 2) & (every % 10 == 0), 0, LABELS))
    left = parted(found, before, mixed, LABELS, NAMES)
    assert left.taken == (("a", "b"),) and "flip" not in augmentation_for(GREY, left)[0]
    nothing = parted(found, before, np.full(300, 2), LABELS, NAMES)
    assert nothing.taken == found.taken, "a network that knows nothing tells nothing apart"
    labels = np.repeat([0, 1, 2], [200, 10, 200])  # every one of the small class is taken for the large one
    few = parted(replace(found, taken=(("a", "b"),)), labels, np.where(labels == 1, 0, labels), labels, NAMES)
    assert few.taken


@pytest.mark.slow
def test_shoes_that_point_left_are_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever mirrored shoes are taken for, no class becomes another: flips stay, as is usual for grey things."""
    monkeypatch.setattr(choosing, "rate_of", lambda *_, **__: 2_000.0)
    said = Said()
    assert recipe_for(shoes(tmp_path / "shoes"), said).flip and any("apart all the same" in line for line in said.lines)


def test_drawings_are_told_from_things() -> None:
    """Strokes on an even ground are drawings, in whichever polarity; filled outlines and textures are not."""
    digits = convlens.pack("mnist").images("val")[:100][:, :, :, 0]
    assert np.mean([is_drawing(image) for image in digits]) > 0.9
    assert np.mean([is_drawing(255 - image) for image in digits]) > 0.9
    shirt = np.zeros((28, 28), np.uint8)
    shirt[3:25, 6:22] = 180
    texture = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    assert not is_drawing(shirt) and not is_drawing(texture) and not is_drawing(np.zeros((28, 28), np.uint8))


def test_kinds_of_sets(folders: Path) -> None:
    """MNIST is drawn, colour is colour."""
    assert kind_of(convlens.pack("mnist")) is DRAWN
    assert kind_of(convlens.pack(folders)) is COLOUR


def test_augmentation_that_is_set_stays(workplace: Path) -> None:
    """--set shift_px=3 is kept, whatever is usual."""
    data = hands(workplace / "hands", 30)
    run = convlens.train(data, time=8, recipe={"shift_px": 3}, progress="none", stop=lambda: True)
    assert run.record.recipe["shift_px"] == 3
    assert any(line.startswith("augmentation") for line in run.record.choices)
