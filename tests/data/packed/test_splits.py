"""Splits: which image is held out, and that growing moves none."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import convlens
from convlens.data.packed.dataset import Dataset, in_split
from convlens.data.packed.pack import open_data, pack
from convlens.errors import DataError
from tests.conftest import write_folders
from tests.helpers import folder, read_lines, splits


def test_the_split_does_not_depend_on_the_size(tmp_path: Path) -> None:
    """The same pictures are test at every size, framing and number of channels: a probe of sizes cannot peek."""
    from tests.helpers import scene

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


def test_validation_depends_on_each_image_alone(arrays: Any) -> None:
    """Reversing the order, or adding images, moves no image between train and validation."""
    x, y, x_test, y_test = arrays
    small = open_data((x[:200], y[:200], x_test, y_test))
    large = open_data((x[::-1], y[::-1], x_test, y_test))
    val_small = {image.tobytes() for image in small.images("val")}
    val_large = {image.tobytes() for image in large.images("val")}
    first = {image.tobytes() for image in x[:200]}
    assert val_small and val_small == val_large & first


def test_a_growing_folder_moves_no_picture(tmp_path: Path) -> None:
    """Pictures added later leave test, validation and training members where they were."""
    root = write_folders(tmp_path / "grow", 25)
    before = split_of(pack(root))
    rng = np.random.default_rng(3)
    for label in ("circle", "square"):
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(root / label / f"new{i}.png")
    after = split_of(pack(root))
    assert len(after) == len(before) + 40
    assert {path: after[path] for path in before} == before


def split_of(dataset: Dataset) -> dict[str, str]:
    return {line["path"]: line["split"] for line in read_lines(dataset.folder / "samples.jsonl")}


def test_equal_pictures_never_straddle_a_split_we_make(tmp_path: Path) -> None:
    """Copies of a picture, under any name and class, all land on one side of test and of validation."""
    root = write_folders(tmp_path / "copies", 20)
    for path in sorted((root / "circle").glob("*.png")):
        (root / "circle" / f"copy-{path.name}").write_bytes(path.read_bytes())
        Image.open(path).save(root / "square" / f"bmp-{path.stem}.bmp")
    dataset = pack(root)
    sides: dict[int, set[str]] = {}
    for split in ("train", "val", "test"):
        for key in dataset.pixel_keys(split):
            sides.setdefault(int(key), set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert dataset.counts["test"] > 0 and dataset.counts["val"] > 0


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3)), min_size=1, max_size=60), st.floats(0.01, 0.9))
def test_lowest_share(samples: list[tuple[int, int]], share: float) -> None:
    """Equal draws go together; a class with two different draws is never wholly in or out by itself, one with a single
    draw stays outside."""
    draws = np.array([d for d, _ in samples], np.uint64)
    labels = np.array([k for _, k in samples], np.int64)
    inside = in_split(draws, labels, share)
    for draw in np.unique(draws):
        assert len(set(inside[draws == draw])) == 1
    for label in np.unique(labels):
        own = labels == label
        tied = np.isin(draws[own], draws[~own]).any()  # what another class decides comes along
        assert inside[own].any() or len(np.unique(draws[own])) == 1 or tied
        assert not inside[own].all() or tied


@pytest.mark.parametrize("last", [True, False])
def test_a_class_with_one_group_stays_outside(last: bool) -> None:
    """Whatever the order of the classes, and although another class has that group too; the other class then gives
    another group of its own."""
    high, higher = 2**64 - 9, 2**64 - 5
    draws = np.array([high, high, high, higher], np.uint64)
    labels = np.array([1, 0, 0, 0] if last else [0, 1, 1, 1])
    assert in_split(draws, labels, 0.2).tolist() == [False, False, False, True]


def test_groups_move_as_one(tmp_path: Path) -> None:
    """With --group parent, all pictures of a part are in one split; with a pattern too."""
    root = tmp_path / "parts"
    rng = np.random.default_rng(0)
    for label in ("good", "bad"):
        for part in range(15):
            folder = root / label / f"{label}{part}"
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    for group in ("parent", r"/((?:good|bad)\d+)/"):
        sides: dict[str, set[str]] = {}
        dataset = pack(root, group=group)
        for line in read_lines(dataset.folder / "samples.jsonl"):
            sides.setdefault(line["group"], set()).add(line["split"])
        assert len(sides) == 30 and all(len(found) == 1 for found in sides.values())
        val = set(dataset.rows("val"))
        lines = read_lines(dataset.folder / "samples.jsonl")
        assert val
        for group_name in sides:
            rows = {i for i, line in enumerate(lines) if line["group"] == group_name}
            assert rows <= val or not rows & val
    for pattern in ("nothing-like-it", r"(only-sometimes)?"):
        with pytest.raises(DataError, match="does not match"):
            pack(root, group=pattern)
    with pytest.raises(DataError, match="no regular expression"):
        pack(root, group="(")
    with pytest.raises(DataError, match="directly in its class folder"):
        pack(write_folders(tmp_path / "flat", 3), group="parent")


def test_groups_that_share_a_picture_are_one(tmp_path: Path) -> None:
    """Equal pixels in two groups bring both groups to the same side of every split."""
    root = tmp_path / "parts"
    rng = np.random.default_rng(0)
    shared_pictures = [rng.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(12)]
    for label in ("good", "bad"):
        for part in range(24):
            folder = root / label / f"{label}{part}"
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / "own.png")
            if label == "good":  # two parts each have the same picture
                Image.fromarray(shared_pictures[part // 2]).save(folder / "shared.png")
    dataset = pack(root, group="parent")
    keys = {split: set(dataset.pixel_keys(split).tolist()) for split in ("train", "val", "test")}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["val"] and not keys["val"] & keys["test"]
    assert dataset.counts["test"] and dataset.counts["val"]


def test_a_split_that_came_with_the_data_keeps_its_boundary(tmp_path: Path) -> None:
    """train/ valid/ test/ are used as they are, overlaps are counted and said, val_frac 0 trains on val too."""
    root = write_folders(tmp_path / "own", 10, splits=("train", "valid", "test"))
    (root / "test" / "circle" / "leak.png").write_bytes((root / "train" / "circle" / "000.png").read_bytes())
    dataset = pack(root)
    assert dataset.counts == {"train": 20, "val": 20, "test": 21}
    assert any(note.startswith("1 of the 21 test images are, pixel for pixel, in train") for note in dataset.notes)
    assert dataset.with_val_frac(0).counts == {"train": 40, "val": 0, "test": 21}


def test_added_pictures_move_no_old_one(tmp_path: Path) -> None:
    """A folder that grows from 80 to 200 pictures, and by a class: every old picture stays in its split."""
    root = folder(tmp_path / "data", range(80))
    before = splits(convlens.pack(root))
    folder(root, range(1000, 1120))
    folder(root, range(2000, 2040), ("wasp",))
    after = splits(convlens.pack(root))
    assert len(after) == 240
    assert {name: after[name] for name in before} == before
    assert {split for name, split in after.items() if name.startswith("wasp/")} == {"train", "val", "test"}
