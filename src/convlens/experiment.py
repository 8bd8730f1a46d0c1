"""`train`: from a request to runs.

Owns the resolution of a request into a plan, and the order of seeds, folds, resumption and the run folder. Choices are
`choosing/`'s, the training is `training/`'s, scores are `evaluation/`'s.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.architecture import Plan, parse, plan
from convlens.architecture.layers import Linear
from convlens.checks import checked, real
from convlens.data.packed.contents import Contents
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.pack import is_packed, open_data, reopen
from convlens.errors import DataError, ProcessError, RecipeError, RunError, SentenceError, TrainingError, UsageError
from convlens.evaluation.calibration import calibrate, calibrate_by_folds
from convlens.evaluation.cross_validation import cross_validate, keep_held_out
from convlens.evaluation.evaluate import evaluate
from convlens.evaluation.learning_curve import measure_learning_curve
from convlens.evaluation.report import FOLDS
from convlens.evaluation.test_ledger import Tried, ledger_path, open_test
from convlens.network.compute import resolve_compute, resolve_device
from convlens.network.memory import check_memory
from convlens.network.pretrained import model_path
from convlens.network.processes import Processes, current, joined
from convlens.presets import what_it_takes
from convlens.progress import Progress, open_progress
from convlens.recipe import Recipe
from convlens.run import (
    CURVE_FILE,
    INPUTS_FILE,
    LOCK_FILE,
    REPORT_FILE,
    RUN_FILE,
    RUNS_FOLDER,
    Run,
    RunRecord,
    find_run,
    new_run,
    update_record,
)
from convlens.text import by, counted, did_you_mean, listed, short_sentence, shown
from convlens.training.follow import follow
from convlens.training.parts import check_cut
from convlens.training.plan import TrainingPlan
from convlens.training.request import Draft, TrainRequest
from convlens.training.shared import FitOrder
from convlens.training.trainer import Stop, Watch, train_run
from convlens.training.warm_start import Parent, check_lineage, class_changes, parent_again, read_parent

CHECKPOINT_EVERY_S = 30.0
_LATE = 1.25  # times the time that was asked for
MAX_EXCLUDED_CHARACTERS = 500_000  # of names, which the card of the model repeats


def train(
    data: Any = None,
    *more: Any,
    preset: str | None = None,
    architecture: str | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
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
    checkpoint_every: float = CHECKPOINT_EVERY_S,
    keep_filters: bool = False,
    omit_record: bool = False,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    framing: str | None = None,
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    region: str | tuple[int, int, int, int] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    labels: str | Path | None = None,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
    stop: Stop | None = None,
    **recipe_fields: Any,
) -> Run:
    """Train a network and leave a run folder with a model file.

    `data` (default "mnist") is a set's name, a path, a Dataset, or arrays: (x, y), with splits of one's own ((x, y),
    (x_test, y_test)) or {"train": (x, y), "val": …, "test": …}; `size`, `channels`, `framing`, `region` and
    `exclude` say how images are packed, `labels` is a table of decisions on labels (`review` makes it), `group`,
    `layout`, `label`, `path_column` and `label_column` say how names are read. `preset` gives sentence and recipe,
    which `architecture` and `recipe` replace; of a `recipe` that is a mapping, those fields alone, which may also be
    given by name (`epochs=1, lr=0.01`). For MNIST and its like
    the preset is "standard". For other data what is not said is chosen, and each choice said with its reason: input
    size, channels, framing, preset, batch size, epochs, and augmentation ("auto": by the kind of the pictures; "none",
    or kinds as "flip,shift"). Photographs start from a pretrained network where a trial does not speak against it;
    `preset="photo"` asks for that, `parent="none"` or another preset for a start from nothing. What was said is never
    overridden.

    `time` ("5m", seconds) fits the epochs into a time, that of a machine which does nothing else (a busy one takes
    longer, which is said; `stop` is what ends a training by the clock), and the network's size where that is open or
    the preset is natural or accurate. Seed 0, `val_frac` 0.1, device "auto", torch's number of threads
    and memory format "channels_last" are the defaults. Test stays sealed unless `test`. `folds` measures every image by
    a network that did not learn from it, and then trains on all of them. `parent` is a model to start from, of which
    the recipe's `freeze` leaves all before an address as it is. The run folder is `out`, or the next `runs/DATA-N`.
    `seeds` trains so many times, from `seed` on (`out` is then a folder of runs); the last run is returned, and its
    `series` has all of them.

    `resume` goes on with a run to the same bits; whatever else is said must be what the run has. `checkpoint_every`
    is in seconds (0: after every step). `keep_filters` keeps the first convolution's filters at some sixty steps, for
    `look --film`. `omit_record` writes no record of the pictures into the model file, for privacy: it then gets no
    plain score on other data. `stop` is asked after each step (not of trials before the training): when it says
    True, the run is saved and
    returned. KeyboardInterrupt does the same, from the last consistent weights.

    Raises ConvlensError: DataError, SentenceError, RecipeError, UsageError, DeviceError, RunError, StorageError,
    TrainingError (too little memory), DivergedError.
    """
    if more:
        raise UsageError(
            "train takes one thing to learn from: pictures and labels go together, as train((x, y)), with a test set "
            "of your own train(((x, y), (x_test, y_test)))"
        )
    said = dict(locals())
    said["recipe"] = _with_fields(recipe, recipe_fields, list(said))
    every = checked("checkpoint_every", checkpoint_every, real(0, 1e9))
    request = TrainRequest(**{field.name: said[field.name] for field in fields(TrainRequest)})
    with joined() as processes:
        if processes.follows:
            told = follow(processes, lambda order: _data_again(request, order))
            if "run" not in told:
                raise ProcessError("rank 0 ended without a run", is_told=True)
            return Run(Path(told["run"]))
        with open_progress(progress) as bar:
            watch = Watch(bar, every, stop)
            if resume is None:
                run = _train_new(request, out, watch)
            else:
                if out is not None:
                    raise UsageError("a resumed run keeps its folder: leave `out` away")
                run = find_run(resume)
                run = _finished(plan_of(run, request, bar), run, watch, ended=watch.is_stopped())
        processes.result = {"run": str(run.path.resolve())}
        return run


def _data_again(request: TrainRequest, order: FitOrder) -> Dataset:
    """The leader's data in a process that follows it, on whichever machine. Raises DataError where it is another."""
    identity = order.dataset
    try:
        dataset = reopen(identity, data_root=request.data_root)
    except DataError:
        if request.data is None:
            raise
        options = None if is_packed(request.data) else identity.options
        dataset = open_data(
            request.data, options, data_root=request.data_root, val_frac=identity.val_frac, progress="none"
        )
        dataset = dataset.merged() if identity.is_merged else dataset
    if not identity.is_of(dataset.card):
        raise DataError(
            f"the data is not that of rank 0 (fingerprint {dataset.fingerprint[:12]}, there "
            f"{identity.fingerprint[:12]}): the same pictures must lie on all machines"
        )
    if dataset.is_merged:
        recipe = Recipe.from_json(order.recipe)
        what = Tried(order.architecture, recipe, order.seed, order.origin, dataset.fingerprint)
        dataset, _ = open_test(dataset, what, again=True)
    return dataset


