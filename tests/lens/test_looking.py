"""`look`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import convlens
from tests.conftest import Command


def test_command(toy: convlens.Run, picture: NDArray[np.uint8], command: Command, workplace: Path) -> None:
    """`look` writes a picture under a free name, arrays and a film where they are asked for, and says so."""
    Image.fromarray(picture).save(workplace / "bar.png")
    done = command("look", toy.path, "bar.png", "--arrays", "a.npz", "--film", "f.gif", "--layers", "0,2")
    assert done.returncode == 0, done.stderr
    assert "written: f.gif, look-bar.png, a.npz" in done.stdout and "bar.png: " in done.stdout
    for arguments in (
        ["none.png", "--film", "g.gif", "--out", "z.png"],
        ["bar.png", "--out", "o.png", "--film", "o.png"],
    ):
        assert command("look", toy.path, *arguments).returncode == 2
    assert not any((workplace / name).exists() for name in ("g.gif", "z.png", "o.png")), (
        "a command that fails leaves nothing"
    )
    done = command("look", toy.path, "bar.png", "--json")
    assert json.loads(done.stdout)["files"] == ["look-bar-2.png"]
    done = command("look", toy.path, "--film", "sheet.svg")
    assert done.returncode == 0 and (workplace / "sheet.svg").is_file()
    for arguments, words in (
        (["bar.png", "--out", "look-bar.png"], "exists already"),
        (["bar.png", "--out", "x.jpg"], "must end in .png, .svg or .pdf"),
        ([], "name a picture"),
        (["bar.png", "--arrays", "x.txt"], ".npz"),
    ):
        done = command("look", toy.path, *arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr
