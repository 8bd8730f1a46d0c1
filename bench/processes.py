"""Two processes of one thread against one process of two, on the same two cores; and what shards cost.

    python bench/processes.py [--data mnist=standard FOLDER=natural] [--rounds 5] [--epochs 0.5]

Each round trains every contender once, in an order that turns from round to round; images/s is what run.json has of the
training alone, without the start of the processes. Printed are medians, the median of the ratios within a round with
its range, and the last training loss and the validation of each seed (a round is a seed).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median, stdev

CONTENDERS = {
    "1 process, 2 threads": ["--threads", "2"],
    "2 processes, 1 thread": ["--threads", "1", "--processes", "2"],
    "1 process, 2 threads, 4 shards": ["--threads", "2", "--shards", "4"],
    "2 processes, 1 thread, 4 shards": ["--threads", "1", "--processes", "2", "--shards", "4"],
}


def trained(data: str, preset: str, epochs: str, seed: int, more: list[str], place: Path) -> dict[str, float]:
    """Images a second, the loss of the last epoch and the accuracy on validation of a training."""
    words = ["train", data, "--preset", preset, "--epochs", epochs, "--seed", str(seed), "--out", str(place), *more]
    done = subprocess.run([sys.executable, "-m", "convlens", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    lines = (place / "log.jsonl").read_text(encoding="utf-8").splitlines()
    loss = next(line["loss"] for line in map(json.loads, reversed(lines)) if "epoch" in line)
    return {"rate": record["images_per_s"], "loss": loss, "val": 100 * record["val"]["accuracy"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["mnist=standard"], metavar="DATA=PRESET")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", default="0.5")
    asked = parser.parse_args()
    for pair in asked.data:
        data, _, preset = pair.rpartition("=")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for seed in range(asked.rounds):
            names = list(CONTENDERS)
            for name in names[seed % len(names) :] + names[: seed % len(names)]:
                with tempfile.TemporaryDirectory() as folder:
                    found[name].append(
                        trained(data, preset, asked.epochs, seed, CONTENDERS[name], Path(folder) / "run")
                    )
        print(f"{preset} on {Path(data).name}, {asked.epochs} epochs, {asked.rounds} rounds")
        first = [one["rate"] for one in found["1 process, 2 threads"]]
        for name, some in found.items():
            ratios = [one["rate"] / own for one, own in zip(some, first, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            said = [f"{median(one['rate'] for one in some):,.0f} images/s", f"ratio {spread}"]
            for what in ("loss", "val"):
                values = [one[what] for one in some]
                said.append(f"{what} {mean(values):.4f} ± {stdev(values) if len(values) > 1 else 0:.4f}")
            print(f"  {name:34s} {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
