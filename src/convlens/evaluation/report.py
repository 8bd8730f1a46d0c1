"""The report of an evaluation: one page that survives a sceptical reader, and the same numbers as text.

Owns what stands in it, in which order and in which words. The formulas are `metrics.py`'s, the look is `render/`'s.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.architecture.windows import nodes_by_address
from convlens.classifier import Classifier
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import FRAMINGS
from convlens.data.packed.contents import Contents
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC, Dataset
from convlens.data.packed.image_rows import ImageRows, evenly
from convlens.errors import ConvlensError
from convlens.evaluation.test_ledger import Openings
from convlens.metrics import (
    Scaling,
    Score,
    calibration_bins,
    calibration_error,
    class_scores,
    coverage_curve,
    interval_of,
    label_doubt,
    nearest_neighbours,
    seriated,
    softmax,
    suspect_labels,
)
from convlens.network.compute import MEMORY_FORMATS, resolve_compute, settled
from convlens.network.frozen import folded
from convlens.network.grad_cam import grad_cam, last_with_maps, resized
from convlens.presets import STANDARD
from convlens.render.charts import Chart, Series, chart
from convlens.render.pages import page, thumbnail
from convlens.run import Run
from convlens.text import counted, percent, shown

_PACKED_BY = ("size", "channels", "framing", "region", "group", "layout", "label", "path_column", "label_column")
UNTIL_FOLDS = " (when these folds were trained: later ones are not counted)"
FOLDS = "folds"  # in the place of a split: all images, each answered by a network of a fold that it was not in
SUFFIXES = (".html", ".htm", ".pdf", ".md", ".json", ".csv")
_PICTURES, _SIDE = 12, 112  # of each kind, and their pixels
_MOST_IN_TABLE, _MOST_PAIRS, _FEW_PAIRS = 30, 40, 10  # classes of a whole confusion matrix; pairs without and with one
_NEIGHBOURS, _ASKED, _NEIGHBOUR_SIDE = 5, 1_000, 32
_NEIGHBOUR_VALUES = 50_000_000  # in memory, float32
_NEIGHBOUR_MULTIPLY_ADDS = 50_000_000_000  # a second or two: all of MNIST, a third of CIFAR-10


def split_of_rows(split: str) -> str:
    """The split whose rows are measured: a data set that was merged for folds has all of them in train."""
    return "train" if split == FOLDS else split


@dataclass(frozen=True)
class Measured:
    """What an evaluation saw: images uint8 (N, H, W, C) of a split of a data set, labels int64 (N,), logits (N, K) that
    no calibration has touched; `groups_N` are the same for images that are not independent. `is_own`: it is the data
    that the model was trained on. `decided_N`, bool (N,): whose labels a person has looked at; None: nobody
    says."""

    classifier: Classifier
    dataset: Dataset
    split: str
    images: ImageRows
    labels_N: NDArray[np.int64]
    logits_NK: NDArray[np.float32]
    groups_N: NDArray[np.uint64] | None
    is_own: bool
    decided_N: NDArray[np.bool_] | None = None

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated as the model has it, float64 (N, K)."""
        return self.classifier.probabilities(self.logits_NK)

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """The likeliest class of each, int64 (N,)."""
        found: NDArray[np.int64] = self.logits_NK.argmax(axis=1)
        return found

    def share(self, is_right_N: NDArray[np.bool_], among: NDArray[Any]) -> str:
        """The share that is right of some of the images (a mask or positions), with its interval."""
        found = self.interval(is_right_N, among)
        if found is None:
            return "–"
        return f"{100 * is_right_N[among].mean():.1f} % ({100 * found[0]:.1f} to {100 * found[1]:.1f})"

    def interval(self, is_right_N: NDArray[np.bool_], among: NDArray[Any]) -> tuple[float, float] | None:
        """The 95 % interval of the share that is right of some of the images; None where there are none."""
        right, groups = is_right_N[among], None if self.groups_N is None else self.groups_N[among]
        return interval_of(right, groups) if len(right) else None

    @cached_property
    def run(self) -> Run | None:
        """The run that the model lies in, where there is one that can be read."""
        run = Run(self.classifier.path.parent)
        try:
            return run if run.record and run.model.resolve() == self.classifier.path.resolve() else None
        except (ConvlensError, OSError):
            return None


