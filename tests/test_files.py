"""Durable writes: whole or not at all, nobody else's work is touched, and half lines do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from convlens import files
from convlens.errors import RunError, StorageError
from convlens.records import Record, read_lines


class _Numbered(Record, frozen=True):
    n: int


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """If writing fails half-way, the earlier file is whole and nothing lies beside it."""
    path = tmp_path / "a.json"
    files.write_json(path, {"old": True})

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="no space left"):
        files.write_with(path, fail)
    assert json.loads(path.read_text(encoding="utf-8")) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """On failure nothing appears; an existing folder is refused before and after filling, and stays as it is."""
    place = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), files.new_folder(place) as folder:
        (folder / "x").write_bytes(b"x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="exists already"), files.new_folder(place) as folder:
        place.mkdir()  # somebody else makes it meanwhile
        (place / "mine").write_bytes(b"mine")
    assert (place / "mine").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_new_folder_in_place_of_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, also as `.`, may be filled."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    try:
        with files.new_folder(Path()) as folder:
            (folder / "x").write_bytes(b"x")
    except StorageError:
        pytest.skip("this system cannot replace a folder that a process stands in")
    assert (tmp_path / "empty" / "x").is_file()


def test_lines_survive_a_crash(tmp_path: Path) -> None:
    """A line cut short is left out, and does not swallow the next one; cutting back never lengthens a file."""
    path = tmp_path / "log.jsonl"

    def read(path: Path) -> list[Any]:
        return [line.to_json() for line in read_lines(path, _Numbered)[0]]

    files.append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "ha')
    files.append_line(path, {"n": 3})
    assert read(path) == [{"n": 1}, {"n": 3}]
    size = path.stat().st_size
    files.truncate(path, size + 100)
    assert path.stat().st_size == size
    files.truncate(path, 9)
    assert read(path) == [{"n": 1}]
    assert read(tmp_path / "absent") == []


def test_leftovers_are_removed_by_name(tmp_path: Path) -> None:
    """What a killed process left goes, other files stay."""
    for name in (".a.1234.partial", ".b.1234.partial", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    files.remove_leftovers(tmp_path, of="a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.1234.partial", ".hidden", "a"]


def test_locks(tmp_path: Path) -> None:
    """A lock that is held refuses others at once, in the words asked for."""
    path = tmp_path / "x.lock"
    with files.lock(path), pytest.raises(RunError, match="somebody"), files.lock(path, busy="somebody is here"):
        pass
    with files.lock(path, busy="free again"):
        pass
