"""Packing: what is kept, what is quarantined, when it is done anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.pack import open_data, pack
from convlens.errors import ConvlensError, DataError, RunError
from tests.conftest import QUICK, TINY, write_folders
from tests.helpers import read_lines


def test_a_broken_picture_is_quarantined_and_counted(folders: Path) -> None:
    """Each unreadable file is written down with its reason; seen + quarantined = expected; no label moves."""
    broken = {
        "zero.png": b"",
        "text.jpg": b"this is no picture",
        "cut.png": (folders / "circle" / "000.png").read_bytes()[:60],
        "photo.heic": b"\0\0\0\x18ftypheic" + b"\0" * 40,
    }
    for name, data in broken.items():
        (folders / "circle" / name).write_bytes(data)
    dataset = pack(folders)
    lines = read_lines(dataset.folder / "samples.jsonl")
    quarantined = {line["path"].rpartition("/")[2]: line["reason"] for line in lines if line["status"] == "quarantined"}
    assert quarantined.keys() == broken.keys()
    assert "empty" in quarantined["zero.png"] and "HEIC" in quarantined["photo.heic"]
    assert dataset.num_quarantined == 4 and sum(dataset.counts.values()) == 60 == len(lines) - 4
    labels = np.concatenate([dataset.labels("train"), dataset.labels("val")])
    images = np.concatenate([dataset.images("train"), dataset.images("val")])
    by_hash = {line["pixels_sha256"]: line["label"] for line in lines if line["status"] == "ok"}
    import hashlib

    for image, label in zip(images, labels, strict=True):
        assert by_hash[hashlib.sha256(image.tobytes()).hexdigest()] == dataset.class_names[label]


def test_sizes_and_channels_are_as_found(tmp_path: Path) -> None:
    """One size everywhere: that size; else 32. All grey: one channel. Options win."""
    root = write_folders(tmp_path / "a", 5, side=24)
    assert pack(root).input_spec.shape == (3, 24, 24)
    assert pack(root, size="16x20", channels=1).input_spec.shape == (1, 16, 20)
    Image.new("L", (40, 10)).save(root / "circle" / "other.png")
    assert pack(root).input_spec.shape == (3, 32, 32)
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert pack(root).input_spec.channels == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (None, (12, 12, 1)),
        (Image.new("L", (12, 11), 9), (32, 32, 1)),
        (Image.new("RGB", (12, 12), (1, 2, 3)), (12, 12, 3)),
        ("cut", (32, 32, 1)),
    ],
)
def test_one_of_many_pictures_is_otherwise(tmp_path: Path, other: Image.Image | str | None, expected: Any) -> None:
    """Of many pictures only some headers are read before packing; one that is not among them, of another size or in
    colour, or broken with a header of another size, still decides."""
    for number in range(700):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 12), 20 + number % 200).save(folder / f"{number:03}.jpg")
    path = tmp_path / "data" / "a" / "002.jpg"  # the second: every second one is looked at
    if isinstance(other, Image.Image):
        other.save(path)
    elif other is not None:
        Image.effect_noise((30, 30), 90).save(path)
        path.write_bytes(path.read_bytes()[:-40])
    dataset = pack(tmp_path / "data", tmp_path / "out")
    spec = dataset.input_spec
    assert (spec.height, spec.width, spec.channels) == expected
    assert len(dataset) == 700 - (other == "cut")


def test_a_changed_folder_is_packed_anew_and_an_unchanged_one_is_not(folders: Path) -> None:
    """The cache notices an added, removed or rewritten file, and a changed option."""
    first = pack(folders)
    assert pack(folders).folder == first.folder
    (folders / "circle" / "000.png").write_bytes((folders / "square" / "000.png").read_bytes())
    os.utime(folders / "circle" / "000.png", ns=(1, 1))
    assert pack(folders).fingerprint != first.fingerprint
    assert pack(folders, framing="crop").folder != first.folder


def test_pack_to_a_folder_and_open_it(folders: Path, tmp_path: Path) -> None:
    """--out makes a folder that can be opened, never overwrites one, and fixes its options."""
    packed = pack(folders, tmp_path / "packed")
    again = open_data(tmp_path / "packed")
    assert again.fingerprint == packed.fingerprint
    with pytest.raises(RunError, match="exists already"):
        pack(folders, tmp_path / "packed")
    card = json.loads((tmp_path / "packed" / "dataset.json").read_text(encoding="utf-8"))
    assert card["num_samples"] == 60
    assert np.load(tmp_path / "packed" / "images.npy").shape == (60, 20, 20, 3)
    (tmp_path / "packed" / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy is damaged"):
        Dataset.open(tmp_path / "packed")


def test_a_damaged_packed_set_in_the_cache_is_made_anew(folders: Path) -> None:
    """A truncated cache entry is replaced, not trusted."""
    first = pack(folders)
    images = first.folder / "images.npy"
    images.write_bytes(images.read_bytes()[:1000])
    assert pack(folders).fingerprint == first.fingerprint
    assert len(pack(folders).images("train")) > 0


def test_all_pictures_of_a_class_unreadable(folders: Path) -> None:
    """A class whose files are all broken stops packing, with the reason, and nothing is left half-written."""
    for path in (folders / "circle").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no training image is left of class 'circle'"):
        pack(folders, folders.parent / "packed")
    assert not (folders.parent / "packed").exists()
    assert not list(folders.parent.glob(".*partial"))


def test_two_processes_may_pack_at_once(folders: Path) -> None:
    """Threads that open the same folder at the same time all get the one packed set."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: pack(folders), range(4)))
    assert len({d.fingerprint for d in found}) == 1
    assert all(isinstance(d, Dataset) for d in found)


