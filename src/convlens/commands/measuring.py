"""train, evaluate, predict, pack, runs: from data to numbers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convlens import console
from convlens.commands.options import Channels, DataRoot, Device, Exclude, Framing, Group, Json, Model, Region, Size
from convlens.signals import stopping_signals
from convlens.text import shown


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A set's name (mnist, fashion-mnist), a folder of class folders, a folder of IDX files, "
            "an .npz, a .csv, or a packed set.",
            show_default="mnist",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="standard, fast, natural, tutorial-fast or tutorial.",
            show_default="standard for the named sets, else by the data",
        ),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="A sentence, in the preset's place.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which sample of the plan.", show_default="0")] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Train N times, from --seed on, and give mean ± sd.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run folder itself.", show_default="runs/DATA-N")] = None,
    val_frac: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images set aside for validation; 0 trains on everything that is not test.",
            show_default="0.1",
        ),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Evaluate on the test images at the end.")] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Measure every image by one of K networks that did not learn from it, then train on all of them.",
        ),
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start from a model's weights; new classes, new head.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run (or last), to the same bits.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, auto (what a probe shows to help), or kinds: flip,shift,crop,cutout.",
            show_default="auto where the recipe is chosen by the data",
        ),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Fit the epochs into a time: 90s, 5m, 1.5h.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images; may be a fraction.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd or muon.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    balance: Annotated[
        str | None, typer.Option(help="Classes of different size: none, weights (in the loss) or sampling.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a lower validation loss; keep the best weights."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any value of the recipe; repeatable.")
    ] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's choice")] = None,
    memory_format: Annotated[
        str | None, typer.Option(help="channels_last or contiguous.", show_default="channels_last")
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Make the step with torch.compile.", show_default="--no-compile"),
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints; 0: every step.")] = 30.0,
    keep_filters: Annotated[
        bool, typer.Option("--keep-filters", help="Keep the first filters as they change, for look --film.")
    ] = False,
    size: Size = None,
    channels: Channels = None,
    framing: Framing = None,
    group: Group = None,
    region: Region = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Train a network and leave a run folder with a model file."""
    flags = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "precision": precision,
        "balance": balance,
        "patience": patience,
    }
    settings = _settings(flags, set_ or [])
    with stopping_signals() as stopping:
        import convlens

        run = convlens.train(
            data,
            preset=preset,
            architecture=architecture,
            settings=settings,
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
            compile=compile,
            checkpoint_every=checkpoint_every,
            keep_filters=keep_filters,
            size=size,
            channels=channels,
            framing=framing,
            group=group,
            region=region,
            exclude=exclude,
            data_root=data_root,
            progress=console.progress_mode(),
            stop=stopping.asked,
        )
    together = run.series if seeds is not None else None
    if json:
        console.print_json((together or run).to_json())
    elif stopping.signal is None:
        console.print_rows((together or run).summary())
        path, program = console.as_argument(run.path), console.program()
        if run.test is None and run.cross_validation is None:
            console.print_text(f"\nNext: {program} evaluate {path}   (on the test images, sealed so far)")
        else:
            console.print_text(f"\nNext: {program} predict {path} MY-PICTURE.png")
            console.print_text(f"  or: {program} serve {path} --open   (look inside, on your own drawing)")
    if stopping.signal is not None:
        raise typer.Exit(128 + stopping.signal)


def evaluate(
    model: Model,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Other data to measure on; its classes are matched by name.",
            show_default="what it was trained on",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test (each opening is written down), val or train.")] = "test",
    device: Device = None,
    group: Group = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Measure a model: accuracy with its interval, per class, confusion, calibration."""
    import convlens

    report = convlens.evaluate(
        model,
        data,
        split=split,
        device="auto" if device is None else device,
        group=group,
        exclude=exclude,
        data_root=data_root,
        progress=console.progress_mode(),
    )
    if json:
        console.print_json(report.to_json())
    else:
        console.print_report(report)


def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.")],
    top: Annotated[int, typer.Option(help="How many classes to give for each.")] = 3,
    device: Device = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write path, label and probabilities as CSV.")] = None,
    json: Json = False,
) -> None:
    """Classify pictures: framed just as the training pictures were."""
    import convlens

    console.check_new_file(csv, "--csv")
    predictions = convlens.predict(model, images, top=top, device="auto" if device is None else device)
    if csv is not None:
        console.write_csv(csv, predictions, top)
    if json:
        console.print_json([prediction.to_json() for prediction in predictions])
    else:
        console.print_predictions(predictions)


def pack(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What train takes: a name, a folder, an .npz, a .csv.")],
    out: Annotated[str | None, typer.Option(help="The packed folder.", show_default="in the cache")] = None,
    size: Size = None,
    channels: Channels = None,
    framing: Framing = None,
    group: Group = None,
    region: Region = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Decode a data set once, into a folder that training maps into memory."""
    import convlens

    dataset = convlens.pack(
        data,
        out,
        size=size,
        channels=channels,
        framing=framing,
        group=group,
        region=region,
        exclude=exclude,
        data_root=data_root,
        progress=console.progress_mode(),
    )
    if json:
        console.print_json(dataset.to_json())
    else:
        console.print_dataset(dataset)


def runs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the runs lie.")] = "runs",
    json: Json = False,
) -> None:
    """List the runs, oldest first."""
    import convlens

    found = convlens.runs(folder)
    if json:
        console.print_json([run.to_json() for run in found])
        return
    if not found:
        console.print_text(f"no runs in {shown(folder, 200)}: train one with 'convlens train'")
        return
    console.print_runs(found)


def _settings(flags: dict[str, Any], settings: list[str]) -> dict[str, Any] | None:
    """The recipe's values that the flags and `--set field=value` give; None where there are none."""
    values = {name: value for name, value in flags.items() if value is not None}
    if settings:
        from convlens.recipe import Recipe

        values |= Recipe().parsed(settings)
    return values or None
