"""How many wrong labels are found? Some are planted, and those among what `check --labels` ranks first are counted.

    python bench/labels.py mnist --num 1000 --planted 20 --first 25 --draws 5
    python bench/labels.py FOLDER --planted 138 --first 276 --draws 3

With cleanlab installed its rankings of the very same probabilities stand beside. Training and test images are taken
together for FOLDER (test is inspected for it); of mnist some training images, drawn anew each time.
"""

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.doctor import labels
from convlens.evaluation.cross_validation import held_out_logits
from convlens.evaluation.test_ledger import inspect_test
from convlens.metrics import softmax
from convlens.progress import Progress, open_progress
from convlens.training.plan import TrainingPlan


def main() -> None:
    """Prints a line a draw, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--num", type=int)
    parser.add_argument("--planted", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--draws", type=int, default=5)
    asked = parser.parse_args()
    dataset = open_data(asked.data, progress="none")
    dataset = dataset if asked.data == "mnist" else inspect_test(dataset, "bench/labels.py").merged()
    totals: dict[str, list[int]] = {}
    for draw in range(asked.draws):
        rng = np.random.default_rng(draw)
        rows = dataset.rows("train")
        rows = rows if asked.num is None else rng.choice(rows, asked.num, replace=False)
        images, right_N = np.asarray(dataset.images_at(rows)[np.arange(len(rows))]), dataset.labels_at(rows)
        given_N, wrong = right_N.copy(), rng.choice(len(rows), asked.planted, replace=False)
        num_classes = len(dataset.class_names)
        given_N[wrong] = (right_N[wrong] + rng.integers(1, num_classes, asked.planted)) % num_classes
        found, probabilities = _ranked(images, given_N)
        kept = np.array([int(name.rpartition("/")[2]) for name in found[: asked.first]])
        counts = {"convlens": int(np.isin(kept, wrong).sum())} | _cleanlab(*probabilities, wrong, asked.first)
        for name, count in counts.items():
            totals.setdefault(name, []).append(count)
        print(f"draw {draw}: of {asked.planted} planted among the first {asked.first}: {counts}", flush=True)
    print({name: float(np.mean(counts)) for name, counts in totals.items()})


def _ranked(images: np.ndarray, labels_N: np.ndarray) -> tuple[list[str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Names, the most doubtful first; and what the folds gave: probabilities, labels and rows."""
    kept: dict[str, np.ndarray] = {}

    def remembered(plan: TrainingPlan, bar: Progress) -> tuple[np.ndarray, np.ndarray]:
        kept["logits"], measured = held_out_logits(plan, bar)
        kept["labels"], kept["rows"] = plan.dataset.labels("train"), plan.dataset.rows("train")
        return kept["logits"], measured

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(labels, "held_out_logits", remembered):
        path = Path(folder) / "planted.npz"
        np.savez(path, x=images, y=labels_N)
        with open_progress("none") as bar:
            found, _ = labels.suspects(path, PackOptions(), None, None, bar)
    names = [one.path for one in found if one.is_suspect]
    return names, (softmax(kept["logits"]), kept["labels"], kept["rows"])


def _cleanlab(
    p_NK: np.ndarray, labels_N: np.ndarray, rows: np.ndarray, wrong: np.ndarray, first: int
) -> dict[str, int]:
    try:
        from cleanlab.rank import get_label_quality_scores  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return {}
    counts = {}
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        order = np.argsort(get_label_quality_scores(labels_N, p_NK, method=method), kind="stable")[:first]
        counts[f"cleanlab {method}"] = int(np.isin(rows[order], wrong).sum())
    return counts


if __name__ == "__main__":
    main()
