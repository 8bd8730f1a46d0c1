"""Draws the rooms of the house from their imports, and counts the core apart: docs/pictures/rooms.svg and a table.

    python docs/rooms.py

The rooms and their order are those of the contract in pyproject.toml, which the tests hold; a room's row is one above
the highest room that it imports. The core is what a process has imported that trained, evaluated and predicted.
"""

import ast
import re
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src" / "convlens"
CONTRACT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
ROOMS = [layer.removeprefix("convlens.") for layer in CONTRACT["contracts"][0]["layers"] if "__main__" not in layer]
MAIN_JOB = """
import os, sys
os.environ["CONVLENS_CACHE"] = os.environ["CONVLENS_STATE"] = os.getcwd()
import numpy as np
from PIL import Image
from convlens.cli import main
images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
np.savez("set.npz", x=images, y=np.arange(60) % 3)
Image.fromarray(images[0]).save("one.png")
net = ["--architecture", "conv(4, 3) relu flatten linear(classes)", "--epochs", "1"]
for words in (["train", "set.npz", *net, "--out", "run"], ["evaluate", "run"], ["predict", "run", "one.png"]):
    assert main(words) == 0
print(*(name for name in sys.modules if name.partition(".")[0] == "convlens"))
"""


def modules() -> dict[str, str]:
    """The source of each module, by its name below convlens."""
    paths = {path.relative_to(SOURCE).with_suffix(""): path for path in sorted(SOURCE.rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): path.read_text("utf-8") for name, path in paths.items()}


def room_of(module: str) -> str:
    """The room that a module stands in; the package's own files are at its door."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default="")


def core_modules() -> set[str]:
    """What the main job imports, as a process of its own says."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", MAIN_JOB], cwd=folder, check=True, capture_output=True, text=True)
    return {name.removeprefix("convlens.") for name in done.stdout.splitlines()[-1].split()}


def imports(source: str) -> set[str]:
    """The modules of convlens that a source imports, late and type-only imports included."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("convlens.") for name in names if name.startswith("convlens.")}


def rows(uses: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by height: each one above the highest that it imports."""

    @cache
    def height(room: str) -> int:
        return 1 + max(map(height, uses[room]), default=-1)

    return [[room for room in ROOMS if height(room) == n] for n in range(1 + max(map(height, ROOMS)))]


def picture(by_height: list[list[str]], lines: dict[str, int], core: set[str], torch: set[str]) -> str:
    """The rooms as SVG, the roof first: filled where the main job needs them, framed in red where they import torch."""
    width, high, gap, parts = 900, 40, 8, []
    for number, row in enumerate(reversed(by_height)):
        each = (width - gap * (len(row) + 1)) / max(len(row), 4)
        left = (width - len(row) * each - gap * (len(row) - 1)) / 2
        y = gap + number * (high + gap)
        for place, room in enumerate(row):
            x = left + place * (each + gap)
            fill, edge = "#dbe9f9" if room in core else "#f6f6f4", "#c0392b" if room in torch else "#8a94a0"
            parts.append(f'<rect x="{x:.0f}" y="{y}" width="{each:.0f}" height="{high}" rx="5" fill="{fill}" ')
            parts.append(f'stroke="{edge}"/><text x="{x + each / 2:.0f}" y="{y + 18}" class="n">{escape(room)}</text>')
            parts.append(f'<text x="{x + each / 2:.0f}" y="{y + 33}" class="l">{lines[room]:,} lines</text>\n')
    bottom = gap + len(by_height) * (high + gap)
    legend = (
        "blue: what train, evaluate and predict import; red frame: imports torch; a room imports only rows below it"
    )
    style = ".n{font:600 13px sans-serif}.l{font:11px sans-serif;fill:#5a6470}text{text-anchor:middle;fill:#1c2733}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 24}" width="{width}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="white"/>\n{"".join(parts)}'
        f'<text x="{width / 2:.0f}" y="{bottom + 12}" class="l">{legend}</text>\n</svg>\n'
    )


def main() -> None:
    """Write the picture, and the counts into docs/architecture.md between its two marks."""
    sources, core = modules(), core_modules()
    lines = {room: sum(len(s.splitlines()) for m, s in sources.items() if room_of(m) == room) for room in ROOMS}
    uses = {room: {room_of(t) for m in sources if room_of(m) == room for t in imports(sources[m])} for room in ROOMS}
    uses = {room: targets - {room, ""} for room, targets in uses.items()}
    torch = {room_of(m) for m, s in sources.items() if re.search(r"^\s*(import torch|from torch)", s, re.M)}
    in_core = {room_of(m) for m in core}
    (DOCS / "pictures" / "rooms.svg").write_text(picture(rows(uses), lines, in_core, torch), encoding="utf-8")
    inside = {m for m in sources if m in core or m == "__init__"}
    counts = {m: len(source.splitlines()) for m, source in sources.items()}
    of = {
        "the core: what `train`, `evaluate` and `predict` import": inside,
        "everything around it": counts.keys() - inside,
        "all": set(counts),
    }
    counted = "| | modules | lines |\n|---|---|---|\n"
    counted += "".join(f"| {what} | {len(ms)} | {sum(counts[m] for m in ms):,} |\n" for what, ms in of.items())
    page = DOCS / "architecture.md"
    text = page.read_text(encoding="utf-8")
    marks = "<!-- counted by docs/rooms.py -->\n", "<!-- end -->"
    before, _, rest = text.partition(marks[0])
    page.write_text(before + marks[0] + counted + marks[1] + rest.partition(marks[1])[2], encoding="utf-8")
    print(counted, end="")


if __name__ == "__main__":
    main()
