"""The lab: a sentence from the page is checked, trained by a child process, followed, stopped and opened.

Owns that process, one at a time. It is `convlens train` itself, on the packed data set of the open model; the page
follows its run folder's log.
"""

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

from convlens import files
from convlens.architecture import Architecture, Explanation, parse, plan
from convlens.architecture.layers import Layer
from convlens.architecture.rows import rows_json
from convlens.checks import checked, real
from convlens.data.packed.dataset import Dataset
from convlens.errors import RecordError, SentenceError, UsageError
from convlens.explaining import sentence_of
from convlens.modelfile import ModelCard
from convlens.presets import NATURAL
from convlens.recipe import Recipe
from convlens.records import Count, Number, Record, Text
from convlens.run import RUN_FILE, RUNS_FOLDER, Run

MAX_PARAMETERS, MAX_MULTIPLY_ADDS, MAX_EPOCHS, MAX_TIME_S = 5_000_000, 500_000_000, 50.0, 600.0
_FIELDS = ("epochs", "batch_size", "lr")  # of the recipe, that the page may set
_STOP_WAIT_S, _BEGIN_WAIT_S = 10.0, 60.0
LOCK, READY = RUNS_FOLDER / ".lab.lock", "the lock is held"
BUSY = "a training of the lab is going on in this folder: stop it, or wait for its end"


def explained(card: ModelCard, sentence: Any) -> dict[str, Any]:
    """What a sentence becomes on the model's input and classes: the table, or the error with its column and the layers
    before it."""
    shape, num_classes, layers = card.input_spec.shape, len(card.class_names), tuple[Layer, ...]()
    try:
        architecture = parse(sentence_of(sentence))
        layers = architecture.layers
        network_plan = plan(architecture, shape, num_classes)
    except SentenceError as error:
        others = [{"error": one.reason, "column": one.column} for one in error.others]
        before = tuple(one for one in layers if (one.column or 0) < (error.column or 0))
        rows = rows_json(plan(Architecture(before), shape, num_classes, as_classifier=False)) if before else []
        totals = {"num_parameters": sum(row["num_parameters"] for row in rows) or 1}
        totals["multiply_adds"] = sum(row["multiply_adds"] for row in rows) or 1
        return {"error": error.reason, "column": error.column, "others": others, "layers": rows, **totals}
    explanation = Explanation(network_plan)
    return (
        {"layers": rows_json(network_plan), "summary": explanation.summary(), "remarks": explanation.remarks}
        | {"architecture": str(architecture), "num_parameters": network_plan.num_parameters}
        | {"multiply_adds": network_plan.multiply_adds}
    )


def own_recipe(card: ModelCard) -> Recipe:
    """What the lab trains with: the model's own recipe, unless that was for layers which had learned before."""
    own = card.recipe
    return NATURAL.recipe if own is None or own.freeze or own.head != "kept" else own


class LabRequest(Record, frozen=True):
    """What `/api/lab/train` takes: a sentence, and what of the recipe is changed; `time`, in seconds, is what as many
    epochs as fit are trained for."""

    sentence: Text
    epochs: Number | None = None
    batch_size: Count | None = None
    lr: Number | None = None
    time: Number | None = None
    seed: Count = 0


