"""The learning curve as a picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from convlens.render.curves import draw_learning_curve


def test_a_curve_is_drawn_with_any_names_and_without_a_forecast(tmp_path: Path) -> None:
    """Few classes and many, odd names, a class that is not measured, no forecast: a picture each."""
    points = [(20, 0.5, (0.3, 0.7)), (40, 0.6, (0.4, 0.8)), (80, 0.9, (0.8, 0.95)), (160, 1.0, (0.9, 1.0))]
    few: dict[str, list[float | None]] = {"$x$": [0.1, 0.2, 0.3, None], "<b>": [None] * 4}
    few["עברית"] = [0.5, 0.6, 0.9, 1.0]
    many: dict[str, list[float | None]] = {f"class {k}": [0.1, 0.2, 0.3, 0.4] for k in range(40)}
    cases: list[tuple[dict[str, list[float | None]], tuple[float, float] | None]]
    cases = [(few, (0.8, 0.95)), (many, (1.0, 1.0)), ({}, None)]
    for number, (classes, forecast) in enumerate(cases):
        draw_learning_curve(tmp_path / f"{number}.png", "a set", points, classes, forecast, 327)
        assert Image.open(tmp_path / f"{number}.png").size[0] > 1000
