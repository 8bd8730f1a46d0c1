"""From files to a packed data set: sources, splits, groups, quarantine, fingerprints, the seal."""

from __future__ import annotations

import gzip
import json
import os
import struct
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.data.packed.dataset import Dataset, in_split
from convlens.data.packed.pack import open_data, pack
from convlens.data.prefetch import prefetch
from convlens.data.sources.idx import read_idx
from convlens.data.sources.tree import DiskTree
from convlens.errors import ConvlensError, DataError, RunError, UsageError
from convlens.files import read_lines
from tests.conftest import QUICK, TINY, shapes, write_folders


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


# ---------------------------------------------------------------- MNIST


def test_mnist_is_the_published_one() -> None:
    """60,000 and 10,000 images with the published mean and sd; test is sealed; opening again reads no pixels."""
    dataset = open_data("mnist")
    counts = dataset.counts
    assert counts["train"] + counts["val"] == 60_000 and counts["test"] == 10_000
    assert 5_700 <= counts["val"] <= 6_300
    spec = dataset.input_spec
    assert (spec.height, spec.width, spec.channels, spec.framing) == (28, 28, 1, "ink")
    assert spec.mean[0] / 255 == pytest.approx(0.1307, abs=1e-4)
    assert spec.std[0] / 255 == pytest.approx(0.3081, abs=1e-4)
    assert open_data("mnist").fingerprint == dataset.fingerprint
    for sealed in (dataset.images, dataset.labels):
        with pytest.raises(DataError, match="sealed"):
            sealed("test")


# ---------------------------------------------------------------- splits


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
    """Equal draws go together; a class with two different draws is never wholly in or out by itself."""
    draws = np.array([d for d, _ in samples], np.uint64)
    labels = np.array([k for _, k in samples], np.int64)
    inside = in_split(draws, labels, share)
    for draw in np.unique(draws):
        assert len(set(inside[draws == draw])) == 1
    for label in np.unique(labels):
        own = labels == label
        tied = np.isin(draws[own], draws[~own]).any()  # what another class decides comes along
        assert inside[own].any() or len(np.unique(draws[own])) == 1 or tied
        assert not inside[own].all() or len(np.unique(draws[own])) == 1 or tied


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


# ---------------------------------------------------------------- sources


def test_idx_folders_plain_and_zipped_are_the_same_data(tmp_path: Path) -> None:
    """The four files, plain or .gz, give one fingerprint; without test files a test split is made."""
    plain, zipped = write_idx(tmp_path / "plain"), write_idx(tmp_path / "zipped", zipped=True)
    assert pack(plain).fingerprint == pack(zipped).fingerprint
    for path in plain.glob("t10k*"):
        path.unlink()
    assert 0 < pack(plain).counts["test"] < 40


def test_npz_and_arrays_and_folder_agree(tmp_path: Path, arrays: Any) -> None:
    """An .npz, floats in 0..1, and arrays in Python are the same data set."""
    x, y, x_test, y_test = arrays
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.savez_compressed(tmp_path / "b.npz", x_train=x / 255, y_train=y, x_test=x_test[..., None] / 255, y_test=y_test)
    prints = {pack(tmp_path / "a.npz").fingerprint, pack(tmp_path / "b.npz").fingerprint, pack(arrays).fingerprint}
    assert len(prints) == 1
    np.savez(tmp_path / "c.npz", x=x, y=np.array(["a", "b", "c"])[y])
    assert pack(tmp_path / "c.npz").class_names == ("a", "b", "c")


def test_csv_with_split_and_group(tmp_path: Path) -> None:
    """path,label,split,group as a table; a byte-order mark and blanks do no harm."""
    root = write_folders(tmp_path / "pictures", 10)
    rows = ["path, label ,split,patient"]
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        rows.append(
            f"{path.relative_to(root).as_posix()},{path.parent.name},{('train', 'test', 'valid')[i % 3]},p{i % 7}"
        )
    table = root / "table.csv"
    table.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    dataset = pack(table, group="patient")
    assert dataset.class_names == ("circle", "square")
    assert dataset.counts == {"train": 7, "val": 6, "test": 7}
    assert any("groups are in both" in note for note in dataset.notes)


def test_litter_wrappers_and_unicode(tmp_path: Path) -> None:
    """Litter is ignored, a single wrapper folder is descended into and said, class names are compared in NFC."""
    root = tmp_path / "zip"
    inner = write_folders(root / "photos", 6)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (inner / name).mkdir()
        (inner / name / "x.png").write_bytes(b"no picture")
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "desktop.ini"):
        (inner / "circle" / name).write_bytes(b"litter")
    (inner / "loose.png").write_bytes((inner / "circle" / "000.png").read_bytes())
    (inner / "circle" / "notes.txt").write_text("hello", encoding="utf-8")
    decomposed = unicodedata.normalize("NFD", "größe")
    (inner / "square").rename(inner / decomposed)
    dataset = pack(root)
    assert dataset.class_names == ("circle", unicodedata.normalize("NFC", decomposed))
    assert sum(dataset.counts.values()) == 12 and dataset.num_quarantined == 0
    assert any("photos/" in note for note in dataset.notes)
    assert any("1 files are no pictures" in note for note in dataset.notes)
    assert any("1 pictures lie beside the class folders" in note for note in dataset.notes)


