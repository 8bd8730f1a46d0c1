"""Evaluation: a model measured on a split.

Owns which images a model is measured on, the matching of class names, and the report's numbers.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.checks import checked, choice
from convlens.classifier import Classifier, load
from convlens.data.packed.checked import Checked, what_was_checked
from convlens.data.packed.corrections import Correction, check_corrections, labels_of, moved_to
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC, DataIdentity, Dataset, are_same_samples
from convlens.data.packed.exclusions import exclusions, matched
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import is_packed_folder, open_data, reopen
from convlens.data.sources.base import SPLITS, ReadOptions
from convlens.errors import ConvlensError, DataError, RecipeError, RecordError, StorageError, UsageError
from convlens.evaluation.calibration import promised
from convlens.evaluation.cross_validation import HELD_OUT_FILE, read_held_out
from convlens.evaluation.promises import Promise, promises_kept
from convlens.evaluation.report import FOLDS, SUFFIXES, UNTIL_FOLDS, Measured, report_text, split_of_rows
from convlens.evaluation.test_ledger import Openings, Tried, inspect_test, open_test
from convlens.metrics import (
    MAY_COUNT_SEEN,
    Scaling,
    Score,
    calibration_error,
    class_scores,
    confusion_matrix,
    score,
    wilson_interval,
)
from convlens.modelfile import ModelCard
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.render.pages import notebook
from convlens.render.printing import pdf_of
from convlens.run import MODEL_FILE, REPORT_FILE, RUN_FILE, Run, RunRecord, refuse_in_training, update_record
from convlens.seen import Seen
from convlens.text import counted, percent, shown, table_cell
from convlens.training.warm_start import is_comparable, seen_by
from convlens.unfamiliarity import FALSE_ALARMS

_MOST_IN_TABLE = 20  # classes of a confusion matrix in a notebook


class Answer(NamedTuple):
    """What a model answered to an image: its name in the data, the true class, the likeliest class and its probability,
    0..1, whether that is right, and whether a promise gives no answer; None where there is none."""

    path: str
    label: str
    prediction: str
    probability: float
    right: bool
    uncertain: bool | None


@dataclass(frozen=True)
class Corrected:
    """What a labels file did to a measurement: the score before it, how many labels it changed, images it dropped, and
    decisions there are on those that a model contradicted and on others."""

    score: Score
    num_changed: int
    num_dropped: int
    num_suspects: int
    num_others: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"score": self.score.to_json()}

    def lines(self) -> list[str]:
        """Both scores are told, for who corrects labels by a model makes it look better."""
        changed = f"{counted(self.num_changed, 'label')} changed, {counted(self.num_dropped, 'image')} dropped"
        decided = f"decisions on {self.num_suspects:,} that networks contradict and on {self.num_others:,} others"
        found = [f"the same answers by the labels before that file ({changed}; {decided}): {self.score.text}"]
        if self.num_suspects > 2 * self.num_others and (self.num_changed or self.num_dropped):
            found.append(
                "warning: nearly all that was looked at contradicts a network: the score after it is too good, for "
                "wrong labels that networks agree with were not looked for"
            )
        return found


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. `confusion_KK` int64: row = true class, column = predicted class.

    `expected_calibration_error` is in 0..1 (15 bins of equal mass). `openings` is None unless the split is test.
    `num_unfamiliar` of the images are unlike those of the training, as the model says; None where it cannot tell.
    `promises` is what the model promises of its answers, and what came of it; `checked` what `check` found in the data,
    None where it has not looked.
    """

    model: Path
    dataset: DataIdentity
    split: str
    score: Score
    class_names: tuple[str, ...]
    confusion_KK: NDArray[np.int64]
    expected_calibration_error: float
    openings: Openings | None
    num_quarantined: int
    num_left_out: int
    weights: dict[str, Any]
    notes: tuple[str, ...]
    num_unfamiliar: int | None = None
    promises: tuple[Promise, ...] = ()
    before: Corrected | None = None
    checked: Checked | None = None
    asides: tuple[str, ...] = field(default=(), compare=False)  # of the run that it lies in: no page has them
    measured: Measured | None = field(default=None, compare=False, repr=False)

    @property
    def may_count_seen(self) -> bool:
        """Whether pictures that the model was made with may be among those measured."""
        return self.score.may_count_seen

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
        """Per class: label, precision, recall, f1 (None where undefined), support, and the 95 % intervals of precision
        and recall (None where there is none)."""
        scores, measured = class_scores(self.confusion_KK), self.measured
        assert measured is not None, "every report of `evaluate` has it"
        labels_N, answers_N = measured.labels_N, measured.answers
        is_right_N = labels_N == answers_N
        return [
            {
                "label": label,
                "precision": _number(scores.precision[k]),
                "recall": _number(scores.recall[k]),
                "f1": _number(scores.f1[k]),
                "support": int(scores.support[k]),
                "precision_interval": measured.interval(is_right_N, answers_N == k),
                "recall_interval": measured.interval(is_right_N, labels_N == k),
            }
            for k, label in enumerate(self.class_names)
        ]

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
        about = {"model": str(self.model), "dataset": self.dataset.to_json(), "split": self.split}
        counts = {name: getattr(self, name) for name in ("num_quarantined", "num_left_out", "num_unfamiliar")}
        return {
            **(about | self.score.to_json() | counts),
            "expected_calibration_error": self.expected_calibration_error,
            "classes": self.classes(),
            "class_names": list(self.class_names),
            "confusion": self.confusion_KK.tolist(),
            "before_labels_file": None if self.before is None else self.before.to_json(),
            "promises": [asdict(one) for one in self.promises],
            "openings": opened,
            "data_check": None if self.checked is None else self.checked.to_json(),
            "weights": self.weights,
            "notes": list(self.notes),
        }

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the report: .html with its pictures, one file that needs nothing beside it; .pdf, printed by a browser;
        .md; .json, the numbers alone; or .csv, a row for each image (`table`). A file that is there is replaced only if
        `replace`. Raises UsageError, StorageError."""
        path = Path(path)
        files.check_new_file(path, SUFFIXES, replace=replace)
        if path.suffix.lower() == ".csv":
            files.write_text(path, self.table())
        elif path.suffix.lower() == ".pdf":
            files.write_bytes(path, pdf_of(self.text(".html")))
        else:
            files.write_text(path, self.text(path.suffix.lower()))

    def text(self, suffix: str = ".html") -> str:
        """The report as it is written under this suffix."""
        assert self.measured is not None, "every report of `evaluate` has it"
        return report_text(self.measured, self.to_json(), self.score, self.remarks(), suffix)

    def answers(self) -> list[Answer]:
        """The answer to each image: those that are wrong first, and of either the surest first."""
        measured = self.measured
        assert measured is not None, "every report of `evaluate` has it"
        samples, names = measured.dataset.sample_names(), self.class_names
        uncertain_N = measured.classifier.labels(measured.probabilities).uncertain_N.tolist()
        has_promise = measured.classifier.thresholds is not None
        found = [
            Answer(samples[row], names[true], names[k], float(p_K[k]), true == k, is_put_aside if has_promise else None)
            for row, true, k, p_K, is_put_aside in zip(
                measured.images.rows.tolist(),
                measured.labels_N.tolist(),
                measured.answers.tolist(),
                measured.probabilities,
                uncertain_N,
                strict=True,
            )
        ]
        return sorted(found, key=lambda one: (one.right, -one.probability))

    def mistakes(self) -> list[Answer]:
        """The answers that are wrong, the surest first."""
        return [one for one in self.answers() if not one.right]

    def table(self) -> str:
        """`answers` as CSV, a row each: `path`, `label` (the true class), `prediction`, its `probability`, whether
        it is `right`, `uncertain`, whether a promise gives no answer (empty: there is none), and `seen`, whether what
        answered had learned from it (empty: not known)."""
        seen = "yes" if self.split == "train" else "" if self.may_count_seen else "no"
        rows = [["path", "label", "prediction", "probability", "right", "uncertain", "seen"]]
        said = {None: "", True: "yes", False: "no"}
        for one in self.answers():
            cells = [one.path, one.label, one.prediction, f"{one.probability:.6f}"]
            rows.append([*map(table_cell, cells), said[one.right], said[one.uncertain], seen])
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator="\n").writerows(rows)
        return written.getvalue()

    def lines(self) -> list[str]:
        """What stands around the table of classes: score first."""
        w = self.weights
        text = self.score.text
        first = f"{self.split}: {text}" if self.score.is_imbalanced else f"{self.split} accuracy {text}"
        lines = [
            f"{MAY_COUNT_SEEN}: {first}" if self.may_count_seen else first,
            f"loss {self.score.loss:.4f}, expected calibration error {100 * self.expected_calibration_error:.2f} %",
        ]
        both_KK, names = np.triu(self.confusion_KK + self.confusion_KK.T, 1), self.class_names
        pairs = [divmod(int(i), len(names)) for i in np.argsort(-both_KK, axis=None, kind="stable")[:5]]
        worst = [
            f"{shown(names[a], 40)} and {shown(names[b], 40)} {both_KK[a, b]:,}× ({self.confusion_KK[a, b]:,} + "
            f"{self.confusion_KK[b, a]:,})"
            for a, b in pairs
            if both_KK[a, b]
        ]
        if worst:
            num = counted(self.n - int(np.trace(self.confusion_KK)), "mistake")
            lines.append(f"most often confused, of {num}: {', '.join(worst)} (the first as the second + the other way)")
        steps = f" weights of step {w['step']:,} of {w['num_steps']:,}" if "step" in w else ""
        steps = " weights, of a fitted head alone" if w.get("num_steps") == 0 else steps
        mirrored = ", each picture and its mirror image averaged" if w["views"] == "mirror" else ""
        scaling = Scaling(w["temperature"], w["curvature"])
        cooled = f", probabilities at {scaling}" if scaling != Scaling() else ""
        lines.append(f"{w['which']}{steps}, measured in {w['precision']} on {w['device']}{mirrored}{cooled}")
        lines += [str(self.openings) + (UNTIL_FOLDS if self.split == FOLDS else "")] if self.openings else []
        return [*lines, *self.remarks(), *self.asides]

    def remarks(self) -> list[str]:
        """What must be known beside the score."""
        lines = [] if self.before is None else self.before.lines()
        lines += map(str, self.promises)
        if self.promises and self.split in ("val", FOLDS):
            lines.append(
                "these are the images that the thresholds were set by, so that there is no interval: on others it may "
                "hold less well"
            )
        if self.promises:
            lines.append(
                "accuracy, table, confusion matrix and CSV are of the likeliest class, without the thresholds of the "
                "promise; predict answers by them"
            )
        if self.num_unfamiliar is not None:
            low, high = wilson_interval(self.num_unfamiliar, self.n)
            lines.append(
                f"called unfamiliar: {counted(self.num_unfamiliar, 'image')}, {percent(self.num_unfamiliar / self.n)} "
                f"(95 % interval {100 * low:.2f} to {100 * high:.2f}); of images like those of the training about "
                f"{100 * FALSE_ALARMS:g} % are"
            )
        if self.num_quarantined:
            lines.append(f"not counted: {counted(self.num_quarantined, 'file')} of the data set that could not be read")
        largest = self.class_names[int(self.confusion_KK.sum(axis=1).argmax())]
        warning = self.score.chance_warning(largest)
        warning = warning or (self.score.leak_warning if self.split != "train" else None)
        lines += [f"warning: {warning}"] if warning else []
        return [*lines, *self.notes]

    def __str__(self) -> str:
        header, rows = self.class_rows()
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)
        ]
        return "\n".join([*self.lines(), "", *table])

    def class_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells as text, one row a class."""
        header = ["class", "precision", "recall", "F1", "n"]
        rows = [
            [shown(c["label"], 40), *(percent(c[name]) for name in ("precision", "recall", "f1")), f"{c['support']:,}"]
            for c in self.classes()
        ]
        return header, rows

    def _repr_html_(self) -> str:
        header, rows = self.class_rows()
        names = [shown(name, 20) for name in self.class_names]
        if len(names) > _MOST_IN_TABLE:
            return notebook(lines=self.lines(), header=header, rows=rows)
        counts = [
            [name, *(f"{n:,}" if n else "·" for n in row)] for name, row in zip(names, self.confusion_KK, strict=True)
        ]
        shown_report = notebook(lines=self.lines(), header=header, rows=rows)
        return shown_report + notebook(header=["true class ↓, answer →", *names], rows=counts)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def evaluate(
    model: Any,
    data: Any = None,
    *more: Any,
    split: str = "test",
    device: str | None = "auto",
    views: str | None = None,
    raw: bool = False,
    require: str | Iterable[str] | None = None,
    reject: float | None = None,
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    labels: str | Path | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
) -> Report:
    """Measure a model on a split: "test" (each opening is written down), "val", "train", or "folds": the answers that
    the networks of a run's folds gave to what they did not learn from.

    Without `data` it is the set the model was trained on, with the very same splits. Other data is framed with the
    model's InputSpec, its classes are matched by name, and where it has no split of its own all of it is test;
    images that the model was made with (its train or val images, pixel for pixel) are left out and counted, and so are
    those that `exclude` names (a list, or a file of names). `labels` is a table of decisions on labels (`review` makes
    it): the score is that after them, and the one before is told too. `views` and `raw` are what `load` takes.

    `require` asks for a promise, "CLASS recall>=0.99" or "CLASS precision>=0.9", or several; `reject` that at most such
    a share of its answers is wrong. Thresholds are set for it by the model's own validation images (with "folds" by
    what was held out), so that it holds with 90 % confidence, replace those that it had, and are kept in its file:
    `predict` answers by them. `require="none"` takes them out.

    Raises DataError where a class is unknown to the model, nothing is left to measure, the counts do not add up, or a
    promise cannot be given.
    """
    if more:
        raise UsageError("evaluate takes one set of data: pictures and labels go together, as evaluate(model, (x, y))")
    checked("split", split, choice((*SPLITS, FOLDS)), DataError)
    classifier = load(model, device, views, raw=raw or None)
    read = ReadOptions(group, layout, label, path_column, label_column)
    excluded = exclusions(exclude)
    corrections = () if labels is None else tuple(labels_of(labels))
    chosen = without(choose_images(classifier, data, split, read, data_root, progress), split, excluded)
    _check_something_is_left(chosen, classifier, split)
    asked = [require] if isinstance(require, str) or not isinstance(require, Iterable | None) else list(require or ())
    if asked or reject is not None:
        folds = None if chosen.logits_NK is None else (opened(chosen.dataset, classifier)[0], chosen.logits_NK)
        classifier = promised(classifier, [] if asked == ["none"] else asked, reject, folds, data_root, progress)
    report = measure(classifier, replace(chosen, corrections=corrections), split, opened)
    trained_on, own = classifier.card.dataset, chosen.dataset.card.options
    drops = {one.path for one in moved_to(corrections, own.exclude) if one.decision == "drop"}
    if num_gone := len(drops & set(own.exclude)):
        note = f"{counted(num_gone, 'picture')} of the whole data dropped in training already, and in neither score"
        report = replace(report, asides=(*report.asides, note))
    if data is not None and not excluded and trained_on is not None and trained_on.options.exclude:
        num = counted(len(trained_on.options.exclude), "sample")
        note = (
            f"{num} left out when the model was trained (`exclude`): those that are in this data are not left out here"
        )
        report = replace(report, asides=(*report.asides, note))
    return _kept(report, classifier.card, is_part=bool(excluded or corrections))


