"""Run folders: what a training leaves behind, and the name `last`.

Owns the layout `runs/DATA-N/` (docs/formats.md), finding runs, and reading them. A run folder appears whole or
not at all and is never overwritten.
"""

import glob
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal

from convlens import files
from convlens.data.packed.contents import Contents
from convlens.data.packed.dataset import DataIdentity
from convlens.errors import ModelFileError, RecordError, RunError, StorageError, UsageError
from convlens.metrics import MAY_COUNT_SEEN, LearningCurve, Score
from convlens.modelfile import ParentFacts
from convlens.recipe import Recipe
from convlens.records import (
    Amount,
    Count,
    Name,
    Number,
    Record,
    Text,
    json_value,
    raw_lines,
    read_document,
    read_lines,
    write_sealed,
)
from convlens.render.pages import notebook
from convlens.text import counted, did_you_mean, no_attribute, percent, short_sentence, shown

RUNS_FOLDER = Path("runs")
RUN_FILE, LOG_FILE, MODEL_FILE, CHECKPOINTS = "run.json", "log.jsonl", "model.safetensors", "checkpoints"
FILTERS = "filters"
INPUTS_FILE, CURVE_FILE, LOCK_FILE = "inputs.png", "learning-curve.png", ".lock"
REPORT_FILE = "report.html"
SEALED_FROM = FORMAT_VERSION = 3  # 1 and 2, which have no SHA-256 of their own, are read too
DOCUMENT = "convlens-run"
LAST = "last"
MAX_RECORD_BYTES = 16 << 20


class ComputeRecord(Record, frozen=True, kw_only=True):
    """Where and how a training computes."""

    device: Name
    precision: Name
    threads: Count
    memory_format: Name | None = None
    processes: Count = 1
    compile: bool = False  # of runs of before


class RunRecord(Record, frozen=True, kw_only=True):
    """run.json: what identifies a run, and how it ended."""

    kind: Name
    format_version: Count
    status: Literal["running", "interrupted", "diverged", "complete"]
    created: Name
    dataset: DataIdentity
    architecture: Text
    preset: Name | None
    recipe: dict[Name, Any]
    seed: Count
    compute: ComputeRecord
    num_parameters: Count
    multiply_adds: Count
    num_steps: Count
    step: Count
    versions: dict[Name, Name]
    train_s: Amount
    images_per_s: Amount | None
    val_s: Amount
    checkpoint_s: Amount
    val: Score | None
    test: Score | None
    test_asked: bool = False
    keep_filters: bool = False
    omit_record: bool = False
    choices: tuple[Text, ...] = ()
    pinned: tuple[Name, ...] = ()
    parent: ParentFacts | None = None
    folds: Count | None = None
    cross_validation: Score | None = None
    num_not_held_out: Count | None = None
    held_out_sha256: Name | None = None
    ended: Name | None = None
    series: tuple[Name, ...] | None = None
    learning_curve: LearningCurve | None = None

    def __post_init__(self) -> None:
        Recipe.from_json(self.recipe)
        if not all(Path(name).name == name != ".." for name in self.series or ()):
            raise ValueError("series: a name leads elsewhere")


class RunRecord1(RunRecord, frozen=True, kw_only=True, rename={"compute": "arithmetic"}):
    """The same in format version 1."""

    compute: ComputeRecord


_VERSIONS: dict[int, type[RunRecord]] = {1: RunRecord1, 2: RunRecord, FORMAT_VERSION: RunRecord}


class LogLine(Record, frozen=True, kw_only=True):
    """A line of the log: of a step, or (with `epoch`) of all since the epoch before."""

    step: Count
    loss: Number
    epoch: Amount | None = None
    lr: Amount | None = None
    val: Score | None = None
    calibrated_val_loss: Amount | None = None
    train_s: Amount | None = None


