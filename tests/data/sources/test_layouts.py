"""Class folders, however they lie."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlens.data.packed.pack import pack
from convlens.errors import DataError, UsageError
from convlens.render.figures import Sheet, save_figure
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


def test_what_convlens_wrote_is_never_data(tmp_path: Path) -> None:
    """Runs, packed sets and drawn pictures that lie in a data folder: the same classes and images as before, and
    said."""
    root = write_folders(tmp_path / "data", 6)
    before = pack(root)
    pack(root, out=root / "packed")
    (root / "runs" / "data-1").mkdir(parents=True)
    (root / "runs" / "data-1" / "run.json").write_text('{\n  "kind": "convlens-run"', encoding="utf-8")
    sheet = Sheet(height=2)
    for place in (root / "runs" / "data-1" / "inputs.png", root / "circle" / "look-000.png"):
        save_figure(sheet.figure, place)
    again = pack(root)
    assert again.class_names == before.class_names and again.counts == before.counts
    assert any("2 folders written by convlens" in note for note in again.notes)
    reasons = [line.reason for line in again.samples() if line.status == "quarantined"]
    assert reasons == ["a picture that convlens has drawn, which is never read as data"]


def test_files_without_a_suffix_are_read_by_content(tmp_path: Path) -> None:
    """A picture whose name has no suffix is one; a text is none."""
    root = write_folders(tmp_path / "data", 3)
    for path in list(root.rglob("*.png")):
        path.rename(path.with_suffix(""))
    (root / "circle" / "notes").write_text("no picture", encoding="utf-8")
    dataset = pack(root)
    assert sum(dataset.counts.values()) == 6
    assert any("1 file, no picture: 'circle/notes'" in note for note in dataset.notes)


def test_a_layout_that_is_said_decides(tmp_path: Path) -> None:
    """Where two readings are possible, each of them, as the layout has it; one that does not fit is refused."""
    root = tmp_path / "people"
    for person, side in (("ann", 20), ("bob", 24), ("eve", 28)):
        write_folders(root / person, 4, side=side)
    with pytest.raises(
        DataError, match=r"Say which is meant: `layout=class` or `layout=group/class` or `layout=\*/class`"
    ):
        pack(root)
    assert pack(root, layout="class").class_names == ("ann", "bob", "eve")
    grouped = pack(root, layout="group/class")
    assert grouped.class_names == ("circle", "square") and {line.group for line in grouped.samples()} == {
        "ann",
        "bob",
        "eve",
    }
    assert {line.group for line in pack(root, layout="*/class").samples()} == {None}
    with pytest.raises(DataError, match="lie as the layout split/class says"):
        pack(root, layout="split/class")
    for odd in ("klass", "split", "class/class", "split/split/class"):
        with pytest.raises(UsageError, match="layout must say"):
            pack(root, layout=odd)


@pytest.mark.parametrize(
    ("folders", "classes", "layout"),
    [
        (("train/subject01", "train/subject02", "test/subject01", "test/subject02"), ("subject01", "subject02"), ""),
        (("subject01", "subject02"), ("subject01", "subject02"), ""),
        (("patient_0/session_1", "patient_0/session_2", "patient_1/session_1", "patient_1/session_2"), (), "layout"),
        (("burst-pipe", "burst-tire"), ("burst-pipe", "burst-tire"), ""),
        (("burst-0001", "burst-0002"), (), "layout=class"),
    ],
)
def test_names_of_groups_are_no_groups_where_classes_lie(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], layout: str
) -> None:
    """People and recordings may be the classes themselves; what can be read twice is refused with a way in."""
    for number, folder in enumerate(folders):
        for seed in range(3):
            page = Image.fromarray(np.random.default_rng([number, seed]).integers(0, 255, (8, 8), np.uint8))
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            page.save(tmp_path / "data" / folder / f"p{seed}.png")
    if layout:
        with pytest.raises(DataError, match=layout):
            pack(tmp_path / "data")
    else:
        assert pack(tmp_path / "data").class_names == classes


def test_the_class_in_the_names_of_files(tmp_path: Path) -> None:
    """Pictures side by side are refused with the expression that reads their names, and read when it is said."""
    root = write_folders(tmp_path / "flat", 5)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(root / f"{path.parent.name}.{number}.png")
    for label in ("circle", "square"):
        (root / label).rmdir()
    with pytest.raises(DataError, match=r"`label=(.*)` reads the class") as caught:
        pack(root)
    offered = str(caught.value).split("`label=")[1].split("`")[0]
    dataset = pack(root, label=offered)
    assert dataset.class_names == ("circle", "square") and sum(dataset.counts.values()) == 10
    with pytest.raises(DataError, match="does not match"):
        pack(root, label=r"(triangle)\.\d+")
    with pytest.raises(DataError, match="no regular expression"):
        pack(root, label="(")


def test_a_class_that_val_or_test_lacks_is_a_note(tmp_path: Path) -> None:
    """Trained on, with a note; a class that train lacks is refused."""
    root = write_folders(tmp_path / "data", 4, splits=("train", "test"))
    shutil.rmtree(root / "test" / "square")
    dataset = pack(root)
    assert dataset.class_counts("test").tolist() == [4, 0]
    assert any("test has no pictures of class 'square'" in note for note in dataset.notes)
