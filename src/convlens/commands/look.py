"""look: into a network, on one picture."""

from pathlib import Path
from typing import Annotated

import typer

from convlens.commands import terminal
from convlens.commands.options import OUTPUT, Device, Json, Model, Overwrite, flag
from convlens.errors import UsageError
from convlens.render import tables

_FILM = (
    "The first filters while they were learned (a run made with --keep-filters): .gif or .webp, or a sheet as .png, "
)
_FILM += ".svg or .pdf. Needs no IMAGE."
_IMAGE = "A picture; or one that the model was made with, by its name in the data (train/34750)."
_REPLAY = "An answer of a kit or server: its row (with IMAGE), or the .json file kept beside the picture."
_LAYERS = "Addresses of layers, as explain prints them: 0,3; all (with --out FILE.pdf: every map, on pages)."
_UNIT = "Draw the receptive field of this unit: 5:12,3,4."


def look(
    model: Model,
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE",
            help=_IMAGE,
            show_default=False,
        ),
    ] = None,
    layers: Annotated[str | None, flag(_LAYERS, show_default="all; of more than 40 one a size")] = None,
    unit: Annotated[str | None, flag(_UNIT, metavar="LAYER:CHANNEL,ROW,COLUMN")] = None,
    label: Annotated[str | None, flag("The class to explain.", show_default="the likeliest")] = None,
    versus: Annotated[str | None, flag("Explain why it is rather that class than this one.", metavar="CLASS")] = None,
    replay: Annotated[str | None, flag(_REPLAY, metavar="ROW")] = None,
    out: Annotated[
        str | None, flag("The picture: .png, .svg or .pdf.", OUTPUT, metavar="FILE", show_default="look-IMAGE.png")
    ] = None,
    arrays: Annotated[str | None, flag("Keep the arrays themselves: .npz.", OUTPUT, metavar="FILE")] = None,
    film: Annotated[str | None, flag(_FILM, OUTPUT, metavar="FILE")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """See inside: feature maps, filters, where the answer comes from, receptive fields."""
    terminal.check_new_file(out, "--out", (".png", ".svg", ".pdf"), overwrite=overwrite)
    terminal.check_new_file(arrays, "--arrays", (".npz",), overwrite=overwrite)
    terminal.check_new_file(film, "--film", (".gif", ".webp", ".png", ".svg", ".pdf"), overwrite=overwrite)
    if image is None and film is None and replay is None:
        raise UsageError("name a picture to look at: convlens look MODEL IMAGE (or --film FILE for the filters alone)")
    terminal.loading(to_people=True)
    import convlens

    # Everything is looked at before anything is written: a command that fails leaves nothing behind.
    moving = None if film is None else convlens.film(model)
    features = None
    if image is not None or replay is not None:
        features = convlens.look(
            model, image, layers=layers, unit=unit, label=label, versus=versus, replay=replay, device=device
        )
        name = Path(image or str(replay)).stem
        out = out if out is not None else terminal.free_name(f"look-{name}", ".png")
    written = [path for path in (film, out if features else None, arrays if features else None) if path is not None]
    if len({Path(path).absolute() for path in written}) < len(written):
        raise UsageError("--out, --arrays and --film must name different files")
    for thing, path in ((moving, film), (features, out), (features, arrays)):
        if thing is not None and path is not None:
            thing.save(path, replace=overwrite)
    if json:
        tables.print_json((features.to_json() if features else {}) | {"files": written})
        return
    for line in features.lines() if features else []:
        tables.print_text(line)
    tables.print_text(f"written: {', '.join(terminal.as_argument(path) for path in written)}")
