"""export: a model as a file of another format."""

from __future__ import annotations

from typing import Annotated

from convlens.commands import terminal
from convlens.commands.options import OUTPUT, DataRoot, Json, Model, Overwrite, Raw, Views, flag
from convlens.render import tables

_FORMAT = "onnx: one file for onnxruntime, framed pictures in, all that predict says out."
_INPUT = "framed: pictures framed as convlens does it; image: one decoded picture of any size, framed in the file."
_OUT = "The new file."
_PICTURES = "Check it with these instead: a picture, a pattern or a folder."


def export(
    model: Model = "last",
    out: Annotated[str | None, flag(_OUT, OUTPUT, metavar="FILE", show_default="RUN.onnx")] = None,
    format: Annotated[str, flag(_FORMAT, OUTPUT)] = "onnx",
    input: Annotated[str, flag(_INPUT, OUTPUT)] = "framed",
    pictures: Annotated[
        str | None, flag(_PICTURES, OUTPUT, metavar="PATH", show_default="200 that it was trained and validated on")
    ] = None,
    views: Views = None,
    raw: Raw = False,
    data_root: DataRoot = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model as a file that runs without convlens, checked against the model."""
    terminal.loading()
    import convlens

    terminal.check_new_file(out, "--out", (".onnx",), overwrite=overwrite)
    with terminal.progress() as bar:
        found = convlens.export(
            model,
            out,
            format=format,
            input=input,
            pictures=pictures,
            views=views,
            raw=raw,
            overwrite=overwrite,
            data_root=data_root,
            progress=bar,
        )
    if json:
        tables.print_json(found.to_json())
        return
    for line in found.checked:
        tables.print_text(line)
    terminal.note(f"written: {terminal.as_argument(found.path)}")