def first_sentence(score: Score, split: str, name: str, *, is_own: bool) -> str:
    """The sentence that a manager reads: what was measured, on which pictures, and how far it can be believed."""
    low, high = (f"{100 * end:.2f}" for end in score.interval)
    pictures = f"{counted(score.n, 'picture')} of {shown(name, 80)}"
    if score.num_groups is not None:
        pictures += f" in {counted(score.num_groups, 'group')}"
    right = f"it is right for {100 * score.accuracy:.2f} %, between {low} and {high} with 95 % confidence"
    if score.may_count_seen:
        return (
            f"On {pictures}, some of which it, or the model that it began with, may have learned from, {right}: the "
            "true number may be lower."
        )
    if split == "train":
        return f"On {pictures} that it learned from, {right}: this says nothing of new pictures."
    if split == FOLDS:
        return (
            f"On {pictures}, each answered by a network that did not learn from it, {right}. The model itself learned "
            "from all of them, and is about as good, or a little better."
        )
    if split == "val" and is_own:
        return (
            f"On {pictures} that it did not learn from, but by which it was chosen, {right}: expect a little less on "
            "new ones. Nothing was measured on test for it."
        )
    return f"On {pictures} that took no part in making it, {right}."


class Section(NamedTuple):
    """A table of the report: what it is, a line under it, header and cells as text."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """An image of the report: it and its Grad-CAM as data URLs (empty: none), and what stands under it."""

    image: str
    map: str
    name: str
    words: str
    is_doubtful: bool


@dataclass(frozen=True)
class Gallery:
    """Pictures of one kind, and how many there are in all."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def report_text(measured: Measured, numbers: dict[str, Any], score: Score, lines: Sequence[str], suffix: str) -> str:
    """The report: .html with pictures, .md, or .json (the numbers alone)."""
    if suffix == ".json":
        return json.dumps(numbers, indent=1, sort_keys=True, allow_nan=False) + "\n"
    sections = [_counts(measured, numbers), _beside(measured, score), _classes(measured, numbers), _pairs(measured)]
    about = [_checked(numbers), _data(measured), _made(measured, numbers)]
    values: dict[str, Any] = {
        "title": report_title(measured),
        "sentence": first_sentence(score, measured.split, measured.dataset.name, is_own=measured.is_own),
        "is_doubtful": score.may_count_seen or measured.split == "train",
        "lines": lines,
        "sections": sections,
        "about": about,
        "numbers": json.dumps(numbers, sort_keys=True, allow_nan=False),
        "command": _command(measured),
        "check": _check(numbers),
    }
    if suffix == ".md":
        return _markdown(values)
    values |= {
        "confusion": _confusion(measured),
        "charts_list": _charts(measured),
        "calibration_note": _calibration_note(measured),
        "galleries": _galleries(measured),
    }
    return page("report.html", **values)


def report_title(measured: Measured, model: Path | None = None) -> str:
    """The data and the folder that the model lies in, or lay."""
    return f"{shown(measured.dataset.name, 80)}: {(model or measured.classifier.path).parent.name or 'model'}"


# ---------------------------------------------------------------- tables


def _counts(measured: Measured, numbers: dict[str, Any]) -> Section:
    counts = measured.dataset.counts
    opened = numbers["openings"]
    rows = [
        ("measured", f"{numbers['n']:,}"),
        *([] if measured.split == FOLDS else [(f"in the {measured.split} split", f"{counts[measured.split]:,}")]),
        ("left out", f"{numbers['num_left_out']:,} (learned from by the model, or named to be left out)"),
        ("quarantined", f"{measured.dataset.num_quarantined:,} files of the whole data that could not be read"),
        ("listed", f"{measured.dataset.num_listed:,} in the whole data: {sum(counts.values()):,} in splits"),
    ]
    if opened is not None:
        rows.append(("openings", Openings(**opened).text + (UNTIL_FOLDS if measured.split == FOLDS else "")))
        rows.append(("line of the ledger", opened["head"] or "none: there is no test set to open"))
    elif measured.split == "val" and measured.is_own:
        rows.append(("openings", "nothing was measured on test for this report"))
    return Section("What was counted", "", ("pictures", "how many"), rows)


