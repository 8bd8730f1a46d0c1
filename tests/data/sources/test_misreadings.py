"""Trees, tables and objects that an attack got read wrongly, or that ended in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.pack import pack
from convlens.data.sources.base import ReadOptions, need_two_classes
from convlens.data.sources.class_names import alike
from convlens.data.sources.recognise import open_tree
from convlens.errors import ConvlensError, DataError
from tests.conftest import shapes
from tests.data.sources.random_trees import MemoryTree
from tests.data.sources.test_idx import idx_bytes
from tests.data.sources.test_npz import X2, Y2, X, Y


def tree(*paths: str, **texts: str) -> MemoryTree:
    """Pictures by path (`a/{0..3}.jpg` are three), and tables by name."""
    files: dict[str, bytes] = {}
    for path in paths:
        if "{" in path:
            start, _, rest = path.partition("{0..")
            number, _, end = rest.partition("}")
            files |= {f"{start}{k}{end}": b"picture" for k in range(int(number))}
        else:
            files[path] = b"picture"
    return MemoryTree(files | {name.replace("__", "/") + ".csv": text.encode() for name, text in texts.items()})


def table(folder: str, num: int, header: str = "image,label\n", first: int = 0) -> str:
    return header + "".join(f"{folder}{k}.jpg,{'ab'[k % 2]}\n" for k in range(first, num))


def rows(num: int, label: Callable[[int], str], header: str = "file,label\n") -> str:
    return header + "".join(f"i/{k}.jpg,{label(k)}\n" for k in range(num))


ONE_ELSEWHERE = "path,label\ncat/0.jpg,cat\ncat/1.jpg,cat\ndog/2.jpg,dog\ncat/3.jpg,cat\n"
META = "image_id,dx,sex,part\n" + "".join(
    f"{s}{k},{'ab'[k % 2]},{'mf'[k % 3 > 0]},{k % 2}\n" for s in "pq" for k in range(8)
)
IN_SPLITS = "path,label\n" + "".join(
    f"{split}/{k}.jpg,{'ab'[k % 2]}\n" for split in ("train", "test") for k in range(6)
)
IDX_TWICE = MemoryTree(
    {f"{s}/raw/train-{what}-ubyte": b"x" for s in ("A", "B") for what in ("images-idx3", "labels-idx1")}
)
REFUSED: dict[str, tuple[MemoryTree, str]] = {
    "copies in a folder beside": (
        tree("a/{0..4}.jpg", "b/{0..4}.jpg", "all/a/0.jpg", "all/b/0.jpg"),
        "as those beside",
    ),
    "copies in a class of train": (
        tree("train/a/{0..4}.jpg", "train/b/a/0.jpg", "train/b/b/0.jpg", "test/a/0.jpg", "test/b/0.jpg"),
        "as those beside",
    ),
    "missing in train, there in test": (
        tree("train/{0..9}.jpg", "test/{0..12}.jpg", train=table("train/", 10)),
        "1 of 10 files are missing",
    ),
    "only test is there": (tree("test/{0..10}.jpg", train=table("train/", 10)), "none of the files"),
    "only test is there, names alone": (tree("test/{0..10}.jpg", train=table("", 10)), "none of the files"),
    "missing in its class, there in another": (
        tree("dog/0.jpg", "cat/1.jpg", "dog/2.jpg", "cat/3.jpg", labels=ONE_ELSEWHERE),
        "1 of 4 files are missing: 'cat/0.jpg'",
    ),
    "no header, the first file missing": (
        tree("i/{0..9}.jpg", labels=table("i/", 12, "", 9) + table("i/", 9, "")),
        "files are missing",
    ),
    "masks beside": (
        tree("a/{0..5}.png", "a/{0..5}_mask.png", "b/{0..5}.png", "b/{0..5}_mask.png"),
        "masks beside",
    ),
    "three views": (tree("Images/{0..5}.png", "GroundTruth/{0..5}.png", "Contours/{0..5}.png"), "pictures with masks"),
    "fractions": (tree("i/{0..4}.jpg", labels=rows(4, lambda k: f"0.{k + 1}")), "no column says a label"),
    "several labels": (tree("i/{0..4}.jpg", labels=rows(4, lambda k: "a|b" if k else "a")), "are several labels"),
    "no label": (tree("i/{0..4}.jpg", labels=rows(4, lambda k: "NaN" if k else "a")), "must not be empty"),
    "a class of test in another case": (
        tree("train/cats/{0..4}.jpg", "train/dogs/{0..4}.jpg", "test/Dogs/{0..4}.jpg"),
        "no class in common",
    ),
    "numbered parts, and a table that knows more": (
        tree("part_1/p{0..8}.jpg", "part_2/q{0..8}.jpg", meta=META),
        "may be parts of one whole, and a table names their files, but .* several columns could be the label",
    ),
    "numbered parts with files of the same names": (
        tree("batch1/{0..4}.jpg", "batch2/{0..4}.jpg", labels=table("", 4)),
        "several folders hold a file 0.jpg",
    ),
    "two columns that name different files": (
        tree(
            "i/{0..8}.jpg",
            labels="file,image,label\n" + "".join(f"{k}.jpg,{k ^ 1}.jpg,{'ab'[k % 2]}\n" for k in range(8)),
        ),
        "name different files",
    ),
    "two columns of labels, one coarser": (
        tree("i/{0..8}.jpg", labels=rows(8, lambda k: f"{k % 4},{'ac'[k % 4 > 1]}", "file,label,category\n")),
        "several columns of labels",
    ),
    "a list as a label": (
        tree("i/{0..4}.jpg", labels=rows(4, lambda k: "\"['a', 'b']\"" if k else "a")),
        "are several labels",
    ),
    "labels that are parted by commas": (
        tree("i/{0..6}.jpg", labels=rows(6, lambda k: ('"a,b"', "a", "b")[k % 3])),
        "'a,b' are several labels",
    ),
    "R's missing label": (tree("i/{0..4}.jpg", labels=rows(4, lambda k: "NA" if k else "a")), "must not be empty"),
    "files in folders of splits and beside them": (
        tree("train/{0..6}.jpg", "test/{0..6}.jpg", "x/7.jpg", labels=IN_SPLITS + "x/7.jpg,a\n"),
        "some of its files lie in folders of splits",
    ),
    "several sets of IDX files": (IDX_TWICE, "several sets of IDX files"),
    "splits without train": (tree("dev/s1/0.jpg", "dev/s2/0.jpg", "eval/s3/0.jpg", "eval/s4/0.jpg"), "no train folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_wrongly_is_refused(name: str) -> None:
    """Each in one line that says what is wrong."""
    found, words = REFUSED[name]
    with pytest.raises(DataError, match=words) as caught:
        need_two_classes(open_tree(found, "data"))
    assert "\n" not in str(caught.value)


def test_tables_of_splits_with_the_same_names_of_files() -> None:
    """train/labels.csv and valid/labels.csv, whose pictures are called alike: each finds its own."""
    source: Any = open_tree(
        tree("train/{0..9}.jpg", "valid/{0..4}.jpg", train__labels=table("", 9), valid__labels=table("", 4)), "data"
    )
    assert dict(source.counts) == {"train": 9, "val": 4} and not source.unused
    points = rows(6, lambda k: f"1,2,{'ab'[k % 2]}", "file,x,y,kind\n")
    source = open_tree(tree("i/{0..6}.jpg", points=points), "data")
    assert source.class_names == ("a", "b")


def read_rows(found: MemoryTree, **said: Any) -> list[tuple[str, str, str | None]]:
    """Name, label and split of each picture of a tree."""
    source: Any = open_tree(found, "data", ReadOptions(**said))
    return [(row.name, row.label, row.split) for row in source.rows()]


def test_names_of_files_count_more_than_numbers() -> None:
    """A column `id` of row numbers, whose values are stems of other files, does not win over whole names."""
    text = "id,photo,label\n" + "".join(f"{k},{(k + 1) % 8}.jpg,{'ab'[k % 2]}\n" for k in range(8))
    assert read_rows(tree("i/{0..8}.jpg", labels=text))[0] == ("i/1.jpg", "a", None)


def test_the_split_of_folders_is_kept_where_a_table_names_their_files() -> None:
    """path,label over train/ and test/: test is test."""
    found = read_rows(tree("train/{0..6}.jpg", "test/{0..6}.jpg", labels=IN_SPLITS))
    assert {split for name, _, split in found if name.startswith("test/")} == {"test"}
    assert {split for name, _, split in found if name.startswith("train/")} == {"train"}


def test_splits_beside_others_are_not_pooled_by_an_expression() -> None:
    """`label` with train/ and test/ and a picture beside them is refused, not read as one set."""
    paths = ("train/a.0.jpg", "train/b.0.jpg", "test/a.1.jpg", "test/b.1.jpg")
    expression = ReadOptions(label="([ab])[.]")
    assert dict(open_tree(tree(*paths), "data", expression).counts) == {"train": 2, "test": 2}
    for beside in ("c/a.9.jpg", "a.9.jpg"):
        with pytest.raises(DataError, match="holds folders of splits, and pictures beside them"):
            open_tree(tree(*paths, beside), "data", expression)


def test_a_table_that_is_unclear_is_told_beside_class_folders() -> None:
    """Class folders with a table of other things, or of several boxes a picture, are read as folders, and that is
    said."""
    meta = "file,camera,size\n" + "".join(
        f"{c}/{k}.jpg,{'xy'[k % 2]},{k % 2}\n" for c in ("ant", "bee") for k in range(4)
    )
    boxes = "file,label,x\n" + "".join(
        f"{c}/{k}.jpg,{c},{n}\n" for c in ("ant", "bee") for k in range(4) for n in (1, 2)
    )
    for text, words in ((meta, "several columns could be the label"), (boxes, "stands in line 2 already")):
        source: Any = open_tree(tree("ant/{0..4}.jpg", "bee/{0..4}.jpg", table=text), "data")
        assert source.class_names == ("ant", "bee")
        assert any(
            "the folders are the classes, though a table names their files" in n and words in n for n in source.notes
        )


def test_tables_as_excel_and_windows_write_them() -> None:
    """`sep=;`, UTF-16 without a mark, names in another case, one-hot in words, a label that is missing once."""
    lines = [f"I/{k}.JPG;{'ab'[k % 2]}" for k in range(6)]
    text = "\r\n".join(["sep=;", "file;label", *lines, ""])
    expected = [(f"i/{k}.jpg", "ab"[k % 2], None) for k in range(6)]
    assert read_rows(tree("i/{0..6}.jpg", labels=text)) == expected
    files = {f"i/{k}.jpg": b"picture" for k in range(6)}
    for encoding in ("utf-16-le", "utf-16-be"):
        assert read_rows(MemoryTree(files | {"t.csv": rows(6, lambda k: "ab"[k % 2]).encode(encoding)})) == expected
    hot = "file,male,a,b\n" + "".join(f"i/{k}.jpg,{k % 3 == 0},{k % 2 == 0},{k % 2 == 1}\n" for k in range(6))
    assert read_rows(tree("i/{0..6}.jpg", labels=hot)) == expected
    with pytest.raises(DataError, match="line 3: path and label must not be empty"):
        read_rows(tree("i/{0..6}.jpg", labels=rows(6, lambda k: "nan" if k == 1 else str(k % 2))))


def test_tables_of_splits_and_one_beside() -> None:
    """Train.csv, Test.csv and Meta.csv with the same columns: the third is left aside."""
    one, two = (table(f"{s}/", 6, "Path,ClassId\n") for s in ("Train", "Test"))
    meta = "Path,ClassId\n" + "".join(f"Meta/{k}.jpg,{'ab'[k]}\n" for k in range(2))
    found = tree("Train/{0..6}.jpg", "Test/{0..6}.jpg", "Meta/{0..2}.jpg", Train=one, Test=two, Meta=meta)
    assert {split for _, _, split in read_rows(found)} == {"train", "test"} and len(read_rows(found)) == 12


def test_images_and_labels_of_one_folder_belong_together() -> None:
    """One whole set of IDX files beside a test set of another: the other's is not taken for its own."""
    images = idx_bytes(np.zeros((60, 4, 4), np.uint8))
    labels = idx_bytes((np.arange(60) % 2).astype(np.uint8))
    whole = {"A/raw/train-images-idx3-ubyte": images, "A/raw/train-labels-idx1-ubyte": labels}
    other = {"B/raw/t10k-images-idx3-ubyte": images, "B/raw/t10k-labels-idx1-ubyte": labels}
    source: Any = open_tree(MemoryTree(whole | other), "data")
    assert dict(source.counts) == {None: 60} and sum(map(len, source.unused.values())) == 2


