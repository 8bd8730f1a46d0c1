"""NumPy files and arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from convlens.data.image.framing import fit
from convlens.data.packed.pack import pack
from convlens.errors import DataError


def test_npz_and_arrays_and_folder_agree(tmp_path: Path, arrays: Any) -> None:
    """An .npz, floats in 0..1, and arrays in Python are the same data set."""
    x, y, x_test, y_test = arrays
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.savez_compressed(tmp_path / "b.npz", x_train=x / 255, y_train=y, x_test=x_test[..., None] / 255, y_test=y_test)
    prints = {pack(tmp_path / "a.npz").fingerprint, pack(tmp_path / "b.npz").fingerprint, pack(arrays).fingerprint}
    assert len(prints) == 1
    np.savez(tmp_path / "c.npz", x=x, y=np.array(["a", "b", "c"])[y])
    assert pack(tmp_path / "c.npz").class_names == ("a", "b", "c")


_RNG = np.random.default_rng(0)
X = _RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8)
Y = np.arange(60) % 3
X2, Y2 = X[:12] // 2, Y[:12]
SIZES = [_RNG.integers(0, 256, (8 + k % 5, 9, 3), dtype=np.uint8) for k in range(60)]


class Pairs:
    """A data set as torch has them."""

    classes = ("u", "v", "w")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return torch.tensor(SIZES[number]).permute(2, 0, 1) / 255, int(Y[number])


class _Names:
    names = ("u", "v", "w")


class Columns:
    """A data set as Hugging Face has them."""

    column_names = ("image", "label")
    features: ClassVar = {"image": None, "label": _Names()}

    def __len__(self) -> int:
        return 60

    def __getitem__(self, which: int | str) -> Any:
        if which == "label":
            return Y.tolist()
        assert isinstance(which, int)
        return {"image": Image.fromarray(SIZES[which]), "label": int(Y[which])}


class Bunch(dict[str, Any]):
    """What scikit-learn's loaders give."""


_NUMBERS, _LETTERS = ("0", "1", "2"), ("u", "v", "w")
_SPLIT = {"train": 54, "val": 6, "test": 12}
GOOD: list[tuple[str, Any, tuple[str, ...], dict[str, int], tuple[float, float]]] = [
    ("Keras", {"x_train": X, "y_train": Y, "x_test": X2, "y_test": Y2}, _NUMBERS, {"test": 12}, (0, 255)),
    (
        "MedMNIST",
        {
            f"{split}_{kind}": value
            for split, x, y in (("train", X, Y), ("val", X2, Y2), ("test", 255 - X2, Y2))
            for kind, value in (("images", x), ("labels", y[:, None]))
        },
        _NUMBERS, {"train": 60, "val": 12, "test": 12}, (0, 255),
    ),
    (
        "scikit-learn",
        {"data": X.reshape(60, 64) / 1.0, "target": Y, "images": X / 1.0, "target_names": np.array(_LETTERS)},
        _LETTERS, {}, (0, 255),
    ),
    ("savez of two", {"arr_0": X, "arr_1": Y}, _NUMBERS, {}, (0, 255)),
    ("savez of four", {"arr_0": X, "arr_1": Y, "arr_2": X2, "arr_3": Y2}, _NUMBERS, {"test": 12}, (0, 255)),
    ("savez, other order", {"arr_0": X, "arr_1": X2, "arr_2": Y, "arr_3": Y2}, _NUMBERS, {"test": 12}, (0, 255)),
    ("objects of strings", {"x": X, "y": np.array(_LETTERS, object)[Y]}, _LETTERS, {}, (0, 255)),
    ("one-hot", {"x": X, "y": np.eye(3)[Y]}, _NUMBERS, {}, (0, 255)),
    ("floats in 0..1", {"x": X / 255, "y": Y}, _NUMBERS, {}, (0, 1)),
    ("floats in 0..255", {"x": X.astype(np.float32), "y": Y.astype(float)}, _NUMBERS, {}, (0, 255)),
    ("floats in -1..1", {"x": X / 127.5 - 1, "y": Y}, _NUMBERS, {}, (-1, 1)),
    ("12 bits in 16", {"x": X.astype(np.uint16) * 16, "y": Y}, _NUMBERS, {}, (0, 4095)),
    ("masks of 0 and 1", {"x": (X > 99).astype(np.uint8), "y": Y}, _NUMBERS, {}, (0, 1)),
    ("bool", {"x": X > 99, "y": Y}, _NUMBERS, {}, (0, 1)),
    ("channels first", {"x": X[:, None].repeat(3, 1), "y": Y}, _NUMBERS, {}, (0, 255)),
    ("with alpha", {"x": X[..., None].repeat(4, 3), "y": Y}, _NUMBERS, {}, (0, 255)),
]  # fmt: skip
IN_MEMORY: list[tuple[str, Any, tuple[str, ...], dict[str, int]]] = [
    ("pairs of arrays", ((X, Y), (X2, Y2)), _NUMBERS, {"test": 12}),
    ("three pairs", ((X, Y), (X2, Y2), (255 - X2, Y2)), _NUMBERS, {"train": 60, "val": 12, "test": 12}),
    ("four in scikit-learn's order", (X, X2, Y, Y2), _NUMBERS, {"test": 12}),
    ("by split", {"training": (X, Y), "validation": (X2, Y2)}, _NUMBERS, {"val": 12}),
    ("pictures of several sizes", (SIZES, [_LETTERS[k] for k in Y]), _LETTERS, {}),
    ("PIL images", ([Image.fromarray(a) for a in SIZES], Y), _NUMBERS, {}),
    ("tensors", (torch.tensor(X), torch.tensor(Y)), _NUMBERS, {}),
    ("fetch_openml", Bunch(data=X.reshape(60, 64) / 1.0, target=np.array(_LETTERS, object)[Y]), _LETTERS, {}),
    ("a torch data set", Pairs(), _LETTERS, {}),
    ("a Hugging Face data set", Columns(), _LETTERS, {}),
    ("several of them", {"train": Columns(), "test": Pairs()}, _LETTERS, {"test": 60}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "names", "counts", "values"), [case[1:] for case in GOOD], ids=[c[0] for c in GOOD])
