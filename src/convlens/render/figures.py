"""A sheet: a matplotlib figure whose parts are placed in inches, so that nothing overlaps; and its way to disk.

Owns the page, its colours and the formats. matplotlib is imported when a sheet is made, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convlens import files
from convlens.text import MAKER, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
WIDTH, MARGIN = 13.0, 0.35  # inches
INK, DIM, ACCENT = "#1b1f24", "#57606a", "#e08214"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says, durably; the same figure gives the same bytes. Raises StorageError."""
    import matplotlib

    def write(file: BinaryIO) -> None:
        kind = path.suffix.lower()[1:]
        metadata = {"png": {"Software": MAKER}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        with matplotlib.rc_context({"svg.hashsalt": "convlens"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that the font lacks is drawn as boxes
            figure.savefig(file, format=kind, metadata=metadata)

    files.write_with(path, write)


def save_pages(figures: Iterable[Figure], path: Path) -> None:
    """Write figures as the pages of one PDF, durably. Raises StorageError."""
    from matplotlib.backends.backend_pdf import PdfPages

    def write(file: BinaryIO) -> None:
        with PdfPages(file, metadata={"CreationDate": None}) as document, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            for page in figures:
                document.savefig(page)

    files.write_with(path, write)


class Sheet:
    """A figure that is filled from the top; all places are in inches."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor="white")
        self.height = height
        self.y = 0.0  # from the top

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """A place to draw, its upper left corner at (x, y) from the sheet's."""
        box = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(box)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Words below (x, y)."""
        style = {"color": INK, "fontsize": 9, "va": "top"} | style
        # Names are shown as they are: a dollar sign begins no formula.
        written: Any = self.figure.text(x / WIDTH, 1 - y / self.height, printable(text), parse_math=False)
        written.set(**style)


def bare(axes: Axes) -> None:
    """Only a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c4cad1")
        spine.set_linewidth(0.6)