Opener = Callable[[Dataset, Classifier], tuple[Dataset, Openings]]


def opened(dataset: Dataset, classifier: Classifier, *, again: bool = False) -> tuple[Dataset, Openings]:
    """Test, opened for a model: the look is written down; that of folds was when they were trained. `again`: unless it
    stands there for this model already."""
    card, again = classifier.card, again or dataset.is_merged
    on = None if card.dataset is None else card.dataset.fingerprint
    what = Tried(card.architecture, card.recipe, card.seed, card.origin, on, classifier.views)
    return open_test(dataset, what, again=again)


def measure(classifier: Classifier, chosen: "Choice", split: str, open_test_for: Opener) -> Report:
    """What `evaluate` does with the images that were chosen, of which nothing is kept; test is opened by
    `open_test_for`, which writes a look down."""
    dataset = chosen.dataset
    mapping = _matched(classifier, dataset)
    num_expected = int(chosen.keep.sum())
    _check_something_is_left(chosen, classifier, split)
    openings = None
    if split in ("test", FOLDS):
        dataset, openings = open_test_for(dataset, classifier)
    rows = dataset.rows(split_of_rows(split))[chosen.keep]
    images, labels = dataset.images_at(rows), mapping[dataset.labels_at(rows)]
    images.check()
    groups_N = dataset.groups_at(rows)
    known = classifier.card.unfamiliarity if chosen.logits_NK is None else None
    if chosen.logits_NK is None:
        logits, statistics = classifier.outputs(images, known.addresses if known else ())
    else:
        logits, statistics = chosen.logits_NK[chosen.keep], []
    num_samples, origin = len(dataset), classifier.card.origin
    before, decided = None, None
    num_measured = len(logits)
    if chosen.corrections:
        old, now, kept, decided, counts = _corrected(dataset, images.rows, chosen.corrections, split)
        before = Corrected(score(classifier.scaling.of(logits), mapping[old], groups_N), *counts)
        labels, logits, images = mapping[now][kept], logits[kept], images.only(kept)
        groups_N, statistics = None if groups_N is None else groups_N[kept], [one[kept] for one in statistics]
    if num_measured != num_expected or num_samples + dataset.num_quarantined != dataset.num_listed:
        raise DataError(
            f"{dataset.name}: {num_samples:,} samples and {dataset.num_quarantined:,} quarantined are not the "
            f"{dataset.num_listed:,} that were listed: there is no score"
        )
    return Report(
        model=classifier.path,
        dataset=dataset.identity(),
        split=split,
        score=score(classifier.scaling.of(logits), labels, groups_N).replace(may_count_seen=chosen.may_count_seen),
        class_names=classifier.class_names,
        confusion_KK=confusion_matrix(labels, logits.argmax(axis=1), len(classifier.class_names)),
        expected_calibration_error=calibration_error(classifier.probabilities(logits), labels),
        openings=openings,
        num_quarantined=dataset.num_quarantined,
        num_left_out=chosen.num_left_out,
        weights=_weights(classifier),
        notes=(*chosen.notes, *dataset.notes, *(() if origin is None else (origin.note,)), *_on_labels(chosen)),
        before=before,
        checked=what_was_checked(dataset),
        promises=promises_kept(classifier, logits, labels, groups_N, is_own=split in ("val", FOLDS)),
        num_unfamiliar=None if known is None else int(known.are_unfamiliar(statistics, logits).sum()),
        measured=Measured(classifier, dataset, split, images, labels, logits, groups_N, chosen.is_own, decided),
    )