def test_the_npz_of_every_library(
    data: Any, names: Any, counts: dict[str, int], values: tuple[float, float], tmp_path: Path
) -> None:
    """Images and labels are found by the names that libraries give them; classes, splits and range are right."""
    np.savez(tmp_path / "a.npz", **data)
    dataset = pack(tmp_path / "a.npz")
    assert dataset.class_names == names and dataset.input_spec.value_range == values
    assert {split: dataset.counts[split] for split in counts} == counts
    if not counts:
        assert sum(dataset.counts.values()) == 60


@pytest.mark.parametrize(("data", "names", "counts"), [case[1:] for case in IN_MEMORY], ids=[c[0] for c in IN_MEMORY])
def test_what_libraries_have_in_memory(data: Any, names: Any, counts: dict[str, int]) -> None:
    """Arrays, lists, tensors and data sets of other libraries, without importing one of them."""
    dataset = pack(data)
    assert dataset.class_names == names
    assert {split: dataset.counts[split] for split in counts} == counts
    if not counts:
        assert sum(dataset.counts.values()) == 60


def test_values_mean_the_same_in_every_type() -> None:
    """One set as bytes, floats in 0..1 and -1..1, 12 and 16 bits: equal pixels once packed, and when predicted on."""
    x = X.astype(float)
    forms = (X, x, x / 255, x / 127.5 - 1, np.rint(x / 255 * 65_535).astype(np.uint16))
    packed = [pack((form, Y)) for form in forms]
    rows = [np.argsort(dataset.merged().split_keys(dataset.merged().rows("train"))) for dataset in packed]
    assert all(len(one) == 60 for one in rows)
    for dataset, form in zip(packed, forms, strict=True):
        framed = np.stack([fit(image, dataset.input_spec) for image in np.asarray(form)])
        assert (framed[..., 0] == X).all()
        assert (fit(X[0], dataset.input_spec)[..., 0] == X[0]).all(), "bytes stay what they are"
    deep = pack((X.astype(np.uint16) * 16, Y)).input_spec
    brighter = np.array(X[0], np.uint16) * 16
    brighter[0, 0] = 60_000
    assert (fit(brighter, deep)[1:, 1:, 0] == np.rint(X[0, 1:, 1:] * (16 * 255 / 4095))).all(), "moves nothing"


BAD_ARRAYS: list[tuple[Any, str]] = [
    ((np.zeros((4, 8, 8), np.uint8),), "arrays come as"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(3, int)), "4 images, y 3 labels"),
    ((np.full((4, 8, 8), 70_000), np.arange(4)), "range nobody knows"),
    ((np.full((4, 8, 8), -2.0), np.arange(4)), "range nobody knows"),
    ((np.full((4, 8, 8), np.nan), np.arange(4)), "not finite"),
    (((X / 255, Y), (X2, Y2)), "give all splits in one range"),
    ((np.zeros((4, 5, 8, 8), np.uint8), np.arange(4)), "8 bands"),
    ((np.zeros((4, 8), np.uint8), np.arange(4)), "must be"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, int)), "one class only"),
    ((np.zeros((4, 8, 8), np.uint8), np.full(4, 0.5)), "whole numbers or names"),
    ((np.zeros((4, 8, 8), np.uint8), np.ones((4, 3))), "not one 1 in each row"),
    ((np.zeros((4, 8, 8), np.uint8), [[1], [2, 3], [1], [1]]), "cannot be read as labels"),
    ((np.zeros((4, 8, 8), complex), np.arange(4)), "must be numbers"),
    ((np.zeros((0, 8, 8), np.uint8), np.zeros(0, int)), "empty"),
    (([None] * 4, np.arange(4)), "not a picture, but object"),
    (X, "images alone"),
    (5, "not int"),
    ({"train": (np.zeros((4, 8, 8), np.uint8), np.arange(4)), "exam": ((), ())}, "keyed train, val and test"),
    ((torch.zeros(4, 8, 8, requires_grad=True), np.arange(4)), "cannot be read as images"),
]


@pytest.mark.parametrize(("data", "words"), BAD_ARRAYS)
def test_arrays_that_cannot_be(data: Any, words: str) -> None:
    """Shape, type, range and length are checked, and the message says which."""
    with pytest.raises(DataError, match=words):
        pack(data)


def test_npz_that_cannot_be(tmp_path: Path) -> None:
    """Missing keys (with those that there are), pickled objects, no zip at all, and a header that promises more than is
    there."""
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    cases = {
        "keys.npz": ({"foo": x, "bar": y}, r"it has foo \(4, 8, 8\), bar \(4,\)"),
        "half.npz": ({"x_train": x, "y_train": y, "x_test": x}, "has no y_test"),
        "object.npz": ({"x": x, "y": np.array([1, "a", None, 2], dtype=object)}, "pickled"),
    }
    for name, (content, words) in cases.items():
        np.savez(tmp_path / name, **content)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=words):
            pack(tmp_path / name)
    (tmp_path / "text.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        pack(tmp_path / "text.npz")
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 999, 999), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header)
        archive.writestr("y.npy", header)
    with pytest.raises(DataError, match="promises"):
        pack(tmp_path / "bomb.npz")
