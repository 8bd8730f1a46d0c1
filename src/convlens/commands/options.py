"""Options that several commands share, each with its one help text."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")]
DataRoot = Annotated[str | None, typer.Option(help="Folder of a named set that does not ship with convlens.")]
Group = Annotated[
    str | None,
    typer.Option(
        help="What belongs together and must not straddle a split: parent, a regular expression on paths, "
        "or a CSV's column."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="Input size in pixels: 32, or height x width as 24x32.", show_default="as found, else 32"),
]
Channels = Annotated[int | None, typer.Option(help="1 (grey) or 3 (RGB).", show_default="as found")]
Framing = Annotated[str | None, typer.Option(help="pad, crop, stretch or ink.", show_default="pad")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, a run folder, or last.")]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H", help="Cut this from every picture first, in its own pixels.", show_default="all of it"
    ),
]
Exclude = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Samples to leave out, as check --write-exclusions lists them."),
]