def _on_labels(chosen: "Choice") -> list[str]:
    """What must be known where labels were changed before the training, and the file is not at hand."""
    relabelled = chosen.dataset.card.options.relabelled
    if not relabelled or chosen.corrections:
        return []
    return [
        f"{counted(len(relabelled), 'label')} of the whole data changed by a labels file: where only what a network "
        "doubted was looked at, this score is too good; with `labels` (that file) the one before is told as well"
    ]


def _check_something_is_left(chosen: "Choice", classifier: Classifier, split: str) -> None:
    """Raises DataError where there is nothing to measure, with the reason."""
    dataset, trained_on = chosen.dataset, classifier.card.dataset
    if chosen.keep.any():
        return
    left_out = f" but {chosen.num_left_out:,} that {chosen.why_left_out}" if chosen.num_left_out else ""
    if dataset.card.split_by == "evaluation" and split != "test":
        left_out += ": of data that is named here all is test; leave it away for the model's own"
    if dataset.is_merged or (trained_on is not None and trained_on.is_merged):
        raise DataError(
            f"the model was trained on all images of {dataset.name}: evaluate it on other data, or with "
            "`split=folds`, as the networks of its folds answered"
        )
    raise DataError(f"{dataset.name} has no {split} images{left_out}")


def _corrected(
    dataset: Dataset, rows: NDArray[np.int64], corrections: Sequence[Correction], split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], tuple[int, int, int, int]]:
    """The labels of these rows before and after a labels file, as the data set's numbers, int64 (N,), which are
    kept, bool (N,), and of those which were decided on; and what the file did. Raises DataError where it is of other
    data, or drops all of them."""
    if split != "test":
        dataset = inspect_test(dataset, "evaluate")  # each label that the file names is held against the data's
    names, classes = dataset.sample_names(), dataset.class_names
    numbers = {name: k for k, name in enumerate(classes)}
    labels = [classes[k] for k in dataset.labels_at(np.arange(len(names))).tolist()]
    hashes = dict(zip(names, dataset.source_hashes(), strict=True))
    left_out = set(dataset.card.options.exclude)
    corrections = [one for one in moved_to(corrections, [*names, *left_out]) if one.path not in left_out]
    check_corrections(corrections, dict(zip(names, labels, strict=True)), hashes, classes, dataset.name)
    by_name = {one.path: one for one in corrections}
    found = [by_name.get(names[row]) for row in rows.tolist()]
    both = list(zip([labels[row] for row in rows.tolist()], found, strict=True))
    old = np.array([numbers[label if one is None else one.label] for label, one in both])
    after = [label if one is None else one.after for label, one in both]
    kept = np.array([name is not None for name in after])
    if not kept.any():
        raise DataError(f"the labels file drops every {split} image that would be measured")
    now = np.array([0 if name is None else numbers[name] for name in after])
    decided = [one for one in found if one is not None and one.decision in ("keep", "change", "drop")]
    num_suspects = sum(one.is_suspect for one in decided)
    counts = int((now != old)[kept].sum()), int((~kept).sum()), num_suspects, len(decided) - num_suspects
    is_decided = np.array([one is not None and one.decision in ("keep", "change") for one in found])
    return old, now, kept, is_decided[kept], counts