def test_fashion_mnist_names_its_classes_or_says_how_to_get_it(tmp_path: Path) -> None:
    """fashion-mnist is read from --data-root; without its files the error says where they come from."""
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist"):
        pack("fashion-mnist", data_root=tmp_path)
    write_ten_classes(tmp_path / "fashion-mnist")
    assert pack("fashion-mnist", data_root=tmp_path).class_names[9] == "Ankle boot"


def write_ten_classes(folder: Path) -> None:
    folder.mkdir()
    for prefix in ("train", "t10k"):
        images = np.random.default_rng(len(prefix)).integers(0, 255, (40, 8, 8), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(40, dtype=np.uint8) % 10))


# ---------------------------------------------------------------- packing


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


def test_a_changed_folder_is_packed_anew_and_an_unchanged_one_is_not(folders: Path) -> None:
    """The cache notices an added, removed or rewritten file, and a changed option."""
    first = pack(folders)
    assert pack(folders).folder == first.folder
    (folders / "circle" / "000.png").write_bytes((folders / "square" / "000.png").read_bytes())
    os.utime(folders / "circle" / "000.png", ns=(1, 1))
    assert pack(folders).fingerprint != first.fingerprint
    assert pack(folders, framing="crop").folder != first.folder


def test_damaged_mnist_in_the_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded set is unpacked again where its packed copy is damaged."""
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path))
    first = open_data("mnist")
    (first.folder / "index.npy").write_bytes(b"damaged")
    again = open_data("mnist")
    assert again.fingerprint == first.fingerprint and again.counts == first.counts


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
    with pytest.raises(DataError, match="damaged or missing"):
        Dataset.open(tmp_path / "packed")


def test_a_damaged_packed_set_in_the_cache_is_made_anew(folders: Path) -> None:
    """A truncated cache entry is replaced, not trusted."""
    first = pack(folders)
    images = first.folder / "images.npy"
    images.write_bytes(images.read_bytes()[:1000])
    assert pack(folders).fingerprint == first.fingerprint
    assert len(pack(folders).images("train")) > 0


# ---------------------------------------------------------------- bad input

BAD_ARRAYS: list[tuple[Any, str]] = [
    ((np.zeros((4, 8, 8), np.uint8),), "arrays come as"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(3, int)), "4 images, y 3 labels"),
    ((np.zeros((4, 8, 8), np.int32), np.arange(4)), "uint8 in 0..255 or floats"),
    ((np.full((4, 8, 8), 2.0), np.arange(4)), "must lie in 0..1"),
    ((np.full((4, 8, 8), np.nan), np.arange(4)), "must lie in 0..1"),
    ((np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)), "channels last"),
    ((np.zeros((4, 8), np.uint8), np.arange(4)), "must be"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, int)), "one class only"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, float)), "whole numbers or names"),
    ((np.zeros((0, 8, 8), np.uint8), np.zeros(0, int)), "empty"),
    ({"train": (np.zeros((4, 8, 8), np.uint8), np.arange(4)), "exam": ()}, "keyed train, val and test"),
]


@pytest.mark.parametrize(("data", "words"), BAD_ARRAYS)
def test_arrays_that_cannot_be(data: Any, words: str) -> None:
    """Shape, type, range and length are checked, and the message says which."""
    with pytest.raises(DataError, match=words):
        pack(data)


def test_npz_that_cannot_be(tmp_path: Path) -> None:
    """Missing keys, pickled objects, no zip at all, and a header that promises more than is there."""
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    cases = {
        "keys.npz": ({"images": x, "y": y}, "must have x_train"),
        "half.npz": ({"x_train": x, "y_train": y, "x_test": x}, "has no y_test"),
        "object.npz": ({"x": x, "y": np.array([1, "a", None, 2], dtype=object)}, "pickled"),
    }
    for name, (content, words) in cases.items():
        np.savez(tmp_path / name, **content)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=words):
            pack(tmp_path / name)
    (tmp_path / "text.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        pack(tmp_path / "text.npz")
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 999, 999), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header)
        archive.writestr("y.npy", header)
    with pytest.raises(DataError, match="promises"):
        pack(tmp_path / "bomb.npz")


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


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    """No pictures, one class, an empty class, classes that differ between splits, loose pictures, unknown names."""
    cases: list[tuple[str, str]] = []

    def case(words: str) -> Path:
        cases.append((str(tmp_path / str(len(cases))), words))
        Path(cases[-1][0]).mkdir()
        return Path(cases[-1][0])

    case("holds no class folders")
    (case("holds no pictures") / "a").mkdir()
    one = case("one class only")
    write_folders(one / "x", 2)
    import shutil

    shutil.rmtree(one / "x" / "square")
    empty = write_folders(case("no pictures in class folder 'none'"), 2)
    (empty / "none").mkdir()
    differ = write_folders(case("only in train: 'square'; only in test: 'squares'"), 2, splits=("train", "test"))
    (differ / "test" / "square").rename(differ / "test" / "squares")
    Image.new("L", (4, 4)).save(case("side by side") / "a.png")
    beside = write_folders(case("others beside them: 'extra'"), 2, splits=("train", "test"))
    (beside / "extra").mkdir()
    write_folders(
        case("more than one folder for a split: 'train', 'val', 'validation'"), 2, splits=("train", "val", "validation")
    )
    write_folders(case("but no train folder"), 2, splits=("val", "test"))
    for place, words in cases:
        with pytest.raises(DataError) as caught:
            pack(place)
        assert words in str(caught.value)
    with pytest.raises(DataError, match="arrays as"):
        pack(np.zeros((4, 8, 8), np.uint8))
    for odd in ("x" * 5000, "a\0b", ""):
        with pytest.raises(DataError, match="no data set or path"):
            pack(odd)
    for name, words in (("mnits", "did you mean 'mnist'"), (str(tmp_path / "nowhere"), "no data set or path")):
        with pytest.raises(DataError, match=words):
            pack(name)
    (tmp_path / "x.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="must be a folder"):
        pack(tmp_path / "x.txt")
    for options in (
        {"size": "x"},
        {"size": 0},
        {"size": 5000},
        {"channels": 2},
        {"framing": "squeeze"},
        {"framing": "ink"},
    ):
        with pytest.raises(UsageError):
            pack(write_folders(tmp_path / f"o{len(str(options))}{options}", 2), **options)


def test_all_pictures_of_a_class_unreadable(folders: Path) -> None:
    """A class whose files are all broken stops packing, with the reason, and nothing is left half-written."""
    for path in (folders / "circle").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no training image is left of class 'circle'"):
        pack(folders, folders.parent / "packed")
    assert not (folders.parent / "packed").exists()
    assert not list(folders.parent.glob(".*partial"))


def test_csv_that_cannot_be(tmp_path: Path) -> None:
    """Missing columns and files, double paths, unknown and partial splits: the line is named."""
    write_folders(tmp_path / "p", 3)
    good = "p/circle/000.png,circle\np/square/000.png,square\n"
    cases = [
        ("file,label\n" + good, "has no column 'path'"),
        ("path,label\n" + good + "p/none.png,circle\n", "1 of 3 files are missing: 'p/none.png'"),
        ("path,label\n" + good + "p/circle/000.png,square\n", "line 4: p/circle/000.png stands in line 2"),
        ("path,label,split\np/circle/000.png,circle,exam\n", "line 2: unknown split 'exam'"),
        ("path,label,split\np/circle/000.png,circle,train\np/square/000.png,square,\n", "1 of 2 rows have no split"),
        ("path,label\np/circle/000.png\n", "line 2: it has not 2 columns"),
        ("path,label\np/circle/000.png,\n", "must not be empty"),
        ("path,label\n", "has no rows"),
    ]
    for i, (text, words) in enumerate(cases):
        table = tmp_path / f"{i}.csv"
        table.write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            pack(table)
        assert words in str(caught.value)
    (tmp_path / "bin.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        pack(tmp_path / "bin.csv")


def test_names_with_odd_bytes_and_link_loops(tmp_path: Path) -> None:
    """Names that are no UTF-8, line breaks and links that lead back do no harm."""
    root = write_folders(tmp_path / "odd", 4)
    try:
        (root / "circle" / os.fsdecode(b"\xff\xfe\n.png")).write_bytes((root / "circle" / "000.png").read_bytes())
        (root / "circle" / "loop").symlink_to(root / "circle")
    except (OSError, ValueError):
        pytest.skip("this file system refuses such names or links")
    dataset = pack(root)
    assert sum(dataset.counts.values()) == 9
    assert len(read_lines(dataset.folder / "samples.jsonl")) == 9


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


# ---------------------------------------------------------------- ahead


def test_work_done_ahead_comes_in_order() -> None:
    """Results come in the order of the items, whatever the number of groups, and an error where its group would."""

    def square(number: int) -> int:
        if number == 777:
            raise ValueError("777")
        return number * number

    for num in (0, 1, 32, 33, 700):
        assert [r for group in prefetch(square, range(num)) for r in group] == [i * i for i in range(num)]
    seen: list[int] = []
    with pytest.raises(ValueError, match="777"):
        for group in prefetch(square, range(2000)):
            seen += group
    assert seen == [i * i for i in range(777 // 32 * 32)]


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
