"""Options that several commands share, each with its one help text, and what a shell completes.

Owns the panels that help texts are parted into.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

DATA, CHOICES, TRAINING, EVALUATION = "Data", "Choices", "Training", "Evaluation"  # the panels
MACHINE, OUTPUT, API = "Machine", "Output", "Prediction server"


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


def flag(help: str, panel: str | None = None, *names: str, **style: Any) -> Any:
    """An option with its help text, in a panel; `style` as typer.Option takes it."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **style)


_WHAT = "What train takes: a name, a folder, a .zip, an .npz, a .csv."
_GROUP = (
    "What belongs together and must not straddle a split: parent, a regular expression on paths, or a CSV's column."
)
_LAYOUT = "What each level of folders stands for: class, split/class, class/split, group/class, */class."
_LABEL = "Read the class from the names of files: a regular expression on paths, whose first group it is."
Data = Annotated[str, typer.Argument(metavar="DATA", help=_WHAT, autocompletion=complete_data)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, a run folder, or last.")]
Json = Annotated[bool, flag("Print one JSON document on standard output.", OUTPUT, "--json")]
Device = Annotated[str | None, flag("auto, cpu, cuda or mps.", MACHINE, show_default="auto")]
_VIEWS = "Classify each picture alone (none), or by the mean over it and its mirror image (mirror)."
Views = Annotated[str | None, flag(_VIEWS, EVALUATION, metavar="VIEWS", show_default="as it was trained to")]
Overwrite = Annotated[bool, flag("Replace a file that is there, as jobs do that run again.", OUTPUT, "--overwrite")]
Raw = Annotated[bool, flag("Leave probabilities as they were before calibration.", EVALUATION, "--raw")]
DataRoot = Annotated[str | None, flag("Folder that has the files of a named set, which else is fetched.", DATA)]
Group = Annotated[str | None, flag(_GROUP, DATA)]
Layout = Annotated[str | None, flag(_LAYOUT, DATA, show_default="as the names have it")]
Label = Annotated[str | None, flag(_LABEL, DATA, metavar="REGEX", show_default="the class folder")]
PathColumn = Annotated[
    str | None, flag("The column of a table that names the files.", DATA, metavar="NAME", show_default="found")
]
LabelColumn = Annotated[str | None, flag("The column of the labels.", DATA, metavar="NAME", show_default="found")]
Size = Annotated[
    str | None, flag("Input size in pixels: 32, or height x width as 24x32.", DATA, show_default="as found, else 32")
]
Channels = Annotated[int | None, flag("1 (grey) or 3 (RGB).", DATA, show_default="as found")]
Framing = Annotated[str | None, flag("pad, crop, stretch or ink.", DATA, show_default="pad")]
Region = Annotated[
    str | None,
    flag("Cut this from every picture first, in its own pixels.", DATA, metavar="X,Y,W,H", show_default="all of it"),
]
_LABELS = "A table of decisions on labels, as check --labels --write-labels makes it and review fills it in."
Labels = Annotated[str | None, flag(_LABELS, DATA, metavar="FILE")]
Exclude = Annotated[
    str | None, flag("Samples to leave out, as check --write-exclusions lists them.", DATA, metavar="FILE")
]