_VALIDATION = "validation_data x_val y_val eval_set"
_INSTEAD = {  # of what other libraries' users look for
    "labels may be the names themselves, as in y = np.array(names)[y]": "class_names classes target_names names",
    "write a layer dropout(0.5) into `architecture`": "dropout dropout_rate",
    "the training images are shuffled in every epoch": "shuffle",
    "`val_frac` of the training images are held out; your own: {'train': (x, y), 'val': (x_val, y_val)}": _VALIDATION,
    "`patience` is the number of epochs without a better one": "early_stopping early_stop",
    "`stop` is asked after every step, and run.history has the epochs": "callback callbacks",
    "`progress` is auto, bar, lines or none": "verbose",
    "pictures and labels go together: train((x, y)), or ((x, y), (x_test, y_test))": "x y X x_train y_train",
}


def _with_fields(recipe: Any, named: Mapping[str, Any], parameters: list[str]) -> Any:
    """The recipe with the fields that were given by name. Raises UsageError for names that there are not, or twice."""
    known = Recipe().to_json()
    for name in named:
        if name not in known:
            near = did_you_mean(name, [*parameters, *known])
            instead = next((f": {words}" for words, names in _INSTEAD.items() if name in names.split()), near)
            raise UsageError(f"train has no parameter {shown(name)!r}, and a recipe no such field{instead}")
    if not named:
        return recipe
    if recipe is None or isinstance(recipe, Mapping):
        if twice := sorted(set(named) & set(recipe or {})):
            raise UsageError(f"{twice[0]} is given by name and in `recipe`: leave one away")
        return {**(recipe or {}), **named}
    return recipe.replace(**named) if isinstance(recipe, Recipe) else recipe


