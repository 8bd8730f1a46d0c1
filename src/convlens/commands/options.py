"""Options that several commands share, each with its one help text, and what a shell completes.

Owns the panels that help texts are parted into.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA, CHOICES, TRAINING, EVALUATION, MACHINE, OUTPUT = (
    "Data",
    "Choices",
    "Training",
    "Evaluation",
    "Machine",
    "Output",
)  # the panels


def complete_data(incomplete: str) -> list[str]:
    """Names of data sets, and paths."""
    from convlens.data.sources.named import NAMED_SETS

    folder, _, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder or ".").iterdir()) if not incomplete.startswith("~") else []
    except OSError:
        found = []
    paths = [f"{path}/" if path.is_dir() else str(path) for path in found if path.name.startswith(start)]
    return [name for name in NAMED_SETS if name.startswith(incomplete)] + paths


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets."""
    from convlens.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=OUTPUT)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto", rich_help_panel=MACHINE)
]
DataRoot = Annotated[
    str | None,
    typer.Option(help="Folder of a named set that does not ship with convlens.", rich_help_panel=DATA),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="What belongs together and must not straddle a split: parent, a regular expression on paths, "
        "or a CSV's column.",
        rich_help_panel=DATA,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Input size in pixels: 32, or height x width as 24x32.",
        show_default="as found, else 32",
        rich_help_panel=DATA,
    ),
]
Channels = Annotated[
    int | None, typer.Option(help="1 (grey) or 3 (RGB).", show_default="as found", rich_help_panel=DATA)
]
Framing = Annotated[
    str | None, typer.Option(help="pad, crop, stretch or ink.", show_default="pad", rich_help_panel=DATA)
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, a run folder, or last.")]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H",
        help="Cut this from every picture first, in its own pixels.",
        show_default="all of it",
        rich_help_panel=DATA,
    ),
]
Exclude = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Samples to leave out, as check --write-exclusions lists them.", rich_help_panel=DATA
    ),
]
