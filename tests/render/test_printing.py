"""Pages on paper."""

import shutil

import pytest

from convlens.errors import UsageError
from convlens.render import printing


def test_a_page_is_printed_as_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever browser there is; without one, or by a program that is none, one line says what to do."""
    if not any(map(shutil.which, printing._NAMES)):
        pytest.skip("no browser is on the path")
    assert printing.pdf_of("<!DOCTYPE html><title>x</title><p>words").startswith(b"%PDF")
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    with pytest.raises(UsageError, match="did not print the page"):
        printing.pdf_of("<p>")


def test_without_a_browser_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback: what is missing, and what to write in its place."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(printing, "_PLACES", ())
    with pytest.raises(UsageError, match=r"write \.html and print it"):
        printing.pdf_of("<p>")
