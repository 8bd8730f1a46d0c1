"""Parquet files and tar shards: what is in them comes out of the packed set, and what is wrong with them is a line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.data.sources.recognise import open_source
from convlens.errors import DataError, UsageError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["ant", "bee", "cow"]


def png(number: int, side: int = 12) -> bytes:
    """A picture unlike any other."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def features(**others: Any) -> bytes:
    """What Hugging Face writes beside a table."""
    known = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}} | others
    return json.dumps({"info": {"features": known}}).encode()


def write_parquet(
    path: Path, numbers: range, labels: Any = None, *, metadata: bytes | None = None, **more: Any
) -> None:
    """A Parquet file in Hugging Face's layout, in small row groups."""
    labels = [number % 3 for number in numbers] if labels is None else labels
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    columns = {"image": pa.array(images, STRUCT), "label": pa.array(labels)} | more
    table = pa.table(columns)
    table = table.replace_schema_metadata({"huggingface": features() if metadata is None else metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A tar file of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def sample(number: int, how: str = "cls") -> list[tuple[str, bytes]]:
    """The two members of a sample."""
    label = NAMES[number % 3]
    about = label.encode() if how == "cls" else json.dumps({"label": label, "writer": number % 5}).encode()
    return [(f"./{number:04d}.png", png(number)), (f"./{number:04d}.{how}", about)]


def pixels(data: convlens.Dataset, split: str) -> dict[str, np.ndarray[Any, Any]]:
    """The images of a split by the name of their class and number."""
    names, rows = data.sample_names(), data.rows(split).tolist()
    return {names[row]: image for row, image in zip(rows, data.images(split), strict=True)}


def test_hugging_face_files(workplace: Path) -> None:
    """Several files, splits by their names, class names in the schema's order: each picture is that of its row, under
    the label of its row."""
    write_parquet(Path("set/data/train-00000-of-00002.parquet"), range(30))
    write_parquet(Path("set/data/train-00001-of-00002.parquet"), range(30, 60))
    write_parquet(Path("set/data/validation-00000-of-00001.parquet"), range(60, 75))
    write_parquet(Path("set/data/test-00000-of-00001.parquet"), range(75, 99))
    data = convlens.pack("set", progress="none")
    assert data.class_names == tuple(NAMES) and data.counts == {"train": 60, "val": 15, "test": 24}
    found = pixels(data, "train") | pixels(data, "val")
    first = {"train-00000-of-00002": 0, "train-00001-of-00002": 30, "validation-00000-of-00001": 60}
    for name, image in found.items():
        stem, _, row = name.removeprefix("data/").partition(".parquet/")
        assert (image == np.asarray(Image.open(io.BytesIO(png(first[stem] + int(row)))))).all(), name
    labels = dict(zip(data.rows("train").tolist(), data.labels("train").tolist(), strict=True))
    names = data.sample_names()
    for row, label in labels.items():
        stem, _, number = names[row].removeprefix("data/").partition(".parquet/")
        assert label == (first[stem] + int(number)) % 3


def test_read_in_any_order(workplace: Path) -> None:
    """A picture is found whether the rows are asked for in order, backwards, or here and there."""
    write_parquet(Path("one.parquet"), range(50))
    source = open_source("one.parquet")
    reads = [sample.read for sample in source.samples()]
    for number in (*range(50), *reversed(range(50)), 13, 2, 49, 0, 48):
        assert reads[number]() == png(number)


def test_a_changed_file_is_packed_anew(workplace: Path) -> None:
    """The cache knows a shard by its size and time."""
    write_parquet(Path("one.parquet"), range(30))
    before = convlens.pack("one.parquet", progress="none").fingerprint
    assert convlens.pack("one.parquet", progress="none").fingerprint == before
    write_parquet(Path("one.parquet"), range(31, 61))
    assert convlens.pack("one.parquet", progress="none").fingerprint != before


def test_what_lacks_a_label_or_a_picture(workplace: Path) -> None:
    """Rows without a label are not used, and counted; a row without a picture is quarantined with the reason."""
    labels = [None if number in (3, 4) else -1 if number == 5 else number % 3 for number in range(40)]
    images = [
        None if number == 9 else {"bytes": None if number == 10 else png(number), "path": "x"} for number in range(40)
    ]
    write_parquet(Path("one.parquet"), range(40), labels, image=pa.array(images, STRUCT))
    data = convlens.pack("one.parquet", progress="none")
    assert len(data) == 35 and data.num_quarantined == 2 and data.num_listed == 37
    assert any("3 pictures" in note and "without labels" in note for note in data.notes)
    reasons = [line.reason for line in data.samples() if line.status == "quarantined"]
    assert "no picture" in str(reasons[0]) and "no bytes" in str(reasons[1])


def test_names_of_classes_are_those_of_every_source(workplace: Path) -> None:
    """In one Unicode form, numbers in their order, and those that look alike are remarked on."""
    labels = [("2", "10", "cafe\u0301", "Caf\u00e9")[n % 4] for n in range(40)]
    write_parquet(Path("one.parquet"), range(40), labels, metadata=b"{}")
    write_tar(Path("one.tar"), [(f"{n}.png", png(n)) for n in range(40)] + [
        (f"{n}.cls", label.encode()) for n, label in enumerate(labels)
    ])  # fmt: skip
    for path in ("one.parquet", "one.tar"):
        source = open_source(path)
        assert source.class_names == ("10", "2", "Caf\u00e9", "caf\u00e9")
        assert any("look alike" in note for note in source.notes)
    write_parquet(Path("two.parquet"), range(30), [n % 11 for n in range(30)], metadata=b"{}")
    assert open_source("two.parquet").class_names == tuple(map(str, range(11)))


def test_columns_can_be_said(workplace: Path) -> None:
    """Of several columns of labels, or of pictures, the one that is named; a column of groups."""
    more = {"fine": pa.array([number % 5 for number in range(60)]), "who": pa.array([f"w{n // 6}" for n in range(60)])}
    known = features(fine={"_type": "ClassLabel", "names": list("abcde")})
    write_parquet(Path("one.parquet"), range(60), metadata=known, **more)
    with pytest.raises(DataError, match=r"several columns of labels: .*`label_column`"):
        open_source("one.parquet")
    data = convlens.pack("one.parquet", label_column="fine", group="who", progress="none")
    assert data.class_names == tuple("abcde") and data.has_groups
    with pytest.raises(DataError, match="no column 'nobody'"):
        convlens.pack("one.parquet", label_column="fine", group="nobody", progress="none")


def _texts(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), path)


def _nested(path: Path) -> None:
    write_parquet(path, range(4), [[0], [1], [2], [0]], metadata=b"{}")


def _floats(path: Path) -> None:
    write_parquet(path, range(4), [0.5, 1.5, 2.5, 0.5], metadata=b"{}")


def _too_high(path: Path) -> None:
    write_parquet(path, range(4), [0, 1, 2, 7])


def _no_labels(path: Path) -> None:
    write_parquet(path, range(4), [-1, -1, -1, -1])


def _no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 and nothing more")


def _broken(path: Path) -> None:
    write_parquet(path, range(40))
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_texts, "no column of pictures"),
        (_nested, "a label is a number or a text"),
        (_floats, "a label is a number or a text"),
        (_too_high, "row 3: class number 7, of 3 classes"),
        (_no_labels, "no picture with a label"),
        (_no_parquet, "cannot be read as Parquet"),
        (_broken, "cannot be read as Parquet"),
    ],
)
def test_parquet_that_cannot_be_used(workplace: Path, make: Callable[[Path], None], words: str) -> None:
    """One line says what is wrong and where."""
    make(Path("bad.parquet"))
    with pytest.raises(DataError, match=words) as found:
        convlens.pack("bad.parquet", progress="none")
    assert "bad.parquet" in str(found.value) and "\n" not in str(found.value)