def _train_new(request: TrainRequest, out: str | Path | None, watch: Watch) -> Run:
    """Each seed's run, one after the other; the last one."""
    places, group = _places(out, request.seeds), current()
    begun = [_begun_before(group, number) for number in range(len(places))]
    for place, run in zip(places, begun, strict=True):
        if run is None:
            _check_place(place, opens_test=request.test)
    started = monotonic()
    again = TrainRequest(data=request.data, data_root=request.data_root)
    first, previews = resolve(request, watch.bar) if begun[0] is None else (plan_of(begun[0], again, watch.bar), ())
    if "lr" in request.pinned and "muon_lr" not in request.pinned and first.recipe.optimizer == "muon":
        watch.bar.line(
            f"note: convolution kernels keep a learning rate of their own, {first.recipe.muon_lr:g}, which `muon_lr` "
            f"of the recipe sets: the lr of {first.recipe.lr:g} is that of all else"
        )
    typed = () if isinstance(request.recipe, Recipe) else request.pinned
    idle = [name for name in typed if name in first.recipe.idle_fields]
    idle += ["augment"] if request.kinds and not first.recipe.kinds else []
    if idle:
        why = (
            "beside the other fields"
            if first.recipe.epochs
            else "the head alone is fitted, to the pictures as they are"
        )
        watch.bar.line(f"note: without effect here: {', '.join(f'`{name}`' for name in idle)} ({why})")
    if first.folds is not None and first.dataset.card.options.relabelled:
        watch.bar.line(
            "note: folds are dealt class by class, so that changed labels deal them anew: the score of a run before is "
            "of other networks and labels; `labels` of compare and of evaluate (`split=folds`) measures it by these"
        )
    runs: list[Run] = []
    for number, place in enumerate(places):
        if (run := begun[number]) is not None:
            watch.bar.line(f"restarted: going on with {run.path}")
            ended = watch.is_stopped()
            runs.append(_finished(plan_of(run, again, watch.bar), run, watch, ended=ended))
            continue
        training_plan = replace(first, seed=first.seed + number)
        measured: dict[str, Any] = {}
        logits_NK = None
        if training_plan.folds is not None:
            _announce_folds(training_plan, watch.bar)
            training_plan, measured, logits_NK = _cross_validated(training_plan, watch.bar)
        # From here on there is a run to end well: whoever handles signals hears it by being asked.
        ended = watch.is_stopped()
        runs.append(_new_folder(training_plan, place, measured))
        group.keep(f"run/{number}", str(runs[-1].path))
        if logits_NK is not None:
            keep_held_out(runs[-1], logits_NK)
        if previews and number == 0:
            _draw_previews(previews, runs[0].path / INPUTS_FILE, watch.bar)
        runs[-1] = _finished(training_plan, runs[-1], watch, ended=ended)
        if runs[-1].status != "complete":
            if left := places[number + 1 :]:
                watch.bar.line(
                    f"{counted(len(left), 'seed')} of {len(places)} not begun: train them with "
                    f"`seed={training_plan.seed + 1}` `seeds={len(left)}`, once this run is finished"
                )
            break
    if request.seeds is not None:
        for run in runs:
            update_record(run.path, series=tuple(one.path.name for one in runs))
    taken_s = monotonic() - started
    if request.budget_s is not None and taken_s > _LATE * request.budget_s:
        watch.bar.line(
            f"note: {request.budget_s:.0f} s were asked for and {taken_s:.0f} s taken: the machine is busy, or slower "
            "than it was; what was chosen is what a machine that does nothing else trains in that time"
        )
    return Run(runs[-1].path, runs[-1].contents)


