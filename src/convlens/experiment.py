"""`train`: data, plan, fit, save, evaluate. One training from beginning to end, resumable at any step.

Owns the order of things and what a run folder holds at each moment. The arithmetic is `training/loop.py`'s.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convlens import files
from convlens.architecture import Plan, parse, plan
from convlens.data.dataset import DEFAULT_VAL_FRAC, Dataset
from convlens.data.framing import InputSpec
from convlens.data.pack import PackOptions, open_data, parse_size, reopen
from convlens.errors import DataError, DivergedError, RunError, TrainingError, UsageError, shown
from convlens.evaluation.evaluate import evaluate
from convlens.metrics import Score, score
from convlens.modelfile import ModelCard, write_model
from convlens.network.build import arrays_of, build, tensors_of
from convlens.network.device import Arithmetic, resolve, settled
from convlens.network.forward import logits_of
from convlens.presets import DEFAULT_PRESET, preset_named
from convlens.progress import Progress, open_progress
from convlens.recipe import Recipe
from convlens.run import (
    CHECKPOINTS,
    FORMAT_VERSION,
    LOG_FILE,
    MODEL_FILE,
    RUN_FILE,
    RUNS_FOLDER,
    Run,
    find_run,
    new_run,
    update_record,
)
from convlens.training import checkpoint
from convlens.training.batches import Batches
from convlens.training.loop import State, averaged, new_state, train_steps

MAX_SEED = 2**63 - 1
CHECKPOINT_EVERY_S = 30.0

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Setup:
    """What identifies a training, everything automatic resolved."""

    dataset: Dataset
    plan: Plan
    recipe: Recipe
    preset: str | None
    seed: int
    arithmetic: Arithmetic
    test: bool

    @property
    def spec(self) -> InputSpec:
        """The network's input."""
        return self.dataset.input_spec

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.num_steps(self.dataset.counts["train"])

    def record(self) -> dict[str, Any]:
        """run.json before the first step."""
        return {
            "kind": "convlens-run", "format_version": FORMAT_VERSION, "status": "running", "created": _now(),
            "dataset": self.dataset.identity(), "architecture": str(self.plan.architecture), "preset": self.preset,
            "recipe": self.recipe.to_json(), "seed": self.seed, "arithmetic": self.arithmetic.to_json(),
            "test_asked": self.test, "num_parameters": self.plan.num_parameters,
            "multiply_adds": self.plan.multiply_adds, "num_steps": self.num_steps, "step": 0, "versions": versions(),
            "train_s": 0.0, "images_per_s": None, "val_s": 0.0, "checkpoint_s": 0.0, "val": None, "test": None,
        }  # fmt: skip


def train(
    data: Any = None,
    *,
    preset: str | None = None,
    architecture: str | None = None,
    recipe: Recipe | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    val_frac: float | None = None,
    test: bool = False,
    resume: str | Path | Run | None = None,
    device: str | None = None,
    threads: int | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY_S,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    framing: str | None = None,
    group: str | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
    stop: Stop | None = None,
) -> Run:
    """Train a network and leave a run folder with a model file.

    `data` (default "mnist") is a set's name, a path, arrays or a Dataset; `size`, `channels`, `framing` and `group`
    say how pictures are packed. `preset` (default "standard") gives sentence and recipe, which `architecture` and
    `recipe` replace. Seed 0, `val_frac` 0.1, device "auto" and torch's number of threads are the defaults. Test
    stays sealed unless `test`. The run folder is `out`, or the next `runs/DATA-N`.

    `resume` goes on with a run to the same bits; whatever else is given must be what the run has. `checkpoint_every`
    is in seconds (0: after every step). `stop` is asked after each step: when it says True, the run is saved and
    returned. KeyboardInterrupt does the same, from the last consistent weights.

    Raises ConvlensError: DataError, SentenceError, RecipeError, UsageError, DeviceError, RunError, StorageError,
    DivergedError.
    """
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int | float) or not checkpoint_every >= 0:
        raise UsageError(f"checkpoint_every must be seconds from 0 on, not {shown(checkpoint_every)}")
    given = _Given(data, preset, architecture, recipe, seed, val_frac, device, threads, size, channels, framing, group)
    with open_progress(progress) as bar:
        if resume is not None:
            if out is not None:
                raise UsageError("a resumed run stays in its folder: leave --out away")
            run = find_run(resume)
            setup = _setup_of(run, given, test, data_root, bar)
        else:
            setup = _new_setup(given, test, data_root, bar)
            run = _new_folder(setup, out)
        _introduce(setup, run, bar)
        busy = f"{shown(run.path, 200)} is being trained by another process"
        with files.lock(run.path / ".lock", busy=busy):
            return _Training(setup, run, bar, float(checkpoint_every), stop).run_to_end()


