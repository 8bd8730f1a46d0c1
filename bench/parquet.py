"""Parquet of a million pictures: packed once and trained from, beside a plain loop over the same files with Hugging
Face's `datasets` and torch's DataLoader.

    python bench/parquet.py make FOLDER [--num 1000000]     synthetic 32×32 PNGs in ten classes, shards of 100,000
    python bench/parquet.py pack FOLDER --out PACKED        images/s and the most anonymous memory while packing
    python bench/parquet.py epochs FOLDER --out PACKED      images/s of both, alternated (pip install datasets)

`epochs` trains the network of `fast` with SGD in both, in processes of their own, each on `--images` pictures in random
order, as in a second epoch: all pages were read before, and the first tenth of the steps warms up. `--json FILE`
writes all of it down.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import tell
from data import anonymous_bytes, train_large
from PIL import Image

import convlens

Figures = dict[str, Any]
SHARD, SIDE, CLASSES = 100_000, 32, 10


def make(folder: Path, num: int) -> Figures:
    """Shards as Hugging Face writes them; every picture another, about as large as one of CIFAR-10."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        list(pool.map(_make_shard, [(folder, n, min(SHARD, num - n * SHARD)) for n in range(-(-num // SHARD))]))
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    return {"images": num, "gigabytes": num_bytes / 1e9, "seconds": time.perf_counter() - started}


def _make_shard(job: tuple[Path, int, int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, number, num = job
    rng = np.random.default_rng(number)
    labels = rng.integers(0, CLASSES, num)
    colours = np.random.default_rng(0).integers(40, 216, (CLASSES, 3))
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": [f"c{i}" for i in range(CLASSES)]},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": features}})}
    )
    with pq.ParquetWriter(folder / f"train-{number:05d}.parquet", schema) as writer:
        for start in range(0, num, 1000):
            here = labels[start : start + 1000]
            coarse = rng.integers(-40, 40, (len(here), 8, 8, 3)) + colours[here][:, None, None]
            fine = coarse.repeat(4, 1).repeat(4, 2) + rng.integers(0, 4, (len(here), SIDE, SIDE, 1))
            pictures = [_png(one) for one in fine.clip(0, 255).astype(np.uint8)]
            images = [{"bytes": data, "path": f"{start + i}.png"} for i, data in enumerate(pictures)]
            writer.write_table(pa.table([pa.array(images, kind), pa.array(here)], schema=schema), row_group_size=1000)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def pack(folder: Path, out: Path) -> Figures:
    """In this process, whose anonymous memory is looked at ten times a second."""
    most, ended = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    dataset = convlens.pack(folder, out, progress="lines")
    seconds = time.perf_counter() - started
    ended.set()
    watcher.join()
    return {
        "images": len(dataset),
        "images_per_s": len(dataset) / seconds,
        "seconds": seconds,
        "before_megabytes": most[0] / 1e6,
        "anonymous_megabytes": max(most) / 1e6,
        "parts": len(dataset.card.parts),
    }


def train_plain(folder: Path, images: int) -> Figures:
    """What a person writes who has `datasets` and torch: pictures are decoded in two workers in each epoch anew."""
    import torch
    from datasets import load_dataset  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    from convlens.architecture import parse, plan
    from convlens.data.image.framing import InputSpec
    from convlens.network.build import build
    from convlens.presets import FAST

    dataset = load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")

    for chunk in dataset.data.column("image").chunks:  # as an epoch before has
        for buffer in filter(None, chunk.buffers()):
            np.frombuffer(buffer, np.uint8).max(initial=0)

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        images = [torch.from_numpy(np.asarray(one.convert("RGB"))) for one in batch["image"]]
        return {"image": images, "label": batch["label"]}

    recipe = FAST.recipe
    loader = DataLoader(
        dataset.with_transform(transform), recipe.batch_size, shuffle=True, num_workers=2, drop_last=True
    )
    spec = InputSpec(SIDE, SIDE, 3, mean=(127.0,) * 3, std=(64.0,) * 3)
    network = build(plan(parse(FAST.architecture), spec.shape, CLASSES), spec)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    num_steps, times = images // recipe.batch_size, []
    network.train()
    for number, batch in enumerate(loader):
        times.append(time.perf_counter())
        if number == num_steps:
            break
        loss = torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    warm = len(times) // 10
    return {"images_per_s": recipe.batch_size * (len(times) - 1 - warm) / (times[-1] - times[warm])}


def epochs(folder: Path, packed: Path, images: int, rounds: int) -> Figures:
    """Both, alternated, each in a process of its own."""
    found: dict[str, list[float]] = {"packed": [], "plain": []}
    for _ in range(rounds):
        for name, place in (("packed", packed), ("plain", folder)):
            words = [sys.executable, __file__, f"train-{name}", str(place), "--images", str(images)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[name].append(json.loads(done.stdout.splitlines()[-1])["images_per_s"])
            print(name, round(found[name][-1]), file=sys.stderr, flush=True)
    ratios = [ours / theirs for ours, theirs in zip(found["packed"], found["plain"], strict=True)]
    return {**found, "ratio": statistics.median(ratios), "ratios": ratios}


def main() -> None:
    """Run one bench and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "pack", "epochs", "train-packed", "train-plain"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "train-packed":
        mapped = np.load(arguments.folder / "images.npy", mmap_mode="r")
        for start in range(0, len(mapped), 10_000):  # as an epoch before has: no page is touched for the first time
            mapped[start : start + 10_000].max()
        figures = train_large(arguments.folder, arguments.images, resident=False)
        print(json.dumps({"images_per_s": figures["mean_images_per_s"]}))
        return
    if arguments.what == "train-plain":
        print(json.dumps(train_plain(arguments.folder, arguments.images)))
        return
    if arguments.what == "make":
        figures = make(arguments.folder, arguments.num)
    elif arguments.what == "pack":
        figures = pack(arguments.folder, arguments.out)
    else:
        figures = epochs(arguments.folder, arguments.out, arguments.images, arguments.rounds)
    tell(figures, arguments.what, arguments.json)


if __name__ == "__main__":
    main()
