"""Are promises kept? Of the images that a model did not learn from, halves set thresholds.

Each half is tried on the other one, and on all images: the other half is a sample too, and it has what this one lacks,
so that by chance up to a quarter of the promises that nine in ten draws keep are broken there.

    python bench/promises.py MODEL [--splits 50] [--reject 0.01] [--require 'ship recall>=0.95']

Validation and test are put together and parted anew at random, so often. Test is inspected for it: no model is chosen.
"""

import argparse
from collections import Counter

import numpy as np

import convlens
from convlens import thresholds
from convlens.data.packed.pack import reopen
from convlens.errors import DataError
from convlens.evaluation.test_ledger import inspect_test
from convlens.thresholds import wishes


def main() -> None:
    """Prints how many splits kept the promise, broke it, or could not give it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--reject", type=float)
    parser.add_argument("--require", default="")
    asked = parser.parse_args()
    classifier = convlens.load(asked.model)
    assert classifier.card.dataset is not None, "trained by convlens"
    dataset = inspect_test(reopen(classifier.card.dataset, progress="none"), "bench/promises.py")
    logits = [classifier.logits(dataset.images(split)) for split in ("val", "test")]
    p_NK = classifier.probabilities(np.concatenate(logits))
    labels_N = np.concatenate([dataset.labels(split) for split in ("val", "test")])
    names, rng = classifier.class_names, np.random.default_rng(0)
    wanted = wishes([asked.require], names) if asked.require else []
    outcomes: Counter[str] = Counter()
    found = []
    for _ in range(asked.splits):
        order = rng.permutation(len(labels_N))
        here = order[: len(order) // 2]
        try:
            made = (
                thresholds.require(p_NK[here], labels_N[here], wanted, names)
                if wanted
                else thresholds.reject(p_NK[here], labels_N[here], asked.reject)
            )
        except DataError as error:
            outcomes[f"not given ({error})"] += 1
            continue
        for where, there in (("the other half", order[len(order) // 2 :]), ("all", order)):
            answers = made.answers(p_NK[there], names)
            is_right = answers.labels_N == labels_N[there]
            if wanted:
                among = labels_N[there] if wanted[0].measure == "recall" else answers.labels_N
                share, least = float(is_right[among == wanted[0].class_number].mean()), wanted[0].at_least
                found.append(share)
            else:
                given = ~answers.uncertain_N
                share, least = float(is_right[given].mean()), 1 - asked.reject
                found.append(float(given.mean()))
            outcomes[f"{'kept' if share >= least else 'broken'} on {where}"] += 1
    print(f"{len(labels_N):,} images, {asked.splits} splits: {dict(outcomes)}")
    if found:
        print(f"mean share {'that keeps it' if wanted else 'answered'}: {100 * float(np.mean(found)):.2f} %")


if __name__ == "__main__":
    main()