def _beside(measured: Measured, score: Score) -> Section:
    is_right_N = measured.answers == measured.labels_N
    rows = [("the model", f"{measured.share(is_right_N, np.ones(score.n, bool))}, n = {score.n:,}")]
    if score.majority_baseline is not None:
        rows.append(("always the largest class", f"{percent(score.majority_baseline, 1)}, n = {score.n:,}"))
    rows.append(_by_neighbours(measured))
    if score.balanced_accuracy is not None and score.num_classes:
        words = f"{percent(score.balanced_accuracy, 1)}; by chance {percent(1 / score.num_classes, 1)}"
        rows.append(("balanced accuracy of the model", words))
    note = "An accuracy means little alone: this is what much simpler things have on the same pictures."
    return Section("Compared with simpler things", note, ("", "accuracy (95 % interval)"), rows)


def _by_neighbours(measured: Measured) -> tuple[str, str]:
    name = f"{_NEIGHBOURS} nearest neighbours, by pixels"
    if measured.split == FOLDS:
        return name, "not known: every picture was learned from"
    if not measured.is_own or measured.split == "train":
        return name, "not known: the training images are not part of this data"
    dataset = measured.dataset
    asked = evenly(np.arange(len(measured.labels_N)), _ASKED)
    asked_MD, num = _small(measured.images, asked), dataset.counts["train"]
    most = min(_NEIGHBOUR_MULTIPLY_ADDS // asked_MD.size, _NEIGHBOUR_VALUES // asked_MD.shape[1])
    learned = evenly(np.arange(num), max(_NEIGHBOURS, most))
    learned_ND = _small(dataset.images("train"), learned)
    answers = nearest_neighbours(learned_ND, dataset.labels("train")[learned], asked_MD, _NEIGHBOURS)
    is_right_N = np.zeros(len(measured.labels_N), bool)
    is_right_N[asked] = answers == measured.labels_N[asked]
    if len(learned) < num:
        name += f", with {len(learned):,} of the {num:,} training images: with all it would be better"
    return name, f"{measured.share(is_right_N, asked)}, n = {len(asked):,}"


def _small(images: ImageRows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 (N, D): pixels of these images, averaged over blocks so that there are at most 32×32; some are read at a
    time."""
    _, height, width, channels = images.shape
    step = -(-max(height, width) // _NEIGHBOUR_SIDE)
    rows, columns = max(1, height // step), max(1, width // step)
    tall, wide = height // rows, width // columns
    found = np.empty((len(positions), rows * columns * channels), np.float32)
    for start in range(0, len(positions), 256):
        some = images[positions[start : start + 256]]
        cut = some[:, : rows * tall, : columns * wide].reshape(len(some), rows, tall, columns, wide, channels)
        found[start : start + 256] = cut.mean(axis=(2, 4), dtype=np.float32).reshape(len(some), -1)
    return found


def _classes(measured: Measured, numbers: dict[str, Any]) -> Section:
    confusion_KK = np.array(numbers["confusion"], np.int64)
    found, is_right_N = class_scores(confusion_KK), measured.answers == measured.labels_N
    rows = [
        (
            shown(name, 40),
            measured.share(is_right_N, measured.labels_N == k),
            measured.share(is_right_N, measured.answers == k),
            "–" if np.isnan(found.f1[k]) else f"{100 * found.f1[k]:.1f} %",
            f"{found.support[k]:,}",
        )
        for k, name in enumerate(measured.classifier.class_names)
    ]
    note = (
        "Recall: of the pictures of a class, how many it recognised. Precision: of the pictures that it called so, how "
        "many were. In brackets the 95 % interval."
    )
    if measured.groups_N is not None:
        note += " It counts groups, for pictures of one group are not independent."
    return Section("Class by class", note, ("class", "recall", "precision", "F1", "n"), rows)


def _pairs(measured: Measured) -> Section:
    labels, answers, names = measured.labels_N, measured.answers, measured.classifier.class_names
    wrong = labels != answers
    pairs, counts = np.unique(np.stack([labels[wrong], answers[wrong]], axis=1), axis=0, return_counts=True)
    most = _MOST_PAIRS if len(names) > _MOST_IN_TABLE else _FEW_PAIRS
    order = np.argsort(-counts, kind="stable")[:most]
    support = np.bincount(labels, minlength=len(names))
    rows = [
        (shown(names[t], 40), shown(names[p], 40), f"{c:,}", f"{100 * c / support[t]:.1f} % of {support[t]:,}")
        for (t, p), c in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]
    more = len(counts) - len(rows)
    note = f"The most frequent of {counted(len(counts), 'pair')}." if more > 0 else ""
    return Section("What is taken for what", note, ("class", "taken for", "times", "rate"), rows)


def _checked(numbers: dict[str, Any]) -> Section:
    """What `check` found in the data, where it has looked."""
    title, found = "What the check of the data found", numbers["data_check"]
    if found is None:
        note = "It was not checked: whether pictures are there twice, across splits too, or betray their class by how "
        note += "they were made, convlens check DATA tells. The next report has it then."
        return Section(title, note, ("", ""), [("checked", "no")])
    rows = [(one["severity"], one["title"]) for one in found["findings"]]
    return Section(title, f"{found['verdict'][:1].upper()}{found['verdict'][1:]}.", ("", ""), rows)


def _data(measured: Measured) -> Section:
    spec, dataset = measured.dataset.input_spec, measured.dataset
    size = f"{spec.height}×{spec.width} px, {'grey' if spec.channels == 1 else 'colour'}"
    size += f", {FRAMINGS[spec.framing]} (framing {spec.framing})"
    rows = [("source", shown(dataset.source, 200)), ("input", size), *Contents.of(dataset).rows()]
    rows.append(("fingerprint", dataset.fingerprint))
    if dataset.test_fingerprint is not None:
        rows.append(("fingerprint of test", dataset.test_fingerprint))
    return Section("The data", "", ("", ""), rows)


def _made(measured: Measured, numbers: dict[str, Any]) -> Section:
    classifier, card = measured.classifier, measured.classifier.card
    plan, training = classifier.network.plan, card.training
    rows = [
        ("architecture", card.architecture),
        ("parameters", f"{plan.num_parameters:,}"),
        ("multiply-adds", f"{plan.multiply_adds:,} a picture"),
    ]
    if card.recipe is not None:
        rows.append(("recipe", str(card.recipe)))
    if card.seed is not None:
        rows.append(("seed", str(card.seed)))
    if training is not None:
        steps = f"step {training.step:,}" + (f" of {training.num_steps:,}" if training.num_steps else "")
        rows.append(("weights", f"{training.weights}, of {steps} ({training.epochs:g} epochs)"))
        seconds = f" in {training.train_s:.1f} s" if training.train_s is not None else ""
        where = f"{training.device}, {training.precision}, {counted(training.threads, 'thread')}{seconds}"
        rows.append(("trained", where))
        if training.parent is not None:
            rows.append(("began with", shown(training.parent.path, 200)))
    if card.origin is not None:
        rows.append(("origin of the weights", card.origin.note))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())))
    rows.append(("created", card.created))
    rows.append(("measured", f"in float32 on {classifier.device}, views {classifier.views}"))
    if (digest := numbers["weights"].get("model_sha256")) is not None:
        rows.append(("SHA-256 of the model's file", digest))
    return Section("The model", "", ("", ""), rows)


def _command(measured: Measured) -> str:
    """The command that trains such a model again; empty where it was not trained by convlens."""
    card, run = measured.classifier.card, measured.run
    data, recipe, training = card.dataset, card.recipe, card.training
    if data is None or recipe is None or training is None:
        return ""
    words = ["convlens", "train", data.source]
    if card.preset is not None and training.parent is None:
        words += ["--preset", card.preset]
    else:
        words += ["--architecture", card.architecture] if training.parent is None else []  # a parent has its own
        usual = {} if training.parent is not None else STANDARD.recipe.to_json() | {"views": None}
        for name, value in recipe.to_json().items():
            if value != usual.get(name):
                text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
                words += ["--set", f"{name}={text}"]
        for name in _PACKED_BY:
            value = getattr(data.options, name)
            if value is not None:
                by = "x" if name == "size" else ","
                text = by.join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += [f"--{name.replace('_', '-')}", text]
    words += ["--exclude", "FILE-OF-EXCLUSIONS"] if data.options.exclude else []
    words += ["--labels", "LABELS-FILE"] if data.options.relabelled else []
    words += ["--seed", str(card.seed), "--threads", str(training.threads)]
    if training.memory_format not in (None, MEMORY_FORMATS[0]):
        words += ["--memory-format", str(training.memory_format)]
    words += ["--val-frac", f"{data.val_frac:g}"] if data.val_frac != DEFAULT_VAL_FRAC else []
    words += ["--folds", str(run.record.folds)] if run is not None and run.record.folds else []
    words += ["--from", training.parent.path] if training.parent is not None else []
    return shlex.join(words)


def _check(numbers: dict[str, Any]) -> str:
    """The command that measures all of it anew."""
    words = ["convlens", "verify", "THIS-PAGE", numbers["dataset"]["source"], "--model", numbers["model"]]
    words += ["--labels", "LABELS-FILE"] if numbers.get("before_labels_file") else []
    return shlex.join(words)


# ---------------------------------------------------------------- pictures and charts


def _charts(measured: Measured) -> list[Chart]:
    """Training, calibration before and after, accuracy against coverage."""
    found = []
    run = measured.run
    if run is not None and (history := run.history):
        losses = [(step / max(1, run.record.num_steps) * history[-1]["epoch"], loss) for step, loss in run.curve]
        val = [(line["epoch"], line["val"]["loss"]) for line in history if line.get("val")]
        smoothed = measured.classifier.card.recipe is not None and measured.classifier.card.recipe.label_smoothing > 0
        words = "training, of smoothed labels" if smoothed else "training"
        series = [Series(words, losses, "second"), Series("validation", val, "first")]
        if len(losses) > 1 or len(val) > 1:
            found.append(chart("Loss while it was trained", series, "epoch", "loss"))
        right = [(line["epoch"], 100 * line["val"]["accuracy"]) for line in history if line.get("val")]
        if len(right) > 1:
            title = "Accuracy on validation while it was trained"
            found.append(chart(title, [Series("", right, "first")], "epoch", "accuracy in %"))
    is_scaled = measured.classifier.scaling != Scaling()
    versions = [("as the network gives them", softmax(measured.logits_NK), "second")] if is_scaled else []
    for words, p_NK, style in [*versions, ("calibrated", measured.probabilities, "first")]:
        bins = calibration_bins(p_NK, measured.labels_N)
        points = [(100 * one.confidence, 100 * one.accuracy) for one in bins]
        areas = [one.n / len(measured.labels_N) for one in bins]
        ideal = Series("", [(0, 0), (100, 100)], "ideal")
        title = f"Accuracy against confidence, {words if versions else 'uncalibrated'}"
        series = [ideal, Series("", points, style, areas)]
        found.append(chart(title, series, "confidence in %", "accuracy in %", (0, 100), (0, 100)))
    coverage = coverage_curve(measured.probabilities, measured.labels_N)
    points = [(100 * share, 100 * accuracy) for share, accuracy in coverage]
    title = "Accuracy against coverage: of the surest pictures alone"
    found.append(chart(title, [Series("", points, "first")], "pictures answered in %", "accuracy in %", (0, 100)))
    return found


def _calibration_note(measured: Measured) -> str:
    after = calibration_error(measured.probabilities, measured.labels_N)
    n, calibration = len(measured.labels_N), measured.classifier.card.calibration
    if calibration is None or measured.classifier.scaling != calibration.scaling:
        why = "the model has no calibration" if calibration is None else "they are raw, as was asked for"
        return f"Expected calibration error {percent(after)} (n = {n:,}). The probabilities are not calibrated: {why}."
    if calibration.scaling == Scaling():
        num = counted(calibration.num_images, "held-out picture")
        why = f"no temperature lowered the loss on {num}"
        error = f"Expected calibration error {percent(after)} (n = {n:,})"
        return f"{error}. The probabilities are as the network gives them: {why}."
    before = calibration_error(softmax(measured.logits_NK), measured.labels_N)
    is_fitted = measured.is_own and measured.split in ("val", FOLDS)
    on_them = " These are the pictures that it was fitted to." if is_fitted else ""
    return (
        f"Expected calibration error {percent(before)} before, {percent(after)} after calibration "
        f"({calibration.scaling}, fitted to {calibration.num_images:,} held-out pictures; n = {n:,} here). "
        f"On the line, 90 % sure is right nine times in ten.{on_them}"
    )


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix as a table: names in an order in which what is confused stands together, and rows of cells
    (count, rate of its row in %, whether it is right)."""

    names: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float, bool], ...], ...]


