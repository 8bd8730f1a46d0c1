"""`train`: data, plan, fit, save, evaluate. One training from beginning to end, resumable at any step.

Owns the order of things and what a run folder holds at each moment. The compute is `training/loop.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from convlens import files
from convlens.choosing.choose import choose
from convlens.choosing.previews import draw_inputs
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import parse_region, parse_size
from convlens.data.packed.pack import is_packed_folder
from convlens.errors import TrainingError, UsageError
from convlens.evaluation.cross_validation import check_folds, cross_validate
from convlens.evaluation.evaluate import evaluate
from convlens.evaluation.test_ledger import ledger_path
from convlens.metrics import Score
from convlens.progress import Progress, open_progress
from convlens.recipe import Recipe
from convlens.run import (
    INPUTS_FILE,
    RUNS_FOLDER,
    Run,
    find_run,
    new_run,
    update_record,
)
from convlens.text import shown
from convlens.training.session import Session, Stop
from convlens.training.setup import Given, Setup, new_setup, setup_of, wishes_of
from convlens.training.warm_start import read_parent, same_input

CHECKPOINT_EVERY_S = 30.0


def train(
    data: Any = None,
    *,
    preset: str | None = None,
    architecture: str | None = None,
    recipe: Recipe | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
    val_frac: float | None = None,
    test: bool = False,
    folds: int | None = None,
    parent: Any = None,
    resume: str | Path | Run | None = None,
    augment: str | None = None,
    time: str | float | None = None,
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
    region: str | tuple[int, int, int, int] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
    stop: Stop | None = None,
) -> Run:
    """Train a network and leave a run folder with a model file.

    `data` (default "mnist") is a set's name, a path, arrays or a Dataset; `size`, `channels`, `framing`, `group`,
    `region` and `exclude` say how pictures are packed. `preset` gives sentence and recipe, which `architecture` and
    `recipe` replace; `settings` changes values of the recipe. For the named sets the preset is "standard". For other
    data what is not given is chosen, and each choice said with its reason: input size, channels, framing, preset, batch
    size, epochs, and augmentation ("auto" tries it on held-out images; "none", or kinds as "flip,shift").

    `time` ("5m", seconds) fits the epochs into a time. Seed 0, `val_frac` 0.1, device "auto", torch's number of
    threads, memory format "channels_last" and no compilation are the defaults. Test stays sealed unless `test`. `folds`
    measures every image by a network that did not learn from it, and then trains on all of them. `parent` is a model
    to start from. The run folder is `out`, or the next `runs/DATA-N`. `seeds` trains so many times, from `seed` on
    (`out` is then a folder of runs); the last run is returned, and its `series` has all of them.

    `resume` goes on with a run to the same bits; whatever else is given must be what the run has. `checkpoint_every`
    is in seconds (0: after every step). `keep_filters` keeps the first convolution's filters at some sixty steps, for
    `look --film`. `stop` is asked after each step: when it says True, the run is saved and
    returned. KeyboardInterrupt does the same, from the last consistent weights.

    Raises ConvlensError: DataError, SentenceError, RecipeError, UsageError, DeviceError, RunError, StorageError,
    TrainingError (too little memory), DivergedError.
    """
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int | float) or not checkpoint_every >= 0:
        raise UsageError(f"checkpoint_every must be seconds from 0 on, not {shown(checkpoint_every)}")
    given = Given(
        data,
        preset,
        architecture,
        recipe,
        seed,
        val_frac,
        device,
        threads,
        memory_format,
        compile,
        size,
        channels,
        framing,
        group,
        keep_filters,
        region,
        exclude,
        settings,
        augment,
        time,
        folds,
        parent,
    )
    every = float(checkpoint_every)
    with open_progress(progress) as bar:
        if resume is not None:
            wishes = {"out": out, "seeds": seeds, "time": time, "augment": augment}
            if wish := next((name for name, value in wishes.items() if value is not None), None):
                raise UsageError(f"a resumed run keeps its folder and its plan: leave --{wish} away")
            run = find_run(resume)
            setup = setup_of(run, given, test, data_root, bar)
            return _finished(setup, run, bar, every, stop, ended=stop is not None and stop())
        _check_wishes(given, test, seeds)
        wishes_of(given)
        places = _places(out, seeds)
        for place in places:
            _check_places(place, test)
        given = given if given.parent is None else _as_parent_has_it(given)
        num_trainings = len(places) * (1 if folds is None else folds + 1)
        choices = choose(replace(given, num_trainings=num_trainings), data_root, bar)
        first = 0 if given.seed is None else given.seed
        runs: list[Run] = []
        for number, place in enumerate(places):
            chosen = choices.given if seeds is None else replace(choices.given, seed=first + number)
            setup = new_setup(chosen, test, data_root, bar, choices.reasons)
            if compile and not setup.compute.compile:
                bar.line(f"note: no compiler for {setup.compute.device} is here: training goes on without, eager")
            measured = cross_validate(setup, folds, bar) if folds is not None else None
            # From here on there is a run to end well: whoever handles signals hears it by being asked.
            ended = stop is not None and stop()
            runs.append(_new_folder(setup, place, measured))
            if choices.previews and number == 0:
                draw_inputs(choices.previews, runs[0].path / INPUTS_FILE)
                bar.line(
                    f"twelve pictures as the network sees them: {runs[0].path / INPUTS_FILE}. Can you tell them apart?"
                )
            runs[-1] = _finished(setup, runs[-1], bar, every, stop, ended=ended)
            if runs[-1].status != "complete":
                break
        if seeds is not None:
            for run in runs:
                update_record(run.path, series=[one.path.name for one in runs])
        return Run(runs[-1].path)


def _finished(setup: Setup, run: Run, bar: Progress, every_s: float, stop: Stop | None, *, ended: bool) -> Run:
    """Train to the end, and open test where that was asked for."""
    _introduce(setup, run, bar)
    busy = f"{shown(run.path, 200)} is being trained by another process"
    with files.lock(run.path / ".lock", busy=busy):
        if run.status == "complete" and run.model.is_file():
            bar.line(f"{run.path} is complete: nothing to resume")
        else:
            run = Session(setup, run, bar, every_s, stop, ended=ended).run_to_end()
        return _tested(run, setup, bar) if setup.test and run.status == "complete" and run.test is None else run


def _check_wishes(given: Given, test: bool, seeds: int | None) -> None:
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= 1_000):
        raise UsageError(f"seeds must be a whole number from 1 to 1,000, not {shown(seeds)}")
    if given.folds is None:
        return
    check_folds(given.folds)
    if test or given.val_frac is not None:
        raise UsageError(
            "with --folds every image is measured, and the model then learns from all of them: leave "
            "--test and --val-frac away"
        )
    if (given.settings or {}).get("patience") or (given.recipe is not None and given.recipe.patience):
        raise UsageError("--folds trains on every image, so that none is left for --patience to look at")


def _as_parent_has_it(given: Given) -> Given:
    """The wishes with the parent's input, sentence and recipe in them. Raises UsageError where they contradict it."""
    if given.preset is not None or given.architecture is not None:
        raise UsageError("--from takes its model's architecture: leave --preset and --architecture away")
    parent = read_parent(given.parent)
    card = parent.card
    wanted = {
        "size": parse_size(given.size),
        "channels": given.channels,
        "framing": given.framing,
        "region": parse_region(given.region),
    }
    spec = same_input(parent, wanted)
    given = replace(given, architecture=card.architecture, recipe=card.recipe if given.recipe is None else given.recipe)
    if isinstance(given.data, Dataset) or is_packed_folder(given.data):
        return given
    return replace(
        given, size=(spec.height, spec.width), channels=spec.channels, framing=spec.framing, region=spec.region
    )


