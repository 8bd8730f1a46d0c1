"""A model card in Markdown, in Hugging Face's form: what the model is for, what it was made of, how good it is and how
that is known, and what is not known.

Source of the form: M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019, and the Hub's documentation.
"""

import json
from typing import Any

from convlens import files
from convlens.classifier import Classifier
from convlens.metrics import Scaling, Score
from convlens.run import RUN_FILE, Run
from convlens.text import by, counted, percent, short_sentence, shown

_MOST_CLASSES = 40
_NOT_SAID = "not said"


def card_markdown(classifier: Classifier) -> str:
    """The card of a model, with the test score of the run folder that it lies in. Raises RunError."""
    card, folder = classifier.card, classifier.path.parent
    run = Run(folder) if files.is_file(folder / RUN_FILE) else None
    scores = _scores(card.metrics.val, card.metrics.cross_validation, None if run is None else run.test)
    name = shown(folder.name if run is not None else classifier.path.stem, 80)
    parts = [_front_matter(classifier, name, scores), f"# {name}\n", *_intended(classifier), *_data(classifier)]
    return "\n".join([*parts, *_evaluation(classifier, scores), *_limits(classifier), *_licence(classifier)]) + "\n"


Scores = dict[str, Score]


def _scores(val: Score | None, folds: Score | None, test: Score | None) -> Scores:
    named = {"test": test, "folds": folds, "validation": val}
    return {name: score for name, score in named.items() if score is not None}


def _front_matter(classifier: Classifier, name: str, scores: Scores) -> str:
    """YAML; JSON strings are YAML strings, too."""
    card = classifier.card
    licence = None if card.origin is None else card.origin.licence
    lines = ["---", f"license: {json.dumps((licence or 'other').lower())}", "library_name: convlens"]
    lines += ["pipeline_tag: image-classification", "tags: [image-classification, convlens]"]
    if card.dataset is not None and "test" in scores:
        score = scores["test"]
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
        lines += ["  - task: {type: image-classification}"]
        lines += [f"    dataset: {{name: {json.dumps(card.dataset.name)}, type: image, split: test}}"]
        values = {"accuracy": score.accuracy, "balanced_accuracy": score.balanced_accuracy}
        metrics = [f"{{type: {kind}, value: {value:.4f}}}" for kind, value in values.items() if value is not None]
        lines += [f"    metrics: [{', '.join(metrics)}]"]
    return "\n".join([*lines, "---\n"])


def _intended(classifier: Classifier) -> list[str]:
    card, spec = classifier.card, classifier.card.input_spec
    names = [_plain(one) for one in card.class_names]
    more = f" and {len(names) - _MOST_CLASSES:,} more" if len(names) > _MOST_CLASSES else ""
    kind = "grey" if spec.channels == 1 else "RGB"
    return [
        "## Intended use\n",
        f"Says of a picture which of {len(names):,} classes it is: {', '.join(names[:_MOST_CLASSES])}{more}. It knows "
        "no others, and is for pictures made as those of its training were.\n",
        f"Input: {by((spec.height, spec.width))} pixels, {kind}, framed by `{spec.framing}`"
        + (", the mean over a picture and its mirror image" if classifier.views == "mirror" else "")
        + ".\n",
        f"Network: `{short_sentence(card.architecture)}`, {classifier.network.plan.num_parameters:,} parameters.\n",
    ]


