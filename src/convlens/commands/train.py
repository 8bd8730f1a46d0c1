"""train: a network trained, a run folder left behind."""

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.launching import LaunchAsked
from convlens.commands.options import (
    CHOICES,
    DATA,
    EVALUATION,
    MACHINE,
    OUTPUT,
    TRAINING,
    Channels,
    DataRoot,
    Device,
    Exclude,
    Framing,
    Group,
    Json,
    Label,
    LabelColumn,
    Labels,
    Layout,
    PathColumn,
    Region,
    Size,
    complete_data,
    complete_preset,
    flag,
)
from convlens.errors import DataError, RecordError, UsageError
from convlens.launched import is_follower, num_processes
from convlens.render import tables
from convlens.signals import stopping_signals
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.run import Run

_DATA: dict[str, Any] = {
    "metavar": "DATA",
    "help": "A set's name (mnist, fashion-mnist, kmnist, cifar10, cifar100), an address, a folder of class folders or "
    "of IDX files, a .zip of either, an .npz, a .csv, Parquet, tar shards, or a packed set.",
    "show_default": "mnist",
    "autocompletion": complete_data,
}
_VAL_FRAC = "Share of the training images set aside for validation; 0 trains on everything that is not test."
_PRESET, _BY_DATA = (
    "standard, fast, accurate, natural, photo, tutorial-fast or tutorial.",
    "standard for mnist and its like, else by the data",
)
_AUGMENT = "none, auto (what is known to help such pictures), or flip,turn,shift,affine,stroke,crop,cutout,colour."
_FROM = "Start from a model's weights (efficientnet-lite0, a run, a file); none: from nothing."
_FREEZE = "Leave all before this layer as the model has it, and compute it once: an address, or head."
_PATIENCE = "Stop after so many epochs without a lower validation loss; keep the best weights."
_LR = "The highest learning rate (under muon of all but convolution kernels: --set muon_lr=0.1 sets theirs)."
_FOLDS = "Measure every image by one of K networks that did not learn from it, then train on all of them."
_OMIT_RECORD = "Keep no record of the training pictures in the model: private, but no plain score on other data."
_PROCESSES = "Share the training among N processes of this machine (torchrun starts them on several)."
_MAX_RESTARTS = "Times that all of them are started again, and go on, where one is lost."
_SHARDS = "Cut each batch into so many parts, a power of two: any number of --processes comes to the same bits."
_KEEP_FILTERS = "Keep the first filters as they change, for look --film."