# ---------------------------------------------------------------- what is trained


@dataclass(frozen=True)
class _Given:
    """What the caller said; None where nothing was."""

    data: Any
    preset: str | None
    architecture: str | None
    recipe: Recipe | None
    seed: int | None
    val_frac: float | None
    device: str | None
    threads: int | None
    size: int | str | tuple[int, int] | None
    channels: int | None
    framing: str | None
    group: str | None

    @property
    def options(self) -> PackOptions:
        return PackOptions(parse_size(self.size), self.channels, self.framing, self.group)


def _new_setup(given: _Given, test: bool, data_root: str | Path | None, bar: Progress) -> Setup:
    # What can be wrong without looking at data is found before a folder of pictures is packed.
    chosen = preset_named(given.preset or DEFAULT_PRESET)
    architecture = parse(given.architecture or chosen.architecture)
    recipe = given.recipe or chosen.recipe
    seed = 0 if given.seed is None else given.seed
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed must be a whole number from 0 to {MAX_SEED}, not {shown(seed)}")
    arithmetic = resolve(given.device or "auto", recipe.precision, given.threads)
    val_frac = DEFAULT_VAL_FRAC if given.val_frac is None else given.val_frac
    data = "mnist" if given.data is None else given.data
    dataset = open_data(data, given.options, data_root=data_root, val_frac=val_frac, progress=bar)
    if dataset.counts["train"] == 0:
        raise DataError(f"{dataset.name} has no training images")
    if test and dataset.counts["test"] == 0:
        raise DataError(f"{dataset.name} has no test images: leave --test away")
    network_plan = plan(architecture, dataset.input_spec.shape, len(dataset.class_names))
    is_preset = given.architecture is None and given.recipe is None
    return Setup(
        dataset, network_plan, recipe.replace(precision=arithmetic.precision),
        chosen.name if is_preset else None, seed, arithmetic, test,
    )  # fmt: skip


