"""Whole trainings on an accelerator in one process: seconds from the network's construction to the last step, and
accuracy. The first seed is not counted in the times: it readies the libraries, which takes a process about a second.

    python bench/gpu.py DATA [--preset natural] [--width 64] [--set NAME=VALUE …] [--seeds 20] [--test | --val-frac F]
                             [--one-by-one]

On validation images, unless --test: then all others are trained on and test is opened, once for a plan that is settled.
--one-by-one: each step carried out operation by operation, instead of recorded and replayed, for comparison.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from convlens.architecture import parse, plan
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.network.compute import resolve_compute, versions
from convlens.presets import PRESETS, natural_for
from convlens.training import loop
from convlens.training.fit import fit
from convlens.training.plan import TrainingPlan
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
    parser.add_argument("--val-frac", type=float)
    parser.add_argument("--one-by-one", action="store_true")
    given = parser.parse_args()
    dataset = open_data(given.data, PackOptions())
    if given.test or given.val_frac is not None:
        dataset = dataset.with_val_frac(0 if given.test else given.val_frac)
    preset, (_, height, width) = PRESETS[given.preset], dataset.input_spec.shape
    sentence = preset.architecture if given.width is None else natural_for(height, width, given.width)
    compute = resolve_compute(given.device)
    changes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in given.set)}
    recipe = preset.recipe.replace(precision=compute.precision).replace(**changes)
    network = plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
    rows, held_out = dataset.rows("train"), dataset.rows("test" if given.test else "val")
    if given.one_by_one:
        vars(loop)["ReplayedStepper"] = Stepper
    seconds, accuracies = [], []
    planned = TrainingPlan(dataset=dataset, network=network, recipe=recipe, seed=0, compute=compute)
    for seed in range(given.seeds):
        with fit(replace(planned, seed=seed), rows) as fitting:
            measured = fitting.measured(held_out)
            for _ in fitting.steps():
                pass
            right = fitting.logits(measured).argmax(axis=1) == dataset.labels_at(held_out)
        seconds.append(fitting.state.train_s)
        accuracies.append(100 * float(right.mean()))
        print(f"seed {seed}: {seconds[-1]:.3f} s, {accuracies[-1]:.2f} %", flush=True)
    counted = seconds[1:] or seconds

    def words(values: list[float]) -> str:
        return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")

    line: dict[str, Any] = {
        "data": dataset.name, "preset": given.preset, "width": given.width, "set": given.set, "sentence": sentence,
        "train_s": words(counted), "slowest_s": round(max(counted), 3), "first_s": round(seconds[0], 3),
        "accuracy": words(accuracies), "lowest": round(min(accuracies), 2), "n": len(accuracies),
        "of": f"{len(held_out)} {'test' if given.test else 'validation'} images", "trained_on": len(rows),
        "images_per_s": round(recipe.epochs * len(rows) / float(np.median(counted))), "one_by_one": given.one_by_one,
        "device": torch.cuda.get_device_name() if compute.device.startswith("cuda") else compute.device, **versions(),
    }  # fmt: skip
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
