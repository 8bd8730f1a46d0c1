"""`compare`: models, and predictions of other tools, on the same images.

Owns which images those are, which models are seeds of one plan, and the verdict on each pair. The formulas are
`paired.py`'s. No winner is named where the interval of the difference spans zero.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.checks import checked, choice
from convlens.classifier import Classifier, load
from convlens.data.image.framing import InputSpec
from convlens.data.packed.corrections import labels_of
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import ImageRows, evenly
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.data.sources.base import SPLITS, ReadOptions
from convlens.data.sources.strict_csv import read_csv
from convlens.errors import DataError, UsageError
from convlens.evaluation.cross_validation import folds_of
from convlens.evaluation.evaluate import Report, choose_images, measure, opened
from convlens.evaluation.report import FOLDS, split_of_rows
from convlens.evaluation.test_ledger import Tried, open_test, plan_hash
from convlens.metrics import calibration_error, cross_entropy, interval_of
from convlens.modelfile import ModelCard
from convlens.network.build import arrays_of, tensors_of
from convlens.network.compute import resolve_compute, settled
from convlens.network.forward import outputs_of
from convlens.paired import Difference, compared, holm
from convlens.progress import Progress, open_progress
from convlens.render.pages import notebook, page, thumbnail
from convlens.run import MODEL_FILE, RUN_FILE, Run, Series, runs
from convlens.text import counted, did_you_mean, percent, shown

SUFFIXES = (".html", ".htm", ".json")
_ALIKE, _TOLD = 1.02, 6  # times the epochs, that are no other length; models whose values are named
_PATHS = ("path", "file", "filename", "image", "name")
_LABELS = ("label1", "prediction", "predicted", "label", "class")  # label1: as `predict --csv` writes it
_VAGUE = ("label", "class")  # which may as well be the truth
_TIMED, _ROUNDS = 64, 5  # images in a batch, and how often each model has its turn
_PICTURES, _SIDE = 24, 112
_SIGNIFICANT = 0.05
_ANY_INPUT = InputSpec(64, 64, 3)  # of pictures that no model of ours will see


class Cost(NamedTuple):
    """What a model costs: parameters, multiply-adds and milliseconds an image (in batches of 64; on a CPU those that
    one thread was given, the least of five turns, which hardly depend on what else the machine does), bytes of its
    file."""

    parameters: int
    multiply_adds: int
    ms: float
    file_bytes: int


@dataclass(frozen=True)
class Member:
    """One model, or one file of predictions: which of the common images it has right, bool (N,), its answers as numbers
    of the common classes, int64 (N,), its loss (nats) and calibration error on them; None of predictions."""

    path: str
    seed: int | None
    right_N: NDArray[np.bool_]
    answers_N: NDArray[np.int64]
    loss: float | None
    calibration_error: float | None
    cost: Cost | None


@dataclass(frozen=True)
class Contender:
    """A plan, by the models of its seeds, or a single model."""

    name: str
    members: tuple[Member, ...]
    groups_N: NDArray[np.uint64] | None

    @property
    def plan_name(self) -> str:
        """Its name, without the number of seeds."""
        return self.name.removesuffix(f" ({len(self.members)} seeds)")

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images each seed has right, bool (S, N)."""
        return np.stack([one.right_N for one in self.members])

    @property
    def accuracy(self) -> float:
        """Mean over seeds, 0..1."""
        return float(self.right.mean())

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy (nats) over images and seeds; None of predictions."""
        return _mean([one.loss for one in self.members])

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, 0..1, mean over seeds; None of predictions."""
        return _mean([one.calibration_error for one in self.members])

    def to_json(self) -> dict[str, Any]:
        """Facts and numbers."""
        seeds = [
            {"path": one.path, "seed": one.seed, "accuracy": float(one.right_N.mean()),
             "interval": list(interval_of(one.right_N, self.groups_N))}
            for one in self.members
        ]  # fmt: skip
        cost = None if self.members[0].cost is None else self.members[0].cost._asdict()
        numbers = {"accuracy": self.accuracy, "loss": self.loss, "expected_calibration_error": self.calibration_error}
        return {"name": self.name} | numbers | {"models": seeds, "cost": cost}


