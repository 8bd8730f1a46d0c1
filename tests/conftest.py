"""Shared fixtures: caches of their own, small data that the tests make, and real data where it lies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import convlens
from convlens.recipe import Recipe

# The same examples in every run: a suite that passes must not depend on luck.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

TINY = (
    "conv(4, 3, stride=2, padding=1, bias=False) batchnorm relu conv(8, 3, padding=1) relu maxpool(2) "
    "flatten linear(classes)"
)
QUICK = Recipe(lr=0.02, epochs=2, batch_size=32, shift_px=1, precision="float32")


# A shell that starts the tests in the background, or nohup, has signals ignored, and whatever they start would inherit
# that, as it should: here signals end things, whoever started the tests.
for _number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


_TRAIN = {
    "choosing",
    "commands",
    "evaluation",
    "exporting",
    "lens",
    "microscope",
    "network",
    "training",
    "test_experiment.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves out: tests that train, by where they stand or by the run that they ask for."""
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        if room in _TRAIN or {"run", "toy"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("training")


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's cache or ledger; MNIST is packed once for all of them."""
    places = {"CONVLENS_CACHE": tmp_path_factory.mktemp("cache"), "CONVLENS_STATE": tmp_path_factory.mktemp("state")}
    before = {name: os.environ.get(name) for name in places}
    os.environ.update({name: str(path) for name, path in places.items()})
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with a ledger of openings of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "state"))
    return folder


def shapes(num: int, seed: int = 0, side: int = 16) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A learnable toy: class 0 a horizontal bar, 1 a vertical bar, 2 a disc; uint8 (N, side, side)."""
    rng = np.random.default_rng(seed)
    images = np.zeros((num, side, side), np.uint8)
    labels = rng.integers(0, 3, num)
    for image, label in zip(images, labels, strict=True):
        at = int(rng.integers(3, side - 4))
        if label == 0:
            image[at : at + 2, 2:-2] = 200
        elif label == 1:
            image[2:-2, at : at + 2] = 200
        else:
            y, x = np.mgrid[0:side, 0:side]
            image[(y - side // 2) ** 2 + (x - at) ** 2 <= 9] = 200
        image += rng.integers(0, 40, image.shape, dtype=np.uint8)
    return images, labels.astype(np.int64)


@pytest.fixture(scope="session")
def arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """x_train, y_train, x_test, y_test of the toy: 300 and 100 images of 16×16."""
    return (*shapes(300, 1), *shapes(100, 2))


def write_folders(root: Path, num: int = 30, *, splits: tuple[str, ...] = (), side: int = 20) -> Path:
    """A folder of class folders with coloured pictures of circles and squares, perhaps under split folders."""
    rng = np.random.default_rng(7)
    for split in splits or ("",):
        for label in ("circle", "square"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(num):
                image = Image.new("RGB", (side, side), tuple(int(v) for v in rng.integers(0, 60, 3)))
                draw, at = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(1, side - 13, 2))
                box = (*at, at[0] + 11, at[1] + 11)
                colour = tuple(int(v) for v in rng.integers(150, 255, 3))
                (draw.ellipse if label == "circle" else draw.rectangle)(box, fill=colour)
                image.save(folder / f"{i:03d}.png")
    return root


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Sixty coloured pictures in two class folders."""
    return write_folders(tmp_path / "pictures")


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(workplace: Path) -> Command:
    """Runs the command line in a process of its own: `command("train", "mnist", env={...})`."""

    def run(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "convlens", *map(str, arguments)],
            cwd=workplace,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=240,
            **options,
        )

    return run


def shared(name: str, into: Path) -> Path:
    """Unpack a real data set that lies beside the repository; skip, with the reason, where it is absent."""
    import tarfile

    archive = SHARED_DATA / f"{name}.tar"
    if not archive.is_file():
        pytest.skip(f"real data {name}.tar is not beside the repository")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into / name


@pytest.fixture(scope="session")
def run(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A run on the toy, trained to the end."""
    out = tmp_path_factory.mktemp("classifier") / "run"
    return convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=8), out=out)


@pytest.fixture(scope="session")
def two_views(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A run whose model classifies with mirrored views."""
    out = tmp_path_factory.mktemp("views") / "run"
    return convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(flip=True, views="mirror"), out=out)


@pytest.fixture(scope="session")
def toy(arrays: tuple[NDArray[Any], ...], tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A trained run on the toy set that kept its filters."""
    x, y, x_test, y_test = arrays
    folder = tmp_path_factory.mktemp("toy")
    np.savez(folder / "toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return convlens.train(
        folder / "toy.npz",
        out=folder / "run",
        recipe=QUICK.replace(epochs=6),
        architecture=TINY,
        keep_filters=True,
        progress="none",
    )


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """One picture of the toy set, a vertical bar."""
    images, labels = shapes(40, seed=5)
    found: NDArray[np.uint8] = images[int(np.flatnonzero(labels == 1)[0])]
    return found
