"""A learning curve as a picture: accuracy against the number of training images, and its forecast.

Owns the drawing; numbers come in as plain rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convlens.render.figures import ACCENT, DIM, INK, WIDTH, Sheet, save_figure
from convlens.text import counted, shown

_MOST_CLASSES = 12
_HEIGHT = 6.2


def draw_learning_curve(
    path: Path,
    name: str,
    points: Sequence[tuple[int, float, tuple[float, float]]],
    classes: Mapping[str, Sequence[float | None]],
    forecast: tuple[float, float] | None,
    num_held_out: int,
) -> None:
    """Draw `points` (number of images, accuracy in 0..1, its interval), thin lines for the classes, and the interval
    that twice the last number is forecast to lie in. Raises StorageError."""
    nums, accuracies, intervals = zip(*points, strict=True)
    sheet = Sheet(_HEIGHT)
    sheet.text(0.35, 0.2, f"{shown(name, 60)}: accuracy against the number of training images", fontsize=13)
    words = f"The head alone, on outputs of frozen layers; {counted(num_held_out, 'image')} held out; 95 % intervals."
    sheet.text(0.35, 0.5, words, color=DIM)
    axes = sheet.axes(0.85, 0.95, WIDTH - 3.4, _HEIGHT - 1.7)
    percent = [100 * value for value in accuracies]
    for label, values in list(classes.items())[:_MOST_CLASSES] if len(classes) <= _MOST_CLASSES else []:
        known = [(num, 100 * value) for num, value in zip(nums, values, strict=True) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color="#8a939d", linewidth=0.8)
            axes.annotate(
                shown(label, 16),
                known[-1],
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=7,
                color=DIM,
                va="center",
            )
    low = [value - 100 * interval[0] for value, interval in zip(percent, intervals, strict=True)]
    high = [100 * interval[1] - value for value, interval in zip(percent, intervals, strict=True)]
    axes.errorbar(nums, percent, yerr=[low, high], color=INK, linewidth=2, capsize=3, marker="o")
    if forecast is not None:
        middle, twice = 50 * sum(forecast), 2 * nums[-1]
        axes.plot([nums[-1], twice], [percent[-1], middle], color=ACCENT, linewidth=2, linestyle="--")
        reach = [[middle - 100 * forecast[0]], [100 * forecast[1] - middle]]
        axes.errorbar([twice], [middle], yerr=reach, color=ACCENT, linewidth=3, capsize=5)
        axes.annotate(
            f"twice as many:\n{100 * forecast[0]:.0f} to {100 * forecast[1]:.0f} %",
            (twice, middle),
            xytext=(10, 0),
            textcoords="offset points",
            color=ACCENT,
            va="center",
        )
    ticks = [*nums, 2 * nums[-1]] if forecast is not None else list(nums)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(nums[0] / 1.15, ticks[-1] * 1.5)
    axes.set_xlabel("training images")
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    save_figure(sheet.figure, path)