@dataclass(frozen=True)
class Pair:
    """Two contenders, by their names: the difference of the first minus the second, and its p-value among all pairs."""

    one: str
    other: str
    difference: Difference
    adjusted_p: float
    doubtful: tuple[str, ...] = ()  # of the two, those that may have been made with some of the pictures

    @property
    def winner(self) -> str | None:
        """The better one; None where that cannot be told."""
        if self.difference.spans_zero or self.adjusted_p >= _SIGNIFICANT or self.doubtful:
            return None
        return self.one if self.difference.estimate > 0 else self.other

    @property
    def points(self) -> str:
        """The difference in percentage points, with its interval."""
        d = self.difference
        return f"{100 * d.estimate:+.2f} ({100 * d.low:+.2f} to {100 * d.high:+.2f})".replace("-", "−")

    def __str__(self) -> str:
        d, size = self.difference, self.points.replace("(", "points (95 % interval ")
        p = f"p = {self.adjusted_p:.2g}" if self.adjusted_p >= 1e-6 else "p < 0.000001"
        if self.winner is not None:
            return f"{self.winner} is better: {self.one} minus {self.other} is {size}, {p}"
        if self.doubtful:
            who = " and ".join(self.doubtful)
            return (
                f"no winner is named: {who} may have been made with some of these pictures; {self.one} minus "
                f"{self.other} is {size}, {p}"
            )
        first = f"no winner: {self.one} minus {self.other} is {size}, {p}"
        if d.num_images is not None:
            or_seeds = "" if d.num_seeds is None else f", or with these images {d.num_seeds:,} seeds of each,"
            needed = f"to tell a difference of this size about {d.num_images:,} images{or_seeds} would be needed"
            return f"{first}; {needed}"
        if d.num_seeds is not None:
            return f"{first}; no number of images would tell it, about {d.num_seeds:,} seeds of each would"
        more = (
            "both have as many right"
            if d.estimate == 0
            else "more images alone would not tell it, nor would more seeds: it takes more of both"
        )
        return f"{first}; {more}"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `class_names` are those of the labels, int64 (N,); `left_out` images not all could be
    measured on."""

    data: str
    split: str
    class_names: tuple[str, ...]
    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.uint64] | None
    contenders: tuple[Contender, ...]
    pairs: tuple[Pair, ...]
    left_out: int
    notes: tuple[str, ...]
    images: ImageRows | None
    names: tuple[str, ...]

    @property
    def n(self) -> int:
        """Images that all were measured on."""
        return len(self.labels_N)

    def class_changes(self) -> list[tuple[str, list[float], int]]:
        """Of each class that there is: its name, the recall of each contender, and its images."""
        found = []
        for k, name in enumerate(self.class_names):
            own = self.labels_N == k
            if own.any():
                found.append((name, [float(c.right[:, own].mean()) for c in self.contenders], int(own.sum())))
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        pairs = [
            {"one": p.one, "other": p.other, "winner": p.winner, "difference": p.difference.estimate,
             "interval": [p.difference.low, p.difference.high], "p": p.difference.p, "adjusted_p": p.adjusted_p,
             "gained": p.difference.gained, "lost": p.difference.lost, "num_images_needed": p.difference.num_images,
             "num_seeds_needed": p.difference.num_seeds, "may_count_seen": list(p.doubtful)}
            for p in self.pairs
        ]  # fmt: skip
        classes = [
            {"label": name, "recall": dict(zip([c.name for c in self.contenders], recalls, strict=True)), "n": n}
            for name, recalls, n in self.class_changes()
        ]
        return {
            "data": self.data,
            "split": self.split,
            "n": self.n,
            "num_groups": None if self.groups_N is None else len(np.unique(self.groups_N)),
            "num_left_out": self.left_out,
            "contenders": [one.to_json() for one in self.contenders],
            "pairs": pairs,
            "classes": classes,
            "notes": list(self.notes),
        }

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """(title, header, rows as text): contenders, pairs, classes."""
        rows = []
        for one in self.contenders:
            low, high = interval_of(one.members[0].right_N, self.groups_N)
            spread = f"({100 * low:.2f} to {100 * high:.2f})"
            if len(one.members) > 1:
                spread = f"± {100 * _sd(one):.2f} (sd of seeds)"
            cost = one.members[0].cost
            rows.append(
                [
                    one.name,
                    f"{percent(one.accuracy)} {spread}",
                    "–" if one.loss is None else f"{one.loss:.4f}",
                    percent(one.calibration_error),
                    *(["–"] * 4 if cost is None else [f"{cost.parameters:,}", f"{cost.multiply_adds:,}",
                                                     f"{cost.ms:.2g}", f"{cost.file_bytes / 1e6:.1f} MB"]),
                ]
            )  # fmt: skip
        header = ["model", "accuracy", "loss", "calibration error", "parameters", "multiply-adds"]
        header += ["ms an image (one thread)", "file"]
        found = [("Models", header, rows)]
        rows = [
            [
                p.one,
                p.other,
                p.points,
                f"{p.difference.gained:,}",
                f"{p.difference.lost:,}",
                f"{p.adjusted_p:.2g}",
                p.winner or "none",
            ]
            for p in self.pairs
        ]
        p_word = "p" if len(self.pairs) == 1 else "p (Holm)"
        if rows:
            of = " (by most seeds)" if any(len(one.members) > 1 for one in self.contenders) else ""
            header = ["model", "minus", "points (95 %)", f"gained{of}", f"lost{of}", p_word, "winner"]
            found.append(("Pairs", header, rows))
        names = [one.name for one in self.contenders]
        change = [f"{names[0]} minus {names[1]}"] if len(names) == 2 else []
        rows = [
            [shown(name, 40), *(percent(r, 1) for r in recalls), *_changes(recalls), f"{n:,}"]
            for name, recalls, n in self.class_changes()
        ]
        found.append(("Recall of each class", ["class", *names, *change, "n"], rows))
        return found

    def lines(self) -> list[str]:
        """What was compared, the verdicts, and what must be known beside them."""
        groups = "" if self.groups_N is None else f" in {len(np.unique(self.groups_N)):,} groups"
        lines = [f"on the same {counted(self.n, 'image')}{groups} of {shown(self.data, 80)} ({self.split})"]
        if self.left_out:
            lines.append(f"not counted: {counted(self.left_out, 'image')} that not all of them could be measured on")
        if not self.pairs:
            lines.append("these are seeds of one plan: what they differ by is chance, and there is nothing to choose")
        return [*lines, *map(str, self.pairs), *self.notes]

    def __str__(self) -> str:
        accuracies = [f"{row[0]}: {row[1]}" for row in self.tables()[0][2]]
        return "\n".join([*accuracies, *self.lines()])

    def _repr_html_(self) -> str:
        (_, header, rows), *_, (_, header_of_classes, classes) = self.tables()
        shown_models = notebook(lines=self.lines(), header=header, rows=rows)
        return shown_models + notebook(header=header_of_classes, rows=classes)

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write it: .html with the images gained and lost, or .json; a file that is there is replaced only if
        `replace`. Raises UsageError, StorageError."""
        path = Path(path)
        files.check_new_file(path, SUFFIXES, replace=replace)
        if path.suffix.lower() == ".json":
            files.write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
            return
        verdicts = list(map(str, self.pairs))
        values = {"title": "Comparison on " + shown(self.data, 80), "tables": self.tables(), "verdicts": verdicts}
        lines = [line for line in self.lines() if line not in verdicts]
        files.write_text(path, page("compare.html", lines=lines, galleries=self._galleries(), **values))

    def _galleries(self) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
        """(title, note, pictures as (image, words, name)): what each has right that the first has not, and the other
        way round."""
        if self.images is None:
            return []
        first, found = self.contenders[0], []
        for other in self.contenders[1:]:
            for better, worse in ((other, first), (first, other)):
                won = (better.right.mean(axis=0) > 0.5) & (worse.right.mean(axis=0) <= 0.5)
                rows = evenly(np.flatnonzero(won), _PICTURES)
                pictures = [
                    (
                        thumbnail(np.asarray(self.images[row]), _SIDE),
                        f"{self._said(self.labels_N[row])}: {self._answer_of(worse, row)}",
                        shown(self.names[row], 80),
                    )
                    for row in rows.tolist()
                ]
                note = f"{counted(int(won.sum()), 'image')}" + (
                    f", {len(rows)} of them here" if won.sum() > len(rows) else ""
                )
                title = f"Right by {_most_of(better)}, wrong by {_most_of(worse, or_half=True)}"
                found.append((title, note, pictures))
        return found

    def _answer_of(self, one: Contender, row: int) -> str:
        """What a contender takes an image for: of several seeds, what most of those say that are wrong."""
        wrong = [int(member.answers_N[row]) for member in one.members if not member.right_N[row]]
        answer = max(wrong, key=wrong.count)
        times = "" if len(one.members) == 1 else f" ({wrong.count(answer)} of {len(one.members)} seeds)"
        return f"{one.plan_name} says {self._said(answer)}{times}"

    def _said(self, number: int) -> str:
        return shown(self.class_names[number], 40)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _most_of(one: Contender, *, or_half: bool = False) -> str:
    """A contender, by its name; of several seeds more than half of them (or half)."""
    if len(one.members) == 1:
        return one.name
    return f"{'half or more' if or_half else 'more than half'} of the seeds of {one.plan_name}"


