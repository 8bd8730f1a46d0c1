"""Classes that can be told without looking at what is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import convlens
from convlens.doctor.shortcuts import shortcut
from tests.helpers import scene


def _exif(camera: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = camera
    return exif


Save = Callable[[Image.Image, Path, bool, int], Any]


def _as_format(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    image.save(path.with_suffix(".png" if is_first else ".bmp"))


def _as_quality(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    image.save(path.with_suffix(".jpg"), quality=95 if is_first else 60)


def _as_size(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    image.resize((60 + number % 7, 60 if is_first else 80)).save(path.with_suffix(".png"))


def _as_camera(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    image.save(path.with_suffix(".jpg"), quality=90, exif=_exif("A" if is_first else "B"))


def _as_border(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    ImageOps.expand(image, 6, (250, 250, 250) if is_first else (20, 20, 20)).save(path.with_suffix(".png"))


def _alike(image: Image.Image, path: Path, is_first: bool, number: int) -> None:
    image.save(path.with_suffix(".png"))


PLANTED: dict[str, tuple[Save, str]] = {
    "format": (_as_format, "format"),
    "quality": (_as_quality, "JPEG quality"),
    "size": (_as_size, "height"),
    "camera": (_as_camera, "camera"),
    "border": (_as_border, "border"),
}


def _set(root: Path, save: Save, num: int = 30) -> Path:
    for number in range(2 * num):
        label = "ab"[number % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        save(scene(number).convert("RGB").resize((64, 64)), root / label / f"{number}", label == "a", number)
    return root


@pytest.mark.parametrize("name", PLANTED)
def test_planted_shortcuts_are_found(name: str, tmp_path: Path) -> None:
    """Classes that differ in format, compression, size, camera or border: a warning that names what gives them away."""
    save, feature = PLANTED[name]
    found = [f for f in convlens.check(_set(tmp_path / "data", save), progress="none").findings if f.kind == "shortcut"]
    assert found and any(feature in one.title for one in found), [one.title for one in found]


def test_sound_pictures_have_none(tmp_path: Path) -> None:
    """The same scenes saved alike: nothing gives the class away."""
    root = _set(tmp_path / "data", _alike)
    assert "shortcut" not in {f.kind for f in convlens.check(root, progress="none").findings}


def test_what_chance_gives_is_none() -> None:
    """Of 200 random features over 60 samples, cross-validated, none is a shortcut; one that is the label is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = {f"x{k}": rng.normal(size=60) for k in range(200)}
    found = shortcut(features, labels)
    assert found is not None and not found.is_one
    told = shortcut(features | {"told": labels + rng.normal(scale=0.01, size=60)}, labels)
    assert told is not None and told.is_one and told.features[0] == "told" and told.accuracy > 0.9
    assert shortcut({"x": np.zeros(60)}, labels) is None and shortcut(features, labels[:10]) is None