def _weights(classifier: Classifier) -> dict[str, Any]:
    """Which weights the numbers come from, and the compute they were measured in."""
    training, origin = classifier.card.training, classifier.card.origin
    measured_in: dict[str, Any] = {"precision": "float32", "device": classifier.device, "views": classifier.views}
    measured_in |= classifier.scaling._asdict()
    if files.is_file(classifier.path):
        measured_in["model_sha256"] = files.sha256_of_file(classifier.path)
    if training is None:
        return {"which": origin and origin.name, "sha256": origin and origin.sha256} | measured_in
    names = ("step", "num_steps", "epochs")
    how = {"which": training.weights} | {name: getattr(training, name) for name in names}
    return how | {"trained_in": training.precision} | measured_in


@dataclass(frozen=True)
class Choice:
    """What is measured: the data set, which rows of the split, and what a person should know of the choice."""

    dataset: Dataset
    keep: NDArray[np.bool_]
    num_left_out: int = 0
    notes: tuple[str, ...] = ()
    may_count_seen: bool = False
    is_own: bool = False
    why_left_out: str = "the model was made with"
    corrections: tuple[Correction, ...] = ()
    logits_NK: NDArray[np.float32] | None = None  # of folds, whose networks are gone


def choose_images(
    classifier: Classifier,
    data: Any,
    split: str,
    read: ReadOptions,
    data_root: str | Path | None,
    progress: str | Progress,
) -> Choice:
    """Which images of a split a model is measured on. Raises DataError, UsageError while it is being trained."""
    refuse_in_training(classifier.path)
    card = classifier.card
    trained_on = card.dataset
    if split == FOLDS:
        return _of_folds(classifier, data, data_root, progress)
    val_frac = DEFAULT_VAL_FRAC if trained_on is None else trained_on.val_frac
    if data is None:
        if trained_on is None:
            name = shown(card.origin.name if card.origin else classifier.path, 80)
            raise DataError(f"{name} was not trained by convlens: name the data to measure it on")
        dataset = reopen(trained_on, data_root=data_root, progress=progress)
    elif isinstance(data, Dataset) or is_packed_folder(data):
        dataset = open_data(data, val_frac=val_frac)
        if dataset.input_spec.shape != card.input_spec.shape:
            raise DataError(
                f"{dataset.name} is packed as {dataset.input_spec.shape}, the model takes "
                f"{card.input_spec.shape} (channels, height, width): name its source instead"
            )
    else:
        options = PackOptions.for_input(card.input_spec, read, all_test=True)
        dataset = open_data(data, options, data_root=data_root, val_frac=val_frac, progress=progress)
    if trained_on is not None and trained_on.is_of(dataset.card):
        own = dataset.merged() if trained_on.is_merged else dataset
        return replace(_of_own(own, classifier, split), is_own=True)
    return _of_other(dataset, classifier, split)


