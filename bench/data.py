"""The data path beside bare Pillow: packing a folder, predicting over it, opening, evaluating, larger than memory.

    python bench/data.py folder FOLDER [--size 32]     packing and prediction against bare Pillow decoding
    python bench/data.py mnist                         opening packed MNIST; evaluating 10,000 images with `standard`
    python bench/data.py large [--gigabytes 20]        a synthetic packed set larger than what may be copied

Contenders are alternated and compared as ratios; every figure is a median. `--json FILE` writes all of it down.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import tell
from PIL import Image

import convlens
from convlens import files
from convlens.data.packed.dataset import DOCUMENT, FORMAT_VERSION, INDEX_DTYPE, SMALL_FILES, Dataset
from convlens.data.sources.listing import pictures_in
from convlens.records import write_sealed

ROUNDS = 5
Figures = dict[str, Any]


def bare_decode(path: Path) -> int:
    """What any program does with a picture file: read it, decode it to RGB pixels."""
    with path.open("rb") as file:
        data = file.read()
    return int(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).shape[0])


def bare_s(paths: list[Path]) -> float:
    """Seconds for all pictures with bare Pillow in one process: the better of threads and one after the other (for
    small pictures nearly all is Python's work, which threads only slow down)."""
    one_by_one = seconds(lambda: [bare_decode(path) for path in paths])
    return min(one_by_one, seconds(lambda: bare_decode_all(paths)))


_BARE_PROCESS = """
import io, sys
import numpy as np
from PIL import Image
for line in sys.stdin:
    with open(line[:-1], "rb") as file:
        data = file.read()
    np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
"""


def bare_in_processes(paths: list[Path]) -> None:
    """On all cores: a fresh process for each, with a stretch of the list."""
    num = os.cpu_count() or 1

    def decode(stretch: list[Path]) -> None:
        names = "".join(f"{path}\n" for path in stretch)
        subprocess.run([sys.executable, "-c", _BARE_PROCESS], input=names, text=True, check=True)

    with ThreadPoolExecutor(num) as pool:
        list(pool.map(decode, [paths[i::num] for i in range(num)]))


def bare_decode_all(paths: list[Path]) -> None:
    """On all cores: threads, each with a stretch of the list."""
    num_threads = os.cpu_count() or 1
    stretches = [paths[i::num_threads] for i in range(num_threads)]
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(lambda stretch: [bare_decode(path) for path in stretch], stretches))


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def folder(root: Path, size: int) -> Figures:
    """Packing and prediction against bare decoding, alternated."""
    paths = pictures_in(root)
    run = _some_model(size)
    classifier = convlens.load(run)
    bare, in_processes, packed, predicted = [], [], [], []
    for number in range(ROUNDS):
        bare.append(bare_s(paths))
        in_processes.append(seconds(lambda: bare_in_processes(paths)))
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / f"packed-{number}"
            packed.append(seconds(lambda out=out: convlens.pack(root, out=out, size=size)))  # type: ignore[misc]
        predicted.append(seconds(lambda: convlens.predict(classifier, paths)))
    return {
        "pictures": len(paths),
        "bare_s": bare,
        "bare_in_processes_s": in_processes,
        "packed_s": packed,
        "predicted_s": predicted,
        "bare_pictures_per_s": len(paths) / statistics.median(bare),
        "packing_against_bare": statistics.median(b / p for b, p in zip(bare, packed, strict=True)),
        "packing_against_bare_in_processes": statistics.median(
            b / p for b, p in zip(in_processes, packed, strict=True)
        ),
        "predicting_against_bare": statistics.median(b / p for b, p in zip(bare, predicted, strict=True)),
    }


