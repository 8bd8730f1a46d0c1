"""Whole trainings on an accelerator, one after the other in one process: seconds of making the network and of all steps
(without copying the images to the device, and without validation), and accuracy. The first seed is not counted in the
times: it readies the libraries, which takes a process about a second.

    python bench/gpu.py DATA [--preset natural] [--width 64] [--set NAME=VALUE …] [--seeds 20] [--test] [--one-by-one]

On validation images, unless --test: then all others are trained on and test is opened, once for a plan that is settled.
--one-by-one: each step carried out operation by operation, instead of recorded and replayed, for comparison.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

import convlens
from convlens.network.compute import versions
from convlens.presets import PRESETS, natural_for
from convlens.training import loop
from convlens.training.step import Stepper


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--preset", default="natural")
    parser.add_argument("--width", type=int)
    parser.add_argument("--device")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", default=3, type=int)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--one-by-one", action="store_true")
    given = parser.parse_args()
    val_frac = 0 if given.test else None
    dataset = convlens.pack(given.data)
    _, height, width = dataset.input_spec.shape
    changes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in given.set)}
    preset = PRESETS[given.preset]
    sentence = preset.architecture if given.width is None else natural_for(height, width, given.width)
    if given.one_by_one:
        vars(loop)["ReplayedStepper"] = Stepper
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            run = convlens.train(
                dataset, architecture=sentence, recipe=preset.recipe.replace(**changes), seed=seed, val_frac=val_frac,
                test=given.test, device=given.device, progress="none", out=Path(folder) / f"run-{seed}",
            )  # fmt: skip
            records.append(run.record)
            score = run.record.test or run.record.val
            assert score is not None
            print(f"seed {seed}: {run.record.train_s:.3f} s, {100 * score.accuracy:.2f} %", flush=True)
    seconds = [one.train_s for one in records[1:] or records]
    scores = [one.test or one.val for one in records]
    accuracies = [100 * score.accuracy for score in scores if score is not None]

    def words(values: list[float]) -> str:
        return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")

    device = records[0].compute.device
    device = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    line: dict[str, Any] = {
        "data": dataset.name, "preset": given.preset, "width": given.width, "set": given.set, "sentence": sentence,
        "train_s": words(seconds), "slowest_s": round(max(seconds), 3), "first_s": round(records[0].train_s, 3),
        "accuracy": words(accuracies), "lowest": round(min(accuracies), 2), "n": len(accuracies),
        "of": f"{scores[0].n if scores[0] else 0} {'test' if given.test else 'validation'} images",
        "images_per_s": round(median(one.images_per_s or 0 for one in records)), "one_by_one": given.one_by_one,
        "device": device, **versions(),
    }  # fmt: skip
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
