"""explain, look, serve: into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convlens import console
from convlens.commands.options import Device, Json, Model
from convlens.errors import UsageError
from convlens.files import write_text


def explain(
    what: Annotated[str, typer.Argument(metavar="SENTENCE|MODEL", help="An architecture as text, or a model.")],
    input: Annotated[str | None, typer.Option(help="height x width x channels.", show_default="28x28x1")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", show_default="10")] = None,
    torch: Annotated[bool, typer.Option("--torch", help="Print the network as plain torch source.")] = False,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the maps to scale and the growing receptive field.")
    ] = None,
    json: Json = False,
) -> None:
    """Show a network's layers: shapes, formulas, parameters, multiply-adds, receptive fields."""
    import convlens

    if torch and json:
        raise UsageError("--torch and --json cannot both be printed: choose one")
    console.check_new_file(svg, "--svg", (".svg",))
    explanation = convlens.explain(what, input=input, classes=classes)
    if svg is not None:
        write_text(Path(svg), explanation.svg())
    if torch:
        console.print_text(explanation.torch_source().rstrip("\n"))
    elif json:
        console.print_json(explanation.to_json())
    else:
        console.print_explanation(explanation)


def look(
    model: Model,
    image: Annotated[str | None, typer.Argument(metavar="IMAGE", help="A picture.", show_default=False)] = None,
    layers: Annotated[
        str | None, typer.Option(help="Addresses of layers, as explain prints them: 0,3.", show_default="all")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(metavar="LAYER:CHANNEL,ROW,COLUMN", help="Draw the receptive field of this unit: 5:12,3,4."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The class to explain.", show_default="the likeliest")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf.", show_default="look-IMAGE.png")
    ] = None,
    arrays: Annotated[str | None, typer.Option(metavar="FILE", help="Keep the arrays themselves: .npz.")] = None,
    film: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The first filters while they were learned (a run made with --keep-filters): "
            ".gif or .webp, or a sheet as .png, .svg or .pdf. Needs no IMAGE.",
        ),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """See inside: feature maps, filters, where the answer comes from, receptive fields."""
    console.check_new_file(out, "--out", (".png", ".svg", ".pdf"))
    console.check_new_file(arrays, "--arrays", (".npz",))
    console.check_new_file(film, "--film", (".gif", ".webp", ".png", ".svg", ".pdf"))
    if image is None and film is None:
        raise UsageError("name a picture to look at: convlens look MODEL IMAGE (or --film FILE for the filters alone)")
    import convlens

    # Everything is looked at before anything is written: a command that fails leaves nothing behind.
    moving = None if film is None else convlens.film(model)
    features = None
    if image is not None:
        features = convlens.look(model, image, layers=layers, unit=unit, label=label, device=device)
        out = out if out is not None else console.free_name(f"look-{Path(image).stem}", ".png")
    written = [path for path in (film, out if features else None, arrays if features else None) if path is not None]
    if len({Path(path).absolute() for path in written}) < len(written):
        raise UsageError("--out, --arrays and --film must name different files")
    for thing, path in ((moving, film), (features, out), (features, arrays)):
        if thing is not None and path is not None:
            thing.save(path)
    if json:
        console.print_json((features.to_json() if features else {}) | {"files": written})
        return
    for line in features.lines() if features else []:
        console.print_text(line)
    console.print_text(f"written: {', '.join(console.as_argument(path) for path in written)}")


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, a run folder, or last.")] = "last",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own (127.0.0.1) needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.")] = 8023,
    open: Annotated[bool, typer.Option("--open", help="Start the browser.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One more name to be reached by, as a notebook's proxy has; repeatable."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="What a browser must show; made by itself where one is needed.")
    ] = None,
    device: Device = None,
) -> None:
    """Open a model in the microscope: a page to draw on, look into, design and train in."""
    import convlens

    convlens.serve(
        model,
        host=host,
        port=port,
        open=open,
        allow_host=allow_host,
        token=token,
        device=device,
        progress=console.progress_mode(),
    )
