"""How far each preset's step is from what the machine could do, and what each choice of compute is worth.

    python bench/ceilings.py [--json FILE]

First table: floating-point operations and bytes of one training step, counted from the plan, against a large matrix
product and a large copy measured in the same run. Second table: the same steps in float32, contiguous, with one
thread; each as images/s against what `auto` chooses, alternated. The first call is timed
by itself: it is what a training would have to earn back.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import ceilings, surroundings

import convlens
from convlens.architecture import parse, plan
from convlens.architecture.layers import BatchNorm, Conv, Linear, MaxPool
from convlens.architecture.plan import Plan
from convlens.network.build import build
from convlens.network.compute import Compute, resolve_compute, settled
from convlens.presets import PRESETS, Preset
from convlens.training.batches import Batches
from convlens.training.loop import Losses, train_steps
from convlens.training.state import TrainingState

Figures = dict[str, Any]
WARM, COUNTED, ROUNDS = 8, 25, 3


def step_flops(network_plan: Plan, batch_size: int) -> int:
    """Two for each multiply-add: forward, gradient of the weights, gradient of the input (not of the first layer)."""
    weighted = [leaf for leaf in network_plan.leaves if isinstance(leaf.layer, Conv | Linear)]
    return 2 * batch_size * sum((2 if leaf is weighted[0] else 3) * leaf.multiply_adds for leaf in weighted)


def step_bytes(network_plan: Plan, batch_size: int, value_bytes: int) -> int:
    """What goes through memory if each layer is a kernel of its own: forward it reads its input and writes its output;
    backward it reads the output's gradient and what was kept, and writes the input's gradient. Batch norm reads its
    input twice each way; pooling keeps int64 places; weights, gradients and two moments are read and written once."""
    total = 0
    for leaf in network_plan.leaves:
        size_in, size_out = math.prod(leaf.input_shape), math.prod(leaf.output_shape)
        passes_in = 5 if isinstance(leaf.layer, BatchNorm) else 3
        total += value_bytes * (passes_in * size_in + 2 * size_out)
        if isinstance(leaf.layer, MaxPool):
            total += 2 * 8 * size_out
    return batch_size * total + 4 * 8 * network_plan.num_parameters


class Stepper:
    """A preset's training on MNIST, some steps at a time."""

    def __init__(self, preset: Preset, compute: Compute) -> None:
        self.compute = compute
        dataset = convlens.pack("mnist").with_val_frac(0)
        self.batch_size = preset.recipe.batch_size
        self.plan = plan(parse(preset.architecture), dataset.input_spec.shape, 10)
        network = build(self.plan, dataset.input_spec, memory_format=compute.memory_format)
        images, labels = dataset.images("train"), torch.from_numpy(dataset.labels("train"))
        batches = Batches.of(preset.recipe, np.zeros(len(images), np.int64), 0)
        self.state = TrainingState.new(network, preset.recipe.replace(precision=compute.precision))
        self.steps: Iterator[Losses] = train_steps(
            self.state, images, labels, batches, preset.recipe, 1_000_000, compute
        )

    def take(self, num_steps: int) -> list[float]:
        """Seconds of each of the next steps."""
        seconds = []
        with settled(self.compute):
            for _ in range(num_steps):
                before = self.state.train_s
                next(self.steps)
                seconds.append(self.state.train_s - before)
        return seconds


def against_the_ceilings(preset: Preset) -> Figures:
    """Operations and bytes of a step, its time, and the least time that either ceiling allows."""
    compute = resolve_compute(precision=preset.recipe.precision)
    stepper = Stepper(preset, compute)
    stepper.take(WARM)
    limits, step_s = ceilings(), median(stepper.take(COUNTED))
    value_bytes = 2 if compute.precision == "bfloat16" else 4
    flops = step_flops(stepper.plan, stepper.batch_size)
    num_bytes = step_bytes(stepper.plan, stepper.batch_size, value_bytes)
    compute_s = flops / limits[f"{compute.precision}_gflops"] / 1e9
    memory_s = num_bytes / limits["copy_gb_per_s"] / 1e9
    return {
        "preset": preset.name,
        "precision": compute.precision,
        "batch_size": stepper.batch_size,
        "gflop": flops / 1e9,
        "megabytes": num_bytes / 1e6,
        "step_ms": 1000 * step_s,
        "compute_ms": 1000 * compute_s,
        "memory_ms": 1000 * memory_s,
        "share_of_both": (compute_s + memory_s) / step_s,
        **limits,
    }


def choices(preset: Preset) -> list[Figures]:
    """Each choice against `auto`, alternated: the median ratio of images/s over rounds."""
    auto = resolve_compute(precision=preset.recipe.precision)
    others = {
        "float32": resolve_compute(precision="float32"),
        "bfloat16": resolve_compute(precision="bfloat16"),
        "contiguous": resolve_compute(precision=auto.precision, memory_format="contiguous"),
        "1 thread": resolve_compute(precision=auto.precision, threads=1),
    }
    rows = []
    for name, other in others.items():
        if other == auto:
            continue
        mine, theirs = Stepper(preset, auto), Stepper(preset, other)
        started = time.perf_counter()
        theirs.take(1)
        first_s = time.perf_counter() - started
        mine.take(WARM)
        theirs.take(WARM)
        ratios = [median(mine.take(COUNTED)) / median(theirs.take(COUNTED)) for _ in range(ROUNDS)]
        rows.append(
            {
                "preset": preset.name,
                "choice": name,
                "speed_against_auto": median(ratios),
                "each": ratios,
                "first_step_s": first_s,
            }
        )
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    presets = [PRESETS[name] for name in ("fast", "standard", "tutorial-fast", "tutorial")]
    limits = [against_the_ceilings(preset) for preset in presets]
    print("| preset | batch | operations | bytes | least by compute | least by memory | step | both of it |")
    print("|---|---|---|---|---|---|---|---|")
    for row in limits:
        print(
            f"| `{row['preset']}` ({row['precision']}) | {row['batch_size']} | {row['gflop']:.2f} GFLOP "
            f"| {row['megabytes']:.0f} MB | {row['compute_ms']:.1f} ms | {row['memory_ms']:.1f} ms "
            f"| {row['step_ms']:.1f} ms | {100 * row['share_of_both']:.0f} % |"
        )
    print("\n| preset | choice | speed against auto | first step |")
    print("|---|---|---|---|")
    chosen = [row for preset in presets[:3] for row in choices(preset)]
    for row in chosen:
        print(
            f"| `{row['preset']}` | {row['choice']} | {row['speed_against_auto']:.2f}× | {row['first_step_s']:.1f} s |"
        )
    if arguments.json:
        document = {**surroundings(), "ceilings_of_presets": limits, "choices": chosen}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
