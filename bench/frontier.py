"""Accuracy against seconds, for networks of one family on one data set: which size fits which time.

    python bench/frontier.py DATA --widths 16,32,64 --depths 1,2 --seconds 20,60,180 [--seeds 1] [--set muon_lr=0.06]

Each network is trained for as many epochs as fit into the seconds, on the training images, and measured on validation:
test stays sealed. A line of JSON a training goes to --out, where there is one, so that a frontier grows over days.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from convlens.architecture import parse, plan
from convlens.choosing.probe import Material
from convlens.choosing.speed import rate_of
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.network.compute import resolve_compute
from convlens.presets import NATURAL, natural_for
from convlens.progress import open_progress
from convlens.training.plan import TrainingPlan
from convlens.training.trial import run_trial


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--sentence", action="append", default=[])
    parser.add_argument("--widths", default="")
    parser.add_argument("--depths", default="1")
    parser.add_argument("--seconds", default="20")
    parser.add_argument("--epochs", default="", help="instead of seconds")
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--size", default=32, type=int)
    parser.add_argument("--channels", default=3, type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with open_progress("none") as bar:
        options = PackOptions((given.size, given.size), given.channels, "pad")
        dataset = open_data(given.data, options, progress=bar)
    changes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in given.set)}
    sentences = {sentence: sentence for sentence in given.sentence}
    for width in filter(None, given.widths.split(",")):
        for depth in given.depths.split(","):
            sentences[f"w{width} d{depth}"] = natural_for(given.size, given.size, int(width), int(depth))
    train, val = dataset.rows("train"), dataset.rows("val")
    compute = resolve_compute("auto", given.precision)
    for name, sentence in sentences.items():
        network = plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
        recipe = NATURAL.recipe.replace(precision=compute.precision, **changes)
        planned = TrainingPlan(dataset=dataset, network=network, recipe=recipe, seed=0, compute=compute)
        rate = rate_of(Material(dataset, train, val[:8]), planned, by_clock=True)
        lengths = [float(one) for one in (given.epochs or given.seconds).split(",")]
        for length in lengths:
            epochs = length if given.epochs else max(0.1, round(length * rate / len(train), 2))
            for seed in range(given.seeds):
                one = replace(planned, recipe=recipe.replace(epochs=epochs), seed=seed)
                started = time.perf_counter()
                trial = run_trial(one, train, val)
                line = {
                    "data": dataset.name, "network": name, "macs": network.multiply_adds, "epochs": epochs,
                    "rate": round(rate), "s": round(time.perf_counter() - started, 1), "seed": seed,
                    "accuracy": round(100 * trial.accuracy, 2), "loss": round(trial.loss, 4), "set": given.set,
                    "precision": compute.precision,
                }  # fmt: skip
                print(json.dumps(line), flush=True)
                if given.out is not None:
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
