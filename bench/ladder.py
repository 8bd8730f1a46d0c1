"""The speed ladder: from the tutorial's program as published down to preset `fast`, a step at a time.

Every run is a process of its own, so that nothing is warm that a person's first training would find cold; contenders
are alternated, seed by seed. `train_s` runs from the network's construction to the last step; `total_s` from the start
of the process to its end (for convlens: to the model file).

    python bench/ladder.py [--quick] [--json FILE] [--plot FILE]      (or: make bench)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import commit, surroundings

Result = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """One contender: what it is called, how it is run, how many seeds it gets, and whether its whole time is known
    from a part of its images (`--quick`)."""

    name: str
    about: str
    seeds: int
    quick_seeds: int = 1
    quick_images: int | None = None


RUNGS = (
    Rung("tutorial", "the tutorial's program as published, one epoch of its ten", 3, 1, 6_000),
    Rung("in-memory", "… its images in memory as uint8, a batch picked at a time", 3, 1, 6_000),
    Rung("channels-last", "… channels last, fused Adam", 3, 1, 6_000),
    Rung("bfloat16", "… bfloat16", 3, 1, 6_000),
    Rung("tutorial-fast", "preset tutorial-fast: the same network, our recipe, whole", 5, 0),
    Rung("record", "the published speed record's network and recipe, one epoch, float32", 20, 2),
    Rung("record-channels-last", "… channels last", 5, 1),
    Rung("small", "the record's recipe with fast's network", 5, 1),
    Rung("small-bfloat16", "… channels last, fused AdamW, bfloat16", 5, 1),
    Rung("small-smoothed", "… label smoothing, twice the learning rate: half the steps", 5, 1),
    Rung("fast", "preset fast: optimizer without torch's compiler, our data path", 20, 3),
    Rung("standard", "preset standard, a tenth of the images kept for validation", 10, 1),
)


# ---------------------------------------------------------------- one run, in its own process


def run_one(name: str, seed: int, num_images: int | None) -> Result:
    """Run one rung with one seed. `num_images` cuts the tutorial's rungs short (their accuracy then means nothing)."""
    import torch
    from programs import TutorialNetwork, fast_network, in_memory, record_network, tutorial_as_published

    share = (num_images or 60_000) / 60_000
    plain: dict[str, Callable[[], Result]] = {
        "tutorial": lambda: tutorial_as_published(seed, num_images or 60_000),
        "in-memory": lambda: in_memory(
            TutorialNetwork, seed, optimizer=lambda p: torch.optim.Adam(p, 0.01), batch_size=200, epochs=share
        ),
        "channels-last": lambda: in_memory(
            TutorialNetwork,
            seed,
            optimizer=lambda p: torch.optim.Adam(p, 0.01, fused=True),
            batch_size=200,
            epochs=share,
            channels_last=True,
        ),
        "bfloat16": lambda: in_memory(
            TutorialNetwork,
            seed,
            optimizer=lambda p: torch.optim.Adam(p, 0.01, fused=True),
            batch_size=200,
            epochs=share,
            channels_last=True,
            bfloat16=True,
        ),
        "record": lambda: in_memory(
            record_network, seed, optimizer=lambda p: torch.optim.Adam(p, 0.01, (0.7, 0.9)), max_lr=0.01
        ),
        "record-channels-last": lambda: in_memory(
            record_network,
            seed,
            optimizer=lambda p: torch.optim.Adam(p, 0.01, (0.7, 0.9)),
            max_lr=0.01,
            channels_last=True,
        ),
        "small": lambda: in_memory(
            lambda: fast_network(seed), seed, optimizer=lambda p: torch.optim.Adam(p, 0.01, (0.7, 0.9)), max_lr=0.01
        ),
        "small-bfloat16": lambda: in_memory(
            lambda: fast_network(seed),
            seed,
            channels_last=True,
            bfloat16=True,
            optimizer=lambda p: torch.optim.AdamW(p, 0.01, (0.7, 0.9), fused=True),
            max_lr=0.01,
        ),
        "small-smoothed": lambda: in_memory(
            lambda: fast_network(seed),
            seed,
            channels_last=True,
            bfloat16=True,
            max_lr=0.02,
            label_smoothing=0.1,
            optimizer=lambda p: torch.optim.AdamW(p, 0.02, (0.7, 0.9), fused=True),
            epochs=_fast_epochs(),
        ),
    }
    if name in plain:
        return plain[name]()
    import convlens

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        val_frac = None if name == "standard" else 0  # the default preset as it is by default
        run = convlens.train("mnist", preset=name, seed=seed, val_frac=val_frac, out=Path(folder) / "run", test=True)
        report_s = time.perf_counter() - started
        record_ = run.record
    return {
        "train_s": record_.train_s,
        "accuracy": record_.test.accuracy if record_.test else None,
        "images_per_s": record_.images_per_s,
        "from_data_to_report_s": report_s,
        "compute": record_.compute.to_json(),
    }