def test_arrays_that_say_a_split_twice_or_no_label() -> None:
    """Two keys of train, an empty name, None and NaN among names are refused; a transformed target is what items
    say."""
    with pytest.raises(DataError, match="each once"):
        pack({"train_1": (X, Y), "train_2": (X, Y), "test": (X2, Y2)})
    for nothing in (None, float("nan"), ""):
        with pytest.raises(DataError, match="has no label at place 1"):
            pack((X, ["a", nothing, *"ab" * 29]))
    transformed = Set(("no", "yes"), [0, 1, 2] * 20)
    transformed.target_transform = lambda label: int(label == 2)  # type: ignore[attr-defined]
    item = Set.__getitem__
    try:
        Set.__getitem__ = lambda self, k: (item(self, k)[0], int(item(self, k)[1] == 2))  # type: ignore[method-assign]
        dataset = pack(transformed)
    finally:
        Set.__getitem__ = item  # type: ignore[method-assign]
    assert dataset.class_names == ("no", "yes") and {*dataset.labels("train").tolist()} == {0, 1}


def test_numbers_written_in_several_ways_are_told() -> None:
    """1, 01 and 1.0 look like one class; -1 and 1 do not."""
    assert len(alike(["1", "01", "1.0", "2"])) == 1
    assert alike(["-1", "1", "2"]) == []


