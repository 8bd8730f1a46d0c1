"""Packing that is broken off goes on where it was, and large sets lie in several files: the bits of one go."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens import files
from convlens.data.packed import journal
from convlens.data.packed.journal import COMMIT_FILE, Journal
from convlens.data.packed.reading import Reader
from convlens.errors import DataError, StorageError
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import folder


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits after every eight samples, and files of at most thirteen images of 8×8 pixels."""
    monkeypatch.setattr(journal, "_EVERY_S", 0.0)
    monkeypatch.setattr(journal, "_OFTEN", 8)
    monkeypatch.setattr(journal, "_MOST_PART_BYTES", 13 * 8 * 8 * 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ninety pictures, three of them unreadable."""
    root = folder(tmp_path / "src", range(90))
    for path in sorted(root.rglob("*.png"))[20:60:15]:
        path.write_bytes(b"no picture")
    return root


def contents(packed: Path) -> dict[str, Any]:
    """The files of a packed folder, the images together."""
    found: dict[str, Any] = {p.name: p.read_bytes() for p in packed.iterdir() if not p.name.startswith("images")}
    parts = json.loads((packed / "dataset.json").read_text())["parts"]
    images = [np.load(packed / part["file"]) for part in parts]
    assert [len(one) for one in images] == [part["num_images"] for part in parts]
    found["images"] = np.concatenate(images).tobytes()
    return found


class Broken(BaseException):
    """The end of a process, as far as a folder can tell."""


def broken_off(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> list[str]:
    """Have the `at`-th picture that is read raise; the names of those that are read."""
    names: list[str] = []
    read = Reader.__call__

    def reading(self: Reader, sample: Any) -> Any:
        names.append(sample.name)
        if len(names) == at:
            raise error
        return read(self, sample)

    monkeypatch.setattr(Reader, "__call__", reading)
    return names


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("at", [1, 7, 8, 9, 30, 58, 90])
def test_what_was_broken_off_goes_on(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Interrupted at any picture, twice: the same command reads no committed picture again, and ends with the bits of
    an undisturbed packing."""
    whole = contents(convlens.pack(source, tmp_path / "whole", size=8, progress="none").folder)
    seen = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            names = broken_off(patch, at, Broken())
            with pytest.raises(Broken):
                convlens.pack(source, tmp_path / "out", size=8, progress="none")
                raise Broken  # what is left is less than `at`
        seen.append(names)
    assert not (tmp_path / "out").exists() or at > 50
    with monkeypatch.context() as patch:
        left = broken_off(patch, 1000, Broken())
        if not (tmp_path / "out").exists():
            convlens.pack(source, tmp_path / "out", size=8, progress="none")
    assert contents(tmp_path / "out") == whole
    assert len(set(seen[0]) & set(seen[1])) <= 8 + 16 and len(set(seen[1]) & set(left)) <= 8 + 16, "since a commit"
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []
    assert not list((tmp_path / "out").glob("*.part")) and not (tmp_path / "out" / COMMIT_FILE).exists()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("at", [20, 40])
def test_a_full_disk_keeps_what_was_before(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], at: int
) -> None:
    """One line that says so, what is committed stays, and the same command goes on when there is room."""
    add, added = Journal.add, 0

    def full(self: Journal, *sample: Any) -> None:
        nonlocal added
        added += 1
        if added == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, *sample)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        with pytest.raises(StorageError, match="no space left"):
            convlens.pack(source, size=8, progress="lines")
    assert f"{at // 8 * 8 - 8 * (at % 8 == 0)} of 90 samples are packed and kept" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        names = broken_off(patch, 1000, Broken())
        packed = convlens.pack(source, size=8, progress="lines")
    assert "going on after" in capfd.readouterr().err
    assert len(names) < 90
    assert contents(packed.folder) == contents(convlens.pack(source, tmp_path / "whole", size=8).folder)