@dataclass(frozen=True)
class Run:
    """A run folder; `run.json` is read once, when first asked for. `to_json` has all that it knows; what it was trained
    on, `contents`, as long as it was just trained."""

    path: Path
    contents: Contents | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # whoever opens a run names it by text

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            raise no_attribute("'Run' object", name)

    @cached_property
    def record(self) -> RunRecord:
        """All of run.json. Raises RecordError where it is missing or damaged."""
        path, most_bytes = self.path / RUN_FILE, MAX_RECORD_BYTES
        return read_document(path, DOCUMENT, _VERSIONS, sealed_from=SEALED_FROM, most_bytes=most_bytes)

    @property
    def model(self) -> Path:
        """The model file (there once the training has ended or was interrupted)."""
        return self.path / MODEL_FILE

    @property
    def status(self) -> str:
        """running, stopped (its process is gone: killed, say), interrupted, diverged or complete."""
        if self.record.status == "running" and files.is_locked(self.path / LOCK_FILE) is False:
            return "stopped"
        return self.record.status

    @property
    def val(self) -> Score | None:
        """The validation score of the saved weights, or None where nothing was set aside."""
        return self.record.val

    @property
    def test(self) -> Score | None:
        """The test score, or None while test is sealed."""
        return self.record.test

    @property
    def cross_validation(self) -> Score | None:
        """With folds: every image scored by a network that did not learn from it."""
        return self.record.cross_validation

    @property
    def series(self) -> "Series | None":
        """The runs that were trained together with it, one a seed; None where it was trained alone."""
        names = self.record.series
        return Series(tuple(Run(self.path.parent / name) for name in names)) if names else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The log, one dictionary an epoch: step, epoch, lr, `loss` (of training, of smoothed labels where the recipe
        smooths them), `val` (the score, None of epochs that did not end with a validation: as many do as cost little,
        with `patience` each), and with `patience` `calibrated_val_loss`: the epoch that has the least is kept."""
        return [line.to_json() for line in self._log() if line.epoch is not None]

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(step, training loss of that step) at about a hundred steps of the training."""
        return [(line.step, line.loss) for line in self._log() if line.epoch is None]

    def _log(self) -> list[LogLine]:
        return read_lines(self.path / LOG_FILE, LogLine)[0]

    def filters(self) -> list[tuple[int, Path]]:
        """(step, file) of the first layer's filters that `--keep-filters` kept, in order."""
        found = ((path.stem.removeprefix("step-"), path) for path in (self.path / FILTERS).glob("step-*.npy"))
        # A pipe under such a name would be waited for.
        return sorted((int(step), path) for step, path in found if step.isascii() and step.isdigit() and path.is_file())

    def to_json(self) -> dict[str, Any]:
        """What `train --json` prints."""
        found = self.record.to_json() | {"status": self.status, "run": str(self.path), "model": str(self.model)}
        return found if self.contents is None else found | {"contents": self.contents.to_json()}

    def summary(self) -> list[tuple[str, str]]:
        """What a person wants to see first, as (what, value)."""
        record, series = self.record, self.series
        rate = f" ({record.images_per_s:,.0f} images/s)" if record.images_per_s else ""
        rows = [
            ("run", str(self.path)),
            ("status", self.status),
            ("data", record.dataset.name),
            ("architecture", short_sentence(record.architecture)),
            ("parameters", f"{record.num_parameters:,}"),
            ("seed", str(record.seed) if series is None else f"{record.seed}, one of {len(series.runs)}: `series`"),
            ("trained for", f"{record.train_s:.1f} s{rate}"),
        ]
        rows += [("warm start", record.parent.path)] if record.parent else []
        rows += [("kept", kept)] if (kept := self.kept_epoch) else []
        rows += [("validation", str(self.val))] if self.val else []
        rows += [("test", str(self.test))] if self.test else []
        if self.cross_validation:
            rows.append((f"{record.folds} folds", str(self.cross_validation)))
        report = self.path / REPORT_FILE
        rows += [("report", str(report))] if files.is_file(report) else []
        rows += [("learning curve", f"of the head alone: {record.learning_curve}")] if record.learning_curve else []
        return [*rows, ("warning", warning)] if (warning := self.warning) else rows

    @property
    def kept_epoch(self) -> str | None:
        """Which epoch's weights patience kept, in words; None without patience, or of logs of before."""
        logged = [line for line in self._log() if line.epoch is not None]
        known = [line for line in logged if line.calibrated_val_loss is not None]
        if not self.record.recipe.get("patience") or not known or len(known) < len(logged):
            return None
        best = min(known, key=lambda line: line.calibrated_val_loss or 0.0)
        if best.val != self.record.val:  # a fitted head that no epoch bettered
            return "the fitted head: no epoch lowered the validation loss"
        ended = ", stopped early" if self.record.step < self.record.num_steps else ""
        return (
            f"epoch {best.epoch or 0:.0f} of {len(logged)} trained{ended}: the lowest calibrated validation loss "
            f"({best.calibrated_val_loss:.4f})"
        )

    @property
    def has_hardly_learned(self) -> bool:
        """Whether a time that was asked for was too short to learn from each image once."""
        record = self.record
        is_short = "time" in record.pinned and 0 < record.recipe.get("epochs", 1) < 1
        return is_short and "epochs" not in record.pinned and record.status == "complete"

    @property
    def warning(self) -> str | None:
        """What makes its best score doubtful: it has hardly learned, its score is that of chance, or too good to be
        believed."""
        if self.has_hardly_learned:
            epochs = self.record.recipe["epochs"]
            share = percent(epochs, 0 if epochs >= 0.1 else 1)
            return f"it has learned from {share} of the training images alone: the time was too short, give it more"
        scores = [score for score in (self.test, self.cross_validation, self.val) if score is not None]
        classes = {} if self.contents is None else self.contents.classes
        largest = max(classes, key=lambda name: sum(classes[name].values()), default=None)
        if scores and (seen := scores[0].num_classes) is not None and seen < len(classes):
            return (
                f"the {scores[0].n:,} images that it was measured on are of {seen} of the {len(classes)} classes: "
                "nothing is known of the others (more pictures of them, or `folds`, would tell)"
            )
        chance = scores[0].chance_warning(largest) if scores else None
        return chance or next((warning for one in scores if (warning := one.leak_warning)), None)

    def __str__(self) -> str:
        return "\n".join(f"{what:<14}{value}" for what, value in self.summary())

    def _repr_html_(self) -> str:
        return notebook(rows=self.summary())