def test_errors_are_one_line(tmp_path: Path) -> None:
    """Whatever is in a name, the message stays on one line."""
    with pytest.raises(ConvlensError) as caught:
        pack(str(tmp_path / "a\nb\x1b[31m"))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_large_jpegs_pack_and_predict_to_the_same_pixels(tmp_path: Path) -> None:
    """What packing stores of a photograph is what prediction sees of it, from its path and from its bytes."""
    rng = np.random.default_rng(3)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            noise = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
            noise.resize((640, 480)).save(tmp_path / "photos" / label / f"{i}.jpg")
    dataset = pack(tmp_path / "photos", size=24)
    run = convlens.train(dataset, architecture=TINY, recipe=QUICK.replace(epochs=0.1), out=tmp_path / "run", val_frac=0)
    classifier = convlens.load(run)
    packed = {image.tobytes() for image in dataset.with_val_frac(0).images("train")}
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    framed = [classifier.frame(path) for path in paths]
    assert all(np.array_equal(f, classifier.frame(path.read_bytes())) for f, path in zip(framed, paths, strict=True))
    assert packed <= {f.tobytes() for f in framed}


def test_the_range_of_files_is_the_sets(tmp_path: Path) -> None:
    """12 bits in 16-bit files, masks of 0 and 1, floats; black pictures and bytes stay what they are. It is told, and
    what is left out decides nothing."""
    rng = np.random.default_rng(0)

    def files(name: str, make: Callable[[int], NDArray[Any]], suffix: str) -> Path:
        for number in range(24):
            place = tmp_path / name / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(make(number)).save(place / f"{number}{suffix}")
        return tmp_path / name

    deep = files("deep", lambda n: rng.integers(0, 4000, (9, 9)).astype(np.uint16), ".png")
    cases: list[tuple[Path, tuple[float, float]]] = [
        (deep, (0, 4095)),
        (files("masks", lambda n: rng.integers(0, 2, (9, 9)).astype(np.uint8), ".png"), (0, 1)),
        (files("black", lambda n: np.full((9, 9), n // 99, np.uint8), ".png"), (0, 255)),
        (files("bytes", lambda n: rng.integers(0, 256, (9, 9)).astype(np.uint8), ".bmp"), (0, 255)),
        (files("unit", lambda n: rng.random((9, 9)).astype(np.float32), ".tif"), (0, 1)),
        (files("signed", lambda n: (2 * rng.random((9, 9)) - 1).astype(np.float32), ".tif"), (-1, 1)),
    ]
    for root, values in cases:
        dataset = pack(root)
        assert dataset.input_spec.value_range == values, root.name
        assert any("black to white" in note for note in dataset.notes) == (values != (0, 255))
    assert any("nearly black" in note for note in pack(tmp_path / "black").notes)
    before = pack(deep).fingerprint
    Image.fromarray(np.full((9, 9), 60_000, np.uint16)).save(deep / "a" / "x.png")
    assert pack(deep, exclude=["a/x.png"]).fingerprint == before, "what is left out decides nothing"