def _of_own(dataset: Dataset, classifier: Classifier, split: str) -> Choice:
    """The data that the model was trained on. What it looked at is known from the splits; of test, pictures that are in
    train or val too, pixel for pixel, are left out, and so are those of a parent."""
    keys, record = dataset.pixel_keys(split), classifier.card.seen
    if split == "train":
        return Choice(dataset, np.ones(len(keys), bool))
    # Of val the data set itself holds back what is in train.
    seen = dataset.shown_in_train_or_val(split) if split == "test" else np.zeros(len(keys), bool)
    if not classifier.card.has_parent:
        return _leaving_out(dataset, seen)
    before = None if record is None else Seen(record.parts[1:])
    if before is None or not is_comparable(dataset, classifier.card.input_spec, before):
        note = _UNKNOWN if before is None else _FRAMED_OTHERWISE
        chosen = _leaving_out(dataset, seen)
        return replace(chosen, may_count_seen=True, notes=(*chosen.notes, note))
    return _by_record(dataset, keys, before, seen)


def _of_folds(classifier: Classifier, data: Any, data_root: str | Path | None, progress: str | Progress) -> Choice:
    """All images that were held out once, and what the networks of the folds answered."""
    card, run = classifier.card, Run(classifier.path.parent)
    if card.dataset is None or not card.dataset.is_merged or not files.is_file(run.path / RUN_FILE):
        raise DataError(f"{shown(classifier.path, 200)} is no model of a run that was trained with `folds`")
    if not _is_model_of(card, run.record):
        raise DataError(f"run.json in {shown(run.path, 200)} tells of another model: its folds are not this one's")
    if classifier.views != card.views:
        raise DataError(f"the networks of the folds are gone, and answered with views={card.views}: leave `views` away")
    logits_NK = read_held_out(run)
    if data is None:
        dataset = reopen(card.dataset, data_root=data_root, progress=progress)
    else:
        dataset = open_data(data, card.dataset.options, data_root=data_root, progress=progress).merged()
    if not card.dataset.is_of(dataset.card) or len(logits_NK) != len(dataset.rows("train")):
        raise DataError(f"{dataset.name} is not the data that the folds were made of: leave `data` away")
    measured_N = ~np.isnan(logits_NK[:, 0])
    note = f"the answers are those of the {run.record.folds} networks of the folds, as {HELD_OUT_FILE} keeps them"
    num_left_out = int((~measured_N).sum())
    return Choice(dataset, measured_N, num_left_out, (note,), is_own=True, logits_NK=logits_NK)