def _data(classifier: Classifier) -> list[str]:
    card = classifier.card
    found = ["## Training\n"]
    if card.dataset is None or card.training is None:
        found.append("Not trained by convlens: the weights were taken over.\n")
    else:
        data, training = card.dataset, card.training
        sizes = ", ".join(f"{num:,} {name}" for name, num in data.num_samples.to_json().items())
        left_out = f"; {data.num_quarantined:,} could not be read" if data.num_quarantined else ""
        found += [
            f"- Data: {_plain(data.name)} ({sizes} pictures{left_out}), fingerprint `{data.fingerprint[:16]}`",
            f"- Recipe: preset {card.preset or 'none'}, {training.epochs:g} epochs, seed {card.seed}, "
            f"{training.weights} weights",
            f"- Made {card.created} with "
            + ", ".join(
                f"{name} {version}" for name, version in card.versions.items() if name in ("convlens", "torch")
            ),
        ]
        if training.parent is not None:
            found.append(f"- Began with another model (SHA-256 `{training.parent.sha256[:16]}`)")
    if card.origin is not None:
        on = _plain(card.origin.trained_on or _NOT_SAID)
        found.append(f"- Began with weights of others: {_plain(card.origin.name)}, made with the pictures of: {on}")
    return [*found, f"- Model file: SHA-256 `{files.sha256_of_file(classifier.path)}`\n"]


_SAYS = {
    "test": "pictures that took no part in training or choice",
    "folds": "each picture scored by a network that did not learn from it",
    "validation": "pictures that were not learned from, but choices were made by them: a little too good",
}


def _evaluation(classifier: Classifier, scores: Scores) -> list[str]:
    card = classifier.card
    found = ["## Evaluation\n"]
    if not scores:
        return [*found, "Nothing was measured: how good it is nobody knows.\n"]
    found += ["| pictures | accuracy | 95 % interval | balanced accuracy | n | |", "|---|---|---|---|---|---|"]
    for name, score in scores.items():
        low, high = (percent(one) for one in score.interval)
        cells = [name, percent(score.accuracy), f"{low} to {high}", percent(score.balanced_accuracy), f"{score.n:,}"]
        seen = "; some may have been learned from" if score.may_count_seen else ""
        found.append(f"| {' | '.join(cells)} | {_SAYS[name]}{seen} |")
    if "test" not in scores and "folds" not in scores:
        found.append("\nNo test score is known: `convlens evaluate` measures one.")
    baseline = next(iter(scores.values())).majority_baseline
    found.append(f"\nTo beat: always the largest class, {percent(baseline)}.\n" if baseline is not None else "")
    calibration = card.calibration
    if calibration is None:
        found.append("Probabilities are not calibrated: 90 % need not mean right nine times in ten.\n")
    elif calibration.scaling == Scaling():
        num = f"{calibration.num_images:,} held-out pictures"
        found.append(f"Probabilities are as the network gives them: no temperature lowered the loss on {num}.\n")
    else:
        found.append(f"Probabilities are calibrated on {calibration.num_images:,} held-out pictures.\n")
    if card.dataset is not None and (relabelled := card.dataset.options.relabelled):
        found.append(
            f"{counted(len(relabelled), 'label')} of the data changed by a labels file: where only what a network "
            "doubted was looked at, these scores are too good.\n"
        )
    if classifier.thresholds is not None:
        found.append(f"Promises, on pictures like those of validation: {classifier.thresholds}.\n")
    return found


def _limits(classifier: Classifier) -> list[str]:
    card = classifier.card
    found = ["## Limits\n"]
    found.append("- Whatever is shown gets one of its classes: of other things that is wrong.")
    if card.unfamiliarity is None:
        found.append("- What is unlike its training pictures it cannot tell.")
    else:
        found.append(
            "- It calls unfamiliar what is unlike its training pictures, and about one in a hundred of those that are "
            "not; some strangers pass."
        )
    found.append("- Other cameras, light, backgrounds or places than in training: not measured.")
    found.append("- Groups of people, fairness, misuse: not measured.\n")
    return found


def _licence(classifier: Classifier) -> list[str]:
    origin = classifier.card.origin
    found = ["## Licence\n"]
    if origin is not None:
        found.append(f"- Weights it began with: {_plain(origin.licence or _NOT_SAID)} ({_plain(origin.source)})")
    return [
        *found,
        f"- Training pictures: {_NOT_SAID}; whoever passes the model on must know",
        f"- This model: {_NOT_SAID}",
    ]


def _plain(text: Any) -> str:
    """A name in Markdown that shows itself and nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in shown(text, 200))
