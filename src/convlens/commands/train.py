"""train: a network trained, a run folder left behind."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convlens.commands import terminal
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
    Region,
    Size,
    complete_data,
    complete_preset,
)
from convlens.errors import UsageError
from convlens.render import tables
from convlens.signals import stopping_signals
from convlens.text import shown


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A set's name (mnist, fashion-mnist), a folder of class folders or of IDX files, a .zip of either, "
            "an .npz, a .csv, or a packed set.",
            show_default="mnist",
            autocompletion=complete_data,
        ),
    ] = None,
    size: Size = None,
    channels: Channels = None,
    val_frac: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images set aside for validation; 0 trains on everything that is not test.",
            show_default="0.1",
            rich_help_panel=DATA,
        ),
    ] = None,
    group: Group = None,
    exclude: Exclude = None,
    framing: Framing = None,
    region: Region = None,
    data_root: DataRoot = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="standard, fast, natural, tutorial-fast or tutorial.",
            show_default="standard for the named sets, else by the data",
            autocompletion=complete_preset,
            rich_help_panel=CHOICES,
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="A sentence, in the preset's place.", rich_help_panel=CHOICES)
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Fit the epochs into a time: 90s, 5m, 1.5h.", rich_help_panel=CHOICES)
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, auto (what a probe shows to help), or kinds: flip,shift,affine,crop,cutout,colour.",
            show_default="auto where the recipe is chosen by the data",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Start from a model's weights; new classes, new head.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="Passes over the training images; may be a fraction.", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=TRAINING)] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.", rich_help_panel=TRAINING)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Which sample of the plan.", show_default="0", rich_help_panel=TRAINING)
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd or muon.", rich_help_panel=TRAINING)] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            help="Classes of different size: none, weights (in the loss) or sampling.", rich_help_panel=TRAINING
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a lower validation loss; keep the best weights.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Any value of the recipe; repeatable.", rich_help_panel=TRAINING
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Evaluate on the test images at the end.", rich_help_panel=EVALUATION)
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train N times, from --seed on, and give mean ± sd.", rich_help_panel=EVALUATION
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Measure every image by one of K networks that did not learn from it, then train on all of them.",
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=MACHINE)] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="torch's choice", rich_help_panel=MACHINE)
    ] = None,
    memory_format: Annotated[
        str | None,
        typer.Option(help="channels_last or contiguous.", show_default="channels_last", rich_help_panel=MACHINE),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The run folder itself.", show_default="runs/DATA-N", rich_help_panel=OUTPUT)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run (or last), to the same bits.", rich_help_panel=OUTPUT)
    ] = None,
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds between checkpoints; 0: every step.", rich_help_panel=OUTPUT)
    ] = 30.0,
    keep_filters: Annotated[
        bool,
        typer.Option(
            "--keep-filters", help="Keep the first filters as they change, for look --film.", rich_help_panel=OUTPUT
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a network and leave a run folder with a model file."""
    given = locals()
    recipe = _recipe({name: given[name] for name in terminal.RECIPE_FLAGS}, set_ or [])
    with stopping_signals() as stopping, terminal.progress() as bar:
        import convlens

        run = convlens.train(
            data,
            preset=preset,
            architecture=architecture,
            recipe=recipe,
            seed=seed,
            seeds=seeds,
            out=out,
            val_frac=val_frac,
            test=test,
            folds=folds,
            parent=parent,
            resume=resume,
            augment=augment,
            time=time,
            device=device,
            threads=threads,
            memory_format=memory_format,
            checkpoint_every=checkpoint_every,
            keep_filters=keep_filters,
            size=size,
            channels=channels,
            framing=framing,
            group=group,
            region=region,
            exclude=exclude,
            data_root=data_root,
            progress=bar,
            stop=stopping.asked,
        )
    together = run.series if seeds is not None else None
    if json:
        tables.print_json((together or run).to_json())
    elif stopping.signal is None:
        tables.print_rows((together or run).summary())
        path, program = terminal.as_argument(run.path), terminal.program()
        if run.test is None and run.cross_validation is None:
            tables.print_text(f"\nNext: {program} evaluate {path}   (on the test images, sealed so far)")
        else:
            tables.print_text(f"\nNext: {program} predict {path} MY-PICTURE.png")
            tables.print_text(f"  or: {program} serve {path} --open   (look inside, on your own drawing)")
    if stopping.signal is not None:
        raise typer.Exit(128 + stopping.signal)


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