def train(
    data: Annotated[str | None, typer.Argument(**_DATA)] = None,
    size: Size = None,
    channels: Channels = None,
    val_frac: Annotated[float | None, flag(_VAL_FRAC, DATA, show_default="0.1")] = None,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    exclude: Exclude = None,
    labels: Labels = None,
    framing: Framing = None,
    region: Region = None,
    data_root: DataRoot = None,
    preset: Annotated[str | None, flag(_PRESET, CHOICES, show_default=_BY_DATA, autocompletion=complete_preset)] = None,
    architecture: Annotated[str | None, flag("A sentence, in the preset's place.", CHOICES)] = None,
    time: Annotated[str | None, flag("Fit epochs (and an open network) into a time: 90s, 5m, 1.5h.", CHOICES)] = None,
    augment: Annotated[
        str | None, flag(_AUGMENT, CHOICES, show_default="auto where the data chooses the recipe")
    ] = None,
    parent: Annotated[str | None, flag(_FROM, CHOICES, "--from", metavar="MODEL")] = None,
    epochs: Annotated[float | None, flag("Passes over the training images; may be a fraction.", TRAINING)] = None,
    batch_size: Annotated[int | None, flag("Images a step.", TRAINING)] = None,
    shards: Annotated[int | None, flag(_SHARDS, TRAINING)] = None,
    lr: Annotated[float | None, flag(_LR, TRAINING)] = None,
    seed: Annotated[int | None, flag("What everything random is drawn from.", TRAINING, show_default="0")] = None,
    optimizer: Annotated[str | None, flag("adam, adamw, sgd or muon.", TRAINING)] = None,
    balance: Annotated[
        str | None, flag("Classes of different size: none, weights (in the loss) or sampling.", TRAINING)
    ] = None,
    patience: Annotated[int | None, flag(_PATIENCE, TRAINING)] = None,
    freeze: Annotated[str | None, flag(_FREEZE, TRAINING, metavar="ADDRESS")] = None,
    set_: Annotated[
        list[str] | None, flag("Any value of the recipe; repeatable.", TRAINING, "--set", metavar="FIELD=VALUE")
    ] = None,
    test: Annotated[bool, flag("Evaluate on the test images at the end.", EVALUATION, "--test")] = False,
    seeds: Annotated[
        int | None, flag("Train N times, from --seed on, and give mean ± sd.", EVALUATION, metavar="N")
    ] = None,
    folds: Annotated[int | None, flag(_FOLDS, EVALUATION, metavar="K")] = None,
    device: Device = None,
    precision: Annotated[str | None, flag("auto, float32 or bfloat16.", MACHINE)] = None,
    threads: Annotated[int | None, flag("CPU threads.", MACHINE, show_default="torch's choice")] = None,
    memory_format: Annotated[
        str | None, flag("channels_last or contiguous.", MACHINE, show_default="channels_last")
    ] = None,
    processes: Annotated[int | None, flag(_PROCESSES, MACHINE, metavar="N")] = None,
    max_restarts: Annotated[int | None, flag(_MAX_RESTARTS, MACHINE, metavar="N", show_default="0")] = None,
    out: Annotated[str | None, flag("The run folder itself.", OUTPUT, show_default="runs/DATA-N")] = None,
    resume: Annotated[str | None, flag("Go on with this run (or last), to the same bits.", OUTPUT)] = None,
    checkpoint_every: Annotated[float, flag("Seconds between checkpoints; 0: every step.", OUTPUT)] = 30.0,
    keep_filters: Annotated[bool, flag(_KEEP_FILTERS, OUTPUT, "--keep-filters")] = False,
    omit_record: Annotated[bool, flag(_OMIT_RECORD, OUTPUT, "--omit-record")] = False,
    json: Json = False,
) -> None:
    """Train a network and leave a run folder with a model file."""
    given = locals()
    if processes is not None and num_processes() > 1:
        raise UsageError("torchrun has started several processes already: leave `processes` away")
    if processes is not None:
        raise LaunchAsked(processes, max_restarts or 0)
    if max_restarts is not None:
        raise UsageError("--max-restarts needs --processes (torchrun has an option of that name)")
    recipe = _recipe({name: given[name] for name in terminal.RECIPE_FLAGS}, set_ or [])
    with stopping_signals() as stopping, terminal.progress() as bar:
        terminal.loading()
        import convlens

        names = (name for name in inspect.signature(convlens.train).parameters if name in given and name != "recipe")
        run = convlens.train(**{name: given[name] for name in names}, recipe=recipe, progress=bar, stop=stopping.asked)
    if is_follower():
        return
    together = run.series if seeds is not None else None
    if json:
        contents = {} if run.contents is None else {"contents": run.contents.to_json()}
        tables.print_json((together or run).to_json() | contents)
    elif stopping.signal is None:
        tables.print_rows((together or run).summary())
        path, program = terminal.as_argument(run.path), terminal.program()
        all_seeds = path if together is None or together.folder is None else terminal.as_argument(together.folder)
        if together is None and run.has_hardly_learned:
            tables.print_text(f"\nNext: {program} train {terminal.as_argument(run.record.dataset.source)} --time 5m")
        elif run.warning is not None and together is None:
            tables.print_text(f"\nNext: {program} check DATA   (do labels and pictures belong together?)")
        elif run.test is None and run.cross_validation is None:
            tables.print_text(f"\nNext: {program} evaluate {all_seeds}   (on the test images{_openings(run)})")
        elif run.cross_validation is not None:
            tables.print_text(f"\nNext: {program} evaluate {path} --split folds   (class by class)")
        else:
            tables.print_text(f"\nNext: {program} predict {path} MY-PICTURE.png")
            tables.print_text(f"  or: {program} serve {path} --open   (look inside, on your own drawing)")
    if stopping.signal is not None:
        raise typer.Exit(128 + stopping.signal)


def _openings(run: "Run") -> str:
    """Whether the test images were looked at before, by whichever plan."""
    from convlens.data.packed.pack import reopen
    from convlens.evaluation.test_ledger import openings_of

    try:
        openings = openings_of(reopen(run.record.dataset))
    except (RecordError, DataError):
        return ""  # evaluate will say what is wrong with the ledger, or the data
    return ", which no model was measured on so far" if openings.count == 0 else f"; {openings.text}"


def _recipe(flags: dict[str, Any], settings: list[str]) -> dict[str, Any] | None:
    """The recipe's values that the flags and `--set field=value` give; None where there are none."""
    values = {name: value for name, value in flags.items() if value is not None}
    if settings:
        from convlens.recipe import Recipe

        for text in settings:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--set takes field=value, not {shown(text)!r}")
            values[name.strip()] = Recipe().parsed(name.strip(), value.strip())
    return values or None