# ---------------------------------------------------------------- the run folder


def _places(out: str | Path | None, seeds: int | None) -> list[Path | None]:
    """Where each run goes: with several seeds `out` is a folder of them."""
    if seeds is None or out is None:
        return [None if out is None else Path(out)] * (1 if seeds is None else seeds)
    return [Path(out) / str(number + 1) for number in range(seeds)]


def _check_places(out: str | Path | None, test: bool) -> None:
    """Find out before anything long begins that results can be written."""
    if out is not None:
        files.refuse_existing(Path(out))
    files.check_room(RUNS_FOLDER if out is None else Path(out), num_bytes=1_000_000)
    if test:
        files.check_room(ledger_path().parent, num_bytes=10_000)


def _new_folder(setup: Setup, out: str | Path | None, measured: Score | None) -> Run:
    if setup.recipe.batch_size == 1 and any(leaf.layer.name == "batchnorm" for leaf in setup.plan.leaves):
        raise TrainingError("batchnorm cannot learn from batches of one image: use a batch size of at least 2")
    # Two checkpoints and one being written, each of weights, two moments and an average; and the model.
    files.check_room(
        RUNS_FOLDER if out is None else Path(out), num_bytes=4 * setup.plan.num_parameters * (3 * 4 + 2) + 1_000_000
    )
    record = setup.record() | ({"cross_validation": measured.to_json()} if measured is not None else {})
    with new_run(setup.dataset.name, out, record) as (_, path):
        pass
    return Run(path)


def _introduce(setup: Setup, run: Run, bar: Progress) -> None:
    for line in (
        str(setup.dataset),
        *(f"note: {note}" for note in (*setup.dataset.notes, *setup.compute.notes)),
        str(setup.plan.architecture),
        f"{setup.plan.num_parameters:,} parameters, {setup.plan.multiply_adds:,} multiply-adds an image",
        str(setup.recipe),
        f"seed {setup.seed}, steps: {setup.num_steps:,}, on {setup.compute}, in {run.path}",
    ):
        bar.line(line)


def _tested(run: Run, setup: Setup, bar: Progress) -> Run:
    """Open test for the saved model, and write the score into run.json."""
    bar.line("evaluating on the test images")
    report = evaluate(run, split="test", device=setup.compute.device, progress="none")
    bar.line(str(report.openings))
    update_record(run.path, test=report.score.to_json())
    return Run(run.path)