def _some_model(size: int) -> convlens.Run:
    """A colour model of `standard`'s sentence for this input size, hardly trained: prediction takes the same time."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, size, size, 3), dtype=np.uint8), np.arange(200) % 2
    recipe = convlens.PRESETS["standard"].recipe.replace(epochs=1)
    return convlens.train((x, y), recipe=recipe, out=Path(tempfile.mkdtemp()) / "run")


def mnist() -> Figures:
    """Opening packed MNIST, and evaluating its 10,000 test images with `standard` once model and data are loaded."""
    dataset = convlens.pack("mnist")
    opened = [1000 * seconds(lambda: Dataset.open(dataset.folder).counts) for _ in range(21)]
    with tempfile.TemporaryDirectory() as place:
        recipe = convlens.PRESETS["standard"].recipe.replace(epochs=0.05)
        run = convlens.train("mnist", recipe=recipe, out=Path(place) / "run")
        classifier = convlens.load(run)
        evaluated = [seconds(lambda: convlens.evaluate(classifier, split="test", progress="none")) for _ in range(9)]
    return {
        "opening_ms": statistics.median(opened),
        "opening_each_ms": opened,
        "evaluating_s": statistics.median(evaluated),
        "evaluating_each_s": evaluated,
    }


# ---------------------------------------------------------------- larger than memory


def write_large(out: Path, num_bytes: int, side: int = 32) -> None:
    """A packed set of random pictures, written as docs/formats.md says, without a source."""
    num = num_bytes // (side * side * 3)
    images = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, (num, side, side, 3))
    rng = np.random.default_rng(0)
    for start in range(0, num, 100_000):
        block = images[start : start + 100_000]
        block[:] = np.frombuffer(rng.bytes(block.size), np.uint8).reshape(block.shape)
    images.flush()
    del images
    labels = rng.integers(0, 10, num)
    index = np.zeros(num, INDEX_DTYPE)
    index["pixels"], index["split_key"] = rng.integers(0, 2**63, (2, num)).astype(np.uint64) * np.uint64(2)
    index["split"][: num // 100] = 2
    np.save(out / "labels.npy", labels.astype(np.uint16))
    np.save(out / "index.npy", index)
    (out / "samples.jsonl").touch()
    card = {
        "kind": DOCUMENT,
        "format_version": FORMAT_VERSION,
        "decoder_version": 0,
        "framing_version": 0,
        "value_range": [0, 255],
        "parts": [{"file": "images.npy", "num_images": num}],
        "num_excluded": 0,
        "arrays": [["all", num]],
        "split_by": "hash",
        "name": "synthetic",
        "source": "bench",
        "options": {},
        "class_names": [str(i) for i in range(10)],
        "num_samples": num,
        "num_listed": num,
        "num_quarantined": 0,
        "notes": [],
        "fingerprint": "0" * 64,
        "test_fingerprint": "0" * 64,
        "files": {name: files.sha256_of_file(out / name) for name in SMALL_FILES},
        "input": {
            "height": side,
            "width": side,
            "channels": 3,
            "framing": "pad",
            "mean": [127.5] * 3,
            "std": [73.9] * 3,
        },
    }
    write_sealed(out / "dataset.json", card)


def train_large(packed: Path, images: int, *, resident: bool) -> Figures:
    """Train preset `fast` on so many images of it, mapped or copied into memory first: images/s, anonymous memory."""
    import torch

    from convlens.architecture import parse, plan
    from convlens.data.packed.image_rows import ImageRows
    from convlens.network.build import build
    from convlens.network.compute import resolve_compute, settled
    from convlens.presets import FAST
    from convlens.training.batches import Batches
    from convlens.training.loop import train_steps
    from convlens.training.state import TrainingState

    dataset = Dataset.open(packed, val_frac=0.001)
    train, compute = dataset.images("train"), resolve_compute()
    if resident:  # as many as a copy may take, spread over the whole set
        rows = train.rows[:: max(1, train.nbytes // 1_000_000_000)]
        train = ImageRows(np.asarray(ImageRows(train.mapped, rows)), np.arange(len(rows)))
    labels = torch.from_numpy(dataset.labels("train")[: len(train)])
    recipe = FAST.recipe.replace(epochs=images / len(train))
    network = build(plan(parse(FAST.architecture), dataset.input_spec.shape, 10), dataset.input_spec)
    batches = Batches.of(recipe, np.zeros(len(train), np.int64), 0)
    num_steps, peak, slowest = images // recipe.batch_size, 0, []
    with settled(compute):
        state = TrainingState.new(network, recipe)
        for _ in train_steps(state, train, labels, batches, recipe, num_steps, compute):
            slowest.append(state.train_s)
            peak = max(peak, anonymous_bytes()) if state.step % 20 == 1 else peak
    steps = np.diff(slowest)[20:]  # the first steps warm up, and draw the order of all images
    return {
        "images_per_s": float(recipe.batch_size / np.median(steps)),
        "anonymous_bytes": peak,
        "mean_images_per_s": float(recipe.batch_size / np.mean(steps)),
        "resident": resident,
    }


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def large(gigabytes: float, images: int) -> Figures:
    """The mapped set against a resident one, alternated, each in a process of its own; pages cached before."""
    with _scratch() as place:
        packed = place / "large"
        packed.mkdir()
        write_large(packed, int(gigabytes * 1e9))
        results: list[Figures] = []
        for number in range(2 * ROUNDS):
            words = [sys.executable, __file__, "train-large", str(packed), "--images", str(images)]
            words += ["--resident"] if number % 2 else []
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout))
            print(results[-1], file=sys.stderr, flush=True)
    mapped, resident = results[0::2], results[1::2]
    return {
        "gigabytes": gigabytes,
        "results": results,
        "mapped_against_resident": statistics.median(
            m["images_per_s"] / r["images_per_s"] for m, r in zip(mapped, resident, strict=True)
        ),
        "anonymous_gigabytes": max(m["anonymous_bytes"] for m in mapped) / 1e9,
    }


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def main() -> None:
    """Run one bench and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("folder", "mnist", "large", "train-large"))
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "train-large":
        print(json.dumps(train_large(arguments.path, arguments.images, resident=arguments.resident)))
        return
    doing: dict[str, Callable[[], Figures]] = {
        "folder": lambda: folder(arguments.path, arguments.size),
        "mnist": mnist,
        "large": lambda: large(arguments.gigabytes, arguments.images),
    }
    figures = doing[arguments.what]()
    tell(figures, arguments.what, arguments.json)


if __name__ == "__main__":
    main()