def _sd(one: Contender) -> float:
    return float(one.right.mean(axis=1).std(ddof=1))


def _changes(recalls: list[float]) -> list[str]:
    return [f"{100 * (recalls[0] - recalls[1]):+.1f}".replace("-", "−")] if len(recalls) == 2 else []


def compare(
    models: Any,
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = "auto",
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    labels: str | Path | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
) -> Comparison:
    """Compare models on the same images: accuracies, paired differences with interval and p-value, class by class,
    calibration and cost.

    `models` are two or more of what `load` takes, folders of runs, or files of predictions (.csv: a column `path`, and
    `label` or `prediction`; paths as the data has them). Runs that differ in nothing but their seed are one plan, and
    plans are compared over seeds and images together. Without `data` it is the set that the first was trained on. Each
    image that all were measured on counts; each look at test is written down. Raises DataError, UsageError, and as
    `evaluate` does. `split` is "test", "val", "train", or "folds", for runs with folds and predictions of others: all
    images, each as the network answered that did not learn from it. `labels` is a table of decisions on labels, as
    `evaluate` takes it: models trained before and after it are then measured by the labels after it.
    """
    checked("split", split, choice((*SPLITS, FOLDS)), DataError)
    read = ReadOptions(group, layout, label, path_column, label_column)
    places = _places(models)
    corrections = () if labels is None else tuple(labels_of(labels))
    if corrections and any(map(_is_table, places)):
        raise UsageError("`labels` is for models: leave files of predictions away")
    with open_progress(progress) as bar:
        classifiers = [None if _is_table(place) else load(place, device) for place in places]
        _refuse_twice(classifiers, places, split)
        _refuse_other_classes(classifiers, places)
        reports: list[Report | None] = []
        for place, classifier in zip(places, classifiers, strict=True):
            if classifier is None:
                reports.append(None)
                continue
            bar.line(f"measuring {shown(_where(place), 80)}")
            wanted = data
            if data is None and classifier.card.dataset is None:
                wanted = next((c.card.dataset.source for c in classifiers if c and c.card.dataset), None)
            chosen = choose_images(classifier, wanted, split, read, data_root, bar)
            reports.append(measure(classifier, replace(chosen, corrections=corrections), split, opened))
        if all(report is None for report in reports):
            if split == FOLDS:
                raise UsageError(
                    "files of predictions alone have no folds: leave `split` away, or name a run with folds too"
                )
            base = _only_data(data, read, data_root, bar)
        else:
            base = next(report.measured.dataset for report in reports if report is not None and report.measured)
        answers = {
            number: _answers_of(_where(places[number]), base, split)
            for number, report in enumerate(reports)
            if report is None
        }
        for number in (
            answers if split in ("test", FOLDS) else ()
        ):  # a plan of its own, of which only the answers are known
            base, _ = open_test(base, Tried(f"predictions {files.sha256_of_file(_where(places[number]))}"))
        told = [
            _of_table(answers[number], base, split) if report is None else _of_report(report)
            for number, report in enumerate(reports)
        ]
        bar.line("comparing")
        return _comparison(base, split, places, classifiers, reports, told)


