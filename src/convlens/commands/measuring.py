"""train, evaluate, predict, pack, runs: from data to numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convlens import console
from convlens.commands.options import Channels, DataRoot, Device, Framing, Group, Json, Model, Size
from convlens.errors import shown
from convlens.signals import stopping_signals

if TYPE_CHECKING:
    from convlens.recipe import Recipe


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
        str | None, typer.Option(help="standard, fast, tutorial-fast or tutorial.", show_default="standard")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="A sentence, in the preset's place.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which sample of the plan.", show_default="0")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder itself.", show_default="runs/DATA-N")] = None,
    val_frac: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images set aside for validation; 0 trains on everything that is not test.",
            show_default="0.1",
        ),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Evaluate on the test images at the end.")] = False,
    resume: Annotated[str | None, typer.Option(help="Go on with this run (or last), to the same bits.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images; may be a fraction.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd or muon.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
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
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Train a network and leave a run folder with a model file."""
    recipe = _recipe(preset, resume, {"epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer,
                                      "precision": precision}, set_ or [])  # fmt: skip
    with stopping_signals() as stopping:
        import convlens

        run = convlens.train(
            data, preset=preset, architecture=architecture, recipe=recipe, seed=seed, out=out, val_frac=val_frac,
            test=test, resume=resume, device=device, threads=threads,
            memory_format=memory_format, compile=compile, checkpoint_every=checkpoint_every,
            keep_filters=keep_filters, size=size,
            channels=channels, framing=framing, group=group, data_root=data_root, progress=console.progress_mode(),
            stop=stopping.asked,
        )  # fmt: skip
    if json:
        console.print_json(run.to_json())
    elif stopping.signal is None:
        console.print_rows(run.summary())
        path, program = console.as_argument(run.path), console.program()
        if run.test is None:
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
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Decode a data set once, into a folder that training maps into memory."""
    import convlens

    dataset = convlens.pack(
        data, out, size=size, channels=channels, framing=framing, group=group, data_root=data_root,
        progress=console.progress_mode(),
    )  # fmt: skip
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


def _recipe(preset: str | None, resume: str | None, flags: dict[str, Any], settings: list[str]) -> Recipe | None:
    """The preset's recipe (or that of the run to resume) with the flags' values; None where there are none."""
    flags = {name: value for name, value in flags.items() if value is not None}
    if not flags and not settings:
        return None
    from convlens.presets import DEFAULT_PRESET, preset_named
    from convlens.recipe import Recipe
    from convlens.run import find_run

    if resume is not None:
        recipe = Recipe.from_json(find_run(resume).record.get("recipe"))
    else:
        recipe = preset_named(preset or DEFAULT_PRESET).recipe
    return recipe.replace(**flags).with_settings(settings)