def _of_other(dataset: Dataset, classifier: Classifier, split: str) -> Choice:
    """Any other data: pictures that the model was made with are left out, as far as that is known."""
    card, keys = classifier.card, dataset.pixel_keys(split)
    record = card.seen if card.seen is not None else seen_by(card)
    if record is None:
        return Choice(dataset, np.ones(len(keys), bool), may_count_seen=True, notes=(_UNKNOWN,))
    found = _by_record(dataset, keys, record)
    if not is_comparable(dataset, card.input_spec, record):  # what it has is left out, and it may have others too
        return replace(found, may_count_seen=True, notes=(*found.notes, _FRAMED_OTHERWISE))
    if found.num_left_out and split == "test" and card.dataset is not None:
        try:
            own = reopen(card.dataset, progress="none")
        except (ConvlensError, OSError):
            own = None
        if own is not None and are_same_samples(dataset, own):
            return replace(_of_own(own, classifier, split), notes=(OWN_DATA,), is_own=True)
        if own is not None and not card.has_parent:
            # Its own keys are at hand, whole: no picture is taken for another.
            seen = np.concatenate([own.pixel_keys("train"), own.pixel_keys("val")])
            found = _leaving_out(dataset, np.isin(keys, seen))
    if found.num_left_out and card.input_spec.framing == "ink" and record.frames_otherwise(dataset.decoded):
        return replace(found, may_count_seen=True, notes=(*found.notes, _FRAMED_OTHERWISE))
    return found


