"""Zip files: whatever a folder may hold, read in place; and the archives that are refused."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import convlens
from convlens.data.packed.pack import pack, reopen
from convlens.data.sources import zip_file
from convlens.errors import DataError
from convlens.progress import Progress
from tests.conftest import QUICK, TINY, write_folders
from tests.data.sources.test_idx import write_idx
from tests.helpers import read_lines


def zipped(folder: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip file beside a folder, with what the folder holds."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda root: write_folders(root, 12), id="class folders"),
        pytest.param(lambda root: write_folders(root, 12, splits=("train", "test")), id="split folders"),
        pytest.param(lambda root: write_folders(root / "pictures", 12).parent, id="one folder around them"),
        pytest.param(lambda root: write_idx(root), id="IDX files"),
        pytest.param(lambda root: write_idx(root, zipped=True), id="IDX files, compressed"),
    ],
)
def test_a_zip_file_is_what_the_folder_is(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """The same images, labels, names and splits, whichever way a folder lies; nothing is unpacked beside it."""
    folder = make(tmp_path / "set")
    as_folder, as_zip = pack(folder), pack(zipped(folder))
    assert as_zip.fingerprint == as_folder.fingerprint and as_zip.test_fingerprint == as_folder.test_fingerprint
    assert as_zip.sample_names() == as_folder.sample_names() and as_zip.counts == as_folder.counts
    assert as_zip.notes == as_folder.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip"]


def test_a_table_in_a_zip_file(tmp_path: Path) -> None:
    """One table beside its pictures is read as it is on a disk."""
    flat = tmp_path / "set"
    flat.mkdir()
    rows = ["path,label"]
    for number, file in enumerate(sorted(write_folders(tmp_path / "pictures", 12).rglob("*.png"))):
        (flat / f"{number}.png").write_bytes(file.read_bytes())
        rows.append(f"{number}.png,{file.parent.name}")
    (flat / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    assert pack(zipped(flat)).fingerprint == pack(flat / "labels.csv").fingerprint


@pytest.mark.training
def test_a_zip_file_is_trained_from_evaluated_and_checked(workplace: Path) -> None:
    """From a zip file to a run, its evaluation and a check: found again by its path."""
    path = zipped(write_folders(workplace / "set", 40))
    run = convlens.train(path, architecture=TINY, recipe=QUICK, size=20, progress="none")
    assert reopen(run.record.dataset, progress=Progress()).source == str(path)
    assert convlens.evaluate(run, progress="none").n > 0 and convlens.evaluate(run, path, progress="none").n > 0
    assert len(convlens.check(path, progress="none").samples) == 80
    again = convlens.train(resume=run, progress="none")
    assert again.status == "complete"


def test_a_broken_picture_in_a_zip_file_is_quarantined(tmp_path: Path) -> None:
    """A member whose bytes are damaged, or that is larger than it says, is left out and counted; the others stay."""
    path = zipped(write_folders(tmp_path / "set", 20), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 8
    data[at : at + 4] = b"oops"
    path.write_bytes(data)
    out = tmp_path / "packed"
    found = pack(path, out=out)
    assert found.num_quarantined == 1 and sum(found.counts.values()) == 39
    reasons = [row["reason"] for row in read_lines(out / "samples.jsonl") if row.get("reason")]
    assert "zip file" in reasons[0] and "CRC" in reasons[0]


def _set_flag(path: Path, offset: int, value: int) -> None:
    """Set two bytes of the first entry in the central directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)


def _with(path: Path, *names: str, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def test_zip_files_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken, encrypted, nested, bombs, names that lead out or stand twice, labels said twice: one line each."""
    cases: list[tuple[Path, str]] = []

    def case(words: str) -> Path:
        path = zipped(write_folders(tmp_path / f"{len(cases)}", 4))
        cases.append((path, words))
        return path

    broken = case("cannot be read as a zip file")
    broken.write_bytes(broken.read_bytes()[:-30])
    case("cannot be read as a zip file").write_bytes(b"no zip file at all")
    case("cannot be read as a zip file").write_bytes(b"")
    _set_flag(case("is encrypted"), 8, 1)
    _set_flag(case("not compressed by deflate"), 10, zipfile.ZIP_LZMA)
    for name in ("../out.png", "/out.png", "circle/../../out.png", "C:/out.png", "circle\\out.png"):
        _with(case("leads out of it"), name)
    with pytest.warns(UserWarning, match="Duplicate name"):
        _with(case("two members of one name"), "circle/000.png")
    _with(case("a file and a folder at once"), "circle")
    _with(case("which differ"), "labels.csv", data=b"path,label\ncircle/000.png,square\ncircle/001.png,circle\n")
    bomb = case("zip bomb")
    monkeypatch.setattr(zip_file, "_SMALL_BYTES", 1 << 20)
    _with(bomb, "circle/big.png", data=bytes(20 << 20))
    lying = case("lie upon one another")
    data = bytearray(lying.read_bytes())
    first = data.index(b"PK\x01\x02")
    offset_of_last = data.rindex(b"PK\x01\x02") + 42
    data[offset_of_last : offset_of_last + 4] = struct.pack("<I", struct.unpack_from("<I", data, first + 42)[0] + 1)
    lying.write_bytes(data)
    nested = tmp_path / "nested.zip"
    with zipfile.ZipFile(nested, "w") as archive:
        archive.write(cases[0][0], "inner.zip")
    cases.append((nested, "nothing but zip files"))
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w"):
        pass
    cases.append((empty, "no class folders"))
    table = b"path,label\ncircle/000.png,one\ncircle/001.png,two\n"
    _with(_with(case("several tables"), "a.csv", data=table), "b.csv", data=table)
    for path, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            pack(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value), caught.value


def test_a_member_that_is_larger_than_it_says_takes_no_more_memory(tmp_path: Path) -> None:
    """A header that promises a few bytes does not make 200 MB of them: reading ends where the promise does."""
    import tracemalloc

    path = zipped(write_folders(tmp_path / "set", 6))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("circle/zz.png", bytes(200 << 20))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rindex(signature) + offset, 100)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        found = pack(path)
        assert found.num_quarantined == 1 and tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_names_of_a_zip_file_are_classes_in_any_script(tmp_path: Path) -> None:
    """Names that are not ASCII come out as they went in, and litter that systems add is left aside."""
    folder = write_folders(tmp_path / "set", 6)
    (folder / "circle").rename(folder / "größe 圆")
    path = _with(zipped(folder), "__MACOSX/._x.png", "größe 圆/.DS_Store")
    found = pack(path)
    assert found.class_names == ("größe 圆", "square") or found.class_names == ("square", "größe 圆")
    assert np.sum(list(found.counts.values())) == 12
