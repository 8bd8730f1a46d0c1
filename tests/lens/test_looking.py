"""`look`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.data.packed.pack import pack
from convlens.errors import ImageError
from convlens.evaluation.test_ledger import ledger_path
from tests.conftest import Command


def test_a_test_picture_that_a_report_names(toy: convlens.Run, workplace: Path) -> None:
    """The model was measured on it: nothing more is written into the ledger."""
    name = convlens.evaluate(toy, progress="none").answers()[0].path
    before = ledger_path().read_text(encoding="utf-8")
    seen = convlens.look(toy, name)
    assert name.startswith("test/") and seen.image is not None and seen.image.shape == (16, 16, 1)
    assert ledger_path().read_text(encoding="utf-8") == before


def test_a_picture_of_the_data_by_its_name(toy: convlens.Run, workplace: Path) -> None:
    """What reports and page list by its name in the data can be looked at by that name: the very pixels that the
    network was trained on; a file of that name comes first, and an unknown name is no picture."""
    dataset = pack(toy.record.dataset.source, progress="none")
    name, image = dataset.sample_names()[7], np.array(dataset.images_at(np.array([7]))[0])
    found = convlens.look(toy, name)
    assert found.image is not None and np.array_equal(found.image, image) and name.split("/")[-1] in found.title
    with pytest.raises(ImageError, match="train/999999: cannot be read"):
        convlens.look(toy, "train/999999")


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