# ---------------------------------------------------------------- what is compared


def _places(models: Any) -> list[Any]:
    """Every model that was named; of a folder of runs each run. Raises UsageError."""
    if isinstance(models, str | Path | Run | Series | Classifier) or not isinstance(models, Iterable):
        models = [models]
    found: list[Any] = []
    for one in models:
        if isinstance(one, Series):
            found += one.runs
        elif isinstance(one, str | Path) and files.is_folder(one) and not files.is_file(Path(one) / RUN_FILE):
            here = runs(one)
            if not here:
                raise UsageError(
                    f"{shown(one, 200)} is a folder without runs: name models, runs or files of predictions"
                )
            found += here
        else:
            found.append(one)
    if len(found) < 2:
        raise UsageError("compare needs two models, or more")
    return found


def _is_table(place: Any) -> bool:
    return isinstance(place, str | Path) and Path(place).suffix.lower() == ".csv"


def _where(place: Any) -> Path:
    return place.path if isinstance(place, Run | Classifier) else Path(place)


def _refuse_twice(classifiers: Sequence[Classifier | None], places: Sequence[Any], split: str) -> None:
    """Raises UsageError where one model is named twice, by whatever path, or was trained twice to the same bits (of
    folds: and answered the same in each)."""
    paths = [_where(place) if c is None else c.path for c, place in zip(classifiers, places, strict=True)]
    found = [files.sha256_of_file(path) if files.is_file(path) else str(path) for path in paths]
    for number, digest in enumerate(found):
        if digest in found[:number]:
            one, other = (shown(_where(places[n]), 200) for n in (number, found.index(digest)))
            raise UsageError(f"{one} is the same as {other}: a model cannot be compared with itself")
    of_weights: dict[str, Classifier] = {}
    for c in filter(None, classifiers):
        arrays = sorted(arrays_of(tensors_of(c.network)).items())
        digest = files.sha256_of(b"".join(f"{name} {array.shape}".encode() + array.tobytes() for name, array in arrays))
        digest += f"{c.card.architecture} {c.views} {c.scaling}"
        if split == FOLDS and files.is_file(c.path.parent / RUN_FILE):
            digest += str(Run(c.path.parent).record.held_out_sha256)
        twin = of_weights.setdefault(digest, c)
        if twin.path.parent != c.path.parent:
            how = "the same plan, data and seed"
            if c.card.seed != twin.card.seed:
                how = "the same plan and data, and a seed that changes nothing of it, as of a head that is fitted"
            raise UsageError(
                f"{shown(c.path.parent, 200)} has the very weights of {shown(twin.path.parent, 200)}: one network, "
                f"trained twice ({how}); name it once"
            )


