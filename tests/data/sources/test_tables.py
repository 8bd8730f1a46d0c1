"""CSV tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from convlens.data.packed.pack import pack
from convlens.errors import DataError
from tests.conftest import write_folders


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
