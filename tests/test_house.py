"""The house rules: import direction, the torch wall, no pickle, one writer, the command line as the library's twin."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import convlens
from convlens import cli

SOURCE = Path(convlens.__file__).parent
# The rooms in the order of the data's journey: a module imports only what stands above it.
ROOMS = [
    "data",
    "network",
    "training",
    "evaluation",
    "errors",
    "files",
    "metrics",
    "progress",
    "architecture.arguments",
    "architecture.layers",
    "architecture.sentence",
    "architecture.plan",
    "architecture.torch_source",
    "architecture.windows",
    "architecture.rows",
    "architecture.drawing",
    "architecture.explain",
    "architecture",
    "data.ahead",
    "data.decode",
    "data.paper",
    "data.ink",
    "data.framing",
    "data.idx",
    "data.mnist",
    "data.samples",
    "data.exclusions",
    "data.arrays",
    "data.folders",
    "data.sources",
    "data.mapped",
    "data.dataset",
    "data.options",
    "data.read_headers",
    "data.splitting",
    "data.writing",
    "data.pack",
    "doctor",
    "doctor.registration",
    "doctor.likeness",
    "doctor.page",
    "doctor.findings",
    "doctor.checking",
    "recipe",
    "presets",
    "modelfile",
    "run",
    "explaining",
    "lens",
    "lens.recording",
    "lens.activations",
    "lens.compute",
    "lens.sheet",
    "lens.pictures",
    "lens.features",
    "lens.film",
    "network.device",
    "network.build",
    "network.forward",
    "network.memory",
    "training.batches",
    "training.optimizer",
    "training.loop",
    "training.checkpoint",
    "training.growing",
    "training.setup",
    "training.session",
    "choosing",
    "choosing.lengths",
    "choosing.trial",
    "choosing.sizes",
    "choosing.augmenting",
    "choosing.glance",
    "choosing.choose",
    "lens.record",
    "lens.attribution",
    "classifier",
    "lens.inputs",
    "lens.foreign",
    "lens.looking",
    "evaluation.openings",
    "evaluation.evaluate",
    "evaluation.folds",
    "experiment",
    "microscope",
    "microscope.wire",
    "microscope.session",
    "microscope.lab",
    "microscope.access",
    "microscope.server",
    "microscope.serving",
    "console",
    "signals",
    "commands",
    "commands.options",
    "commands.checking",
    "commands.measuring",
    "commands.seeing",
    "cli",
    "__main__",
]
WALL = ROOMS.index("network.device")


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def imported(tree: ast.Module) -> set[str]:
    """Dotted names imported at run time; those of convlens without the prefix."""
    names: set[str] = set()
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_stands_in_the_list_of_rooms() -> None:
    """A new module is given its place in the order."""
    assert sorted(modules()) == sorted(ROOMS)


def test_imports_point_upwards() -> None:
    """A module imports only modules that stand above it."""
    for name, tree in modules().items():
        for target in imported(tree):
            inside = target.removeprefix("convlens.")
            if target.startswith("convlens.") and inside in ROOMS and name != "cli":
                assert ROOMS.index(inside) < ROOMS.index(name), f"{name} imports {inside}"


def test_nothing_above_the_wall_imports_torch() -> None:
    """The modules above the wall work in a process where torch cannot be imported."""
    above = [f"convlens.{name}" for name in ROOMS[:WALL]]
    script = "import sys; sys.modules['torch'] = None\n" + "\n".join(f"import {name}" for name in above)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_is_light() -> None:
    """`convlens --help`, and each command's, import neither torch nor NumPy nor Pillow."""
    script = (
        "import sys\nfor name in ('torch', 'numpy', 'PIL', 'safetensors', 'matplotlib'): sys.modules[name] = None\n"
        "from convlens.cli import main\nfor words in ([], ['train'], ['evaluate'], ['predict'], ['explain'], "
        "['look'], ['serve'], ['pack'], ['runs']):\n    assert main([*words, '--help']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Train a network" in done.stdout


def test_importing_the_package_is_light() -> None:
    """`import convlens` alone imports none of the heavy libraries."""
    script = "import sys, convlens; print([n for n in ('torch', 'numpy', 'PIL', 'typer') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_anywhere() -> None:
    """No module imports a pickling library, calls torch.load or torch.save, or allows pickled NumPy arrays."""
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for name, tree in modules().items():
        roots = {target.partition(".")[0] for target in imported(tree)}
        assert not roots & banned, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr not in {"load", "save"}, name
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name


def test_portability_rules() -> None:
    """No fork, no fcntl; every text file is opened with its encoding named."""
    for name, tree in modules().items():
        roots = {target.partition(".")[0] for target in imported(tree)}
        assert not roots & {"fcntl", "pwd", "grp", "resource", "msvcrt"}, name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called != "fork", name
            words = {keyword.arg for keyword in node.keywords}
            if called in {"read_text", "write_text"} and isinstance(node.func, ast.Attribute):
                is_ours = isinstance(node.func.value, ast.Name) and node.func.value.id == "files"
                assert is_ours or "encoding" in words, f"{name}:{node.lineno}"
            if called == "open":
                modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                is_text = not any("b" in mode for mode in modes)
                is_other = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in {
                    "Image",
                    "gzip",
                    "Dataset",
                    "os",
                    "archive",
                    "cls",
                }
                assert not is_text or is_other or "encoding" in words, f"{name}:{node.lineno}"


def test_only_files_py_writes() -> None:
    """Writing to disk goes through files.py; the packed folder is filled in one place, inside `new_folder`."""
    writers = {"write_bytes", "write_text", "mkdir", "unlink", "rename", "replace", "rmtree", "savez"}
    for name, tree in modules().items():
        if name == "files":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in writers:
                owner = node.func.value
                of_files = isinstance(owner, ast.Name) and owner.id in {"files", "unicodedata"}
                is_value = node.func.attr == "replace"  # of strings and recipes
                assert of_files or is_value, f"{name}:{node.lineno} {node.func.attr}"


def test_test_images_have_one_door() -> None:
    """Only evaluation/evaluate.py asks for the sealed test images, and it writes the opening down before."""
    for name, tree in modules().items():
        uses = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "sealed_test"]
        assert not uses or name == "evaluation.evaluate", name