def test_pixels_of_tables_without_order_or_header(tmp_path: Any) -> None:
    """Columns in the order of text, the label last, a table beside those of splits, a label that is missing."""
    x, y = shapes(40, 1, side=8)
    lines = [[*map(str, image.ravel().tolist()), str(label)] for image, label in zip(x, y.tolist(), strict=True)]

    def write(name: str, rows: list[list[str]]) -> Any:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
        return path

    expected = pack(write("first.csv", [["label", *(f"p{k}" for k in range(64))], *([r[-1], *r[:-1]] for r in lines)]))
    last = pack(write("last.csv", lines))
    assert last.class_names == expected.class_names
    assert np.array_equal(last.images("train")[:], expected.images("train")[:])
    rng = np.random.default_rng(3)
    bright = rng.integers(0, 256, (3_000, 64)).astype(str).tolist()  # whose corner has each value several times
    labels = [str(k % 10) for k in range(3_000)]
    for at_end in (False, True):
        mixed_up = [[*row, label] if at_end else [label, *row] for row, label in zip(bright, labels, strict=True)]
        assert pack(write(f"bright{at_end}.csv", mixed_up)).class_names == tuple("0123456789")
    order = sorted(range(64), key=lambda k: f"p{k}")
    mixed = [["label", *(f"p{k}" for k in order)], *([r[-1], *(r[k] for k in order)] for r in lines)]
    assert np.array_equal(pack(write("mixed.csv", mixed)).images("train")[:], expected.images("train")[:])
    with pytest.raises(DataError, match="not clear which column is the label"):
        pack(write("neither.csv", [[str(k), *r[:-1]] for k, r in enumerate(lines)]))
    with pytest.raises(DataError, match="has no label at place 3"):
        pack(
            write(
                "none.csv",
                [
                    ["label", *(f"p{k}" for k in range(64))],
                    *(["" if k == 3 else r[-1], *r[:-1]] for k, r in enumerate(lines)),
                ],
            )
        )
    header = [["label", *(f"p{k}" for k in range(64))]]
    labelled = [[r[-1], *r[:-1]] for r in lines]
    folder = write("set/train.csv", header + labelled).parent
    write("set/readme.txt", [["x"]])
    assert any("readme.txt" in note for note in pack(folder).notes)
    write("set/other.csv", header + labelled[:5])
    with pytest.raises(DataError, match="several tables of pixels"):
        pack(folder)


