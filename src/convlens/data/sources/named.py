"""Sets that have a name: MNIST, which is embedded, and those whose files lie on this machine.

Owns the names, and where each is found.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convlens.data import mnist
from convlens.data.image.decode import Pixels
from convlens.data.sources.base import ArraySource, ArraySplit
from convlens.data.sources.idx import from_idx, has_idx_files, parse_idx
from convlens.data.sources.listing import list_tree
from convlens.data.sources.tree import DiskTree
from convlens.errors import DataError
from convlens.text import shown

NAMED_SETS = ("mnist", "fashion-mnist")
_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
FASHION_CLASSES = tuple(_FASHION.split(","))
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def named_set(name: str, data_root: str | Path | None) -> ArraySource:
    """A named set; `data_root` is where one lies that does not ship with convlens. Raises DataError."""
    if name == "mnist":
        with ThreadPoolExecutor() as pool:  # unpacking is half of the time of packing
            train, test = pool.map(mnist_arrays, ("train", "test"))
        splits: dict[str | None, ArraySplit] = {"train": ArraySplit(*train), "test": ArraySplit(*test)}
        return ArraySource(name, name, splits, tuple(map(str, range(10))), dict(mnist.SHA256))
    folder = Path(data_root) if data_root is not None else FASHION_FOLDER
    for candidate in (folder, folder / name):
        tree = DiskTree(candidate)
        if candidate.is_dir() and has_idx_files(root := list_tree(tree)):
            source = from_idx(tree, name, root)
            if len(source.class_names) != len(FASHION_CLASSES):
                raise DataError(f"{tree.where('')} has {len(source.class_names)} classes, not {len(FASHION_CLASSES)}")
            return replace(source, class_names=FASHION_CLASSES)
    raise DataError(
        f"fashion-mnist does not ship with convlens, and its four IDX files are not in {shown(folder, 200)}: "
        "'apt install dataset-fashion-mnist', or name the folder that has them with `data_root`"
    )


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