def test_files_that_do_not_belong_together(workplace: Path) -> None:
    """Other columns in one of several files, or a split in the names of some alone, are refused by name."""
    write_parquet(Path("set/train-0.parquet"), range(10))
    write_parquet(Path("set/train-1.parquet"), range(10), [NAMES[n % 3] for n in range(10)])
    with pytest.raises(DataError, match=r"train-1\.parquet has other columns than .*train-0\.parquet"):
        open_source("set")
    write_parquet(Path("set/train-1.parquet"), range(10))
    write_parquet(Path("set/more.parquet"), range(10))
    with pytest.raises(DataError, match=r"more.parquet' says no split"):
        open_source("set")


# ---------------------------------------------------------------- tar shards


@pytest.mark.parametrize("how", ["cls", "json"])
def test_tar_shards(workplace: Path, how: str) -> None:
    """Both conventions of labels; splits by the names of the shards; each picture is that of its key."""
    write_tar(Path("set/train-000000.tar"), [one for n in range(30) for one in sample(n, how)])
    write_tar(Path("set/train-000001.tar"), [one for n in range(30, 50) for one in sample(n, how)])
    write_tar(Path("set/test-000000.tar"), [one for n in range(50, 60) for one in sample(n, how)])
    group = {} if how == "cls" else {"group": "writer"}
    data = convlens.pack("set", progress="none", **group)  # type: ignore[arg-type]
    assert data.class_names == tuple(NAMES) and data.counts["test"] == 10 and len(data) == 60
    assert data.has_groups == (how == "json")
    for name, image in pixels(data, "train").items():
        number = int(name.rpartition("/")[2].removesuffix(".png"))
        assert (image == np.asarray(Image.open(io.BytesIO(png(number))))).all()