OWN_DATA = "this is the data that the model was trained on: its own test split is measured"
_FRAMED_OTHERWISE = "these pictures were packed otherwise than those that the model was made with"
_UNKNOWN = "the model file has no record of the pictures that it was made with"


def _by_record(
    dataset: Dataset, keys: NDArray[np.uint64], record: Seen, seen: NDArray[np.bool_] | None = None
) -> Choice:
    """Without the pictures that a record has (and those `seen`); where it is a sample, with what it cannot say."""
    has, told_of = record.has(keys), record.told_of(keys)
    chosen = _leaving_out(dataset, has if seen is None else has | seen)
    if has.any():
        chosen = replace(chosen, notes=(chosen.notes[0] + _BY_CHANCE,))
    if told_of.all():
        return chosen
    num = int(told_of.sum())
    if has.any() or num == 0:
        note = f"the record has a sample of the pictures that the model was made with, and tells of {num:,} of these"
        return replace(chosen, may_count_seen=True, notes=(*chosen.notes, note))
    most = 1 - 0.05 ** (1 / num)
    note = (
        f"the record has a sample of the pictures that the model was made with: of the {num:,} of these that it tells "
        f"of none was, so that at most {100 * most:.2g} % of all were (with 95 % confidence)"
    )
    return replace(chosen, notes=(*chosen.notes, note))


def _leaving_out(dataset: Dataset, seen: NDArray[np.bool_]) -> Choice:
    if not seen.any():
        return Choice(dataset, ~seen)
    num = int(seen.sum())
    note = f"{counted(num, 'picture')} that the model was made with (train or val, pixel for pixel) left out"
    return Choice(dataset, ~seen, num, (note,))