def _setup_of(run: Run, given: _Given, test: bool, data_root: str | Path | None, bar: Progress) -> Setup:
    """The setup that a run was begun with. Raises RunError where something else is asked for now."""
    record = run.record
    try:
        stored = record["arithmetic"]
        recipe, seed = Recipe.from_json(record["recipe"]), int(record["seed"])
        architecture = parse(record["architecture"])
        _refuse_changes(run, given, record, recipe)
        if given.data is None:
            dataset = reopen(record["dataset"], data_root=data_root, progress=bar)
        else:
            options = PackOptions.from_json(record["dataset"]["options"])
            is_packed = isinstance(given.data, Dataset)
            dataset = open_data(given.data, None if is_packed else options, data_root=data_root,
                                val_frac=float(record["dataset"]["val_frac"]), progress=bar)  # fmt: skip
        if dataset.fingerprint != record["dataset"]["fingerprint"]:
            raise RunError(f"{shown(run.path, 200)} was begun with other data (fingerprint "
                           f"{record['dataset']['fingerprint'][:12]}, now {dataset.fingerprint[:12]})")  # fmt: skip
        arithmetic = resolve(str(stored["device"]), str(stored["precision"]), int(stored["threads"]))
        network_plan = plan(architecture, dataset.input_spec.shape, len(dataset.class_names))
        return Setup(
            dataset, network_plan, recipe, record["preset"], seed, arithmetic, test or bool(record["test_asked"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{shown(run.path / RUN_FILE, 200)} is damaged ({shown(error)})") from error


def _refuse_changes(run: Run, given: _Given, record: Mapping[str, Any], recipe: Recipe) -> None:
    changed: list[tuple[str, object, object]] = []

    def compare(name: str, now: object, then: object) -> None:
        if now is not None and now != then:
            changed.append((name, now, then))

    preset = None if given.preset is None else preset_named(given.preset)
    compare("preset", given.preset, record["preset"])
    compare("architecture", given.architecture and str(parse(given.architecture)), record["architecture"])
    wanted = given.recipe if given.recipe is not None else preset.recipe if preset and record["preset"] else None
    if wanted is not None:
        wanted = wanted if wanted.precision != "auto" else wanted.replace(precision=recipe.precision)
        then_json = recipe.to_json()
        for name, now in wanted.to_json().items():
            compare(name, now, then_json[name])
    compare("seed", given.seed, record["seed"])
    compare("val_frac", given.val_frac, record["dataset"]["val_frac"])
    compare("threads", given.threads, record["arithmetic"]["threads"])
    device = None if given.device in (None, "auto") else resolve(str(given.device)).device
    compare("device", device, record["arithmetic"]["device"])
    options = given.options.to_json()
    for name, then in record["dataset"]["options"].items():
        compare(name, options[name] or None, then)
    if changed:
        name, now, then = changed[0]
        raise RunError(
            f"{shown(run.path, 200)} was begun with {name} {shown(then)}, not {shown(now)}: a resumed run keeps its "
            "values; leave it away, or begin a new run"
        )


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "convlens": version("convlens"), "torch": torch.__version__, "numpy": np.__version__,
        "python": platform.python_version(), "machine": platform.machine(), "system": sys.platform,
    }  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# ---------------------------------------------------------------- the run folder


def _new_folder(setup: Setup, out: str | Path | None) -> Run:
    if setup.recipe.batch_size == 1 and any(leaf.layer.name == "batchnorm" for leaf in setup.plan.leaves):
        raise TrainingError("batchnorm cannot learn from batches of one image: use a batch size of at least 2")
    place = Path(out) if out is not None else RUNS_FOLDER
    # Two checkpoints and one being written, each of weights, two moments and an average; and the model.
    files.check_room(place, num_bytes=4 * setup.plan.num_parameters * (3 * 4 + 2) + 1_000_000)
    with new_run(setup.dataset.name, out, setup.record()) as (_, path):
        pass
    return Run(path)


def _introduce(setup: Setup, run: Run, bar: Progress) -> None:
    for line in (str(setup.dataset), *(f"note: {note}" for note in setup.dataset.notes), str(setup.plan.architecture),
                 f"{setup.plan.num_parameters:,} parameters, {setup.plan.multiply_adds:,} multiply-adds an image",
                 str(setup.recipe), f"seed {setup.seed}, {setup.num_steps:,} steps on {setup.arithmetic}, in {run.path}"):  # fmt: skip
        bar.line(line)


class _Training:
    """One run being trained, between the lock and the model file."""

    def __init__(self, setup: Setup, run: Run, bar: Progress, checkpoint_every_s: float, stop: Stop | None) -> None:
        self.setup, self.run, self.bar, self.stop = setup, run, bar, stop
        self.checkpoint_every_s = checkpoint_every_s
        self.val: Score | None = None
        self.val_s = 0.0
        self.checkpoint_s = 0.0
        self.epoch_losses: list[float] = []  # of the epoch that is going on

    def run_to_end(self) -> Run:
        """Restore, train, save. Whatever happens, what is on disk can be loaded or resumed."""
        setup = self.setup
        if Run(self.run.path).status == "complete":
            self.bar.line(f"{self.run.path} is complete: nothing to resume")
            return self._tested() if setup.test else Run(self.run.path)
        with settled(setup.arithmetic):
            state = self._restored()
            interrupted = consistent = False
            try:
                interrupted = self._fit(state)
                consistent = True
            except KeyboardInterrupt:
                # Python may have been stopped in the middle of a step: these weights can be used, not resumed
                # from. Resuming goes back to the last checkpoint and comes to the same bits.
                interrupted = True
            except DivergedError as error:
                update_record(self.run.path, status="diverged", step=error.step, ended=_now())
                last = checkpoint.newest(self.run.path / CHECKPOINTS)
                kept = (
                    f"the last good checkpoint is that of step {last.step}" if last else "there was no checkpoint yet"
                )
                raise DivergedError(f"{error}; {kept}; run {shown(self.run.path, 200)}", step=error.step) from None
            finally:
                self.bar.stop()
            if consistent:
                self._checkpoint(state)
            self._save(state, status="interrupted" if interrupted else "complete")
        if interrupted:
            self.bar.line(f"stopped after step {state.step:,} of {setup.num_steps:,}; "
                          f"go on with: convlens train --resume {self.run.path}")  # fmt: skip
            return Run(self.run.path)
        return self._tested() if setup.test else Run(self.run.path)

    # ------------------------------------------------------------ fitting

    def _restored(self) -> State:
        """A state before its first step, or the newest checkpoint's."""
        setup = self.setup
        started = time.perf_counter()
        network = build(setup.plan, setup.spec, seed=setup.seed, device=setup.arithmetic.device)
        state = new_state(network, setup.recipe, setup.arithmetic.device)
        state.train_s = time.perf_counter() - started
        last = checkpoint.newest(self.run.path / CHECKPOINTS)
        log_bytes = 0
        if last is not None:
            checkpoint.restore(state, last)
            log_bytes = int(last.extra["log_bytes"])
            self.epoch_losses = list(last.extra["epoch_losses"])
            self.val_s, self.checkpoint_s = float(last.extra["val_s"]), float(last.extra["checkpoint_s"])
            self.bar.line(f"resuming at step {state.step:,} of {setup.num_steps:,}")
        files.truncate(self.run.path / LOG_FILE, log_bytes)  # lines of steps that will be done again
        update_record(self.run.path, status="running")
        return state

    def _fit(self, state: State) -> bool:
        """Train to the end; True if `stop` ended it before."""
        setup, bar = self.setup, self.bar
        dataset, recipe, device = setup.dataset, setup.recipe, setup.arithmetic.device
        images = torch.from_numpy(dataset.images("train")).to(device)
        labels = torch.from_numpy(dataset.labels("train")).to(device)
        batches = Batches.of(recipe, len(images), setup.seed)
        bar.start("training", setup.num_steps, unit="steps")
        bar.advance(state.step)
        last_checkpoint = shown_at = time.monotonic()
        if self.stop is not None and self.stop():
            return True
        for losses in train_steps(state, images, labels, batches, recipe, setup.num_steps, setup.arithmetic):
            self.epoch_losses += losses.values
            now = time.monotonic()
            if now - shown_at >= 0.2:
                shown_at = now
                rate = state.step * recipe.batch_size / max(state.train_s, 1e-9)
                bar.advance(0, note=f"loss {losses.values[-1]:.4f}  {rate:,.0f} images/s")
            bar.advance(len(losses.values))
            if (
                self._epochs_done(state.step) > self._epochs_done(state.step - len(losses.values))
                or state.step == setup.num_steps
            ):
                self._end_epoch(state)
            if self.stop is not None and self.stop() and state.step < setup.num_steps:
                return True
            if now - last_checkpoint >= self.checkpoint_every_s and state.step < setup.num_steps:
                self._checkpoint(state)
                last_checkpoint = time.monotonic()
        return False

    def _epochs_done(self, step: int) -> int:
        return step * self.setup.recipe.batch_size // self.setup.dataset.counts["train"]

    def _end_epoch(self, state: State) -> None:
        setup = self.setup
        epoch = state.step * setup.recipe.batch_size / setup.dataset.counts["train"]
        loss = sum(self.epoch_losses) / len(self.epoch_losses)
        self.epoch_losses.clear()
        self._validate(state)
        lr = setup.recipe.lr_at(state.step - 1, setup.num_steps)
        files.append_line(self.run.path / LOG_FILE, {
            "step": state.step, "epoch": round(epoch, 4), "lr": lr, "loss": loss,
            "val": self.val.to_json() if self.val else None, "train_s": round(state.train_s, 3),
        })  # fmt: skip
        val = f"  val {100 * self.val.accuracy:6.2f} %  val loss {self.val.loss:.4f}" if self.val else ""
        self.bar.line(f"epoch {epoch:5.2f} of {setup.recipe.epochs:g}  loss {loss:.4f}{val}  {state.train_s:.1f} s")

    def _validate(self, state: State) -> None:
        dataset = self.setup.dataset
        if dataset.counts["val"] == 0:
            return
        started = time.perf_counter()
        with averaged(state) as network:
            self.val = score(logits_of(network, dataset.images("val")), dataset.labels("val"))
        self.val_s += time.perf_counter() - started

    # ------------------------------------------------------------ saving

    def _checkpoint(self, state: State) -> None:
        started = time.perf_counter()
        log = self.run.path / LOG_FILE
        extra = {"log_bytes": log.stat().st_size if log.exists() else 0, "epoch_losses": self.epoch_losses,
                 "val_s": self.val_s, "checkpoint_s": self.checkpoint_s}  # fmt: skip
        checkpoint.save(self.run.path / CHECKPOINTS, state, extra)
        self.checkpoint_s += time.perf_counter() - started

    def _save(self, state: State, status: str) -> None:
        """Write the model, then say in run.json how it ended."""
        setup = self.setup
        if status == "complete" and self.val is None:
            self._validate(state)  # resumed after the last step, before the model was written
        if status != "complete":
            self.val = None  # of an earlier step than the weights that are saved
        with averaged(state) as network:
            arrays = arrays_of(tensors_of(network))
        write_model(self.run.path / MODEL_FILE, self._card(state), arrays)
        seen = state.step * setup.recipe.batch_size
        update_record(
            self.run.path, status=status, step=state.step, ended=_now(), train_s=state.train_s,
            images_per_s=seen / state.train_s if state.train_s else None, val_s=self.val_s,
            checkpoint_s=self.checkpoint_s, val=self.val.to_json() if self.val else None,
        )  # fmt: skip

    def _card(self, state: State) -> ModelCard:
        setup = self.setup
        epochs = state.step * setup.recipe.batch_size / setup.dataset.counts["train"]
        return ModelCard(
            architecture=str(setup.plan.architecture),
            input_spec=setup.spec,
            class_names=setup.dataset.class_names,
            recipe=setup.recipe,
            preset=setup.preset,
            seed=setup.seed,
            dataset=setup.dataset.identity(),
            training={
                "step": state.step, "num_steps": setup.num_steps, "epochs": round(epochs, 4),
                "weights": "last" if state.ema is None else "ema", **setup.arithmetic.to_json(),
                "train_s": round(state.train_s, 3),
            },
            metrics={"val": self.val.to_json() if self.val else None},
            versions=versions(),
            created=_now(),
        )  # fmt: skip

    def _tested(self) -> Run:
        """Open test for the saved model, and write the score into run.json."""
        self.bar.line("evaluating on the test images")
        report = evaluate(Run(self.run.path), split="test", device=self.setup.arithmetic.device, progress="none")
        update_record(self.run.path, test=report.score.to_json())
        return Run(self.run.path)