def _confusion(measured: Measured) -> Confusion | None:
    """None where there are too many classes for a table; the pairs say it then."""
    names, num = measured.classifier.class_names, len(measured.classifier.class_names)
    if num > _MOST_IN_TABLE:
        return None
    counts_KK = np.zeros((num, num), np.int64)
    np.add.at(counts_KK, (measured.labels_N, measured.answers), 1)
    order = seriated(counts_KK)
    totals = np.maximum(1, counts_KK.sum(axis=1))
    rows = tuple(
        tuple((int(counts_KK[t, p]), 100 * float(counts_KK[t, p] / totals[t]), bool(t == p)) for p in order)
        for t in order
    )
    return Confusion(tuple(shown(names[k], 24) for k in order), rows)


def _galleries(measured: Measured) -> list[Gallery]:
    p_NK, labels, answers = measured.probabilities, measured.labels_N, measured.answers
    sure_N, wrong_N = p_NK.max(axis=1), labels != answers
    wrong, right = np.flatnonzero(wrong_N), np.flatnonzero(~wrong_N)
    worst = wrong[np.argsort(-sure_N[wrong], kind="stable")][:_PICTURES]
    least = right[np.argsort(sure_N[right], kind="stable")][:_PICTURES]
    suspects = suspect_labels(p_NK, labels) & wrong_N
    if measured.decided_N is not None:
        suspects &= ~measured.decided_N
    doubtful = np.flatnonzero(suspects)
    doubtful = doubtful[np.argsort(-label_doubt(measured.logits_NK, labels)[doubtful], kind="stable")][:_PICTURES]
    shown_rows = np.unique(np.concatenate([worst, least, doubtful]))
    pictures = dict(zip(shown_rows.tolist(), _pictures(measured, shown_rows, suspects), strict=True))
    about = f"The surest of {counted(len(wrong), 'mistake')}"
    if measured.split != FOLDS:
        about += "; warm colours mark what spoke for the answer, coarsely (Grad-CAM: a few values, enlarged)"
    about += "."
    doubt = (
        f"In {counted(int(suspects.sum()), 'mistake')} the label may be what is wrong: the model is surer of another "
        "class than it usually is where that one is right. convlens check DATA --labels asks networks that did not "
        "learn from any of them; "
        + (
            "those decided on by the labels file are not among these."
            if measured.decided_N is not None
            else "with its labels file, evaluate leaves out those decided on."
        )
    )
    found = [
        Gallery("The most confident mistakes", about, tuple(pictures[n] for n in worst.tolist())),
        Gallery("The least certain right answers", "", tuple(pictures[n] for n in least.tolist())),
        Gallery("Labels to look at again", doubt, tuple(pictures[n] for n in doubtful.tolist())),
    ]
    return found if len(doubtful) else found[:2]


