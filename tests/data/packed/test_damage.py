"""What is used is what was written: every file of a packed set, changed, is noticed before it can tell a number."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.dataset import Dataset
from convlens.errors import DataError
from convlens.records import write_sealed
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import folder


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return convlens.pack(folder(tmp_path / "src", range(80)), tmp_path / "packed", progress="none").folder


def overwrite(path: Path, start: float, value: int = 0xFF) -> None:
    """Overwrite the file's end from a share of its length on, keeping its size."""
    data = bytearray(path.read_bytes())
    at = max(128, int(len(data) * start))
    data[at:] = bytes([value]) * (len(data) - at)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("file", ["labels.npy", "index.npy", "samples.jsonl", "dataset.json"])
@pytest.mark.parametrize("how", ["cut", "emptied", "gone", "a byte", "a folder", "a pipe", "null bytes"])
def test_a_damaged_small_file_is_noticed_on_opening(packed: Path, file: str, how: str) -> None:
    """Whatever was done to it, opening is one line that names the file."""
    path = packed / file
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        if os.name == "nt":
            pytest.skip("pipes under a name are POSIX")
        os.mkfifo(path)
    elif how != "gone":
        odd = bytes([data[len(data) // 2] ^ 1])
        middle = len(data) // 2
        new = {"cut": data[:-9], "emptied": b"", "a byte": data[:middle] + odd + data[middle + 1 :]}
        path.write_bytes(new.get(how, bytes(len(data))))
    with pytest.raises(DataError, match=file.replace(".", "[.]")) as caught:
        Dataset.open(packed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["class_names", "mean", "num_quarantined", "notes"])
def test_a_card_that_was_edited_is_noticed(packed: Path, change: str) -> None:
    """Swapped class names, another mean or count in dataset.json: it is not what was written."""
    card = json.loads((packed / "dataset.json").read_text(encoding="utf-8"))
    if change == "class_names":
        card["class_names"].reverse()
    elif change == "mean":
        card["input"]["mean"][0] += 1
    else:
        card[change] = 1 if change == "num_quarantined" else ["all is well"]
    (packed / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(DataError, match="not what was written"):
        Dataset.open(packed)


@pytest.mark.training
def test_damaged_pixels_are_noticed_where_they_are_used(packed: Path, workplace: Path) -> None:
    """Training, validation, evaluation and the doctor stop in one line; no number is told."""
    run = convlens.train(packed, architecture=TINY, recipe=QUICK, progress="none")
    overwrite(packed / "images.npy", 0.5)
    for use in (
        lambda: convlens.train(packed, architecture=TINY, recipe=QUICK, progress="none"),
        lambda: convlens.evaluate(run, progress="none"),
        lambda: convlens.evaluate(run, packed, split="val", progress="none"),
        lambda: convlens.check(packed, progress="none"),
        lambda: convlens.pack(packed, verify=True, progress="none"),
    ):
        with pytest.raises(DataError, match=r"images\.npy is damaged|of its 80 images are not those"):
            use()


@pytest.mark.training
def test_damaged_validation_pixels_tell_no_validation_score(workplace: Path) -> None:
    """Where only validation images are damaged, the training sees none of them; the first validation does."""
    dataset = convlens.pack(shapes(200, 3), "packed", progress="none")
    images = np.load("packed/images.npy", mmap_mode="r+")
    images[dataset.rows("val")] = 255
    images.flush()
    with pytest.raises(DataError, match=r"images\.npy is damaged"):
        convlens.train("packed", architecture=TINY, recipe=QUICK, progress="none")
    assert convlens.runs()[-1].val is None


def test_verify_mends_the_cache(tmp_path: Path) -> None:
    """A damaged set in the cache is packed anew, one that a person made is only named; one that is whole stays."""
    source = folder(tmp_path / "src", range(40))
    dataset = convlens.pack(source, progress="none")
    before = (dataset.folder / "images.npy").read_bytes()
    times = (dataset.folder / "images.npy").stat().st_mtime_ns
    assert convlens.pack(source, verify=True, progress="none").folder == dataset.folder
    assert (dataset.folder / "images.npy").stat().st_mtime_ns == times
    overwrite(dataset.folder / "images.npy", 0.9)
    convlens.pack(source, progress="none")
    assert (dataset.folder / "images.npy").read_bytes() != before, "opening does not read the pixels"
    convlens.pack(source, verify=True, progress="none")
    assert (dataset.folder / "images.npy").read_bytes() == before


def test_a_card_that_contradicts_itself_is_refused(packed: Path) -> None:
    """Another value range than its input's, parts of other names or numbers: one line, no pixels misread."""
    card: dict[str, Any] = json.loads((packed / "dataset.json").read_text(encoding="utf-8"))
    del card["sha256"]
    parts = [{"file": "images.npy", "num_images": 40}, {"file": "images-2.npy", "num_images": 40}]
    for change, words in (
        ({"value_range": [0.0, 1.0]}, "that of its input"),
        ({"parts": parts[:1]}, "not as many images"),
        ({"parts": parts[::-1]}, "one after another"),
        ({"parts": parts}, "80, 20, 20, 3"),
    ):
        write_sealed(packed / "dataset.json", card | change)
        with pytest.raises(DataError, match=words):
            Dataset.open(packed)