@dataclass(frozen=True)
class Series:
    """Runs of one plan that differ in their seed alone, in the order of their seeds."""

    runs: tuple[Run, ...]

    def accuracies(self, which: str) -> list[float]:
        """The accuracies 0..1 of "val", "test" or "cross_validation"; empty unless every run has one."""
        scores = [getattr(run, which) for run in self.runs]
        return [s.accuracy for s in scores if s is not None] if all(scores) else []

    def to_json(self) -> dict[str, Any]:
        """Mean and standard deviation (of a sample, n - 1) of what was measured, and each run."""
        found: dict[str, Any] = {"runs": [run.to_json() for run in self.runs]}
        for which in ("val", "test", "cross_validation"):
            values = self.accuracies(which)
            found[which] = {"mean": mean(values), "sd": _sd(values), "n": len(values)} if values else None
        return found

    def summary(self) -> list[tuple[str, str]]:
        """What a person wants to see first, as (what, value)."""
        rows = [(str(run.path), f"seed {run.record.seed}, {_short(run)}") for run in self.runs]
        for which, words in (("val", "validation"), ("test", "test"), ("cross_validation", "folds")):
            scores = [score for run in self.runs if (score := getattr(run, which)) is not None]
            if scores and len(scores) == len(self.runs):
                rows.append((words, over_seeds(scores)))
        warnings = [warning for run in self.runs if (warning := run.warning)]
        return [*rows, ("warning", warnings[0])] if warnings else rows

    @property
    def folder(self) -> Path | None:
        """The folder that holds these runs and no others, if there is one."""
        place = self.runs[0].path.parent
        return place if {run.path.name for run in runs(place)} == {run.path.name for run in self.runs} else None

    def __str__(self) -> str:
        return "\n".join(f"{what}: {value}" for what, value in self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return notebook(rows=self.summary())


def is_one_plan(found: Sequence[Run]) -> bool:
    """Whether runs differ in their seed, and in nothing else."""
    records = [run.record for run in found]
    plans = {
        (
            *(one.architecture, str(sorted(one.recipe.items())), one.dataset.fingerprint, one.folds),
            None if one.parent is None else one.parent.sha256,
        )
        for one in records
    }
    return len(plans) == 1 and len({one.seed for one in records}) == len(records)


def over_seeds(scores: Sequence[Score]) -> str:
    """The scores of some seeds on the same images in one line: mean and standard deviation over the seeds."""
    parts = [("accuracy", [one.accuracy for one in scores])]
    if scores[0].is_imbalanced:
        by_chance = f" (by chance {percent(1 / scores[0].num_classes)})" if scores[0].num_classes else ""
        parts.insert(0, (f"balanced accuracy{by_chance}", [one.balanced_accuracy or 0.0 for one in scores]))
    said = []
    for name, values in parts:
        spread = f" ± {100 * sd:.2f}" if (sd := _sd(values)) is not None else ""
        said.append(f"{name} {100 * mean(values):.2f}{spread} %")
    always = f", always the largest class {percent(scores[0].majority_baseline)}" if scores[0].is_imbalanced else ""
    few = "" if len(scores) > 1 else ", one seed: no spread is known"
    num = f"{counted(len(scores), 'seed')}, n = {scores[0].n:,} images each{few}"
    same = (
        "; all the same: the seed changes nothing here"
        if len(scores) > 1 and len({(s.accuracy, s.loss) for s in scores}) == 1
        else ""
    )
    low, high = scores[0].interval
    new = f"; of seeds alone: for new images the first has the 95 % interval {100 * low:.2f} to {100 * high:.2f}"
    return f"{', '.join(said)}{always} (mean ± sd over {num}{same}){new}"


def _sd(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _short(run: Run) -> str:
    names = (("validation", run.val), ("test", run.test), ("folds", run.cross_validation))
    parts = [
        f"{name} {_main(score)}{f' ({MAY_COUNT_SEEN})' if score.may_count_seen else ''}"
        for name, score in names
        if score
    ]
    return ", ".join([run.status, *parts])


def _main(score: Score) -> str:
    """The number that a reader should look at first."""
    if score.is_imbalanced and score.balanced_accuracy is not None:
        return f"balanced accuracy {percent(score.balanced_accuracy)}"
    return percent(score.accuracy)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# ---------------------------------------------------------------- making


def new_run(name: str, out: Path | None, record: RunRecord) -> Run:
    """A new run folder with this run.json: `out`, or the first free `runs/NAME-N`. Raises RunError where `out` exists,
    StorageError."""
    with files.lock(RUNS_FOLDER / ".lock") if out is None else nullcontext():
        place = RUNS_FOLDER / f"{name}-{_next_number(name)}" if out is None else out
        with files.new_folder(place) as folder:
            files.make_folder(folder / CHECKPOINTS)
            write_sealed(folder / RUN_FILE, record.to_json())
            files.write_text(folder / LOG_FILE, "")
    _remember(place)
    return Run(place)


def _next_number(name: str) -> int:
    taken = [0]
    for path in RUNS_FOLDER.glob(f"{glob.escape(name)}-*"):
        with suppress(ValueError):
            taken.append(int(path.name[len(name) + 1 :]))
    return max(taken) + 1


def update_record(path: Path, **values: Any) -> None:
    """Replace some values of run.json, durably. Raises RecordError, StorageError."""
    before = Run(path).record
    fields = {name: getattr(before, name) for name in before.__struct_fields__} | values
    record = RunRecord(**fields | {"format_version": FORMAT_VERSION})
    write_sealed(path / RUN_FILE, record.to_json())


# ---------------------------------------------------------------- finding


def runs(folder: str | Path = RUNS_FOLDER) -> list[Run]:
    """The runs in a folder, oldest first. What is no run, or cannot be read, is passed over (`unreadable` has the
    latter); absent: empty."""
    return _looked_at(folder)[0]


def unreadable(folder: str | Path = RUNS_FOLDER) -> list[str]:
    """A line on each run folder whose run.json cannot be read."""
    return _looked_at(folder)[1]


def _looked_at(folder: str | Path) -> tuple[list[Run], list[str]]:
    found, damaged = [], []
    folder = Path(folder)
    if files.is_folder(folder):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not files.is_folder(path):
                continue
            try:
                if not {RUN_FILE, MODEL_FILE, CHECKPOINTS} & set(files.names_in(path)):
                    continue
                run = Run(path)
                _ = run.record
                found.append(run)
            except RecordError as error:
                damaged.append(str(error))
    return sorted(found, key=lambda run: (run.record.created, run.path.name)), damaged


def _last_file() -> Path:
    return files.state_folder() / "last" / files.sha256_of(str(Path.cwd()).encode("utf-8", "surrogateescape"))[:16]


def _remember(place: Path) -> None:
    """Note a run started from this working folder, wherever `--out` put it: the newest, and all that are elsewhere."""
    with suppress(StorageError):  # a convenience; `last` then is the newest run under ./runs
        files.write_text(_last_file(), str(place.absolute()))
        if place.absolute().parent != RUNS_FOLDER.absolute():
            files.append_line(_elsewhere_file(), str(place.absolute()))


def _elsewhere_file() -> Path:
    return _last_file().with_suffix(".jsonl")


def runs_elsewhere() -> list[Run]:
    """The runs started from this working folder that lie outside ./runs and are still there, oldest first."""
    known: list[str] = []
    with suppress(RecordError):
        for line in raw_lines(_elsewhere_file()):
            with suppress(RecordError):
                known.append(str(json_value(line, "", 1)))
    here = Path.cwd()
    places = [place for place in dict.fromkeys(map(Path, known)) if files.is_file(place / RUN_FILE)]
    found = [Run(place.relative_to(here) if place.is_relative_to(here) else place) for place in places]
    return [run for run in found if _is_readable(run)]


def _is_readable(run: Run) -> bool:
    try:
        return bool(run.record)
    except RecordError:
        return False


def last_run() -> Run:
    """The newest run started from this folder, or else the newest under ./runs. Raises RunError if there is none."""
    with suppress(OSError, ValueError, StorageError):
        run = Run(Path(files.read_regular(_last_file(), 10_000).decode("utf-8", "surrogateescape")))
        if files.is_file(run.path / RUN_FILE):
            return run
    found = runs()
    if not found:
        raise RunError("there is no last run here: train one first (convlens train)")
    return found[-1]


def refuse_in_training(model: Path) -> None:
    """Raises UsageError where the run that a model file belongs to is being trained at this moment: what the file holds
    is not calibrated yet, or is of an earlier step."""
    run = Run(model.parent)
    if model.name != MODEL_FILE or not files.is_file(run.path / RUN_FILE):
        return
    with suppress(RecordError):
        if run.status == "running":
            raise UsageError(f"{shown(run.path, 200)} is being trained: wait for its end")


def find_run(what: str | Path | Run) -> Run:
    """A run by path, or `last`. Raises RunError."""
    if isinstance(what, Run):
        return what
    if str(what) == LAST:
        return last_run()
    path = Path(what)
    if not files.is_file(path / RUN_FILE):
        near = did_you_mean(str(what), [LAST, *(str(run.path) for run in runs())])
        raise RunError(f"{shown(what, 200)} is no run folder (it has no {RUN_FILE}){near}")
    return Run(path)


def find_model(what: str | Path | Run) -> Path:
    """The model file named by a path, a run folder, a Run or `last`. Raises ModelFileError, RunError."""
    if not isinstance(what, str | Path | Run):
        raise ModelFileError(f"a model is named by a path, a Run or '{LAST}', not by {type(what).__name__}")
    if isinstance(what, Run) or str(what) == LAST or files.is_file(Path(what) / RUN_FILE):
        run = find_run(what)
        if not run.model.is_file():
            where = shown(run.path, 200)
            if run.status == "diverged":
                raise ModelFileError(
                    f"{where} has no model: its training diverged. Train anew with a lower learning rate, or name "
                    "another run (convlens runs lists them)"
                )
            raise ModelFileError(
                f"{where} has no model yet (status {run.status}); finish it with 'convlens train --resume {where}'"
            )
        return run.model
    path = Path(what)
    if files.is_folder(path):
        raise ModelFileError(f"{shown(path, 200)} is a folder without {RUN_FILE}: no run and no model file")
    if not files.is_file(path):
        if os.path.lexists(path):
            raise ModelFileError(f"{shown(path, 200)} is no regular file that can be opened")
        near = did_you_mean(str(what), [LAST, *(str(run.path) for run in runs())])
        raise ModelFileError(f"no model file {shown(what, 200)}{near}")
    return path