_BY_CHANCE = "; of pictures that it never saw, one in 10,000 is taken for one"


def without(choice: Choice, split: str, exclude: tuple[str, ...]) -> Choice:
    """The choice without the samples that a list names. Raises DataError where it names others."""
    if not exclude:
        return choice
    dataset = choice.dataset
    names = dataset.sample_names()
    unreadable = [line.path for line in dataset.samples() if line.status != "ok"]
    found = matched(exclude, [*names, *unreadable], dataset.name)
    excluded = set(found.names)
    rows = dataset.rows(split_of_rows(split))
    out = np.array([names[row] in excluded for row in rows], bool) & choice.keep
    note = f"{int(out.sum()):,} {split} images are left out by the list of exclusions"
    return replace(
        choice,
        keep=choice.keep & ~out,
        num_left_out=choice.num_left_out + int(out.sum()),
        notes=(*choice.notes, note, *found.notes),
        why_left_out="are left out",
    )


def _matched(classifier: Classifier, dataset: Dataset) -> NDArray[np.int64]:
    """The model's number of each of the data set's classes. Raises DataError for a class it does not know."""
    numbers = {name: number for number, name in enumerate(classifier.class_names)}
    unknown = [name for name in dataset.class_names if name not in numbers]
    if unknown:
        known = ", ".join(map(repr, classifier.class_names[:10]))
        raise DataError(f"the model does not know class {shown(unknown[0])!r} of {dataset.name}; it knows {known}")
    return np.array([numbers[name] for name in dataset.class_names], np.int64)


def _kept(report: Report, card: ModelCard, *, is_part: bool) -> Report:
    """Leave the report in the run folder that the model belongs to, as a page too where it is of the run's own data;
    where it belongs to none there, or nothing can be written, say so. `is_part`: a list left samples out, so that it is
    not the score of the run's test split."""
    run = Run(report.model.parent)
    if not files.is_file(run.path / RUN_FILE) or report.model.name != MODEL_FILE:  # another model that lies there
        return report
    try:
        record = run.record
        if not _is_model_of(card, record):
            note = f"the report was not kept: run.json in {shown(run.path, 200)} tells of another model"
            return replace(report, asides=(*report.asides, note))
        if run.status != "complete":
            note = (
                f"the training is unfinished ({run.status}): `resume={shown(run.path, 200)}` of train goes on with it"
            )
            report = replace(report, asides=(*report.asides, note))
    except RecordError as error:
        return replace(report, asides=(*report.asides, f"the report was not kept: {error}"))
    if report.weights["views"] != card.views:
        note = f"the report was not kept: the model classifies with views={card.views} unless it is told otherwise"
        return replace(report, asides=(*report.asides, note))
    if card.calibration is not None and report.weights["temperature"] != card.calibration.temperature:
        return report  # raw, as was asked for: not the model's own
    name = f"evaluation-{report.split}-{report.dataset.name}-{report.dataset.fingerprint[:8]}.json"
    try:
        files.write_json(run.path / name, report.to_json())
        is_own = report.dataset.fingerprint == record.dataset.fingerprint
        if not is_own or is_part:
            return report
        if report.split == "test":
            update_record(run.path, test=report.score)
        is_best = report.split in ("test", FOLDS) or (report.split == "val" and record.test is None)
        if run.status == "complete" and is_best:
            page = run.path / REPORT_FILE  # of a test that was opened it no longer says that it is sealed
            report.save(page, replace=True)
            report = replace(report, asides=(*report.asides, f"written: {shown(page, 200)}"))
    except (StorageError, RecordError) as error:
        return replace(report, asides=(*report.asides, f"the report was not kept: {error}"))
    return report


def _is_model_of(card: ModelCard, record: RunRecord) -> bool:
    """Whether a model is the one that a run trained: another's test score must not be written into its record."""
    if card.recipe is None or card.dataset is None or card.training is None:
        return False
    try:
        recipe = Recipe.from_json(record.recipe)  # of before, it lacks fields that there are now
    except RecipeError:
        return False
    own = (card.seed, card.architecture, card.recipe, card.dataset.fingerprint, card.training.train_s)
    return own == (
        record.seed, record.architecture, recipe, record.dataset.fingerprint, round(record.train_s, 3)
    )  # fmt: skip