def _refuse_other_classes(classifiers: Sequence[Classifier | None], places: Sequence[Any]) -> None:
    """Raises DataError where two models know different classes."""
    known = [(c, place) for c, place in zip(classifiers, places, strict=True) if c is not None]
    for classifier, place in known[1:]:
        first, here = set(known[0][0].class_names), set(classifier.class_names)
        if first != here:
            one = min(first ^ here)
            has, lacks = (known[0][1], place) if one in first else (place, known[0][1])
            raise DataError(
                f"the models have different classes: {shown(_where(has), 200)} knows {shown(one)!r}, "
                f"{shown(_where(lacks), 200)} does not. Only models of the same classes can be compared"
            )


def _differing(classifiers: Sequence[Classifier | None]) -> list[str]:
    """A line on all that trained models differ in beside their seed: what they learned from, network, recipe."""
    one_of_each = {_plan_of(c): c for c in reversed(classifiers) if c is not None and c.card.recipe is not None}
    known = list(reversed(one_of_each.values()))
    cards = [c.card for c in known]
    plans = [
        {"data": _data_of(card), "input": _input_of(card), "network": card.architecture, "start": _start_of(card)}
        | ({} if card.recipe is None else card.recipe.plan_key())
        for card in cards
    ]
    values = {name: [one.get(name) for one in plans] for name in dict.fromkeys(itertools.chain(*plans))}
    values.pop("epochs", None)
    lengths = [_length_of(card) for card in cards] or [0.0]
    if "muon" in values.get("optimizer", []):  # convolution kernels have a rate of their own
        values["lr of all but convolution kernels"] = values.pop("lr")
    found = [
        name if name in ("data", "network", "start") or len(plans) > _TOLD else f"{name} {', '.join(map(_said, own))}"
        for name, own in values.items()
        if any(one != own[0] for one in own)
    ]
    if max(lengths) > _ALIKE * min(lengths):
        found.append("epochs " + ", ".join(f"{one:.3g}" for one in lengths[:_TOLD]))
    if not found:
        return []
    order = "" if len(plans) > _TOLD else f" (in the order {', '.join(_names([[str(c.path)] for c in known]))})"
    more = "; which of these makes a difference cannot be told" if len(found) > 1 else ""
    return [f"they differ in {'; '.join(found)}{more}{order}"]


def _length_of(card: ModelCard) -> float:
    """Epochs: those that were trained, or where a training ended by patience those that it was given."""
    if card.recipe is not None and card.recipe.patience:
        return card.recipe.epochs
    return 0.0 if card.training is None else card.training.epochs


def _data_of(card: ModelCard) -> Any:
    """What it learned from, at whatever size."""
    data = card.dataset
    return None if data is None else (data.source, data.val_frac, data.options.exclude, data.options.relabelled)


def _input_of(card: ModelCard) -> str:
    spec = card.input_spec
    return f"{spec.height}×{spec.width}×{spec.channels} {spec.framing}"


def _start_of(card: ModelCard) -> str:
    """The model that a training began with, by its hash."""
    parent = None if card.training is None else card.training.parent
    return "" if parent is None else parent.sha256


def _said(value: Any) -> str:
    return "no" if value is None else f"{value:g}" if isinstance(value, float) else shown(value, 40)


def _only_data(data: Any, read: ReadOptions, data_root: str | Path | None, bar: Progress) -> Dataset:
    """The data that files of predictions are about. Raises UsageError."""
    if data is None:
        raise UsageError(
            "files of predictions alone do not say which pictures they are about: name their data (`data`)"
        )
    options = PackOptions.for_input(_ANY_INPUT, read, all_test=True)
    return open_data(data, options, data_root=data_root, progress=bar)


# ---------------------------------------------------------------- what each says


class _Told(NamedTuple):
    """Of each image that was measured, by its name: the true class and the answer, as names of classes, the SHA-256 of
    the file that it comes from, and the number that splits are drawn from, which tells what it shows."""

    truth: dict[str, str]
    answers: dict[str, str]
    hashes: dict[str, str]
    split_keys: dict[str, int]


def _under_names_of(first: _Told, other: _Told) -> _Told:
    """The same under the names that the files have in the first one's data: a table and a folder may call one file by
    other names."""
    once = [{h for h, num in Counter(one.hashes.values()).items() if num == 1} for one in (first, other)]
    names = {digest: name for name, digest in first.hashes.items() if digest in once[0] & once[1]}

    as_there = {name: names.get(digest, name) for name, digest in other.hashes.items()}
    renamed: Any = ({as_there[name]: value for name, value in values.items()} for values in other)
    return _Told(*renamed)


