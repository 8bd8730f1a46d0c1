"""What `balance` does where classes differ in size: none, weights and sampling, alternated, over ratios and seeds.

    python bench/imbalance.py [--seeds 3] [--presets standard,natural] [--pairs 2:7,3:5] [--out FILE.json]

Pairs of MNIST's digits, the second of them made rare in training; measured on as many pictures of both from MNIST's
test split, which take no part in any choice. Prints balanced accuracy, mean ± sd over seeds, and keeps every number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import numpy as np

import convlens
from convlens.data.sources.named import mnist_arrays

RATIOS = (19, 100, 1000)
BALANCES = ("none", "weights", "sampling")
_NUM_LARGE, _NUM_MEASURED = 4000, 900


def measure(pair: tuple[int, int], ratio: int, preset: str, balance: str, seed: int) -> float:
    """Balanced accuracy of one training; which images are the rare ones changes with the seed."""
    (x, y), (x_test, y_test) = mnist_arrays("train"), mnist_arrays("test")
    rng = np.random.default_rng(seed)
    large, rare = (rng.permutation(np.flatnonzero(y == digit)) for digit in pair)
    rows = np.concatenate([large[:_NUM_LARGE], rare[: max(2, _NUM_LARGE // ratio)]])
    measured = np.concatenate([np.flatnonzero(y_test == digit)[:_NUM_MEASURED] for digit in pair])
    with tempfile.TemporaryDirectory() as folder:
        run = convlens.train(
            (x[rows], y[rows]), preset=preset, recipe={"balance": balance}, augment="none", val_frac=0, seed=seed,
            out=Path(folder) / "run", progress="none",
        )  # fmt: skip
        classifier = convlens.load(run)
    answers = classifier.logits(x_test[measured]).argmax(axis=1)
    right = np.array([classifier.class_names[k] for k in answers]) == y_test[measured].astype(str)
    return float(np.mean([right[y_test[measured] == digit].mean() for digit in pair]))


def main() -> None:
    """Measure, print a line a setting, keep all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--presets", default="standard,natural")
    parser.add_argument("--pairs", default="2:7,3:5")
    asked = parser.parse_args()
    pairs = [(int(pair[0]), int(pair[2])) for pair in asked.pairs.split(",")]
    found: dict[str, list[float]] = defaultdict(list)
    for preset in asked.presets.split(","):
        for pair in pairs:
            for ratio in RATIOS:
                for seed in range(asked.seeds):
                    for balance in BALANCES:
                        found[f"{preset} {pair[0]}:{pair[1]} {ratio}:1 {balance}"].append(
                            measure(pair, ratio, preset, balance, seed)
                        )
                for balance in BALANCES:
                    name = f"{preset} {pair[0]}:{pair[1]} {ratio}:1 {balance}"
                    values = found[name]
                    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
                    print(f"{name:<40} {100 * mean(values):6.2f}{spread} % (n {len(values)})", flush=True)
                if asked.out is not None:
                    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
