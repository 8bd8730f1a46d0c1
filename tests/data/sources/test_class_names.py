"""Names of classes."""

from __future__ import annotations

from pathlib import Path

from convlens.data.packed.pack import pack
from convlens.data.sources.class_names import alike, in_order
from tests.conftest import write_folders


def test_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    """Folders 1 to 12 are classes in that order; names that are not all numbers are in the order of text."""
    assert in_order(["10", "9", "1", "02"]) == ("1", "02", "9", "10")
    assert in_order(["10", "9", "a"]) == ("10", "9", "a")
    root = write_folders(tmp_path / "numbers", 4)
    (root / "circle").rename(root / "10")
    (root / "square").rename(root / "9")
    assert pack(root).class_names == ("9", "10")


def test_names_that_look_alike_are_told(tmp_path: Path) -> None:
    """Case, blanks and letters of one shape: a note on each group, none on names that differ."""
    assert alike(["Cat", "cat", "dog"]) == ["the classes 'Cat', 'cat' look alike: if they are one, give them one name"]
    assert len(alike(["cat", "cat ", "саt", "bird", "Bird_"])) == 2
    assert alike(["a", "b", "aa", "1", "11"]) == []
    root = write_folders(tmp_path / "names", 4)
    (root / "circle").rename(root / "Square")
    assert any("look alike" in note for note in pack(root).notes)
