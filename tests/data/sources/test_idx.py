"""IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convlens.data.packed.pack import pack
from convlens.data.sources.idx import read_idx
from convlens.data.sources.tree import DiskTree
from convlens.errors import DataError
from tests.conftest import shapes


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, num: int = 60, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, prefix in enumerate(("train", "t10k")):
        images, labels = shapes(num, seed)
        for what, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
            data = idx_bytes(array)
            name = f"{prefix}-{what}-ubyte"
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return folder


def test_idx_folders_plain_and_zipped_are_the_same_data(tmp_path: Path) -> None:
    """The four files, plain or .gz, give one fingerprint; without test files a test split is made."""
    plain, zipped = write_idx(tmp_path / "plain"), write_idx(tmp_path / "zipped", zipped=True)
    assert pack(plain).fingerprint == pack(zipped).fingerprint
    for path in plain.glob("t10k*"):
        path.unlink()
    assert 0 < pack(plain).counts["test"] < 40


def test_fashion_mnist_names_its_classes_or_says_how_to_get_it(tmp_path: Path) -> None:
    """fashion-mnist is read from --data-root; without its files the error says where they come from."""
    with pytest.raises(DataError, match="must lie there"):
        pack("fashion-mnist", data_root=tmp_path)
    write_ten_classes(tmp_path / "fashion-mnist")
    assert pack("fashion-mnist", data_root=tmp_path).class_names[9] == "Ankle boot"


def write_ten_classes(folder: Path) -> None:
    folder.mkdir()
    for prefix in ("train", "t10k"):
        images = np.random.default_rng(len(prefix)).integers(0, 255, (40, 8, 8), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(40, dtype=np.uint8) % 10))


def test_idx_that_cannot_be(tmp_path: Path) -> None:
    """Wrong magic, truncation, trailing bytes, and sizes beyond the file are refused before allocation."""
    good = idx_bytes(np.zeros((3, 4, 4), np.uint8))
    cases = {
        "magic": (b"\0\0\x0d\x03" + good[4:], "begins 00000d03"),
        "short": (good[:-1], "promises"),
        "long": (good + b"x", "after its last value"),
        "header": (good[:9], "truncated within its header"),
        "huge": (good[:4] + struct.pack(">3I", 2**31, 2**15, 2**15), "promises"),
        "empty": (b"", "no IDX file"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=words):
            read_idx(DiskTree(tmp_path), name, 3)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(good)[:-12])
    with pytest.raises(DataError, match=r"cannot be read|truncated"):
        read_idx(DiskTree(tmp_path), "cut.gz", 3)
    folder = write_idx(tmp_path / "pair")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="60 images, its labels file 5"):
        pack(folder)
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no train-labels"):
        pack(folder)


def _files(folder: Path, names: dict[str, NDArray[np.uint8]]) -> Path:
    for name, array in names.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        data = idx_bytes(array)
        place.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def test_idx_files_by_every_name(tmp_path: Path) -> None:
    """test- for t10k-, EMNIST's names, torchvision's root, a folder for each file: the supplied test set is test,
    labels from 1 are classes from 1, and what is not read is named."""
    (x, y), (x2, y2) = ((a, b.astype(np.uint8)) for a, b in (shapes(40, 1), shapes(20, 2)))
    forms = {
        "plain": "{}-{}-{}-ubyte.gz train test",
        "emnist": "emnist-letters-{}-{}-{}-ubyte train test",
        "torchvision": "MNIST/raw/{}-{}-{}-ubyte train t10k",
        "folders": "{0}-{1}-{2}-ubyte/{0}-{1}-{2}-ubyte train t10k",
        "dots": "{}-{}.{}-ubyte train t10k",
    }
    for form, words in forms.items():
        name, train, test = words.split()
        names = [name.format(split, *k) for split in (train, test) for k in (("images", "idx3"), ("labels", "idx1"))]
        folder = _files(tmp_path / form, dict(zip(names, (x, y + 1, x2, y2 + 1), strict=True)))
        dataset = pack(folder)
        assert dataset.counts["test"] == 20 and dataset.class_names == ("1", "2", "3"), form
    (folder / "readme.txt").write_text("hello", encoding="utf-8")
    (folder / f"{names[0]}.gz").write_bytes(gzip.compress((folder / names[0]).read_bytes()))
    (folder / names[3]).unlink()
    notes = pack(folder).notes
    for said in ("another file of the same name is read", "pictures without labels", "no picture: 'readme.txt'"):
        assert any(said in note for note in notes), notes
    with pytest.raises(DataError, match="several sets"):
        pack(_files(folder, {"emnist-digits-train-images-idx3-ubyte": x}))
