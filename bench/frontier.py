"""Accuracy against seconds, for networks of one family on several data sets: which size fits which time.

    python bench/frontier.py train DATA --out LINES --widths 16,32,64 --depths 1,2 --seconds 20,60,180 [--seeds 2]
    python bench/frontier.py report LINES [--plot FILE]

`train`: each network for as many epochs as fit into the seconds, on the training images, measured on validation: test
stays sealed. A line of JSON a training is added to --out, so that a frontier grows over days. With --rates FILE the
images/s of each size are read from there, and measured and added where they are not: what epochs give is the same on a
GPU, where they are had sooner.
`report`: how much accuracy the rule of `choosing/budget.py` loses against the best size for each set and time; the same
with factors fitted to the other sets alone; and the Pareto front as a plot.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from convlens.architecture import parse, plan
from convlens.choosing.budget import SIZES, Size, batch_size_for, growth_for, least_epochs, rates_for, widest_for
from convlens.choosing.kinds import kind_of
from convlens.choosing.probe import Material
from convlens.choosing.speed import rate_of
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.network.compute import resolve_compute
from convlens.presets import NATURAL, natural_for
from convlens.progress import open_progress
from convlens.training.plan import TrainingPlan
from convlens.training.trial import run_trial

Line = dict[str, Any]
Point = dict[Size, tuple[float, float]]  # of a set and time: each size's epochs and accuracy in %, means over seeds


class Case(NamedTuple):
    """A set, its number of training images and of their values, and the seconds that a training may take."""

    data: str
    images: int
    values: int
    seconds: float


Points = dict[Case, Point]
_FACTORS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0)


def train(given: argparse.Namespace) -> None:
    """Train, print, and add to the lines."""
    with open_progress("none") as bar:
        shape = None if given.size is None else (given.size, given.size)
        options = PackOptions(shape, given.channels, "pad") if shape else PackOptions()
        dataset = open_data(given.data, options, progress=bar)
    changes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in given.set)}
    _, height, width = dataset.input_spec.shape
    rows, held_out = dataset.rows("train"), dataset.rows("val")
    kind = kind_of(dataset)
    names = [*kind.augmentation, *(["flip"] if kind.is_mirrored else [])]
    compute = resolve_compute("auto", given.precision)
    recipe = NATURAL.recipe.with_kinds(names, min(height, width)).replace(
        precision=compute.precision,
        views="mirror" if kind.is_mirrored else "none",
        grow_from=growth_for(height, width),
        batch_size=batch_size_for(len(rows)),
    )
    recipe = recipe.replace(**rates_for(recipe)).replace(**changes)
    sizes = [Size(int(width), int(depth)) for width in given.widths.split(",") for depth in given.depths.split(",")]
    for size in sizes:
        sentence = natural_for(height, width, *size)
        network = plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
        planned = TrainingPlan(dataset=dataset, network=network, recipe=recipe, seed=0, compute=compute)
        rates = json.loads(given.rates.read_text()) if given.rates is not None and given.rates.exists() else {}
        rate = rates.get(key := f"{dataset.name} {size.width}×{size.depth}")
        if rate is None:
            rate = rates[key] = rate_of(Material(dataset, rows, held_out[:8]), planned, by_clock=True)
            if given.rates is not None:
                given.rates.write_text(json.dumps(rates, indent=1, ensure_ascii=False))
        for seconds in map(float, given.seconds.split(",")) if given.seconds else ():
            epochs = max(0.1, round(seconds * rate / len(rows), 2))
            for seed in range(given.seeds):
                one = replace(planned, recipe=recipe.replace(epochs=epochs), seed=seed)
                started = time.perf_counter()
                trial = run_trial(one, rows, held_out)
                line = {
                    "data": dataset.name, "kind": kind.name, "images": len(rows),
                    "values": len(rows) * math.prod(dataset.input_spec.shape), "size": list(size),
                    "seconds": seconds, "epochs": epochs, "macs": network.multiply_adds, "rate": round(rate),
                    "s": round(time.perf_counter() - started, 1), "seed": seed,
                    "accuracy": round(100 * trial.accuracy, 2), "n": len(held_out), "loss": round(trial.loss, 4),
                    "set": given.set, "precision": compute.precision,
                }  # fmt: skip
                print(json.dumps(line), flush=True)
                if given.out is not None:
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


def points_of(lines: list[Line]) -> Points:
    """The means over seeds. Ends where lines cannot be compared."""
    if len({(tuple(line["set"]), line["precision"]) for line in lines}) > 1:
        raise SystemExit("lines of different --set or precision: report each apart")
    found: dict[Case, dict[Size, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        case = Case(line["data"], line["images"], line["values"], line["seconds"])
        found[case][Size(*line["size"])].append(line)
    points: Points = {}
    for case, sizes in found.items():
        points[case] = {
            size: (mean(x["epochs"] for x in own), mean(x["accuracy"] for x in own)) for size, own in sizes.items()
        }
    return points


def chosen(case: Case, point: Point, factors: dict[Size, float]) -> Size:
    """The size that the rule takes: the largest that sees the images often enough, and that they can fill."""
    there = [size for size in factors if size in point]
    few = least_epochs(case.images)
    enough = [s for s in there if s.width <= widest_for(case.values) and point[s][0] >= factors[s] * few]
    return (enough or there[:1])[-1]


def lost(case: Case, point: Point, factors: dict[Size, float]) -> float:
    """Points of accuracy that the rule's size is behind the best one."""
    return max(accuracy for _, accuracy in point.values()) - point[chosen(case, point, factors)][1]


