"""Evaluation: the only door to the test images.

Owns which images a model is measured on, the matching of class names, and the report's numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.classifier import Classifier, load
from convlens.data.dataset import DEFAULT_VAL_FRAC, Dataset
from convlens.data.decode import Pixels
from convlens.data.options import PackOptions
from convlens.data.pack import open_data, reopen
from convlens.data.samples import SPLITS
from convlens.errors import DataError, shown
from convlens.evaluation.openings import Openings, record_opening
from convlens.metrics import Score, calibration_error, class_scores, confusion_matrix, score, softmax
from convlens.progress import Progress
from convlens.run import RUN_FILE, Run


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. `confusion_KK` int64: row = true class, column = predicted class.

    `expected_calibration_error` is in 0..1 (15 bins). `openings` is None unless the split is test.
    """

    model: Path
    dataset: dict[str, Any]
    split: str
    score: Score
    class_names: tuple[str, ...]
    confusion_KK: NDArray[np.int64]
    expected_calibration_error: float
    openings: Openings | None
    num_quarantined: int
    weights: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of images classified right, 0..1."""
        return self.score.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return self.score.interval

    @property
    def n(self) -> int:
        """Images measured."""
        return self.score.n

    def classes(self) -> list[dict[str, Any]]:
        """Per class: label, precision, recall, f1 (None where undefined) and support."""
        scores = class_scores(self.confusion_KK)
        return [
            {
                "label": label,
                "precision": _number(scores.precision[k]), "recall": _number(scores.recall[k]),
                "f1": _number(scores.f1[k]), "support": int(scores.support[k]),
            }
            for k, label in enumerate(self.class_names)
        ]  # fmt: skip

    def worst_confusions(self, most: int = 5) -> list[tuple[str, str, int]]:
        """(true class, taken for, how often), most frequent first."""
        wrong = self.confusion_KK.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [(int(i) // len(wrong), int(i) % len(wrong)) for i in order]
        return [(self.class_names[t], self.class_names[p], int(wrong[t, p])) for t, p in pairs if wrong[t, p]]

    def to_json(self) -> dict[str, Any]:
        """The whole report."""
        opened = None if self.openings is None else asdict(self.openings)
        return {
            "model": str(self.model), "dataset": self.dataset, "split": self.split, **self.score.to_json(),
            "num_quarantined": self.num_quarantined, "expected_calibration_error": self.expected_calibration_error,
            "classes": self.classes(), "class_names": list(self.class_names),
            "confusion": self.confusion_KK.tolist(), "openings": opened, "weights": self.weights,
            "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """What stands around the table of classes: score first."""
        w = self.weights
        lines = [
            f"{self.split} accuracy {self.score}",
            f"loss {self.score.loss:.4f}, expected calibration error {100 * self.expected_calibration_error:.2f} %",
        ]
        if self.num_quarantined:
            lines.append(f"{self.num_quarantined:,} files of the data set could not be read and are not counted")
        worst = ", ".join(f"{t} as {p} {n}×" for t, p, n in self.worst_confusions())
        lines += [f"most often confused: {worst}"] if worst else []
        lines.append(f"{w['which']} weights of step {w['step']:,}, measured in {w['precision']} on {w['device']}")
        lines += [str(self.openings)] if self.openings else []
        return [*lines, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        from html import escape

        def cell(value: float | None) -> str:
            return "–" if value is None else f"{100 * value:.2f} %"

        head = "<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>n</th></tr>"
        rows = "".join(
            f"<tr><td>{escape(c['label'])}</td><td>{cell(c['precision'])}</td><td>{cell(c['recall'])}</td>"
            f"<td>{cell(c['f1'])}</td><td>{c['support']}</td></tr>"
            for c in self.classes()
        )
        return f"<p>{'<br>'.join(map(escape, self.lines()))}</p><table>{head}{rows}</table>"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def evaluate(
    model: Any,
    data: Any = None,
    *,
    split: str = "test",
    device: str = "auto",
    group: str | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
) -> Report:
    """Measure a model on a split: "test" (each opening is written down), "val" or "train".

    Without `data` it is the set the model was trained on, with the very same splits. Other data is framed with the
    model's InputSpec, its classes are matched by name, and where it has no split of its own all of it is test.
    Raises DataError where a class is unknown to the model, the split is empty, or the counts do not add up.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {shown(split)!r}: there are {', '.join(SPLITS)}")
    classifier = load(model, device)
    dataset, notes = _dataset_for(classifier, data, group, data_root, progress)
    mapping = _matched(classifier, dataset)
    if dataset.counts[split] == 0:
        raise DataError(f"{dataset.name} has no {split} images")
    openings = None
    if split == "test":
        card = classifier.card
        openings = record_opening(str(dataset.test_fingerprint), card.architecture, card.recipe, card.seed)
    images, labels = _samples(dataset, split)
    labels = mapping[labels]
    logits = classifier.logits(images)
    if len(logits) != dataset.counts[split]:
        raise DataError(f"{len(logits):,} of {dataset.counts[split]:,} images were measured: there is no score")
    report = Report(
        model=classifier.path,
        dataset=dataset.identity(),
        split=split,
        score=score(logits, labels),
        class_names=classifier.class_names,
        confusion_KK=confusion_matrix(labels, logits.argmax(axis=1), len(classifier.class_names)),
        expected_calibration_error=calibration_error(softmax(logits), labels),
        openings=openings,
        num_quarantined=dataset.num_quarantined,
        weights=_weights(classifier),
        notes=(*notes, *dataset.notes),
    )
    _keep(report)
    return report