class Lab:
    """At most one training at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=100)
        self._sentence = ""
        self._was_stopped = False
        self.place: Path | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a training is going on."""
        return self._process is not None and self._process.poll() is None

    def train(self, card: ModelCard, dataset: Dataset, device: str, request: LabRequest) -> None:
        """Start `convlens train` for a sentence; `request` may also set epochs or time, batch_size, lr, seed.

        Raises UsageError where one is going on, of this server or of another in this folder, or the network is too
        large for the lab, SentenceError, RecipeError.
        """
        if self.is_busy or files.is_locked(LOCK):
            raise UsageError(BUSY)
        sentence = str(sentence_of(request.sentence))
        network_plan = plan(parse(sentence), card.input_spec.shape, len(card.class_names))
        if network_plan.num_parameters > MAX_PARAMETERS or network_plan.multiply_adds > MAX_MULTIPLY_ADDS:
            raise UsageError(
                f"the lab trains networks of up to {MAX_PARAMETERS:,} parameters and {MAX_MULTIPLY_ADDS:,} "
                "multiply-adds an image; for larger ones use convlens train --architecture"
            )
        recipe = own_recipe(card).replace(
            **{name: value for name in _FIELDS if (value := getattr(request, name)) is not None}
        )
        if recipe.epochs > MAX_EPOCHS:
            raise UsageError(f"the lab trains for up to {MAX_EPOCHS:g} epochs")
        if request.time is not None:
            checked("time", request.time, real(1, MAX_TIME_S))
        self._tidy()
        place = files.reserve_folder(RUNS_FOLDER, "lab")  # another microscope may train in this folder too
        self._process = process = subprocess.Popen(
            _command(dataset, sentence, recipe, request, place, device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            # A terminal's Ctrl-C is the server's, which ends the training itself, by closing the pipe.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdout is not None
        late = threading.Timer(_BEGIN_WAIT_S, process.kill)
        late.start()
        said = []  # the interpreter itself may say something first
        while (line := process.stdout.readline()) and line.strip() != READY:
            said.append(line.strip())
        late.cancel()
        if not line:
            process.communicate()
            files.remove_if_empty(place)
            raise UsageError(BUSY if any(BUSY in one for one in said) else f"the training could not begin: {said[-1:]}")
        self.place = place
        epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs:g} epochs"
        epochs = epochs if request.time is None else f"as many epochs as fit in {request.time:g} s"
        self._sentence, self._was_stopped = f"{request.sentence}, {epochs}", False
        self._lines.clear()
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line.rstrip())

    def stop(self) -> None:
        """Ask the training to end; its run stays, interrupted."""
        if self.is_busy:
            assert self._process is not None and self._process.stdin is not None
            self._was_stopped = True
            self._process.stdin.close()

    def close(self) -> None:
        """End the training, if one is going on, and wait for it."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the place of a training that ended before it had a run."""
        if self.place is not None:
            files.remove_if_empty(self.place)

    def status(self) -> dict[str, Any]:
        """How it stands: idle, running, complete, stopped or failed; the curve and the last lines."""
        if self._process is None or self.place is None:
            return {"state": "idle"}
        code = self._process.poll()
        state = "running" if code is None else "stopped" if self._was_stopped else "complete" if code == 0 else "failed"
        run = Run(self.place)
        found: dict[str, Any] = (
            {"state": state, "sentence": self._sentence, "place": str(self.place)}
            | {"lines": list(self._lines)[-8:], "step": 0, "num_steps": None, "curve": [], "epochs": []}
            | {"can_open": False}
        )
        if (self.place / RUN_FILE).is_file():
            try:
                curve = run.curve
                found |= {
                    "num_steps": run.record.num_steps,
                    "curve": curve,
                    "epochs": run.history,
                    "step": curve[-1][0] if curve else 0,
                    "can_open": code is not None and run.model.is_file(),
                    "warning": run.warning if state == "complete" else None,
                }
            except RecordError:
                pass  # being written; the next look finds it whole
        return found


def _command(
    dataset: Dataset, sentence: str, recipe: Recipe, request: LabRequest, place: Path, device: str
) -> list[str]:
    """`convlens train`; each value in one word with its option, so that none is taken for another."""
    values = {**recipe.to_json(), "precision": "auto"}
    fitted = [] if request.time is None else [f"--time={request.time:g}s"]
    if fitted:
        del values["epochs"]
    return [
        sys.executable,
        "-m",
        "convlens.microscope.child",
        str(dataset.folder.absolute()),
        f"--architecture={sentence}",
        f"--out={place}",
        f"--seed={request.seed}",
        f"--val-frac={dataset.val_frac}",
        f"--device={device}",
        *fitted,
        *(f"--set={name}={_setting(value)}" for name, value in values.items()),
    ]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