def fitted(points: Points) -> dict[Size, float]:
    """Factors with the least mean loss, found one after the other from the smallest loss of a few passes."""
    factors = dict(SIZES)

    def mean_lost(some: dict[Size, float]) -> float:
        return mean(lost(case, point, some) for case, point in points.items())

    for _ in range(3):
        for size in list(factors)[1:]:
            tried = [{**factors, size: factor} for factor in _FACTORS]
            tried = [one for one in tried if all(a <= b for a, b in pairwise(one.values()))]
            factors = min([factors, *tried], key=mean_lost)
    return factors


def report(given: argparse.Namespace) -> None:
    """Print what the rule loses, and plot the fronts."""
    lines = [json.loads(line) for line in given.lines.read_text(encoding="utf-8").splitlines()]
    points = points_of(lines)
    for case, point in sorted(points.items()):
        others = {other: value for other, value in points.items() if other.data != case.data}
        elsewhere = fitted(others) if others else dict(SIZES)
        words = "  ".join(f"{s.width}×{s.depth} {a:.2f} ({e:g})" for s, (e, a) in sorted(point.items()))
        print(f"{case.data:16} {case.seconds:4.0f} s  {words}")
        for whose, factors in (("the table", SIZES), ("the other sets", elsewhere)):
            picked = chosen(case, point, factors)
            print(f"{'':24}by {whose}: {picked.width}×{picked.depth}, {lost(case, point, factors):.2f} lost")
    everywhere = fitted(points)
    print("factors fitted to all:", {f"{size.width}×{size.depth}": factor for size, factor in everywhere.items()})
    for whose, factors in (("the table", SIZES), ("those", everywhere)):
        losses = [lost(case, point, factors) for case, point in points.items()]
        print(f"lost by {whose}: {mean(losses):.2f} on average, {max(losses):.2f} at most")
    if given.plot is not None:
        plot(points, {line["data"]: line["n"] for line in lines}, given.plot)


def plot(points: Points, num_measured: dict[str, int], path: Path) -> None:
    """A panel a set: a line a size, the Pareto front behind them, and the rule's choice at each time as a ring."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    names = sorted({case.data for case in points})
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 4.0), squeeze=False)
    sizes = sorted({size for point in points.values() for size in point})
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(sizes)))
    for panel, name in zip(panels[0], names, strict=True):
        own = {case.seconds: (case, point) for case, point in points.items() if case.data == name}
        for size, colour in zip(sizes, colours, strict=True):
            at = sorted((seconds, point[size][1]) for seconds, (_, point) in own.items() if size in point)
            panel.plot(*zip(*at, strict=True), marker="o", ms=4, lw=1.2, color=colour) if at else None
        front = sorted((seconds, max(a for _, a in point.values())) for seconds, (_, point) in own.items())
        panel.plot(*zip(*front, strict=True), lw=7, color="#d0d0d0", zorder=0, solid_capstyle="round")
        for seconds, (case, point) in own.items():
            accuracy = point[chosen(case, point, SIZES)][1]
            panel.plot([seconds], [accuracy], "o", ms=11, mfc="none", mec="#d0006f", mew=1.4)
        panel.set_xscale("log")
        panel.set_xticks(sorted(own), [f"{seconds:g}" for seconds in sorted(own)], minor=False)
        panel.xaxis.minorticks_off()
        error = 100 * math.sqrt(front[-1][1] / 100 * (1 - front[-1][1] / 100) / num_measured[name])
        panel.set_title(f"{name}: {num_measured[name]:,} images, ± {error:.2f} at the top", fontsize=10)
        panel.set_xlabel("seconds of training, two cores")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("validation accuracy, %")
    words = [f"width {s.width}" + (f", depth {s.depth}" if s.depth > 1 else "") for s in sizes]
    marks: list[Any] = [Line2D([], [], color=colour, marker="o", ms=4, lw=1.2) for colour in colours]
    marks += [Line2D([], [], lw=7, color="#d0d0d0")]
    marks += [Line2D([], [], ls="", marker="o", ms=11, mfc="none", mec="#d0006f", mew=1.4)]
    labels = [*words, "best of them", "what the rule takes"]
    figure.legend(marks, labels, ncols=len(labels), loc="lower center", fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Which of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("data")
    training.add_argument("--out", type=Path)
    training.add_argument("--widths", default="16,32,64")
    training.add_argument("--depths", default="1")
    training.add_argument("--seconds", default="20,60")
    training.add_argument("--seeds", default=1, type=int)
    training.add_argument("--rates", type=Path)
    training.add_argument("--size", type=int)
    training.add_argument("--channels", default=3, type=int)
    training.add_argument("--precision", default="auto")
    training.add_argument("--set", action="append", default=[])
    training.set_defaults(run=train)
    reporting = commands.add_parser("report")
    reporting.add_argument("lines", type=Path)
    reporting.add_argument("--plot", type=Path)
    reporting.set_defaults(run=report)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