def _fast_epochs() -> float:
    from convlens.presets import FAST

    return FAST.recipe.epochs


# ---------------------------------------------------------------- all of them


def measure(rung: Rung, seed: int, num_images: int | None) -> Result:
    """One run in a fresh process, with the time of the whole process beside what it reports."""
    words = [sys.executable, str(Path(__file__)), "--one", rung.name, "--seed", str(seed)]
    words += ["--images", str(num_images)] if num_images else []
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    total_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{rung.name}, seed {seed}, failed:\n{done.stderr}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return {"rung": rung.name, "seed": seed, "images": num_images, "commit": commit(), "total_s": total_s, **result}


def cold_total(seed: int) -> float:
    """Seconds from the start of `convlens train --preset fast` to its end, with the model file written."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        words = ["-m", "convlens", "train", "--preset", "fast", "--val-frac", "0", "--seed", str(seed)]
        subprocess.run([sys.executable, *words, "--out", f"{folder}/run"], capture_output=True, check=True)
        return time.perf_counter() - started


def climb(rungs: list[Rung], *, quick: bool) -> tuple[list[Result], list[float]]:
    """Every run of every rung, contenders alternated: first seed 0 of each, then seed 1 of each, and so on."""
    results: list[Result] = []
    most = max(rung.quick_seeds if quick else rung.seeds for rung in rungs)
    for seed in range(most):
        for rung in rungs:
            if seed < (rung.quick_seeds if quick else rung.seeds):
                results.append(measure(rung, seed, rung.quick_images if quick else None))
                latest = results[-1]
                cut = f" for {latest['images']:,} images" if latest["images"] else f", {100 * latest['accuracy']:.2f} %"
                print(f"{rung.name} seed {seed}: {latest['train_s']:.2f} s{cut}", file=sys.stderr, flush=True)
    return results, [cold_total(seed) for seed in range(3 if quick else 5)]


def summarise(results: list[Result]) -> list[Result]:
    """By rung: median time (a cut-short one scaled to 60,000 images), mean and sd of the accuracy, n."""
    rows = []
    for rung in RUNGS:
        own = [r for r in results if r["rung"] == rung.name]
        if not own:
            continue
        cut = own[0]["images"]
        scale = 60_000 / cut if cut else 1
        accuracies = [100 * r["accuracy"] for r in own]
        rows.append(
            {
                "rung": rung.name,
                "about": rung.about,
                "n": len(own),
                "train_s": statistics.median(
                    scale * (r["train_s"] - r.get("optimizer_s", 0)) + r.get("optimizer_s", 0) for r in own
                ),
                "scaled": bool(cut),
                "accuracy_mean": None if cut else statistics.mean(accuracies),
                "accuracy_sd": statistics.stdev(accuracies) if len(own) > 1 and not cut else None,
            }
        )
    return rows


def ratio_to_record(results: list[Result]) -> tuple[float, float] | None:
    """How many times faster `fast` is than the published record's recipe, as medians over pairs of one seed: with all
    that a person waits for, and without the making of torch's optimizer (the import of its compiler)."""
    by = {(r["rung"], r["seed"]): r for r in results}
    pairs = [(by["record", s], by["fast", s]) for s in range(100) if ("record", s) in by and ("fast", s) in by]
    if not pairs:
        return None
    whole = statistics.median(a["train_s"] / b["train_s"] for a, b in pairs)
    return whole, statistics.median((a["train_s"] - a["optimizer_s"]) / b["train_s"] for a, b in pairs)


