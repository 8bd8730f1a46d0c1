"""A head on few pictures, beside scikit-learn's logistic regression on the same features.

    python bench/few_shot.py FOLDER [--size 224] [--draws 10]

For 5, 10 and 20 pictures a class, drawn from train and validation: the head that convlens chooses (nearest mean or
logistic regression, by four rounds that hold each of the drawn pictures out once) and scikit-learn's LogisticRegression
as it comes, and on standardised features. Measured on all pictures of train and validation that were not drawn: test
stays sealed. Mean accuracy over the draws, and the 95 % interval of the mean difference of the pairs.
"""

import argparse
import math
from statistics import mean, stdev

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convlens.choosing.pretrained import best_of_heads
from convlens.experiment import resolve
from convlens.network.compute import settled
from convlens.presets import PHOTO
from convlens.progress import Progress, open_progress
from convlens.training.fit import network_of
from convlens.training.head import features_at, fitted_head
from convlens.training.request import TrainRequest

_T_95 = {10: 2.262}  # of Student's distribution with one degree of freedom less


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--size", default=224, type=int)
    parser.add_argument("--draws", default=10, type=int)
    given = parser.parse_args()
    with open_progress("auto") as bar:
        request = TrainRequest(
            data=given.folder, preset="photo", size=given.size, recipe={"epochs": 0, "head": "logistic"}
        )
        plan, _ = resolve(request, bar)
        dataset = plan.dataset
        rows = np.sort(np.concatenate([dataset.rows("train"), dataset.rows("val")]))
        with settled(plan.compute):
            features = features_at(network_of(plan), plan, rows, bar)
    labels = torch.from_numpy(dataset.labels_at(rows))
    num_classes = int(labels.max()) + 1
    print(f"{dataset.name}: {len(rows):,} pictures, {num_classes} classes, {given.size} px")
    for shots in (5, 10, 20):
        ours: list[float] = []
        plain: list[float] = []
        scaled: list[float] = []
        chosen: list[str] = []
        for draw in range(given.draws):
            rng = np.random.default_rng([shots, draw])
            at = np.concatenate(
                [rng.permutation(np.flatnonzero(labels.numpy() == k))[:shots] for k in range(num_classes)]
            )
            rest = torch.from_numpy(np.setdiff1d(np.arange(len(labels)), at))
            x, y = features[torch.from_numpy(at)], labels[torch.from_numpy(at)]
            place = np.tile(np.arange(shots), num_classes)
            rounds = [place % 4 == number for number in range(4)]
            head = best_of_heads(x, y, rounds, PHOTO.recipe, Progress())
            weight, bias = fitted_head(x, y, num_classes, head.recipe)
            ours.append(float(((features[rest] @ weight.T + bias).argmax(1) == labels[rest]).double().mean()))
            chosen.append(head.recipe.head)
            for found, model in (
                (plain, LogisticRegression(max_iter=5_000)),
                (scaled, make_pipeline(StandardScaler(), LogisticRegression(max_iter=5_000))),
            ):
                model.fit(x.numpy(), y.numpy())
                found.append(float(model.score(features[rest].numpy(), labels[rest].numpy())))
        kinds = ", ".join(f"{kind} {chosen.count(kind)} times" for kind in sorted(set(chosen)))
        print(f"{shots:>3} a class: convlens {_words(ours)} ({kinds})")
        for name, found in (("scikit-learn", plain), ("scikit-learn, standardised", scaled)):
            pairs = [100 * (a - b) for a, b in zip(ours, found, strict=True)]
            reach = _T_95.get(len(pairs), 2.262) * stdev(pairs) / math.sqrt(len(pairs))
            print(f"      {name} {_words(found)}; difference {mean(pairs):+.2f} ± {reach:.2f} points")


def _words(values: list[float]) -> str:
    return f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f} %"


if __name__ == "__main__":
    main()
