"""The documents name what there is, and print what is printed."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import product
from typing import Any

import convlens
from tests.helpers import COMMANDS, ROOT


def test_documents_name_every_command_preset_and_layer() -> None:
    """README and docs say what is there: each command and preset in the README, each layer in docs/sentence.md."""
    from convlens.architecture.layers import LAYER_NAMES
    from convlens.presets import PRESETS

    root = ROOT
    readme = (root / "README.md").read_text(encoding="utf-8")
    sentence = (root / "docs" / "sentence.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"convlens {name}" in readme, name
    for name in PRESETS:
        assert f"`{name}`" in readme, name
    for name in LAYER_NAMES:
        assert re.search(rf"`{name}\b", sentence), name


def test_pictures_of_the_documents() -> None:
    """Each picture that README and docs show is there and small; each that a command of the page makes is shown."""
    root = ROOT
    shown = set()
    for document in (root / "README.md", *(root / "docs").glob("*.md")):
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            path = (document.parent / link).resolve()
            assert path.is_file() and path.stat().st_size < 350_000, link
            shown.add(path.name)
    text = (root / "docs" / "how-a-cnn-works.md").read_text(encoding="utf-8")
    made = re.findall(r"^convlens .* --(?:out|svg|film) (\S+)$", text, flags=re.M)
    assert len(made) >= 8 and set(made) <= shown
    for view, size, scheme in product(("look", "lab", "model"), ("desktop", "phone"), ("light", "dark")):
        assert (root / "docs" / "pictures" / f"{view}-{size}-{scheme}.png").is_file()


def test_printed_examples_are_what_is_printed() -> None:
    """Each `$ convlens explain …` in the docs is followed by what that command prints today."""
    text = (ROOT / "docs" / "how-a-cnn-works.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n\$ convlens (.*?)\n(.*?)```", text, flags=re.S)
    assert blocks
    for line, printed in blocks:
        done = subprocess.run([sys.executable, "-m", "convlens", *shlex.split(line)], capture_output=True, check=True)
        assert done.stdout.decode("utf-8").rstrip() == printed.rstrip()


def test_examples_in_the_documents_parse() -> None:
    """Every sentence shown in docs/sentence.md is one, in canonical form or not."""
    text = (ROOT / "docs" / "sentence.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sentence\n(.*?)```", text, flags=re.S)
    assert len(blocks) >= 5
    for block in blocks:
        parsed: Any = convlens.parse(block.strip())
        assert convlens.parse(str(parsed)) == parsed


def test_the_python_reference_has_every_name() -> None:
    """docs/python.md has each public name, and each parameter of each function: docs/python_reference.py makes it."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert "threads" in sections.pop("convlens.sklearn.ConvlensClassifier")
    assert set(sections) == set(convlens.__all__)
    for name, section in sections.items():
        value: Any = getattr(convlens, name)
        if inspect.isfunction(value):
            missing = [one for one in inspect.signature(value).parameters if one != "more" and one not in section]
            assert not missing, (name, missing)
        assert (inspect.getdoc(value) or "").split("\n")[0] in section or not callable(value), name


def test_the_picture_of_the_rooms_shows_these_rooms() -> None:
    """docs/pictures/rooms.svg has the rooms of the contract, and no other: docs/rooms.py draws it anew."""
    text = (ROOT / "docs" / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = {layer.removeprefix("convlens.") for layer in layers} - {"__main__"}
    assert set(re.findall(r'class="n">([^<]+)<', text)) - rooms == set()
    assert rooms - set(re.findall(r'class="n">([^<]+)<', text)) <= {"convlens.__main__"}