def _begun_before(group: Processes, number: int) -> Run | None:
    """The run that these processes began, before they were started again because one of them was lost."""
    path = group.kept(f"run/{number}") if group.restarts else None
    return None if path is None else find_run(path)


def _finished(training_plan: TrainingPlan, run: Run, watch: Watch, *, ended: bool) -> Run:
    """Train to the end, and open test where that was asked for."""
    _introduce(training_plan, run, watch.bar)
    busy = f"{shown(run.path, 200)} is being trained by another process"
    with files.lock(run.path / LOCK_FILE, busy=busy):
        if run.status == "complete" and run.model.is_file():
            watch.bar.line(f"{run.path} is complete: nothing to resume")
        else:
            run = train_run(training_plan, run, watch, ended=ended)
        if run.record.status == "running":  # to its end: nobody takes the model for whole before it is calibrated
            _calibrated(training_plan, run, watch.bar)
            update_record(run.path, status="complete")
            run = Run(run.path)
        if run.status == "complete" and not files.is_file(run.path / REPORT_FILE):  # the last thing that is written
            _reported(training_plan, run, watch.bar)
        if run.status == "complete" and run.record.learning_curve is None and training_plan.recipe.head != "kept":
            _measure_curve(training_plan, run, watch.bar)
        run = Run(run.path, Contents.of(training_plan.dataset))
        if not training_plan.test or run.status != "complete" or run.test is not None:
            return run
        watch.bar.line("evaluating on the test images")
        report = evaluate(run, split="test", device=training_plan.compute.device, progress="none")
        watch.bar.line(str(report.openings))
        update_record(run.path, test=report.score)
        return Run(run.path, run.contents)


def _calibrated(training_plan: TrainingPlan, run: Run, bar: Progress) -> None:
    """Let the model learn from held-out images how sure it may be, and what is unfamiliar."""
    device = training_plan.compute.device
    try:
        if run.record.held_out_sha256 is not None:
            calibrate_by_folds(run, training_plan.dataset, device, bar)
        else:
            calibrate(run.model, training_plan.dataset, device, bar)
    except DataError as error:  # of a parent that knew all held-out images, say
        bar.line(f"not calibrated: {error}")


def _reported(training_plan: TrainingPlan, run: Run, bar: Progress) -> None:
    """Write the report of what is known of the model without opening test for it."""
    device = training_plan.compute.device
    try:
        if run.record.held_out_sha256 is not None:
            evaluate(run, split=FOLDS, device=device, progress="none")
        elif run.val is not None and not training_plan.test:
            evaluate(run, split="val", device=device, progress="none")
    except DataError as error:  # of a parent that knew all held-out images, say
        bar.line(f"no report: {error}")


def _measure_curve(training_plan: TrainingPlan, run: Run, bar: Progress) -> None:
    """Add the learning curve to the run, and its picture."""
    curve = measure_learning_curve(training_plan, bar)
    bar.stop()
    if curve is None:
        return
    update_record(run.path, learning_curve=curve)
    try:
        from convlens.render.curves import draw_learning_curve
    except ImportError as error:
        bar.line(f"note: no picture of the learning curve ({error.name} is missing)")
        return
    names, points = training_plan.dataset.class_names, curve.points
    draw_learning_curve(
        run.path / CURVE_FILE,
        training_plan.dataset.name,
        [(point.num_images, point.accuracy, point.interval) for point in points],
        {name: [point.classes[k] for point in points] for k, name in enumerate(names)},
        curve.forecast,
        curve.num_held_out,
    )