def table(rows: list[Result]) -> str:
    """The ladder as a Markdown table."""
    first = rows[0]["train_s"]
    lines = ["| | what | training | against the first | test accuracy | n |", "|---|---|---|---|---|---|"]
    for row in rows:
        accuracy = "–"
        if row["accuracy_mean"] is not None:
            spread = f" ± {row['accuracy_sd']:.2f}" if row["accuracy_sd"] is not None else ""
            accuracy = f"{row['accuracy_mean']:.2f}{spread} %"
        about = "≈ " if row["scaled"] else ""
        lines.append(
            f"| `{row['rung']}` | {row['about']} | {about}{row['train_s']:.2f} s | {first / row['train_s']:.1f}× "
            f"| {accuracy} | {row['n']} |"
        )
    return "\n".join(lines)


def plot(rows: list[Result], path: Path) -> None:
    """The ladder as bars on a logarithmic axis of seconds, accuracies beside them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.46 * len(rows) + 1.1), layout="constrained")
    places = range(len(rows))
    ours = {"tutorial-fast", "fast", "standard"}
    colours = ["#d1495b" if row["rung"] in ours else "#8d99ae" for row in rows]
    axes.barh(places, [row["train_s"] for row in rows], color=colours, height=0.68)
    for place, row in zip(places, rows, strict=True):
        label = f" {row['train_s']:.1f} s"
        if row["accuracy_mean"] is not None:
            spread = f" ± {row['accuracy_sd']:.2f}" if row["accuracy_sd"] is not None else ""
            label += f"   {row['accuracy_mean']:.2f}{spread} %"
        axes.text(row["train_s"], place, label, va="center", fontsize=9)
    axes.set_yticks(places, [row["rung"] for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0.5, max(row["train_s"] for row in rows) * 9)
    axes.set_xlabel("training time in seconds (logarithmic), two CPU cores; test accuracy beside it")
    axes.set_title("Presets (red) and what they are measured beside", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Climb the ladder, print it, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three minutes: few seeds, the slowest rungs cut short")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where every single result goes")
    parser.add_argument("--plot", type=Path, help="where the picture goes (.png or .svg)")
    parser.add_argument("--from", dest="read", type=Path, help="print and plot the results of an earlier --json")
    parser.add_argument("--rungs", nargs="+", choices=[rung.name for rung in RUNGS], help="these alone")
    parser.add_argument("--keep", type=Path, help="an earlier --json, whose other rungs are kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one, arguments.seed, arguments.images)))
        return
    if arguments.read:
        document = json.loads(arguments.read.read_text(encoding="utf-8"))
    else:
        here = surroundings()
        rungs = [rung for rung in RUNGS if not arguments.rungs or rung.name in arguments.rungs]
        results, cold = climb(rungs, quick=arguments.quick)
        if arguments.keep:
            kept = json.loads(arguments.keep.read_text(encoding="utf-8"))["results"]
            results = [r for r in kept if r["rung"] not in {rung.name for rung in rungs}] + results
        document = {**here, "quick": arguments.quick, "results": results, "cold_total_s": cold}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    rows = summarise(document["results"])
    print(
        f"\n{document['machine']['processor']}, {document['machine']['threads']} threads; large matrix product: "
        f"{document['ceilings']['bfloat16_gflops']:.0f} GFLOP/s in bfloat16, "
        f"{document['ceilings']['float32_gflops']:.0f} in float32\n"
    )
    print(table(rows))
    if (ratio := ratio_to_record(document["results"])) is not None:
        print(
            f"\nfast against the published record's recipe, pairs of one seed: {ratio[0]:.1f}× "
            f"({ratio[1]:.1f}× without the making of torch's optimizer)"
        )
    print(
        f"cold total of fast, process start to end: {statistics.median(document['cold_total_s']):.2f} s "
        f"(median of {len(document['cold_total_s'])})"
    )
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
