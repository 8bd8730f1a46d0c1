"""How much of what is planted does `check` name as unlike all others, and how many of the data's own pictures?

    python bench/outliers.py DATA [OTHER ...] --planted 5 --draws 3

Planted into DATA, at the size that `check` compares at: noise of single pixels and of two by two, grey noise, black and
white pictures, and pictures of each OTHER. A line for each kind: how many of those planted are named.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.doctor.near_duplicates import SIDE
from convlens.doctor.outliers import outliers
from convlens.evaluation.test_ledger import inspect_test

Images = NDArray[np.uint8]
MOST = 2_500  # pictures of each set


def _images(data: str) -> Images:
    """uint8 (N, SIDE, SIDE, 3), drawn evenly."""
    dataset = open_data(data, PackOptions((SIDE, SIDE), 3, "stretch", all_test=True))
    merged = inspect_test(dataset, "bench/outliers.py").merged()
    rows = np.random.default_rng(0).permutation(merged.rows("train"))[:MOST]
    return merged.images_at(np.sort(rows))[:]


def _noise(rng: np.random.Generator, num: int) -> dict[str, Images]:
    shape = (num, SIDE, SIDE, 3)
    fine = rng.integers(0, 256, shape, dtype=np.uint8)
    grey = rng.normal(128, 40, (*shape[:3], 1)).clip(0, 255).repeat(3, axis=3).astype(np.uint8)
    black = np.zeros(shape, np.uint8) + rng.integers(0, 4, (num, SIDE, SIDE, 1), dtype=np.uint8)
    coarse = fine[:, : SIDE // 2, : SIDE // 2].repeat(2, axis=1).repeat(2, axis=2)
    return {"noise": fine, "noise, 2×2": coarse, "grey noise": grey, "black": black, "white": 255 - black}


def main() -> None:
    """Prints a line a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("others", nargs="*")
    parser.add_argument("--planted", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    own = _images(asked.data)
    others = {name: _images(name) for name in asked.others}
    print(f"{asked.data}: {len(own):,} pictures, {len(outliers(own))} of them named")
    found: dict[str, list[int]] = {}
    for draw in range(asked.draws):
        rng = np.random.default_rng(draw)
        picked = {name: images[rng.permutation(len(images))[: asked.planted]] for name, images in others.items()}
        for kind, planted in (_noise(rng, asked.planted) | picked).items():
            named = [one.row for one in outliers(np.concatenate([own, planted]))]
            found.setdefault(kind, []).append(sum(row >= len(own) for row in named))
    for kind, numbers in found.items():
        print(f"  {kind}: {np.mean(numbers):.1f} of {asked.planted} planted (n {asked.draws})")


if __name__ == "__main__":
    main()
