"""Makes every picture of docs/how-a-cnn-works.md anew, by the very commands that stand there, and the screenshots.

    python docs/make_pictures.py [--run RUN] [--no-screenshots]

Without --run it trains first, as the page says. The screenshots need playwright and a Chromium; without them they are
left as they are, and that is said.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
SEVEN = [(0.25, 0.27), (0.74, 0.25), (0.50, 0.80)]  # in shares of a side
A4 = {"width": 794, "height": 1123}  # at 96 dots an inch
VIEWPORTS: dict[str, Any] = {"desktop": {"width": 1440, "height": 1000}, "phone": {"width": 390, "height": 844}}
LAB_SENTENCE = (
    "conv(8, 5, stride=2, padding=2) relu residual(conv(8, 3, padding=1) relu) maxpool(2) flatten linear(classes)"
)


def commands() -> list[list[str]]:
    """The page's commands, in order, the training first."""
    text = (DOCS / "how-a-cnn-works.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    return [shlex.split(line) for block in blocks for line in block.strip().splitlines()]


def main() -> None:
    """Run the page's commands in an empty folder and keep what they wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run made with --keep-filters, instead of training one")
    parser.add_argument("--no-screenshots", action="store_true")
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_seven(folder / "seven.png")
        for words in commands():
            if words[1] == "train" and arguments.run:
                shutil.copytree(arguments.run, folder / "runs" / "mnist-1")
                continue
            print(shlex.join(words), flush=True)
            subprocess.run(
                [sys.executable, "-m", "convlens", *words[1:]], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
        for path in sorted(folder.glob("*.*")):
            if path.suffix == ".png":
                make_smaller(path)
            shutil.copy(path, PICTURES / path.name)
        if not arguments.no_screenshots:
            screenshots(folder)


def draw_seven(path: Path) -> None:
    """A seven drawn with a thick pen, 280×280 pixels."""
    image = Image.new("L", (1120, 1120), 255)
    points = [(1120 * x, 1120 * y) for x, y in SEVEN]
    ImageDraw.Draw(image).line(points, fill=20, width=84, joint="curve")
    for x, y in points:
        ImageDraw.Draw(image).ellipse((x - 42, y - 42, x + 42, y + 42), fill=20)
    image.resize((280, 280), Image.Resampling.LANCZOS).save(path)


def make_smaller(path: Path) -> None:
    """A PNG of few colours takes a third of the bytes."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


# ---------------------------------------------------------------- screenshots


def screenshots(folder: Path) -> None:
    """Each view of the microscope, at two widths, light and dark."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("screenshots are left as they are: playwright is not installed (pip install '.[dev]')")
        return
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("screenshots are left as they are: no chromium is on the path")
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "convlens", "serve", "runs/mnist-1", "--port", "0"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert server.stderr is not None
    url = re.findall(r"http://\S+", server.stderr.readline())[0]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            is_first = True
            for scheme in ("light", "dark"):
                for size, viewport in VIEWPORTS.items():
                    page = browser.new_page(viewport=viewport, color_scheme=scheme)
                    shoot(page, url, f"{size}-{scheme}", train=is_first)
                    page.close()
                    is_first = False
            shoot_report(browser, folder / "runs" / "mnist-1" / "report.html")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def shoot_report(browser: Any, path: Path) -> None:
    """The report of a run: its beginning on a desktop and a phone, light and dark, and as it is printed."""
    looks: list[tuple[str, dict[str, int], dict[str, str]]] = [
        (f"{size}-{scheme}", viewport, {"color_scheme": scheme})
        for scheme in ("light", "dark")
        for size, viewport in VIEWPORTS.items()
    ]
    for name, viewport, media in [*looks, ("print", A4, {"media": "print"})]:
        page = browser.new_page(viewport=viewport)
        page.emulate_media(**media)
        page.goto(path.absolute().as_uri())
        target = PICTURES / f"report-{name}.png"
        page.screenshot(path=target, full_page=True, clip={"x": 0, "y": 0, "width": viewport["width"], "height": 2_000})
        make_smaller(target)
        page.close()


def shoot(page: Any, url: str, name: str, *, train: bool) -> None:
    """The views of one page."""

    def keep(view: str, **options: Any) -> None:
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(300)  # cards that came into view are drawn a frame later
        page.screenshot(path=PICTURES / f"{view}-{name}.png", **options)
        make_smaller(PICTURES / f"{view}-{name}.png")

    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    box = page.locator("#pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=12)
    page.mouse.up()
    page.wait_for_selector("#answer[data-label='7']")
    page.wait_for_load_state("networkidle")
    if "phone" in name:
        keep("draw")
    maps = page.locator("article[data-address='3'] canvas")
    maps.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")  # maps come when they are looked at
    maps.click(position={"x": 34, "y": 42})
    page.wait_for_selector("#value.open")
    if "phone" in name:
        page.mouse.move(0, 0)
        page.evaluate("document.querySelector('article[data-address=\"3\"]').scrollIntoView()")
    else:
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
    keep("look")
    page.keyboard.press("Escape")
    page.locator("#tab-lab").click()
    page.wait_for_selector("#table tbody tr")
    if train:
        page.locator("#sentence").fill(LAB_SENTENCE)
        page.locator("#epochs").fill("3")
        page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 8")
        page.locator("#train").click()
        page.wait_for_selector("#progress-state[data-state='complete']", timeout=120_000)
    else:
        page.locator("#sentence").fill("conv(8, 5, stride=2) relu maxpol(2) flatten linear(classes)")
        page.wait_for_selector("#caret:not([hidden])")
    keep("lab")
    page.locator("#tab-model").click()
    page.wait_for_selector("#calibration circle")
    keep("model", full_page=True)


if __name__ == "__main__":
    main()