def test_masks_are_told_where_a_label_is_read_too() -> None:
    """An expression for the names of pictures does not make classes of their masks."""
    with pytest.raises(DataError, match="pictures with masks"):
        found = tree(*(f"{kind}/{label}_{{0..5}}.png" for kind in ("images", "annotations") for label in "ab"))
        open_tree(found, "data", ReadOptions(label=r"([ab])_"))


def test_a_label_that_is_no_expression_is_one_line() -> None:
    """Whatever lies there."""
    for paths in (("train/{0..4}.jpg", "test/{0..4}.jpg"), ("{0..4}.jpg",)):
        with pytest.raises(DataError, match="no regular expression"):
            open_tree(tree(*paths), "data", ReadOptions(label="("))


class Set:
    """A data set with names of its own, which never ends by itself."""

    def __init__(self, classes: tuple[str, ...], labels: list[int]) -> None:
        self.classes, self.targets = classes, labels

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> Any:
        return X[number % len(X)], self.targets[number % len(self.targets)]


def test_each_data_set_has_its_own_numbers() -> None:
    """A class that test lacks, or another order: labels are matched by their names."""
    data = {"train": Set(("ant", "bee", "cat"), [0, 1, 2] * 10), "test": Set(("bee", "cat"), [0, 1, 1, 1])}
    dataset = pack(data)
    assert dataset.class_counts("test").tolist() == [0, 1, 3]


