"""Pages on paper: a PDF, printed by the browser that a person has.

Owns how Chromium, Chrome or Edge is found and asked. The PDF is what the browser shows, and needs no library.
"""

import os
import shutil
import subprocess
from pathlib import Path

from convlens import files
from convlens.errors import UsageError
from convlens.text import shown

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
_LONGEST_S = 120


def pdf_of(page: str) -> bytes:
    """A page that needs nothing beside it, as PDF. Raises UsageError where no browser is there, or none prints."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    program = found or next((place for place in _PLACES if Path(place).is_file()), None)
    if program is None:
        raise UsageError("a PDF is printed by Chromium, Chrome or Edge, and none is here: write .html and print it")
    with files.temporary_folder() as folder:
        source, printed = folder / "page.html", folder / "page.pdf"
        files.write_text(source, page)
        words = [program, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}/profile"]
        words += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has none to be in
        words += [f"--print-to-pdf={printed}", source.as_uri()]
        try:
            done = subprocess.run(words, capture_output=True, timeout=_LONGEST_S, check=False)
            if done.returncode == 0 and printed.is_file():
                return printed.read_bytes()
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1] if said else f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
    raise UsageError(f"{shown(program, 100)} did not print the page ({shown(why, 200)}): write .html and print it")
