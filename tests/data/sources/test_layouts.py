"""Class folders, however they lie."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlens.data.packed.pack import pack
from convlens.errors import DataError, UsageError
from tests.conftest import write_folders
from tests.helpers import read_lines


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
    assert any("1 file, no picture: 'photos/circle/notes.txt'" in note for note in dataset.notes)
    assert any("1 picture, beside the class folders" in note for note in dataset.notes)


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
    differ = write_folders(case("only in test: 'squares'; only in train: 'square'"), 2, splits=("train", "test"))
    (differ / "test" / "square").rename(differ / "test" / "squares")
    Image.new("L", (4, 4)).save(case("side by side") / "a.png")
    beside = write_folders(case("others of the same classes beside them: 'extra'"), 2, splits=("train", "test"))
    write_folders(beside / "extra", 2)
    write_folders(
        case("more than one folder for a split: 'val', 'validation'"), 2, splits=("train", "val", "validation")
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