def test_halves_are_counted(workplace: Path) -> None:
    """A picture without a label, and a label without a picture, are not used, and said."""
    members = [one for n in range(20) for one in sample(n)]
    write_tar(Path("one.tar"), [*members, ("lone.png", png(99)), ("label.cls", b"ant")])
    source = open_source("one.tar")
    assert source.num_samples == 20 and sum(map(len, source.unused.values())) == 2
    assert any("lone.png" in note for note in source.notes)


def _member(kind: bytes, name: str = "0001.png", to: str = "/etc/passwd") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            archive.addfile(info)

    return make


def _tar(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    return lambda path: write_tar(path, list(members))


def _cut(path: Path) -> None:
    write_tar(path, [one for n in range(20) for one in sample(n)])
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_member(tarfile.SYMTYPE), "has a link"),
        (_member(tarfile.LNKTYPE), "has a link"),
        (_member(tarfile.FIFOTYPE), "no file"),
        (_tar(("../0001.png", b"x")), "leads out of it"),
        (_tar(("/0001.png", b"x")), "leads out of it"),
        (_tar(*sample(1), *sample(1)), "twice"),
        (_tar(("1.png", png(1)), ("1.jpg", png(1)), ("1.cls", b"a")), "several pictures of one key"),
        (_tar(("1.png", png(1)), ("1.json", b'{"caption": "a"}')), "its fields are .caption"),
        (_tar(("1.png", png(1)), ("1.json", b'{"label": [1, 2]}')), "no number or text"),
        (_tar(("1.png", png(1)), ("1.json", b"{")), "not JSON"),
        (_tar(("1.png", png(1)), ("1.cls", b"\xff\xfe")), "no text"),
        (_tar(("1.png", png(1))), "no picture with a label"),
        (_cut, "ends too early"),
        (lambda path: path.write_bytes(b"no tar" * 1000), "cannot be read as a tar file"),
    ],
)
def test_tar_that_cannot_be_used(workplace: Path, make: Callable[[Path], None], words: str) -> None:
    """One line says what is wrong and where; nothing is followed, and nothing written."""
    make(Path("bad.tar"))
    with pytest.raises(DataError, match=words) as found:
        convlens.pack("bad.tar", progress="none")
    assert "bad.tar" in str(found.value) and "\n" not in str(found.value)


def test_compressed_as_a_whole(workplace: Path) -> None:
    """In a .tar.gz no picture can be found without reading all before it: refused, with what to do."""
    Path("set.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="unpack it"):
        open_source("set.tar.gz")


def test_without_pyarrow(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: where it is missing, one line says how to get it."""
    write_parquet(Path("one.parquet"), range(10))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"convlens\[parquet\]"):
        open_source("one.parquet")


def test_trained_and_evaluated(workplace: Path) -> None:
    """From the files to a number: a training reads them, and its model measures others of their kind."""
    write_parquet(Path("train.parquet"), range(60))
    write_tar(Path("other.tar"), [one for n in range(100, 130) for one in sample(n)])
    run = convlens.train("train.parquet", architecture="flatten linear(classes)", epochs=1, progress="none")
    assert convlens.evaluate(run, "other.tar", progress="none").n == 30