def _of_report(report: Report) -> _Told:
    measured = report.measured
    assert measured is not None, "every report of `measure` has it"
    samples, names = measured.dataset.sample_names(), report.class_names
    rows, hashes = measured.images.rows.tolist(), measured.dataset.source_hashes()
    shown_N = [samples[row] for row in rows]
    truth = dict(zip(shown_N, (names[k] for k in measured.labels_N.tolist()), strict=True))
    answers = dict(zip(shown_N, (names[k] for k in measured.answers.tolist()), strict=True))
    split_keys = measured.dataset.split_keys(measured.images.rows).tolist()
    both = (dict(zip(shown_N, values, strict=True)) for values in ([hashes[row] for row in rows], split_keys))
    return _Told(truth, answers, *both)


def _answers_of(path: Path, dataset: Dataset, split: str) -> dict[str, str]:
    """What a file of predictions says of each image of a split, by the sample's name. Looks at no label. Raises
    DataError where it has no answer for one of them, or names others than the data has."""
    where, samples = shown(path, 200), dataset.sample_names()
    place_of, found = _finder(samples), dict[str, str]()
    for path_said, label in _table_rows(path, dataset):
        name = place_of(path_said)
        if name is None:
            raise DataError(f"{where} names {shown(path_said)!r}, no picture of {dataset.name}: is it of other data?")
        if found.setdefault(name, label) != label:
            raise DataError(f"{where} has two different answers for {shown(path_said)!r}")
    wanted = [samples[row] for row in dataset.rows(split_of_rows(split)).tolist()]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"{where} has no answer for {len(missing):,} of the {len(wanted):,} {split} images of {dataset.name}, "
            f"{shown(missing[0])!r} among them"
        )
    return {name: found[name] for name in wanted}


def _of_table(answers: dict[str, str], dataset: Dataset, split: str) -> _Told:
    labels = [dataset.class_names[k] for k in dataset.labels(split_of_rows(split)).tolist()]
    hashes = dict(zip(dataset.sample_names(), dataset.source_hashes(), strict=True))
    split_keys = dict(zip(answers, dataset.split_keys(dataset.rows(split_of_rows(split))).tolist(), strict=True))
    return _Told(dict(zip(answers, labels, strict=True)), answers, hashes, split_keys)


def _table_rows(path: Path, dataset: Dataset) -> list[tuple[str, str]]:
    """(path, predicted class) of each row. Raises DataError."""
    where, classes = shown(path, 200), dataset.class_names
    header, table = read_csv(path, where)
    header = [cell.lower() for cell in header]
    columns = [next((name for name in names if name in header), None) for names in (_PATHS, _LABELS)]
    if None in columns:
        raise DataError(f"{where} needs a column path and one label or prediction; it has {shown(', '.join(header))}")
    at_path, at_label = (header.index(str(name)) for name in columns)
    others = [n for n in range(len(header)) if n not in (at_path, at_label)] if columns[1] in _VAGUE else []
    both = [n for n in others if table and all(row[n] in classes for _, row in table)]
    if both:
        raise DataError(
            f"{where}: which of its columns {header[at_label]} and {shown(header[both[0]])} is the prediction? Call "
            "that one prediction"
        )
    for number, row in table:
        if row[at_label] not in classes:
            near, known = did_you_mean(row[at_label], classes), ", ".join(map(repr, classes[:10]))
            raise DataError(
                f"{where}, line {number:,}: unknown class {shown(row[at_label])!r}{near}; there are {known}"
            )
    return [(row[at_path], row[at_label]) for _, row in table]


def _finder(names: Sequence[str]) -> Callable[[str], str | None]:
    """From a path as another tool writes it to the name of a sample: the name itself, a path that ends in it, or an end
    of it that only one has."""
    whole, ends = set(names), Counter[str]()
    by_end: dict[str, str] = {}
    for name in whole:
        for end in _ends(name):
            ends[end] += 1
            by_end[end] = name

    def find(path: str) -> str | None:
        plain = path.replace("\\", "/")
        longer = next((end for end in _ends(plain) if end in whole), None)
        return longer or (by_end[plain] if ends[plain] == 1 else None)

    return find


def _ends(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[n:]) for n in range(len(parts))]


# ---------------------------------------------------------------- the comparison


