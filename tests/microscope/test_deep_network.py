"""The page with a network of more than a hundred layers, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.microscope.test_page import DESKTOP, PHONE, overflow
from tests.microscope.test_server import Server
from tests.microscope.test_teach import BLUE, photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_IS_DRAWN = """(selector) => [...document.querySelectorAll(selector)].every((c) =>
    c.width && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v))"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("deep"), "efficientnet-lite0", "--port", "0")
    yield found
    assert found.close() == 0


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    opened = launch()
    yield opened
    opened.close()


@pytest.fixture(params=["desktop, light", "phone, dark"])
def page(browser: Browser, server: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The page, a photograph shown; at the end no error may have come."""
    is_phone = request.param.startswith("phone")
    context = browser.new_context(viewport=PHONE if is_phone else DESKTOP, color_scheme="dark" if is_phone else "light")
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(server.entry)
    opened.wait_for_selector("body[data-ready]")
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(BLUE, 1))
    opened.locator("#file").set_input_files(path)
    opened.wait_for_selector("#answer[data-label]")
    yield opened
    context.close()
    assert problems == []


def test_layers_fold_and_a_strip_leads_to_them(page: Page) -> None:
    """Blocks are closed, each with a thumbnail that is drawn; a press on one opens its block, whose maps are then
    fetched and drawn, and only those."""
    blocks = page.locator("details.block")
    assert 5 <= blocks.count() <= 12 and page.locator("details.block[open]").count() == 0
    page.wait_for_function(_IS_DRAWN, arg=".strip button[data-block*='×'] canvas")
    assert overflow(page) == 0
    fetched: list[str] = []
    page.on("request", lambda r: fetched.append(r.url) if "api/maps" in r.url else None)
    page.locator(".strip button[data-block='7×7']").click()
    page.wait_for_selector("details.block[open]:has-text('7×7') article canvas")
    first = page.locator("details.block[open] article").first.get_attribute("data-address")
    page.wait_for_function(_IS_DRAWN, arg=f"article[data-address='{first}'] canvas")
    layers = {a for url in fetched for a in url.partition("layers=")[2].split(",")}
    assert first in layers and "0" not in layers
    assert page.locator("details.block[open]").count() == 1
    assert overflow(page) == 0


def test_a_value_in_a_closed_block_opens_it(page: Page) -> None:
    """The panel's arithmetic leads to the layer before, in whichever block that is."""
    page.locator("#answer button").first.click()
    page.wait_for_selector("#value.open")
    assert "softmax" in page.locator("#value-body").inner_text()


def test_grad_cam_is_drawn_over_the_picture(page: Page) -> None:
    """The attribution of the answer stands on the picture, with its class and unit."""
    page.locator("#method").select_option("grad_cam")
    page.wait_for_selector("#seen-note:has-text('in units of its logit')")
