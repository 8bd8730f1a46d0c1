"""Charts in pages: lines and points as SVG, from plain numbers.

Owns scales and places; colours are the page's (`templates/charts.html`). No library draws, so that a page of charts is
made in milliseconds and follows the page into the dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420, 260, 52, 40, 12, 14

Points = Sequence[tuple[float, float]]


class Series(NamedTuple):
    """What is drawn: its name, its points (x, y), its style (a class of the stylesheet: `first`, `second`, `ideal`),
    and the areas of circles at the points (shares of 1), or none for a line."""

    name: str
    points: Points
    style: str
    areas: Sequence[float] = ()


class Tick(NamedTuple):
    """A place on an axis, in pixels, and what stands there."""

    at: float
    text: str


class Mark(NamedTuple):
    """A circle: its place and radius in pixels, and what it stands for."""

    x: float
    y: float
    radius: float
    words: str


class Drawn(NamedTuple):
    """A series in pixels."""

    name: str
    style: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """A chart with its places in pixels, for the template; `title` says in words what it shows."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Drawn, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Lay out a chart; ranges are those of the points where none are given. Points that are not finite are left out."""
    drawn = [s._replace(points=[p for p in s.points if all(map(math.isfinite, p))]) for s in series]
    every = [point for s in drawn for point in s.points] or [(0.0, 0.0)]
    x_low, x_high = x_range or _around([x for x, _ in every])
    y_low, y_high = y_range or _around([y for _, y in every])

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (point[0] - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)
        return round(x, 1), round(y, 1)

    found = []
    for s in drawn:
        places = [place(point) for point in s.points]
        path = "M" + " L".join(f"{x},{y}" for x, y in places) if places and not s.areas else ""
        marks = tuple(
            Mark(x, y, round(2.5 + 12 * math.sqrt(area), 1), f"{_number(point[0])}, {_number(point[1])}")
            for (x, y), point, area in zip(places, s.points, s.areas or [], strict=False)
        )
        found.append(Drawn(s.name, s.style, path, marks))
    x_ticks = tuple(Tick(place((value, y_low))[0], _number(value)) for value in _ticks(x_low, x_high))
    y_ticks = tuple(Tick(place((x_low, value))[1], _number(value)) for value in _ticks(y_low, y_high))
    return Chart(title, x_label, y_label, x_ticks, y_ticks, tuple(found))


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range."""
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
