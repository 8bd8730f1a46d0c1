"""One landscape sheet of a deep network on one photograph: where the answer comes from, over the picture itself, and
the strongest maps of one layer for each resolution.

Owns its layout. Every layer and every map stand on `feature_sheet.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convlens.render.feature_sheet import (
    Content,
    Grid,
    MapRow,
    draw_answer,
    draw_panel,
    draw_scale,
    draw_title,
    limits_of,
    mosaic,
    rgb,
)
from convlens.render.figures import ACCENT, DIM, MARGIN, WIDTH, Sheet, bare
from convlens.text import by, shown, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PHOTO, _TOP, _ROW = 5.35, 0.8, 0.82  # inches: the photograph's side, where it begins, a row of maps
_WORDS, _UNIT, _SHOWN = 1.75, 0.0212, 7
_PANEL = 1.5


def overview_of(
    content: Content, photograph: NDArray[np.uint8], place: tuple[float, float, float, float], *, num_layers: int
) -> Figure:
    """The sheet. `photograph` uint8 (H, W, C) is the picture as it came, `place` (left, top, right, bottom) where the
    network's input lies in it, in its pixels; `content` has of the panels the first as the attribution that is laid
    over it, and of the layers those to be shown."""
    rows = content.layers
    sheet = Sheet(max(_TOP + _PHOTO + 1.0, _TOP + _PANEL + 0.95 + _ROW * len(rows) + 0.35))
    draw_title(sheet, *content.title)
    cam, others = content.panels[0], content.panels[1:]
    bottom = _draw_photograph(sheet, photograph, cam.values, place)
    words = f"{cam.name}: where this answer comes from ({cam.under}). Dotted: what the network is given."
    sheet.text(MARGIN, bottom + 0.08, wrapped(words, 84), fontsize=8.5, color=DIM)
    x = MARGIN + _PHOTO + 0.35
    sheet.y = _TOP - 0.28
    for panel in others:
        draw_panel(sheet, panel, content.image, x, _PANEL)
        x += _PANEL + 0.2
    draw_answer(sheet, content, x + 0.1, _PANEL, 6)
    x, y = MARGIN + _PHOTO + 0.35, _TOP + _PANEL + 0.8
    for row in rows:
        _draw_row(sheet, row, x, y)
        y += _ROW
    note = f"the {_SHOWN} maps that vary most, of one layer a resolution; --layers all has all {num_layers} layers"
    sheet.text(x, y + 0.06, note, fontsize=7.5, color=DIM)
    return sheet.figure


def _draw_photograph(
    sheet: Sheet, photograph: NDArray[np.uint8], values: NDArray[Any], place: tuple[float, float, float, float]
) -> float:
    """The picture as it came, whole, the attribution over it: the more it counts, the more and the lighter. Returns
    where it ends, in inches from the top."""
    height, width = photograph.shape[:2]
    scale = _PHOTO / max(height, width)
    axes = sheet.axes(MARGIN + (_PHOTO - width * scale) / 2, _TOP, width * scale, height * scale)
    axes.imshow(rgb(photograph), interpolation="antialiased", extent=(0, width, height, 0))
    left, top, right, bottom = place
    strength = values / (float(values.max()) or 1.0)
    from matplotlib import colormaps

    colours = colormaps["magma"](0.3 + 0.7 * strength)
    colours[..., 3] = 0.75 * strength
    axes.imshow(colours, interpolation="bilinear", extent=(left, right, bottom, top))
    if (left, top) != (0, 0) or (right, bottom) != (width, height):
        edges = [left, right, right, left, left], [top, top, bottom, bottom, top]
        axes.plot(*edges, color=ACCENT, lw=0.8, linestyle=":")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    bare(axes)
    return float(_TOP + height * scale)


def _draw_row(sheet: Sheet, row: MapRow, x: float, y: float) -> None:
    """A layer's name and its strongest maps: those whose values vary most."""
    values = row.values
    order = np.argsort(-values.std(axis=(1, 2)), kind="stable")[:_SHOWN]
    sheet.text(x, y + 0.1, wrapped(shown(row.name, 60), 26), fontsize=8, weight="bold")
    sheet.text(x, y + 0.42, f"{by(values.shape)} values", fontsize=7.5, color=DIM)
    low, high = limits_of(values)
    grid = Grid([values[k] for k in order], (low, high), row.all_zero[order], order.tolist())
    drawn = mosaic(sheet, (x + _WORDS, y), grid, _SHOWN, _UNIT)
    if not row.all_zero[order].all():
        draw_scale(sheet, drawn, WIDTH - MARGIN - 0.42, y + 0.2, 0.46, low, high)