def _comparison(
    base: Dataset,
    split: str,
    places: Sequence[Any],
    classifiers: Sequence[Classifier | None],
    reports: Sequence[Report | None],
    told: Sequence[_Told],
) -> Comparison:
    told = [told[0], *(_under_names_of(told[0], one) for one in told[1:])]
    common = [name for name in told[0].truth if all(name in one.truth for one in told)]
    for one, place in zip(told, places, strict=True):
        other = next((name for name in common if one.truth[name] != told[0].truth[name]), None)
        if other is not None:
            raise DataError(
                f"of {shown(_where(place), 200)}'s data {shown(other)!r} is {shown(one.truth[other])!r}, of the first "
                f"one's {shown(told[0].truth[other])!r}: name the data to compare on (`data`), or the labels file that "
                "changed it (`labels`)"
            )
        others = [name for name in common if one.hashes[name] != told[0].hashes[name]]
        if any(one.split_keys[name] != told[0].split_keys[name] for name in others):  # arrays of another type are alike
            raise DataError(
                f"{shown(_where(place), 200)} was trained on other pictures of the same names: name the data to "
                "compare on (`data`), pictures that neither was trained on"
            )
    if not common:
        raise DataError("the models were measured on no common image: name the data to compare on (`data`)")
    first = next((report for report in reports if report is not None), None)
    class_names = base.class_names if first is None else first.class_names
    numbers = {name: k for k, name in enumerate(class_names)}
    labels_N = np.array([numbers[told[0].truth[name]] for name in common])
    images, groups_N = _common_images(base, common)
    costs = iter(_costs([c for c in classifiers if c is not None], [r for r in reports if r is not None]))
    members, keys = [], []
    for place, classifier, report, one in zip(places, classifiers, reports, told, strict=True):
        answers_N = np.array([numbers[one.answers[name]] for name in common])
        where = _where(place) if classifier is None else classifier.path
        seed = None if classifier is None else classifier.card.seed
        cost = None if classifier is None else next(costs)
        members.append(Member(str(where), seed, answers_N == labels_N, answers_N, *_losses(report, one, common), cost))
        keys.append(_plan_of(classifier) or str(where))
    contenders = _grouped(members, keys, groups_N)
    made_with = {
        one.path for one, report in zip(members, reports, strict=True) if report is not None and report.may_count_seen
    }
    in_doubt = {one.name for one in contenders if any(member.path in made_with for member in one.members)}
    pairs = tuple(
        replace(pair, doubtful=tuple(name for name in (pair.one, pair.other) if name in in_doubt))
        for pair in _pairs(contenders, groups_N)
    )
    notes = [note for report in reports if report is not None for note in report.notes if "left out" in note]
    openings = [report.openings for report in reports if report is not None and report.openings is not None]
    opened_last = max(openings, key=lambda one: one.count, default=None)
    notes += [str(replace(opened_last, num_own=None))] if opened_last is not None else []
    notes += _differing(classifiers)
    hangs_on_seed = any(c is not None and c.card.recipe is not None and c.card.recipe.epochs for c in classifiers)
    if pairs and len(contenders) == len(members) and hangs_on_seed:
        notes.append(
            "this is about these models: other seeds of the same plans may come out otherwise (convlens train DATA … "
            "--seeds 3 --out ONE for the one, --out TWO for the other, then convlens compare ONE TWO)"
        )
    notes += _on_other_seeds(contenders, classifiers)
    notes += _on_folds(reports, told, common) if split == FOLDS else []
    for member, report in zip(members, reports, strict=True):
        promises = () if report is None else report.promises
        notes += [f"{_names([[member.path]])[0]} promises: {promise}" for promise in promises]
    if split == "test" and len(contenders) > 2:
        notes.append("whoever takes the best of these by their test scores has chosen by test: choose by split=val")
    return Comparison(
        data=base.name,
        split=split,
        class_names=class_names,
        labels_N=labels_N,
        groups_N=groups_N,
        contenders=contenders,
        pairs=pairs,
        left_out=len({name for one in told for name in one.truth}) - len(common),
        notes=tuple(dict.fromkeys(notes)),
        images=images,
        names=tuple(common),
    )


def _on_other_seeds(contenders: Sequence[Contender], classifiers: Sequence[Classifier | None]) -> list[str]:
    """Which of the models were trained together with others, of other seeds, that are not compared here."""
    here, found = {c.path.resolve() for c in classifiers if c is not None}, []
    for contender in contenders:
        run = Run(Path(contender.members[0].path).parent)
        if not files.is_file(run.path / RUN_FILE) or (series := run.series) is None:
            continue
        if left := [one for one in series.runs if one.model.resolve() not in here]:
            total = len(series.runs)
            all_of_them = ", ".join(shown(one.path, 60) for one in series.runs)
            where = all_of_them if series.folder is None else shown(series.folder, 100)
            found.append(
                f"{contender.name} is {total - len(left)} of {total} seeds that were trained together: name {where} "
                "(in Python `run.series`) to compare all of them"
            )
    return found


def _on_folds(reports: Sequence[Report | None], told: Sequence[_Told], common: list[str]) -> list[str]:
    """That images of the models' folds were not held out together in each of them, if that is so."""
    deals = set()
    for report, one in zip(reports, told, strict=True):
        measured = None if report is None else report.measured
        if measured is None or (run := measured.run) is None:
            continue
        fold_N = folds_of(measured.dataset, run.record.folds or 0, run.record.seed)
        fold_of = dict(zip(measured.dataset.rows("train").tolist(), fold_N.tolist(), strict=True))
        row_of = dict(zip(one.truth, measured.images.rows.tolist(), strict=True))
        deals.add(tuple(fold_of[row_of[name]] for name in common))
    if len(deals) < 2:
        return []
    return [
        "the folds were dealt anew for each of them (other labels, groups, seeds or numbers of folds), which alone "
        "moves a score, and which the interval does not contain: several seeds (`seeds`) deal them several times"
    ]


