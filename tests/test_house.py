"""The house keeps its own rules: rooms, import costs, portability, where files are written."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.commands import terminal
from tests.conftest import TINY, shapes
from tests.helpers import COMMANDS, ROOT, SOURCE

CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]


ROOMS = [room.removeprefix("convlens.") for room in reversed(CONTRACT["layers"])]  # from the ground to the roof


ABOVE_THE_WALL = ROOMS[: ROOMS.index("network")]


# Rooms around the core: each may be missing, and the main job still runs. Which command is lost without it.
AROUND = {
    "convlens.doctor": "check",
    "convlens.lens": "look",
    "convlens.microscope": "serve",
    "convlens.choosing": "",
    "convlens.render.figures": "look",
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> set[str]:
    """Dotted names imported in whatever form: at the top, late, or for types alone."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    return max((room for room in ROOMS if name == room or name.startswith(f"{room}.")), key=len, default="")


def test_every_module_stands_in_a_room() -> None:
    """A new module is given its place in the order; only what holds rooms together stands outside."""
    assert {name for name in modules() if not room_of(name)} <= {"data"}


def test_imports_point_to_the_ground() -> None:
    """A room imports only rooms below it, late and type-only imports included (import-linter's layers)."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "rooms KEPT" in done.stdout, done.stdout + done.stderr


def test_no_circle_anywhere() -> None:
    """No two modules import each other over any number of steps, in a room or across, type-only imports included."""
    trees = modules()
    uses = {
        name: {target.removeprefix("convlens.") for target in imported(tree)} & set(trees) - {name}
        for name, tree in trees.items()
    }
    packages = {name for name in trees if any(other.startswith(f"{name}.") for other in trees)}
    graph = graphlib.TopologicalSorter({n: targets - packages for n, targets in uses.items() if n not in packages})
    graph.prepare()  # raises CycleError, which names the circle


def test_nothing_above_the_wall_imports_torch() -> None:
    """The modules above the wall, and `check`, work in a process where torch cannot be imported."""
    above = [f"convlens.{name}" for name in modules() if room_of(name) in ABOVE_THE_WALL] + ["convlens.doctor.checking"]
    script = "import sys; sys.modules['torch'] = None\n" + "\n".join(f"import {name}" for name in above)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, tree in modules().items():
        if room_of(name) in ABOVE_THE_WALL:
            assert not {target.partition(".")[0] for target in imported(tree)} & {"torch"}, name


@pytest.mark.training
@pytest.mark.parametrize("room", list(AROUND))
def test_rooms_around_the_core_can_be_taken_away(room: str, workplace: Path) -> None:
    """Without it the main job (train, evaluate, predict) runs, and the command that is missing says so in one line."""
    Image.new("RGB", (16, 16), (200, 30, 30)).save(workplace / "one.png")
    script = (
        f"import sys; sys.modules[{room!r}] = None\nfrom convlens.cli import main\n"
        f"net = ['--architecture', {TINY!r}, '--epochs', '1', '--set', 'shift_px=1']\n"
        "assert main(['train', 'data.npz', *net, '--out', 'run']) == 0\n"
        "assert main(['evaluate', 'run']) == 0\nassert main(['predict', 'run', 'one.png']) == 0\n"
        "words = {'check': ['check', 'data.npz'], 'look': ['look', 'run', 'one.png'], 'serve': ['serve', 'run'], "
        f"'': ['train', 'data.npz']}}[{AROUND[room]!r}]\nsys.exit(main(words))"
    )
    np.savez(workplace / "data.npz", x=shapes(120)[0], y=shapes(120)[1])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workplace, capture_output=True, text=True, check=False, timeout=200
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and f"{room}" in last and "missing" in last, done.stderr


def test_only_the_public_functions_have_many_parameters() -> None:
    """More than seven parameters: only public functions, their commands, and no other."""
    public = {*convlens.__all__, *COMMANDS}
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                num = len([a for a in given if a.arg not in ("self", "cls")])
                is_estimator = (name, node.name) == ("sklearn", "__init__")  # whose form scikit-learn prescribes
                assert num <= 7 or node.name in public or is_estimator, f"{name}.{node.name} has {num} parameters"


def test_errors_speak_of_parameters() -> None:
    """Library code names parameters in backticks, which the command line writes as its flags; it knows none itself."""
    for name, tree in modules().items():
        if room_of(name) in {"commands", "cli", "microscope"} or name == "runtime.kit_program":
            continue  # they have a command line of their own
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise):
                words = " ".join(
                    n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                )
                flags = re.findall(r"(?<![\w-])--[a-z][a-z-]+", words)
                assert not flags or "convlens " in words or "-convert" in words, f"{name}:{node.lineno} {flags}"
    assert terminal.as_typed("add `channels=1`, leave `val_frac` and `parent` away; `shift_px=2`, `batch_size`") == (
        "add --channels 1, leave --val-frac and --from away; --set shift_px=2, --batch-size"
    )


def test_importing_the_package_is_light() -> None:
    """`import convlens` alone imports none of the heavy libraries."""
    script = "import sys, convlens; print([n for n in ('torch', 'numpy', 'PIL', 'typer') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_anywhere() -> None:
    """No module imports a pickling library, calls torch.load or torch.save, or allows pickled NumPy arrays; but one
    calls torch.load, once, with `weights_only`."""
    loading = []
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for name, tree in modules().items():
        roots = {target.partition(".")[0] for target in imported(tree)}
        assert not roots & banned, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr != "save", name
                loading += [name] if node.attr == "load" else []
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name
    assert loading == ["network.adopting"]
    source = (SOURCE / "network" / "adopting.py").read_text(encoding="utf-8")
    assert source.count('torch.load(content, map_location="cpu", weights_only=True)') == 1


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
                is_other = isinstance(node.func, ast.Attribute) and getattr(
                    node.func.value, "id", getattr(node.func.value, "attr", "")
                ) in {
                    "Image",
                    "gzip",
                    "Dataset",
                    "os",
                    "archive",
                    "tarfile",
                    "cls",
                    "tree",
                    "disk",
                    "_archive",
                }
                assert not is_text or is_other or "encoding" in words, f"{name}:{node.lineno}"


_WRITERS = (
    "write_bytes write_text mkdir unlink rename rmdir touch symlink_to hardlink_to chmod makedirs rmtree copyfile copy "
    "copytree move link symlink remove tofile memmap mkdtemp mkstemp NamedTemporaryFile TemporaryFile "
    "TemporaryDirectory open_memmap"
)


WRITERS = set(_WRITERS.split())


COMMON = {"copy", "move", "remove", "link"}  # of lists and values, too


INTO = {"save", "savez", "savez_compressed", "savefig", "savetxt", "dump"}  # into memory or a file that files.py opened


def writes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each call in a module that may write to disk, however it is written: methods, functions, modes, aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"os", "shutil", "tempfile", "pathlib", "numpy"}:
            for alias in node.names:
                if alias.name in WRITERS | INTO:
                    yield node.lineno, alias.name
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        if owner == "files":
            continue
        if called in WRITERS and (called not in COMMON or owner in {"os", "shutil"}):
            yield node.lineno, called
        if called == "replace" and owner in {"os", "Path"}:
            yield node.lineno, called
        if called in {"open", "fdopen"}:
            modes = [
                a.value
                for a in [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            if any(set(mode) & set("wax+") and len(mode) <= 3 for mode in modes):
                yield node.lineno, f"open {modes}"
        if called in INTO and node.args:
            target = node.args[0]
            into = getattr(target, "id", "")
            if into not in {"file", "written", "page"} and not (called == "save" and owner not in {"np", "numpy"}):
                yield node.lineno, f"{called} into {ast.unparse(target)}"


def test_only_files_py_writes() -> None:
    """Writing to disk goes through files.py, whatever form it takes; the packed folder is filled in one place, inside
    `new_folder`."""
    for name, tree in modules().items():
        found = list(writes(tree))
        if name not in {"files", "data.packed.writing", "data.packed.journal"}:
            assert not found, f"{name}: {found}"
    assert len(list(writes(modules()["data.packed.writing"]))) == 3, "labels, index, samples"
    assert len(list(writes(modules()["data.packed.journal"]))) == 1, "entries, mapped to be read"
    planted = (
        "from shutil import move\nPath('x').open(mode='w')\nopen('x', 'ab')\nnp.save('x.npy', a)\nos.replace(a, b)"
    )
    assert len(list(writes(ast.parse(planted)))) == 5


_OLD_NAMES = (
    "Arithmetic MappedImages lowest_share draw_of looked_at FileSample Setup wishes_of new_setup setup_of time_s Twins "
    "_Twins sealed_test record_opening Guard openings.py glance foreign ahead( mapped.py paper.py samples.py survey( "
    "splitting folders.py likeness"
)


def test_old_names_are_gone() -> None:
    """Neither code nor documents use the names of before, as names or aliases; decisions and changelog may tell."""
    documents = [p for p in (ROOT / "docs").glob("*.md") if p.name != "decisions.md"] + [ROOT / "README.md"]
    for path in [*SOURCE.rglob("*.py"), *documents]:
        text = path.read_text(encoding="utf-8")
        for old in _OLD_NAMES.split():
            pattern = r"(?<![\w.])" + re.escape(old) + (r"\b" if old[-1].isalnum() else "")
            assert not re.search(pattern, text), f"{path.name}: {old}"


def test_public_names() -> None:
    """Everything in __all__ can be reached, has a docstring, and nothing is missing from dir()."""
    for name in convlens.__all__:
        assert getattr(convlens, name).__doc__ or name == "PRESETS", name
    assert sorted(convlens.__all__) == dir(convlens)
    with pytest.raises(AttributeError):
        _ = convlens.no_such_name