def _pictures(measured: Measured, rows: NDArray[np.int64], suspects: NDArray[np.bool_]) -> list[Picture]:
    if not len(rows):
        return []
    images = np.asarray(measured.images[rows])
    # The networks of folds are gone.
    maps = None if measured.split == FOLDS else _maps(measured.classifier, images, measured.answers[rows])
    names, p_NK = measured.classifier.class_names, measured.probabilities
    try:
        samples = measured.dataset.sample_names()
    except ConvlensError:
        samples = []
    found = []
    for place, row in enumerate(rows.tolist()):
        label, answer = int(measured.labels_N[row]), int(measured.answers[row])
        words = f"{shown(names[answer], 40)} {100 * p_NK[row, answer]:.1f} %"
        if label != answer:
            words += f", labelled {shown(names[label], 40)} ({100 * p_NK[row, label]:.1f} %)"
        name = shown(samples[int(measured.images.rows[row])], 80) if samples else f"picture {row:,}"
        overlay = "" if maps is None else thumbnail(_overlaid(images[place], maps[place]), _SIDE)
        found.append(Picture(thumbnail(images[place], _SIDE), overlay, name, words, bool(suspects[row])))
    return found


def _maps(classifier: Classifier, images_NHWC: Pixels, answers_N: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Grad-CAM of each answer, which other views may have decided, 0..1 (N, H, W); None where no layer has maps."""
    plan = classifier.network.plan
    last = last_with_maps({address: node.output_shape for address, node in nodes_by_address(plan).items()})
    if last is None:
        return None
    chain = folded(classifier.network)
    with settled(resolve_compute(classifier.device, "float32")):
        x_NCHW = classifier.network.normalise(torch.from_numpy(images_NHWC.copy()).to(classifier.device))
        labels_N, layer = torch.from_numpy(answers_N.copy()).to(classifier.device), chain.get_submodule(last)
        found = [grad_cam(chain, layer, x_NCHW[n : n + 1], labels_N[n : n + 1])[0] for n in range(len(x_NCHW))]
    maps = resized(np.concatenate(found), *images_NHWC.shape[1:3])
    scaled: NDArray[np.float32] = maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    return scaled


def _overlaid(image_HWC: Pixels, map_HW: NDArray[np.float32]) -> Pixels:
    """The picture in grey, the map over it from nothing to orange."""
    grey = image_HWC.mean(axis=2, keepdims=True, dtype=np.float32)
    warm = np.array([255.0, 130.0, 0.0], np.float32)
    weight = 0.65 * map_HW[:, :, None]
    mixed: Pixels = ((1 - weight) * 0.8 * grey + weight * warm).clip(0, 255).astype(np.uint8)
    return mixed


# ---------------------------------------------------------------- as text


def _markdown(values: dict[str, Any]) -> str:
    """The report without pictures, as Markdown."""
    parts = [f"# {_plain(values['title'])}", f"**{_plain(values['sentence'])}**", *map(_plain, values["lines"])]
    for section in [*values["sections"], *values["about"]]:
        parts += [f"## {section.title}", *([section.note] if section.note else [])]
        if section.rows:
            header = "| " + " | ".join(section.header) + " |"
            rule = "|" + "---|" * len(section.header)
            rows = ["| " + " | ".join(map(_plain, row)) + " |" for row in section.rows]
            parts.append("\n".join([header, rule, *rows]))
    if values["command"]:
        parts += ["## Again", f"    {values['command']}", f"    {values['check']}"]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown takes as it is."""
    for sign in "\\`*_{}[]<>|#":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")