def _samples(dataset: Dataset, split: str) -> tuple[Pixels, NDArray[np.int64]]:
    return dataset.sealed_test() if split == "test" else (dataset.images(split), dataset.labels(split))


def _weights(classifier: Classifier) -> dict[str, Any]:
    """Which weights the numbers come from, and the arithmetic they were measured in."""
    training = classifier.card.training
    return {"which": training["weights"], "step": training["step"], "epochs": training["epochs"],
            "trained_in": training["precision"], "precision": "float32", "device": classifier.device}  # fmt: skip


def _dataset_for(
    classifier: Classifier, data: Any, group: str | None, data_root: str | Path | None, progress: str | Progress
) -> tuple[Dataset, list[str]]:
    """The data set to measure on, and notes on what it shares with the training images."""
    card = classifier.card
    val_frac = float(card.dataset.get("val_frac", DEFAULT_VAL_FRAC))
    if data is None or _is_own(card.dataset, data):
        return reopen(card.dataset, data_root=data_root, progress=progress), []
    if isinstance(data, Dataset) or _is_packed(data):
        dataset = open_data(data, val_frac=val_frac)
        if dataset.input_spec.shape != card.input_spec.shape:
            raise DataError(f"{dataset.name} is packed as {dataset.input_spec.shape}, the model takes "
                            f"{card.input_spec.shape} (channels, height, width): name its source instead")  # fmt: skip
    else:
        options = PackOptions.for_input(card.input_spec, group=group, all_test=True)
        dataset = open_data(data, options, data_root=data_root, val_frac=val_frac, progress=progress)
    if dataset.fingerprint == card.dataset.get("fingerprint"):
        return dataset, []
    return dataset, _shared_with_training(card.dataset, dataset)


def _is_packed(data: Any) -> bool:
    return isinstance(data, str | Path) and (Path(data) / "dataset.json").is_file()


def _is_own(trained_on: Any, data: Any) -> bool:
    """Whether `data` names the very source that the model was trained on, whose own splits then hold."""
    if not isinstance(data, str | Path):
        return False
    return trained_on.get("source") in (str(data), str(Path(data).resolve()))


def _shared_with_training(trained_on: Any, dataset: Dataset) -> list[str]:
    try:
        own = reopen(trained_on, progress="none")
    except DataError:
        return ["the training images are not at hand: whether some of these are among them was not checked"]
    seen = np.concatenate([own.pixel_keys("train"), own.pixel_keys("val")])
    num_shared = int(np.isin(dataset.pixel_keys("test"), seen).sum())
    if not num_shared:
        return []
    return [f"{num_shared:,} of the test images are, pixel for pixel, among the images that the model was made with"]


def _matched(classifier: Classifier, dataset: Dataset) -> NDArray[np.int64]:
    """The model's number of each of the data set's classes. Raises DataError for a class it does not know."""
    numbers = {name: number for number, name in enumerate(classifier.class_names)}
    unknown = [name for name in dataset.class_names if name not in numbers]
    if unknown:
        known = ", ".join(map(repr, classifier.class_names[:10]))
        raise DataError(f"the model does not know class {shown(unknown[0])!r} of {dataset.name}; it knows {known}")
    return np.array([numbers[name] for name in dataset.class_names], np.int64)


def _keep(report: Report) -> None:
    """Leave the report in the run folder that the model belongs to."""
    run = Run(report.model.parent)
    if (run.path / RUN_FILE).is_file():
        files.write_json(run.path / f"evaluation-{report.split}-{report.dataset['name']}.json", report.to_json())
