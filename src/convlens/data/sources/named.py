"""Sets that have a name: MNIST, which is embedded, and those whose files their makers publish.

Owns the names, where each is found, and the hashes that its files must have: those of its makers' pages and of
torchvision's source.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data import mnist
from convlens.data.image.decode import Pixels
from convlens.data.sources.base import ArraySource, ArraySplit
from convlens.data.sources.cifar import from_cifar
from convlens.data.sources.fetching import FetchError, fetch
from convlens.data.sources.idx import from_idx, has_idx_files, parse_idx
from convlens.data.sources.listing import list_tree
from convlens.data.sources.tree import DiskTree
from convlens.errors import DataError
from convlens.progress import Progress, open_progress
from convlens.text import listed, shown


class Published(NamedTuple):
    """A set that its makers publish: its files with the MD5 of each, the addresses (folders) that have them, how much
    that is, its licence, the names of its classes (of CIFAR they stand in its archive), and where the system may have
    it."""

    files: dict[str, str]
    addresses: tuple[str, ...]
    num_bytes: int
    licence: str
    class_names: tuple[str, ...] = ()
    folder: Path | None = None
    names_file: str = ""
    num_label_bytes: int = 1


_IDX_FILES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
)  # fmt: skip
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe", "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)  # fmt: skip
_KUZUSHIJI_MD5 = (
    "bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344", "5c965bf0a639b31b8f53240b1b52f4d7",
    "7320c461ea6c1c855c0b718fb2a4b134",
)  # fmt: skip
_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_KRIZHEVSKY = ("https://www.cs.toronto.edu/~kriz/",)
_NO_LICENCE = "none stated; its makers ask to cite A. Krizhevsky, 2009"
PUBLISHED = {
    "fashion-mnist": Published(
        dict(zip(_IDX_FILES, _FASHION_MD5, strict=True)),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        30_878_645,
        "MIT",
        tuple(_FASHION.split(",")),
        folder=Path("/usr/share/datasets/fashion-mnist"),  # of Debian's package dataset-fashion-mnist
    ),
    "kmnist": Published(
        dict(zip(_IDX_FILES, _KUZUSHIJI_MD5, strict=True)),
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        21_240_888,
        "CC BY-SA 4.0, to be named as KMNIST Dataset (created by CODH)",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": Published(
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        _KRIZHEVSKY,
        170_052_171,
        _NO_LICENCE,
        names_file="batches.meta.txt",
    ),
    "cifar100": Published(
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        _KRIZHEVSKY,
        168_513_733,
        _NO_LICENCE,
        names_file="fine_label_names.txt",
        num_label_bytes=2,
    ),
}
NAMED_SETS = ("mnist", *PUBLISHED)
LIKE_MNIST = ("mnist", *(name for name, what in PUBLISHED.items() if not what.names_file))
_MIRROR = "CONVLENS_MIRROR"  # an address (folder) that has a folder for each set, and is asked first


def named_set(name: str, data_root: str | Path | None, progress: str | Progress = "none") -> ArraySource:
    """A named set; `data_root` is where the files of one lie that does not ship with convlens, else they are fetched
    once into the cache. Raises DataError, StorageError."""
    if name == "mnist":
        with ThreadPoolExecutor() as pool:  # unpacking is half of the time of packing
            train, test = pool.map(mnist_arrays, ("train", "test"))
        splits: dict[str | None, ArraySplit] = {"train": ArraySplit(*train), "test": ArraySplit(*test)}
        return ArraySource(name, name, splits, tuple(map(str, range(10))), dict(mnist.SHA256))
    what = PUBLISHED[name]
    named = [] if data_root is None else [Path(data_root), Path(data_root) / name]
    for folder in named or filter(None, [what.folder]):
        if (found := _in_folder(folder, name, what)) is not None:
            return found
    if data_root is not None:
        raise DataError(f"{name} is not in {shown(data_root, 200)}: {listed(what.files)} must lie there")
    folder = files.cache_folder() / "sets" / name
    with files.lock(folder.with_name(f"{name}.lock")), open_progress(progress) as bar:
        _fetch(name, what, folder, bar)
    found = _in_folder(folder, name, what)
    assert found is not None, "its files were fetched"
    return replace(found, location=name)


def _in_folder(folder: Path, name: str, what: Published) -> ArraySource | None:
    """A set whose files lie in a folder; None where they do not. Raises DataError."""
    if what.names_file:
        path = folder / next(iter(what.files))
        return from_cifar(path, name, what.names_file, what.num_label_bytes) if files.is_file(path) else None
    tree = DiskTree(folder)
    if not (folder.is_dir() and has_idx_files(root := list_tree(tree))):
        return None
    source = from_idx(tree, name, root)
    if len(source.class_names) != len(what.class_names):
        raise DataError(f"{tree.where('')} has {len(source.class_names)} classes, not {len(what.class_names)}")
    return replace(source, class_names=what.class_names)


def _fetch(name: str, what: Published, folder: Path, bar: Progress) -> None:
    """Those files of a set that are not in the folder yet. Raises DataError, with where they may be put."""
    mirror = os.environ.get(_MIRROR)
    places = [*([f"{mirror.rstrip('/')}/{name}/"] if mirror else []), *what.addresses]
    missing = [file for file in what.files if not files.is_file(folder / file)]
    if missing:
        bar.line(
            f"fetching {name}: {what.num_bytes / 1e6:.0f} MB from {urlsplit(places[0]).hostname} into "
            f"{shown(folder, 200)}; licence: {what.licence}"
        )
    for file in missing:
        try:
            fetch([f"{place}{file}" for place in places], folder / file, bar, known_hash=f"md5:{what.files[file]}")
        except FetchError as error:
            raise DataError(
                f"{name} cannot be fetched: {error}. Put {listed(what.files)} into {shown(folder, 200)}, or name the "
                "folder that has them with `data_root`"
            ) from error


def mnist_arrays(split: str) -> tuple[Pixels, NDArray[np.int64]]:
    """uint8 images (N, 28, 28, 1) and class numbers (N,) of "train" (60,000) or "test" (10,000).

    Raises DataError where the files of the installation are damaged.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    images, labels = (
        parse_idx(io.BytesIO(raw), dims, len(raw), name)
        for name, dims in zip(names, (3, 1), strict=True)
        for raw in [mnist.read(name)]
    )
    return images[..., None], labels.astype(np.int64)