@pytest.mark.usefixtures("often")
def test_a_process_that_was_killed(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended without a word in the middle, with Parquet too: another process goes on to the same bits."""
    program = (
        "import os, sys, convlens\n"
        "from convlens.data.packed import journal, reading\n"
        "journal._EVERY_S, journal._OFTEN, journal._MOST_PART_BYTES = 0.0, 8, 13 * 8 * 8 * 3\n"
        "read, left = reading.Reader.__call__, [70]\n"
        "def reading_(self, sample):\n"
        "    left[0] -= 1\n"
        "    return read(self, sample) if left[0] else os._exit(9)\n"
        "reading.Reader.__call__ = reading_\n"
        f"convlens.pack({str(source)!r}, {str(tmp_path / 'out')!r}, size=8, progress='none')\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    names = broken_off(monkeypatch, 1000, Broken())
    packed = convlens.pack(source, tmp_path / "out", size=8, progress="none")
    assert 0 < len(names) < 60
    assert contents(packed.folder) == contents(convlens.pack(source, tmp_path / "whole", size=8).folder)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("how", ["other options", "a changed source", "a damaged commit", "a file cut short"])
def test_what_is_of_another_packing_begins_anew(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nothing of it gets into what is packed now."""
    with monkeypatch.context() as patch:
        broken_off(patch, 60, Broken())
        with pytest.raises(Broken):
            convlens.pack(source, tmp_path / "out", size=8, progress="none")
    kept = tmp_path / ".out.unfinished"
    options: dict[str, Any] = {"size": 8}
    if how == "other options":
        options["framing"] = "crop"
    elif how == "a changed source":
        sorted(source.rglob("*.png"))[3].unlink()
    elif how == "a damaged commit":
        (kept / COMMIT_FILE).write_text((kept / COMMIT_FILE).read_text().replace('"num_images": 4', '"num_images": 3'))
    else:
        (kept / "images-2.npy").write_bytes((kept / "images-2.npy").read_bytes()[:500])
    packed = convlens.pack(source, tmp_path / "out", progress="none", **options)
    assert contents(packed.folder) == contents(convlens.pack(source, tmp_path / "whole", **options).folder)


@pytest.mark.usefixtures("often")
def test_a_source_that_cannot_be_packed_leaves_nothing(tmp_path: Path, source: Path) -> None:
    """An error that another try would meet too: no unfinished folder stays."""
    for path in (source / "ant").glob("*"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no training image is left"):
        convlens.pack(source, tmp_path / "out", size=8, progress="none")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_pictures_that_are_not_as_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a picture of another size comes after hundreds of one size, packing begins anew with the right input, once,
    and what was broken off after that goes on with it."""
    from convlens.data.packed import writing

    monkeypatch.setattr(writing, "_LOOKED_AT", 4)
    root = folder(tmp_path / "src", range(60))
    last = max(root.rglob("*.png"))
    shape = convlens.pack(folder(tmp_path / "one", range(60)), progress="none").input_spec
    from PIL import Image

    Image.new("RGB", (200, 100)).save(last)
    monkeypatch.setattr(journal, "_EVERY_S", 0.0)
    monkeypatch.setattr(journal, "_OFTEN", 8)
    with monkeypatch.context() as patch:
        broken_off(patch, 90, Broken())
        with pytest.raises(Broken):
            convlens.pack(root, tmp_path / "out", progress="none")
    dataset = convlens.pack(root, tmp_path / "out", progress="none")
    assert (dataset.input_spec.height, dataset.input_spec.width) == (32, 32) != (shape.height, shape.width)
    assert dataset.fingerprint == convlens.pack(root, size=32, progress="none").fingerprint


@pytest.mark.training
@pytest.mark.usefixtures("often")
def test_a_set_in_several_files_is_the_same_set(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprint, images in any order, training and scores are those of one file; damage in one part is named."""
    data = shapes(150, 3)
    monkeypatch.setattr(journal, "_MOST_PART_BYTES", 20 * 20 * 20)
    several = convlens.pack(data, "several", progress="none")
    monkeypatch.setattr(journal, "_MOST_PART_BYTES", 4_000_000_000)
    one = convlens.pack(data, "one", progress="none")
    assert len(several.card.parts) == 5 and several.card.parts[-1].num_images == 26
    assert several.fingerprint == one.fingerprint and several.input_spec == one.input_spec
    order = np.random.default_rng(0).permutation(len(one.rows("train")))
    assert np.array_equal(several.images("train")[order], one.images("train")[order])
    assert np.array_equal(several.images("train")[7], one.images("train")[7])
    assert np.array_equal(several.images("val")[3:9], one.images("val")[3:9])
    assert several.num_damaged() == 0
    runs = [convlens.train(d, architecture=TINY, recipe=QUICK, progress="none") for d in ("several", "one")]
    reports = [convlens.evaluate(run, progress="none").to_json() for run in runs]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
    part = Path("several/images-3.npy")
    part.write_bytes(part.read_bytes()[:-9] + b"123456789")
    with pytest.raises(DataError, match="several is damaged"):
        convlens.pack("several", verify=True)
    part.write_bytes(part.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"images-3\.npy is damaged"):
        convlens.pack("several", verify=True)


def test_the_unfinished_of_last_week_is_removed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache what nobody goes on with does not stay for ever; what is younger does."""
    packed = convlens.pack(source, size=8, progress="none").folder
    names = (".gone-0123.unfinished", ".young-0123.unfinished")
    for name in names:
        (packed.parent / name).mkdir()
    monkeypatch.setattr(files, "days_since", lambda path: 8.0 if path.name == names[0] else 6.0)
    convlens.pack(source, size=9, progress="none")
    assert not (packed.parent / names[0]).exists() and (packed.parent / names[1]).exists()
