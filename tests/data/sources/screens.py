"""The first lines of `check` for each kind of source in docs/own-images.md: `python -m tests.data.sources.screens`."""

import gzip
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import convlens
from tests.data.sources.matrix import DOCUMENT
from tests.helpers import scene

BEGIN, END = "<!-- made by tests/data/sources/screens.py -->", "<!-- the screens end here -->"


def _folders(root: Path, num: int, *, side: int = 40) -> None:
    for number in range(num):
        folder = root / ("ant", "bee")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number, side + number % 3).save(folder / f"{number:03}.png")


def _idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(head + values.tobytes())


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """What it is, and where it lies."""
    _folders(root / "insects", 60)
    yield "A folder of class folders", root / "insects"
    for split, num in (("train", 60), ("test", 20)):
        _folders(root / "split" / f"{split}_set", num)
    (root / "split" / "train_set" / "ant" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "split" / "about.txt").write_text("who took them", encoding="utf-8")
    yield "Splits above the classes, a file that cannot be read, and one that is no picture", root / "split"
    with zipfile.ZipFile(root / "insects.zip", "w") as archive:
        for path in sorted((root / "insects").rglob("*.png")):
            archive.write(path, path.relative_to(root / "insects").as_posix())
    yield "The same in a zip file", root / "insects.zip"
    _folders(root / "table", 60)
    lines = [f"{path.stem};{path.parent.name}" for path in sorted((root / "table").rglob("*.png"))]
    (root / "table" / "labels.csv").write_text("\n".join(["image;species", *lines, ""]), encoding="utf-8")
    yield "A table beside pictures", root / "table" / "labels.csv"
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4096, (200, 20, 20), dtype=np.uint16), np.arange(200) % 3
    np.savez(root / "scans.npz", x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:], weights=y)
    yield "Arrays of 12 bits", root / "scans.npz"
    (root / "idx").mkdir()
    digits = rng.integers(0, 256, (200, 28, 28), dtype=np.uint8)
    _idx(root / "idx" / "train-images-idx3-ubyte.gz", digits)
    _idx(root / "idx" / "train-labels-idx1-ubyte.gz", (np.arange(200) % 10).astype(np.uint8))
    yield "IDX files, as MNIST comes", root / "idx"


def text() -> str:
    """The screens, as the document has them."""
    parts = []
    with tempfile.TemporaryDirectory() as place:
        for what, path in sources(Path(place)):
            rows = [("data", path.name), *convlens.check(path, progress="none").facts]
            wide = max(len(name) for name, _ in rows)
            shown = "\n".join(f"{name:<{wide}}  {value}" for name, value in rows)
            parts.append(f"{what}:\n\n```\n{shown}\n```")
    return "\n\n".join(parts)


if __name__ == "__main__":
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
