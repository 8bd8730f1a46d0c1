"""Trees, tables and objects that an attack got read wrongly, or that ended in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.pack import pack
from convlens.data.sources.base import ReadOptions, need_two_classes
from convlens.data.sources.recognise import open_tree
from convlens.errors import ConvlensError, DataError
from tests.data.sources.random_trees import MemoryTree
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
