"""`train`: data, plan, fit, save, evaluate. One training from beginning to end, resumable at any step.

Owns the order of things and what a run folder holds at each moment. The arithmetic is `training/loop.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convlens import files
from convlens.errors import TrainingError, UsageError, shown
from convlens.evaluation.evaluate import evaluate
from convlens.evaluation.openings import ledger_path
from convlens.progress import Progress, open_progress
from convlens.recipe import Recipe
from convlens.run import (
    RUNS_FOLDER,
    Run,
    find_run,
    new_run,
    update_record,
)
from convlens.training.session import Session, Stop
from convlens.training.setup import Given, Setup, new_setup, setup_of

CHECKPOINT_EVERY_S = 30.0


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
    memory_format: str | None = None,
    compile: bool | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY_S,
    keep_filters: bool = False,
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
    `recipe` replace. Seed 0, `val_frac` 0.1, device "auto", torch's number of threads, memory format "channels_last"
    and no compilation are the defaults. Test stays sealed unless `test`. The run folder is `out`, or the next
    `runs/DATA-N`.

    `resume` goes on with a run to the same bits; whatever else is given must be what the run has. `checkpoint_every`
    is in seconds (0: after every step). `keep_filters` keeps the first convolution's filters at some sixty steps, for
    `look --film`. `stop` is asked after each step: when it says True, the run is saved and
    returned. KeyboardInterrupt does the same, from the last consistent weights.

    Raises ConvlensError: DataError, SentenceError, RecipeError, UsageError, DeviceError, RunError, StorageError,
    TrainingError (too little memory), DivergedError.
    """
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int | float) or not checkpoint_every >= 0:
        raise UsageError(f"checkpoint_every must be seconds from 0 on, not {shown(checkpoint_every)}")
    given = Given(data, preset, architecture, recipe, seed, val_frac, device, threads, memory_format, compile, size,
                  channels, framing, group, keep_filters)  # fmt: skip
    with open_progress(progress) as bar:
        if resume is not None:
            if out is not None:
                raise UsageError("a resumed run stays in its folder: leave --out away")
            run = find_run(resume)
            setup = setup_of(run, given, test, data_root, bar)
            ended = stop is not None and stop()
        else:
            _check_places(out, test)
            setup = new_setup(given, test, data_root, bar)
            if compile and not setup.arithmetic.compile:
                bar.line(f"note: no compiler for {setup.arithmetic.device} is here: training goes on without, eager")
            # From here on there is a run to end well: whoever handles signals hears it by being asked.
            ended = stop is not None and stop()
            run = _new_folder(setup, out)
        _introduce(setup, run, bar)
        busy = f"{shown(run.path, 200)} is being trained by another process"
        with files.lock(run.path / ".lock", busy=busy):
            if run.status == "complete" and run.model.is_file():
                bar.line(f"{run.path} is complete: nothing to resume")
            else:
                run = Session(setup, run, bar, float(checkpoint_every), stop, ended=ended).run_to_end()
            return _tested(run, setup, bar) if setup.test and run.status == "complete" and run.test is None else run


# ---------------------------------------------------------------- the run folder


def _check_places(out: str | Path | None, test: bool) -> None:
    """Find out before anything long begins that results can be written."""
    if out is not None:
        files.refuse_existing(Path(out))
    files.check_room(RUNS_FOLDER if out is None else Path(out), num_bytes=1_000_000)
    if test:
        files.check_room(ledger_path().parent, num_bytes=10_000)


def _new_folder(setup: Setup, out: str | Path | None) -> Run:
    if setup.recipe.batch_size == 1 and any(leaf.layer.name == "batchnorm" for leaf in setup.plan.leaves):
        raise TrainingError("batchnorm cannot learn from batches of one image: use a batch size of at least 2")
    # Two checkpoints and one being written, each of weights, two moments and an average; and the model.
    files.check_room(
        RUNS_FOLDER if out is None else Path(out), num_bytes=4 * setup.plan.num_parameters * (3 * 4 + 2) + 1_000_000
    )
    with new_run(setup.dataset.name, out, setup.record()) as (_, path):
        pass
    return Run(path)


def _introduce(setup: Setup, run: Run, bar: Progress) -> None:
    for line in (
        str(setup.dataset),
        *(f"note: {note}" for note in (*setup.dataset.notes, *setup.arithmetic.notes)),
        str(setup.plan.architecture),
        f"{setup.plan.num_parameters:,} parameters, {setup.plan.multiply_adds:,} multiply-adds an image",
        str(setup.recipe),
        f"seed {setup.seed}, steps: {setup.num_steps:,}, on {setup.arithmetic}, in {run.path}",
    ):
        bar.line(line)


def _tested(run: Run, setup: Setup, bar: Progress) -> Run:
    """Open test for the saved model, and write the score into run.json."""
    bar.line("evaluating on the test images")
    report = evaluate(run, split="test", device=setup.arithmetic.device, progress="none")
    bar.line(str(report.openings))
    update_record(run.path, test=report.score.to_json())
    return Run(run.path)