def _announce_folds(training_plan: TrainingPlan, bar: Progress) -> None:
    folds = training_plan.folds or 0
    seconds = folds * (training_plan.expected_s or 0.0)  # each of them learns from a part of the images
    about = f", in all about {seconds:.0f} s if this machine does nothing else" if seconds >= 1 else ""
    bar.line(f"{folds + 1} trainings: one without each of {folds} folds, then one on all images{about}")


def _cross_validated(
    training_plan: TrainingPlan, bar: Progress
) -> tuple[TrainingPlan, dict[str, Any], NDArray[np.float32]]:
    """The plan with its data open, test among it, what cross-validation adds to the run's record, and its logits."""
    architecture, dataset = str(training_plan.network.architecture), training_plan.dataset
    origin = None if training_plan.parent is None else training_plan.parent.card.origin
    what = Tried(architecture, training_plan.recipe, training_plan.seed, origin, dataset.fingerprint)
    dataset, _ = open_test(dataset, what)
    training_plan = replace(training_plan, dataset=dataset)
    score, logits_NK = cross_validate(training_plan, bar)
    if num_known := int(np.isnan(logits_NK[:, 0]).sum()):
        bar.line(
            f"note: {num_known:,} images that the parent was made with, or that share a group with one, were learned "
            "from in every fold and are not counted"
        )
    return training_plan, {"cross_validation": score, "num_not_held_out": num_known}, logits_NK


# ---------------------------------------------------------------- from request to plan


def resolve(request: TrainRequest, bar: Progress) -> tuple[TrainingPlan, tuple[Dataset, ...]]:
    """The plan that a request comes to, everything automatic chosen, and the data sets to show previews of.

    Opens (and if need be packs) the data. Raises ConvlensError for whatever cannot be.
    """
    pinned = request.said
    request = request.with_defaults()
    parent = None if request.start is None else read_parent(request.start, bar)
    draft, group = request.draft(parent), current()
    threads = draft.compute.threads
    if group.size > 1:  # what is chosen by trials is chosen by one process, in whose time the others wait
        most = max(threads, min(threads * group.size, os.cpu_count() or 1))
        draft = replace(draft, compute=replace(draft.compute, threads=most))
    assert request.seed is not None, "a default fills it in"
    reasons: tuple[str, ...] = ()
    previews: tuple[Dataset, ...] = ()
    expected_s: float | None = None
    must_choose = request.time is not None or request.augment is not None or request.leaves_open(parent)
    choose = None if request.is_named_set and not must_choose else _chooser(must_choose)
    if choose is not None:
        choices = choose(request, draft, bar)
        draft, dataset, reasons, previews = choices.draft, choices.dataset, choices.reasons, choices.previews
        expected_s = choices.expected_s
    else:
        dataset = open_data(
            request.data, draft.options, data_root=request.data_root, val_frac=request.val_share, progress=bar
        )
    parent = draft.parent
    dataset = dataset if request.folds is None else dataset.merged()
    _check_data(dataset, parent, draft.recipe, bar, opens_test=request.test)
    try:
        network = plan(parse(draft.architecture), dataset.input_spec.shape, len(dataset.class_names))
    except SentenceError:
        if request.architecture is None and parent is None and draft.preset is not None:
            line = what_it_takes(draft.preset, dataset.input_spec.shape, len(dataset.class_names))
            raise SentenceError(line) from None
        raise
    _check_start(network, draft.recipe, parent)
    _check_images(network, draft.recipe)
    check_memory(network, draft.recipe, draft.compute)
    if network.num_parameters == 0:
        raise SentenceError("the network has nothing to learn: no layer of it has parameters")
    has_batchnorm = any(leaf.layer.name == "batchnorm" for leaf in network.leaves)
    if draft.recipe.batch_size == 1 and has_batchnorm:
        raise TrainingError("batchnorm cannot learn from batches of one image: use a batch size of at least 2")
    if draft.recipe.epochs:
        check_cut(draft.recipe, group.size, has_batchnorm=has_batchnorm)
    if request.keep_filters and not any(leaf.layer.name == "conv" for leaf in network.leaves):
        raise UsageError("`keep_filters` keeps those of the first convolution, and this network has none")
    training_plan = TrainingPlan(
        dataset=dataset,
        network=network,
        recipe=draft.recipe.replace(precision=draft.compute.precision),
        seed=request.seed,
        compute=replace(draft.compute, threads=threads, processes=group.size),
        preset=_preset_name(draft),
        parent=parent,
        test=request.test,
        folds=request.folds,
        keep_filters=request.keep_filters,
        omit_record=request.omit_record,
        reasons=reasons,
        pinned=pinned,
        expected_s=expected_s,
    )
    return training_plan, previews