def _losses(report: Report | None, told: _Told, common: list[str]) -> tuple[float | None, float | None]:
    """Loss and calibration error on the common images; None of predictions."""
    if report is None or report.measured is None:
        return None, None
    measured, place_of = report.measured, {name: n for n, name in enumerate(told.truth)}
    at = np.array([place_of[name] for name in common])
    logits_NK, labels_N = measured.classifier.scaling.of(measured.logits_NK[at]), measured.labels_N[at]
    return cross_entropy(logits_NK, labels_N), calibration_error(measured.probabilities[at], labels_N)


def _common_images(base: Dataset, common: list[str]) -> tuple[ImageRows, NDArray[np.uint64] | None]:
    row_of = {name: row for row, name in enumerate(base.sample_names())}
    rows = np.array([row_of[name] for name in common])
    return base.images_at(rows), base.groups_at(rows)


def _plan_of(classifier: Classifier | None) -> str | None:
    """What runs that differ in nothing but their seed have in common; None of what has no seed."""
    if classifier is None or classifier.card.dataset is None:
        return None
    card = classifier.card
    plan = plan_hash(card.architecture, card.recipe, card.origin, classifier.views)
    return f"{plan} {classifier.card.dataset.fingerprint} {_start_of(card)}"


def _grouped(
    members: Sequence[Member], keys: Sequence[str], groups_N: NDArray[np.uint64] | None
) -> tuple[Contender, ...]:
    """Contenders in the order in which they were named; models of one plan and one seed stay apart."""
    own: dict[str, list[Member]] = {}
    for member, key in zip(members, keys, strict=True):
        has_seed_twice = any(other.seed == member.seed for other in own.get(key, []))
        own.setdefault(f"{key} {member.path}" if has_seed_twice else key, []).append(member)
    names = _names([[one.path for one in some] for some in own.values()])
    return tuple(Contender(name, tuple(some), groups_N) for name, some in zip(names, own.values(), strict=True))


def _names(paths: list[list[str]]) -> list[str]:
    """What each contender is called: the end of its path that tells it from the others."""
    found = []
    for some in paths:
        path = Path(some[0])
        path = path.parent if path.name == MODEL_FILE else path
        others = [Path(other[0]) for other in paths if other is not some]
        others = [other.parent if other.name == MODEL_FILE else other for other in others]
        if len({Path(one).parent.parent for one in some}) == 1 < len(some) and path.parent not in [
            other.parent for other in others
        ]:
            path = path.parent  # the folder that they lie in, and none of the others
        parts = path.parts
        num = next((n for n in range(1, len(parts)) if all(o.parts[-n:] != parts[-n:] for o in others)), len(parts))
        num += num == 1 < len(parts) and parts[-1].isdigit()  # a run among seeds, whose folder says of which plan
        name = shown("/".join(parts[-num:]), 60)
        found.append(name if len(some) == 1 else f"{name} ({len(some)} seeds)")
    return found


def _pairs(contenders: tuple[Contender, ...], groups_N: NDArray[np.uint64] | None) -> tuple[Pair, ...]:
    both = list(itertools.combinations(contenders, 2))
    found = [compared(one.right, other.right, groups_N) for one, other in both]
    adjusted = holm([one.p for one in found])
    return tuple(
        Pair(one.name, other.name, difference, p)
        for (one, other), difference, p in zip(both, found, adjusted, strict=True)
    )


def _costs(classifiers: Sequence[Classifier], reports: Sequence[Report]) -> list[Cost]:
    """What each model costs; they are timed by turns, so that a busy moment is none's alone."""
    computes = [resolve_compute(c.device, "float32").for_timing for c in classifiers]
    batches = [
        np.asarray(report.measured.images[slice(0, _TIMED)]) for report in reports if report.measured is not None
    ]
    times: list[list[float]] = [[] for _ in classifiers]
    for turn in range(_ROUNDS + 1):
        for number, (classifier, batch) in enumerate(zip(classifiers, batches, strict=True)):
            compute = computes[number]
            with settled(compute):
                started = compute.clock()
                outputs_of(classifier.network, batch, views=classifier.views)
                if turn:  # the first is for warming up
                    times[number].append(1000 * (compute.clock() - started) / len(batch))
    return [
        Cost(c.network.plan.num_parameters, c.network.plan.multiply_adds, min(ms), c.path.stat().st_size)
        for c, ms in zip(classifiers, times, strict=True)
    ]