def test_of_several_arrays_of_labels_the_plain_one_counts() -> None:
    """`labels` beside label_source and weights; where two are equal in rank, neither."""
    np_labels = {"images": X, "labels": Y, "label_source": 2 - Y, "class_weights": np.ones(3)}
    assert pack(np_labels).fingerprint == pack((X, Y)).fingerprint
    with pytest.raises(DataError, match="several labels: 'coarse_labels', 'fine_labels'"):
        pack({"images": X, "coarse_labels": Y, "fine_labels": Y})
    with pytest.raises(DataError, match="several images"):
        pack({"x_train": X, "y_train": Y, "x_valid": X2, "y_valid": Y2, "x_dev": X2, "y_dev": Y2})


class Endless:
    """Items by number, of any number."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 60

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


class Broken:
    """Raises whatever is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, number: int) -> Any:
        raise RuntimeError("no")


def test_objects_from_python_end_in_one_line_or_are_read(tmp_path: Any) -> None:
    """No traceback and no endless loop from whatever is handed in, to `pack` and to `predict`."""
    assert sum(pack((Endless(lambda k: X[k % 60]), Endless(lambda k: int(Y[k % 60])))).counts.values()) == 60
    odd: list[Any] = [(X, [10**30, 1] * 30), (X, Y, None, Y), (X, Broken()), (Broken(), Y), {"x": Broken(), "y": Y}]
    odd += [{"x": X, "y": Y, "class_names": np.array(3)}, (X, Y, (k for k in Y), X2), ((X, Y), None), [], {}, (X, 3.0)]
    for one in (*odd, Broken()):
        with pytest.raises(ConvlensError) as caught:
            pack(one)
        assert "\n" not in str(caught.value)
    run = convlens.train((X, Y), preset="fast", recipe={"epochs": 1}, size=20, out=tmp_path / "run", progress="none")
    for image in (
        np.array(3),
        [1, 2],
        [None, 3],
        {1, 2},
        range(12),
        np.arange(5),
        memoryview(b"abc"),
        Broken(),
        [Broken()],
    ):
        with pytest.raises(ConvlensError):
            convlens.predict(run, image, progress="none")