def _chooser(needed: bool) -> Callable[..., Any] | None:
    """`choosing.choose`, which is a room that may be missing. Raises UsageError where it is needed."""
    try:
        from convlens.choosing.choose import choose
    except ImportError as error:
        if needed:
            raise UsageError(
                f"what is not said cannot be chosen here ({error.name} is missing): say `preset`"
            ) from error
        return None
    return choose


def _preset_name(draft: Draft) -> str | None:
    """The preset's name, where neither its sentence nor its recipe was changed."""
    preset = draft.preset
    if preset is None or draft.recipe != preset.recipe or parse(draft.architecture) != parse(preset.architecture):
        return None
    return preset.name


def _check_start(network: Plan, recipe: Recipe, parent: Parent | None) -> None:
    """Raises SentenceError, RecipeError where layers cannot be frozen, or a head be fitted, as the recipe says."""
    wish = f"freeze={recipe.freeze}" if recipe.freeze else f"head={recipe.head}"
    if not recipe.freeze and recipe.head == "kept":
        return
    if parent is None:
        raise RecipeError(f"{wish} needs a network that has learned something: say which with `parent`")
    if recipe.freeze:
        first = network.index_of(recipe.freeze)
        if not any(node.num_parameters for node in network.nodes[first:]):
            raise RecipeError(f"{wish} leaves nothing to train: no layer from there on has parameters")
    last = network.nodes[-1].layer
    if recipe.head != "kept" and not (isinstance(last, Linear) and last.bias):
        raise RecipeError(f"head={recipe.head} fits a last layer linear(classes); the network ends in {last}")


def _check_images(network: Plan, recipe: Recipe) -> None:
    """Raises RecipeError where images cannot begin smaller, or be classified in several views, as the recipe says."""
    if recipe.views == "mirror" and not recipe.flip:
        raise RecipeError(
            "views=mirror classifies by mirrored pictures, which flip=false never learns from: change one"
        )
    if recipe.grow_from == 1:
        return
    wish = f"grow_from={recipe.grow_from:g}"
    if recipe.freeze:
        raise RecipeError(f"{wish} needs images to make smaller: with frozen layers their outputs are learned from")
    channels, height, width = network.input_shape
    sides = recipe.sides_at(0, 1_000, height, width)
    try:
        smaller = plan(network.architecture, (channels, *sides), network.num_classes)
    except SentenceError as error:
        raise RecipeError(
            f"{wish} begins with images of {by(sides)} pixels, which the network cannot take: {error}"
        ) from None
    if smaller.num_parameters != network.num_parameters:
        raise RecipeError(
            f"{wish} needs a network whose layers are the same for every size: pool each map to one value "
            "(globalavgpool or globalmaxpool) before flatten"
        )


