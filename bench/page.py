"""How quick the microscope is: from the start line to the first view, and from a stroke of the pen to the bars.

    python bench/page.py [--moves 40] [--starts 5] [--out FILE]

Needs playwright and a Chromium. Two models: the default preset on MNIST, and a network of 20 layers on 64×64 RGB
pictures that are made here. A stroke's time is taken in the page, from the pointer event to the changed bars.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import surroundings
from playwright.sync_api import Browser, sync_playwright

import convlens
from convlens.files import write_json
from convlens.microscope import server

DEEP = (
    "repeat(2, conv(32, 3, padding=1) batchnorm relu) maxpool(2) repeat(2, conv(48, 3, padding=1) batchnorm relu) "
    "maxpool(2) conv(64, 3, padding=1) batchnorm relu globalavgpool flatten linear(classes)"
)
# In the page: the time of the newest pen event, and of each change of the bars after it.
_WATCH = """() => {
  window.delays = []; let moved = 0;
  document.getElementById('pad').addEventListener('pointermove', () => { moved = performance.now(); }, true);
  new MutationObserver(() => { if (moved) { window.delays.push(performance.now() - moved); moved = 0; } })
    .observe(document.getElementById('answer'), { attributes: true, attributeFilter: ['data-id'] });
}"""


def main() -> None:
    """Train two models, measure each, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=40)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-results.json"))
    arguments = parser.parse_args()
    weight = sum(path.stat().st_size for path in (Path(server.__file__).parent / "page").iterdir())
    found: dict[str, Any] = {"surroundings": surroundings(), "page_bytes": weight}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        convlens.train("mnist", out=folder / "standard", progress="none", recipe=quick("standard"))
        images = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), np.uint8)
        convlens.train(
            (images, np.arange(200) % 10),
            out=folder / "deep",
            architecture=DEEP,
            progress="none",
            recipe=quick("standard"),
        )
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for model in ("standard", "deep"):
            found[model] = measured(browser, folder / model, arguments.moves, arguments.starts)
            print(model, json.dumps(found[model]), flush=True)
        browser.close()
    write_json(arguments.out, found)
    print(f"page {weight / 1000:.0f} KB; written: {arguments.out}")


def quick(preset: str) -> convlens.Recipe:
    """A preset's recipe for a moment of training: what is measured here does not depend on what was learned."""
    return convlens.PRESETS[preset].recipe.replace(epochs=0.2)


def measured(browser: Browser, run: Path, num_moves: int, num_starts: int) -> dict[str, Any]:
    """Milliseconds: start line to first view, and stroke to bars, with the maps on screen following."""
    views, delays = [], []
    for start in range(num_starts):
        process = subprocess.Popen(
            [sys.executable, "-m", "convlens", "serve", str(run), "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        try:
            assert process.stderr is not None
            url = re.findall(r"http://\S+", process.stderr.readline())[0]
            started = time.perf_counter()
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            views.append(1000 * (time.perf_counter() - started))
            if start == 0:
                page.evaluate(_WATCH)
                box = page.locator("#pad").bounding_box()
                assert box is not None
                page.mouse.move(box["x"] + 60, box["y"] + 60)
                page.mouse.down()
                for i in range(num_moves):
                    page.mouse.move(box["x"] + 60 + 4 * (i % 40), box["y"] + 60 + 3 * i % 150)
                    page.wait_for_timeout(120)
                page.mouse.up()
                delays = page.evaluate("window.delays")
            page.close()
        finally:
            process.terminate()
            process.wait()
    return {
        "first_view_ms": round(median(views)),
        "first_view_all_ms": [round(v) for v in views],
        "stroke_to_bars_ms": round(median(delays), 1),
        "stroke_to_bars_worst_ms": round(max(delays), 1),
        "strokes": len(delays),
    }


if __name__ == "__main__":
    main()
