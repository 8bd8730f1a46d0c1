"""export: a model as a file of another format."""

from __future__ import annotations

from typing import Annotated

from convlens.commands import terminal
from convlens.commands.options import OUTPUT, DataRoot, Json, Model, Overwrite, Raw, Views, flag
from convlens.render import tables

_FORMAT = (
    "onnx: one file for onnxruntime, framed pictures in, all that predict says out; kit: a folder that classifies "
    "pictures on a machine without convlens; torch: weights and one source file for torch and Pillow; card: a model "
    "card in Markdown."
)
_INT8 = "Of onnx: weights and activations in eight bits; what that costs on validation is said."
_WHEELS = "Put into a kit what it must install: linux_x86_64, linux_aarch64, win_amd64 or macosx_arm64."
_NO_PICTURES = "Leave a kit's self-test without pictures of the data: drawn ones alone."
_INPUT = "framed: pictures framed as convlens does it; image: one decoded picture of any size, framed in the file."
_OUT = "The new file, or folder of a kit or of torch."
_PICTURES = "Check it with these instead: a picture, a pattern or a folder."


def export(
    model: Model = "last",
    out: Annotated[
        str | None, flag(_OUT, OUTPUT, metavar="FILE", show_default="RUN.onnx, RUN-kit, RUN-torch, RUN.md")
    ] = None,
    format: Annotated[str, flag(_FORMAT, OUTPUT)] = "onnx",
    input: Annotated[str, flag(_INPUT, OUTPUT)] = "framed",
    pictures: Annotated[
        str | None, flag(_PICTURES, OUTPUT, metavar="PATH", show_default="200 that it was trained and validated on")
    ] = None,
    int8: Annotated[bool, flag(_INT8, OUTPUT, "--int8")] = False,
    max_loss: Annotated[float, flag("Points of accuracy that --int8 may lose.", OUTPUT, metavar="POINTS")] = 0.3,
    wheels: Annotated[str | None, flag(_WHEELS, OUTPUT, metavar="PLATFORM")] = None,
    no_pictures: Annotated[bool, flag(_NO_PICTURES, OUTPUT, "--no-pictures")] = False,
    views: Views = None,
    raw: Raw = False,
    data_root: DataRoot = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in a form that runs without convlens, checked against the model."""
    terminal.loading()
    import convlens

    if out is not None and (suffixes := {"onnx": (".onnx",), "card": (".md",)}.get(format)):
        terminal.check_new_file(out, "--out", suffixes, overwrite=overwrite)
    with terminal.progress() as bar:
        found = convlens.export(
            model,
            out,
            format=format,
            input=input,
            pictures=pictures,
            int8=int8,
            max_loss=max_loss,
            wheels=wheels,
            no_pictures=no_pictures,
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