def _check_data(dataset: Dataset, parent: Parent | None, recipe: Recipe, bar: Progress, *, opens_test: bool) -> None:
    """Raises DataError, UsageError where a training on this data could not be measured or could not learn."""
    counts = dataset.class_counts("train")
    empty = [name for name, count in zip(dataset.class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{dataset.name} has no training image of class {listed(empty)} once validation is set aside: give more "
            "pictures, another `group`, or a smaller `val_frac`"
        )
    options = dataset.card.options
    named = [*options.exclude, *(part for one in options.relabelled for part in (one.path, one.was, one.now))]
    if sum(map(len, named)) > MAX_EXCLUDED_CHARACTERS:
        raise UsageError("the list of exclusions (or labels) is too long to be kept in a model file: change the data")
    if parent is not None:
        for note in (class_changes(parent, dataset.class_names), check_lineage(parent, dataset)):
            if note is not None:
                bar.line(f"note: {note}")
    if opens_test and dataset.counts["test"] == 0:
        raise DataError(f"{dataset.name} has no test images: leave `test` away")
    if recipe.patience and dataset.counts["val"] == 0:
        raise UsageError(
            "patience looks at validation images, and there are none: set some aside (`val_frac`), or leave it away"
        )


def plan_of(run: Run, request: TrainRequest, bar: Progress) -> TrainingPlan:
    """The plan that a run was begun with. Raises RunError where something else is asked for now."""
    record, where = run.record, shown(run.path, 200)
    request.refuse(("seeds", "time", "augment"), "a resumed run keeps its plan")
    try:
        recipe = Recipe.from_json(record.recipe)
        _refuse_changes(run, request, record, recipe)
        identity, stored = record.dataset, record.compute
        if stored.compile:
            raise RunError(f"{where} was begun compiled, which this convlens does not do: begin a new run")
        if request.data is None:
            dataset = reopen(identity, data_root=request.data_root, progress=bar)
        else:
            options = None if is_packed(request.data) else identity.options
            dataset = open_data(
                request.data, options, data_root=request.data_root, val_frac=identity.val_frac, progress=bar
            )
            dataset = dataset.merged() if identity.is_merged else dataset
        if not identity.is_of(dataset.card):
            raise RunError(
                f"{where} was begun with other data, or other groups (fingerprint {identity.fingerprint[:12]}, now "
                f"{dataset.fingerprint[:12]})"
            )
        seed, architecture = record.seed, parse(record.architecture)
        parent = parent_again(record.parent)
        if dataset.is_merged:
            origin = None if parent is None else parent.card.origin
            what = Tried(str(architecture), recipe, seed, origin, dataset.fingerprint)
            dataset, _ = open_test(dataset, what, again=True)
        return TrainingPlan(
            dataset=dataset,
            network=plan(architecture, dataset.input_spec.shape, len(dataset.class_names)),
            recipe=recipe,
            seed=seed,
            compute=replace(
                resolve_compute(stored.device, stored.precision, stored.threads, stored.memory_format),
                processes=current().size,
            ),
            preset=record.preset,
            parent=parent,
            test=request.test or record.test_asked,
            folds=record.folds,
            keep_filters=record.keep_filters,
            omit_record=record.omit_record,
            reasons=record.choices,
            pinned=record.pinned,
        )
    except (RecipeError, SentenceError, UsageError) as error:
        raise RunError(f"{shown(run.path / RUN_FILE, 200)} is damaged ({shown(error)})") from error


def _refuse_changes(run: Run, request: TrainRequest, record: RunRecord, recipe: Recipe) -> None:
    """Raises RunError for the first thing that was said and is not what the run has."""
    then = dict(recipe.to_json()) | {name: getattr(record, name) for name in ("preset", "architecture", "seed")}
    then |= {name: getattr(record.compute, name) for name in ("threads", "memory_format", "device")}
    then |= {"val_frac": record.dataset.val_frac, "folds": record.folds}
    then |= {"keep_filters": record.keep_filters, "parent": None if record.parent is None else record.parent.path}
    then |= {"omit_record": record.omit_record}
    now = {name: getattr(request, name) for name in ("preset", "seed", "threads", "memory_format", "val_frac", "folds")}
    now |= request.pinned
    if request.preset is not None and record.preset is not None:
        now = request.draft(None).recipe.to_json() | now
    if recipe.shards == 1 and record.compute.processes != current().size:
        num, here = record.compute.processes, current().size
        how = "without `processes`" if num == 1 else f"with `processes={num}`, or as many under torchrun"
        raise RunError(
            f"{shown(run.path, 200)} was begun with {num} process{'es' * (num > 1)}, not {here}, which come "
            f"to other bits: resume it {how} (only `shards` make their number free)"
        )
    if now.get("precision") == "auto":
        del now["precision"]
    now["architecture"] = None if request.architecture is None else str(parse(str(request.architecture)))
    now["device"] = None if request.device in (None, "auto") else resolve_device(str(request.device))
    now |= {name: getattr(request, name) or None for name in ("keep_filters", "omit_record")}
    now["parent"] = None if request.start is None else str(model_path(request.start).resolve())
    options = request.options  # in a run's record what a labels file drops is left out
    changed = tuple(one for one in options.relabelled if one.now)
    left_out = tuple(sorted({*options.exclude, *options.drops}))
    asked = options.replace(exclude=left_out, relabelled=changed).to_json()
    then |= record.dataset.options.to_json()
    now |= {name: value or None for name, value in asked.items()}
    for name, value in now.items():
        if value is not None and value != then[name]:
            raise RunError(
                f"{shown(run.path, 200)} was begun with {name} {shown(then[name])}, not {shown(value)}: a resumed run "
                "keeps its values; leave it away, or begin a new run"
            )


# ---------------------------------------------------------------- the run folder


def _places(out: str | Path | None, seeds: int | None) -> list[Path | None]:
    """Where each run goes: with several seeds `out` is a folder of them."""
    if seeds is None or out is None:
        return [None if out is None else Path(out)] * (1 if seeds is None else seeds)
    return [Path(out) / str(number + 1) for number in range(seeds)]


def _check_place(out: Path | None, *, opens_test: bool) -> None:
    """Find out before anything long begins that results can be written."""
    if out is not None:
        files.refuse_existing(out)
    files.check_room(RUNS_FOLDER if out is None else out, num_bytes=1_000_000)
    if opens_test:
        files.check_room(ledger_path().parent, num_bytes=10_000)


def _new_folder(training_plan: TrainingPlan, out: Path | None, measured: Mapping[str, Any]) -> Run:
    # Two checkpoints and one being written, each of weights, two moments and an average; and the model.
    num_bytes = 4 * training_plan.network.num_parameters * (3 * 4 + 2) + 1_000_000
    files.check_room(RUNS_FOLDER if out is None else out, num_bytes=num_bytes)
    return new_run(training_plan.dataset.name, out, training_plan.record().replace(**measured))


def _draw_previews(previews: tuple[Dataset, ...], path: Path, bar: Progress) -> None:
    from convlens.choosing.previews import draw_previews

    try:
        draw_previews(previews, path)
    except ImportError as error:  # figures are a room that may be missing
        bar.line(f"note: no pictures of the inputs: {error.name} is missing")
        return
    bar.line(f"twelve pictures as the network sees them: {path}. Can you tell them apart?")


def _introduce(training_plan: TrainingPlan, run: Run, bar: Progress) -> None:
    network, compute = training_plan.network, training_plan.compute
    for line in (
        *Contents.of(training_plan.dataset).short(training_plan.dataset),
        *(f"note: {note}" for note in compute.notes),
        short_sentence(str(network.architecture)),
        f"{network.num_parameters:,} parameters, {network.multiply_adds:,} multiply-adds an image",
        str(training_plan.recipe),
        f"seed {training_plan.seed}, steps: {training_plan.num_steps:,}, on {compute}, in {run.path}",
    ):
        bar.line(line)