def test_public_names() -> None:
    """Everything in __all__ can be reached, has a docstring, and nothing is missing from dir()."""
    for name in convlens.__all__:
        assert getattr(convlens, name).__doc__ or name == "PRESETS", name
    assert sorted(convlens.__all__) == dir(convlens)
    with pytest.raises(AttributeError):
        _ = convlens.no_such_name


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "explain", "look", "serve", "pack", "runs"])
def test_command_line_is_the_python_api(name: str) -> None:
    """Each command takes the parameters of its function under the same names, with the same defaults.

    What cannot be typed (progress, stop, a Recipe) is Python's alone; recipe flags and formats the command line's.
    """
    function, command = getattr(convlens, name), getattr(cli, name)
    python_only = {"progress", "stop", "recipe", "settings"}
    command_only = {
        "train": {"epochs", "batch_size", "lr", "optimizer", "precision", "balance", "patience", "set_"},
        "check": {"out", "write_exclusions", "write_groups"},
        "explain": {"torch", "svg"},
        "predict": {"csv"},
        "look": {"out", "arrays", "film"},
    }.get(name, set()) | {"json"}
    of_function = {k: p for k, p in inspect.signature(function).parameters.items() if k not in python_only}
    of_command = {k: p for k, p in inspect.signature(command).parameters.items() if k not in command_only}
    assert list(of_function) == [k for k in of_command if k in of_function] or set(of_function) == set(of_command)
    assert set(of_function) == set(of_command)
    for key, parameter in of_command.items():
        if parameter.default is not inspect.Parameter.empty and parameter.default is not None:
            assert str(of_function[key].default) == str(parameter.default), key


def test_files_are_one_idea_long() -> None:
    """No module has more than 350 lines, but for the catalogue of layers."""
    for path in SOURCE.rglob("*.py"):
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        assert num_lines <= 350 or path.name == "layers.py", f"{path.name}: {num_lines}"


def test_command_line_under_a_cp1252_console() -> None:
    """Characters that a Windows console lacks are replaced, never a UnicodeEncodeError."""
    for words in (
        ["explain", "conv(8, 3) relu globalavgpool flatten linear(classes)"],
        ["explain", "conv(8"],
        ["--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "convlens", *words],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        )
        text = done.stdout.decode("cp1252") + done.stderr.decode("cp1252")
        assert "Traceback" not in text, text
        assert done.returncode == (2 if words[-1] == "conv(8" else 0)
        if words[-1].endswith("(classes)"):
            assert "floor((28 - 3) / 1) + 1 = 26" in text


def test_documents_name_every_command_preset_and_layer() -> None:
    """README and docs say what is there: each command and preset in the README, each layer in docs/sentence.md."""
    from convlens.architecture.layers import LAYER_NAMES
    from convlens.presets import PRESETS

    root = SOURCE.parent.parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    sentence = (root / "docs" / "sentence.md").read_text(encoding="utf-8")
    for name in ("train", "evaluate", "predict", "explain", "look", "serve", "pack", "runs"):
        assert f"convlens {name}" in readme, name
    for name in PRESETS:
        assert f"`{name}`" in readme, name
    for name in LAYER_NAMES:
        assert re.search(rf"`{name}\b", sentence), name


def test_pictures_of_the_documents() -> None:
    """Each picture that README and docs show is there and small; each that a command of the page makes is shown."""
    root = SOURCE.parent.parent
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
    text = (SOURCE.parent.parent / "docs" / "how-a-cnn-works.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n\$ convlens (.*?)\n(.*?)```", text, flags=re.S)
    assert blocks
    for line, printed in blocks:
        done = subprocess.run([sys.executable, "-m", "convlens", *shlex.split(line)], capture_output=True, check=True)
        assert done.stdout.decode("utf-8").rstrip() == printed.rstrip()


def test_examples_in_the_documents_parse() -> None:
    """Every sentence shown in docs/sentence.md is one, in canonical form or not."""
    text = (SOURCE.parent.parent / "docs" / "sentence.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sentence\n(.*?)```", text, flags=re.S)
    assert len(blocks) >= 5
    for block in blocks:
        parsed: Any = convlens.parse(block.strip())
        assert convlens.parse(str(parsed)) == parsed
