"""Run folders: what a training leaves behind, and the name `last`.

Owns the layout `runs/DATA-N/` (docs/formats.md), finding runs, and reading them. A run folder appears whole or
not at all and is never overwritten.
"""

from __future__ import annotations

import glob
import math
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from convlens import files
from convlens.checks import need
from convlens.errors import ModelFileError, RunError, StorageError
from convlens.metrics import Score
from convlens.render.pages import notebook
from convlens.text import did_you_mean, percent, shown

RUNS_FOLDER = Path("runs")
RUN_FILE, LOG_FILE, MODEL_FILE, CHECKPOINTS = "run.json", "log.jsonl", "model.safetensors", "checkpoints"
FILTERS = "filters"
SEEN_FILE, INPUTS_FILE = "seen.npy", "inputs.png"
FORMAT_VERSION = 2  # 1 is read too
LAST = "last"
_COMPUTE_IN_1 = "arithmetic"  # the key under which version 1 has what is `compute` since


@dataclass(frozen=True)
class Run:
    """A run folder; `run.json` is read once, when first asked for. `to_json` has all that it knows."""

    path: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """All of run.json. Raises RunError where it is missing or damaged."""
        record = files.read_json(self.path / RUN_FILE, RunError)
        if not isinstance(record, dict) or record.get("kind") != "convlens-run":
            raise RunError(f"{shown(self.path, 200)} is no run folder: its run.json is something else")
        if record.get("format_version") == 1:
            record = {("compute" if key == _COMPUTE_IN_1 else key): value for key, value in record.items()}
        elif record.get("format_version") != FORMAT_VERSION:
            raise RunError(
                f"{shown(self.path, 200)} has format version {shown(record.get('format_version'))}, "
                f"this convlens reads {FORMAT_VERSION}"
            )
        try:
            _check_record(record)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise RunError(f"{shown(self.path / RUN_FILE, 200)} is damaged ({shown(error)})") from error
        return record

    @property
    def model(self) -> Path:
        """The model file (there once the training has ended or was interrupted)."""
        return self.path / MODEL_FILE

    @property
    def status(self) -> str:
        """running (or killed), interrupted, diverged or complete."""
        return str(self.record["status"])

    @property
    def val(self) -> Score | None:
        """The validation score of the saved weights, or None where nothing was set aside."""
        return score_of(self.record["val"])

    @property
    def test(self) -> Score | None:
        """The test score, or None while test is sealed."""
        return score_of(self.record["test"])

    @property
    def cross_validation(self) -> Score | None:
        """With folds: every image scored by a network that did not learn from it."""
        return score_of(self.record.get("cross_validation"))

    @property
    def series(self) -> Series | None:
        """The runs that were trained together with it, one a seed; None where it was trained alone."""
        names = self.record.get("series")
        return Series(tuple(Run(self.path.parent / name) for name in names)) if names else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The log, one dictionary an epoch: step, epoch, lr, loss, val …"""
        return [line for line in files.read_lines(self.path / LOG_FILE) if _is_sound(line) and "epoch" in line]

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(step, training loss of that step) at about a hundred steps of the training."""
        lines = [line for line in files.read_lines(self.path / LOG_FILE) if _is_sound(line)]
        return [(int(line["step"]), float(line["loss"])) for line in lines if "epoch" not in line]

    def filters(self) -> list[tuple[int, Path]]:
        """(step, file) of the first layer's filters that `--keep-filters` kept, in order."""
        found = ((path.stem.removeprefix("step-"), path) for path in (self.path / FILTERS).glob("step-*.npy"))
        # A pipe under such a name would be waited for.
        return sorted((int(step), path) for step, path in found if step.isascii() and step.isdigit() and path.is_file())

    def to_json(self) -> dict[str, Any]:
        """What `train --json` prints."""
        record = dict(self.record)
        record["run"], record["model"] = str(self.path), str(self.model)
        return record

    def summary(self) -> list[tuple[str, str]]:
        """What a person wants to see first, as (what, value)."""
        record = self.record
        rate = f" ({record['images_per_s']:,.0f} images/s)" if record["images_per_s"] else ""
        rows = [
            ("run", str(self.path)),
            ("status", self.status),
            ("data", str(record["dataset"]["name"])),
            ("architecture", str(record["architecture"])),
            ("parameters", f"{record['num_parameters']:,}"),
            ("seed", str(record["seed"])),
            ("trained for", f"{record['train_s']:.1f} s{rate}"),
        ]
        rows += [("warm start from", str(record["parent"]["path"]))] if record.get("parent") else []
        rows += [("validation", str(self.val))] if self.val else []
        rows += [("test", str(self.test))] if self.test else []
        if self.cross_validation:
            rows.append((f"{record['folds']} folds", str(self.cross_validation)))
        warning = next((w for s in (self.val, self.test, self.cross_validation) if s and (w := s.leak_warning)), None)
        return [*rows, ("warning", warning)] if warning else rows

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
        rows = [(str(run.path), f"seed {run.record['seed']}, {_short(run)}") for run in self.runs]
        for which, words in (("val", "validation"), ("test", "test"), ("cross_validation", "folds")):
            values = self.accuracies(which)
            if values:
                spread = f" ± {100 * sd:.2f}" if (sd := _sd(values)) is not None else ""
                rows.append((words, f"{100 * mean(values):.2f}{spread} % (mean ± sd over {len(values)} seeds)"))
        return rows


