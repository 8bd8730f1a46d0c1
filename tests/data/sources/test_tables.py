"""CSV tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from convlens.data.packed.pack import pack
from convlens.errors import DataError
from tests.conftest import shapes, write_folders


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


def test_csv_that_cannot_be(tmp_path: Path) -> None:
    """Missing columns and files, double paths, unknown and partial splits: the line is named."""
    write_folders(tmp_path / "p", 3)
    good = "p/circle/000.png,circle\np/square/000.png,square\n"
    crossed = "".join(f"p/{k}/00{n}.png,{k},{c}\n" for k in ("circle", "square") for n, c in enumerate("ab"))
    cases = [
        ("file,width\n" + good.replace("circle\n", "1.5\n"), "its columns are 'file', 'width'"),
        ("name,label\n" + "p/none.png,circle\n", "none of the files in column 'name' is there"),
        ("path,label,class\n" + crossed, "several columns of labels ('label', 'class')"),
        ("path,label\n" + good + "p/none.png,circle\n", "1 of 3 files are missing: 'p/none.png'"),
        ("path,label\n" + good + "p/circle/000.png,square\n", "line 4: p/circle/000.png stands in line 2"),
        ("path,label,split\np/circle/000.png,circle,exam\n", "line 2: unknown split 'exam'"),
        ("path,label,split\np/circle/000.png,circle,train\np/square/000.png,square,\n", "1 of 2 rows have no split"),
        ("path,label\np/circle/000.png\n", "line 2: it has 1 columns, not 2"),
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
    with pytest.raises(DataError, match="cannot be read as text"):
        pack(tmp_path / "bin.csv")


def test_tables_of_pixels(tmp_path: Path) -> None:
    """A label and a column for each pixel, with a header and without, alone and for each split; test without labels is
    left aside. The pixels are those of the arrays."""
    x, y = shapes(40, 1, side=8)
    rows = [[str(label), *map(str, image.ravel().tolist())] for image, label in zip(x, y.tolist(), strict=True)]
    header = ["label", *(f"pixel{k}" for k in range(64))]

    def write(path: Path, lines: list[list[str]]) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
        return path

    as_arrays = pack((x, y))
    for path in (write(tmp_path / "a.csv", [header, *rows]), write(tmp_path / "b.csv", rows)):
        assert pack(path).fingerprint == as_arrays.fingerprint
    kaggle = write(tmp_path / "kaggle" / "train.csv", [header, *rows]).parent
    write(kaggle / "test.csv", [header[1:], *(row[1:] for row in rows)])
    dataset = pack(kaggle)
    assert dataset.fingerprint == as_arrays.fingerprint
    assert any("pictures without labels" in note and "test.csv" in note for note in dataset.notes)
    write(kaggle / "test.csv", [header, *rows[:10]])
    assert pack(kaggle).counts["test"] == 10
    write(tmp_path / "odd.csv", [header, *rows[:5], [*rows[5][:-1], "x"]])
    with pytest.raises(DataError, match="cannot be read as a table of pixels"):
        pack(tmp_path / "odd.csv")
