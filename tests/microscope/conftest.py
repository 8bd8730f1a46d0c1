"""A browser for the pages' tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def _without(reason: str) -> NoReturn:
    """Skip by name; where a browser is required, fail."""
    if os.environ.get("CONVLENS_BROWSER") == "required":
        pytest.fail(f"a browser is required here, and {reason}")
    pytest.skip(f"no browser: {reason}")


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Browser]]:
    """Starts Chromium with more switches of its command line. Skips without one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without("playwright is not installed")
    names = (os.environ.get("CONVLENS_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        _without("no chromium is on the path")
    with sync_playwright() as playwright:
        yield lambda *switches: playwright.chromium.launch(executable_path=program, args=[*_QUIET, *switches])
