"""What the command line says of itself: panels of options, and what a shell completes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.commands.options import complete_data, complete_preset
from convlens.presets import PRESETS
from tests.helpers import COMMANDS

PANELS = ("Data", "Choices", "Training", "Evaluation", "Machine", "Output")


def shown_help(*words: str) -> str:
    """A help text as a wide terminal shows it."""
    environment = {**os.environ, "COLUMNS": "140", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "convlens", *words, "--help"], env=environment, capture_output=True, check=True
    )
    return done.stdout.decode("utf-8")


def test_the_options_of_train_stand_in_panels() -> None:
    """Six panels in their order, the usual options first, nearly nothing outside of them, every preset named."""
    text = shown_help("train")
    places = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    outside = text.partition("─ Options ─")[2].partition("─ Data ─")[0] if "─ Options ─" in text else ""
    assert {word for word in outside.split() if word.startswith("--")} <= {"--help"}
    choices = text[places[1] : places[2]]
    assert choices.index("--preset") < choices.index("--architecture")
    assert all(name in text for name in PRESETS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_nothing_in_the_middle(name: str) -> None:
    """No help text is cut off by its column."""
    assert "…" not in shown_help(name)


def completed(workplace: Path, words: str, *typed: str) -> list[str]:
    """What bash would be offered behind the words."""
    arguments = ["convlens", *words.split(), *typed]
    environment = {
        **os.environ,
        "_CONVLENS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(arguments),
        "COMP_CWORD": str(len(arguments) - 1),
    }
    script = "import sys; sys.argv[0] = 'convlens'; from convlens.__main__ import entry; entry()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_the_shell_completes_names(workplace: Path) -> None:
    """Commands, data sets, paths and presets complete, as bash asks for them."""
    assert completed(workplace, "tr") == ["train"]
    assert completed(workplace, "train", "fash") == ["fashion-mnist"]
    assert "natural" in completed(workplace, "train mnist --preset", "na")
    (workplace / "my photos").mkdir()
    (workplace / "pictures.zip").touch()
    assert completed(workplace, "train", "pict") == ["pictures.zip"]


def test_names_to_complete(workplace: Path) -> None:
    """Named sets first, then what lies in the folder; a place that is not there offers nothing."""
    (workplace / "mine").mkdir()
    assert complete_data("mn") == ["mnist"] and complete_data("m") == ["mnist", "mine/"]
    assert complete_data("no/such/") == [] and complete_preset("st") == ["standard"]
    assert complete_preset("") == list(PRESETS)