def _sd(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _short(run: Run) -> str:
    names = (("validation", run.val), ("test", run.test), ("folds", run.cross_validation))
    parts = [f"{name} {percent(score.accuracy)}" for name, score in names if score]
    return ", ".join([run.status, *parts])


def _is_sound(line: Any) -> bool:
    """Whether a line of the log has its numbers; a damaged one is passed over."""
    if not isinstance(line, dict):
        return False
    numbers = [line.get("step"), line.get("loss"), line.get("epoch", 0)]
    return all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)


def _check_record(record: dict[str, Any]) -> None:
    """Raises unless what the tables and summaries show is there and of its kind."""
    need(record, status=str, created=str, architecture=str, dataset=dict, recipe=dict, compute=dict, versions=dict)
    need(record, num_parameters=float, num_steps=float, step=float, seed=float, train_s=float)
    need(record["dataset"], name=str)
    for name, kind in (("preset", str), ("images_per_s", float), ("parent", dict), ("folds", int), ("series", list)):
        if record.get(name) is not None:
            need(record, **{name: kind})
    if not all(isinstance(name, str) and Path(name).name == name for name in record.get("series") or ()):
        raise TypeError("series is no list of names")
    for name in ("val", "test", "cross_validation"):
        score_of(record.get(name))


def score_of(value: Any) -> Score | None:
    """A score from its JSON form; None where there is none. Raises KeyError, TypeError, ValueError."""
    return None if value is None else Score.from_json(value)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# ---------------------------------------------------------------- making


def new_run(name: str, out: Path | None, record: dict[str, Any]) -> Run:
    """A new run folder with this run.json: `out`, or the first free `runs/NAME-N`. Raises RunError where `out` exists,
    StorageError."""
    with files.lock(RUNS_FOLDER / ".lock") if out is None else nullcontext():
        place = RUNS_FOLDER / f"{name}-{_next_number(name)}" if out is None else out
        with files.new_folder(place) as folder:
            files.make_folder(folder / CHECKPOINTS)
            files.write_json(folder / RUN_FILE, record)
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
    """Replace some values of run.json, durably. Raises RunError, StorageError."""
    record = dict(Run(path).record)
    record.update(values)
    files.write_json(path / RUN_FILE, record)


# ---------------------------------------------------------------- finding


def runs(folder: str | Path = RUNS_FOLDER) -> list[Run]:
    """The runs in a folder, oldest first. A folder that is not a run is passed over; absent: empty."""
    found = []
    folder = Path(folder)
    if folder.is_dir():
        for path in folder.iterdir():
            with suppress(RunError):
                run = Run(path)
                if not path.name.startswith(".") and run.record:
                    found.append(run)
    return sorted(found, key=lambda run: (str(run.record["created"]), run.path.name))


def _last_file() -> Path:
    return files.state_folder() / "last" / files.sha256_of(str(Path.cwd()).encode("utf-8", "surrogateescape"))[:16]


def _remember(place: Path) -> None:
    """Note the newest run started from this working folder, wherever `--out` put it."""
    with suppress(StorageError):  # a convenience; `last` then is the newest run under ./runs
        files.write_text(_last_file(), str(place.absolute()))


def last_run() -> Run:
    """The newest run started from this folder, or else the newest under ./runs. Raises RunError if there is none."""
    with suppress(OSError, UnicodeError):
        run = Run(Path(_last_file().read_text(encoding="utf-8")))
        if (run.path / RUN_FILE).is_file():
            return run
    found = runs()
    if not found:
        raise RunError("there is no last run here: train one first (convlens train)")
    return found[-1]


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
            raise ModelFileError(
                f"{shown(run.path, 200)} has no model yet (status {run.status}); "
                f"finish it with 'convlens train --resume {shown(run.path, 200)}'"
            )
        return run.model
    path = Path(what)
    if files.is_folder(path):
        raise ModelFileError(f"{shown(path, 200)} is a folder without {RUN_FILE}: no run and no model file")
    if not files.is_file(path):
        near = did_you_mean(str(what), [LAST, *(str(run.path) for run in runs())])
        raise ModelFileError(f"no model file {shown(what, 200)}{near}")
    return path
