"""The command line, as processes: outputs, signals, errors, help."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens import cli
from convlens.run import find_run
from tests.conftest import TINY, Command, shapes, write_folders
from tests.helpers import COMMANDS

FLAGS = ["--architecture", TINY, "--epochs", "12", "--batch-size", "16", "--precision", "float32", "--lr", "0.02"]


def test_from_class_folders_to_an_answer(command: Command, workplace: Path, folders: Path) -> None:
    """pack, train, runs, evaluate, predict, explain and resume, each by the command line alone."""
    packed = command("pack", folders)
    assert packed.returncode == 0 and "fingerprint" in packed.stdout
    trained = command("train", folders, *FLAGS, "--json")
    assert trained.returncode == 0, trained.stderr
    document = json.loads(trained.stdout)
    assert document["status"] == "complete" and document["test"] is None
    assert set(document["val"]) >= {"accuracy", "interval", "n"} and document["val"]["accuracy"] >= 0.75
    assert "epoch" in trained.stderr
    listed = command("runs")
    assert "complete" in listed.stdout and "pictures" in listed.stdout
    report = json.loads(command("evaluate", "last", "--json").stdout)
    assert report["n"] == document["dataset"]["num_samples"]["test"] and report["accuracy"] >= 0.75
    table = command("evaluate", document["run"])
    assert "precision" in table.stdout and "confusion" in table.stdout and "on this test set 2 times" in table.stdout
    picture = folders / "circle" / "001.png"
    answer = command("predict", "last", picture, "--csv", "answers.csv")
    assert answer.returncode == 0 and "circle" in answer.stdout
    assert Path("answers.csv").read_text(encoding="utf-8").startswith("path,label1,probability1")
    explained = command("explain", "last")
    assert "receptive field" in explained.stdout and "parameters" in explained.stdout
    source = command("explain", "last", "--torch")
    assert subprocess.run([sys.executable, "-c", source.stdout], check=False, cwd=workplace).returncode == 0
    again = command("train", "--resume", "last")
    assert again.returncode == 0 and "nothing to resume" in again.stderr


def test_json_is_one_document_and_nothing_else(command: Command) -> None:
    """--json prints one document on standard output; all else goes to standard error."""
    for words in (["explain", TINY, "--json"], ["runs", "--json"], ["pack", "mnist", "--json"]):
        done = command(*words)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        assert done.stdout.isascii()


def toy(workplace: Path, arrays: Any) -> None:
    x, y, x_test, y_test = arrays
    np.savez(workplace / "toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_so(workplace: Path, arrays: Any, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM finish the step, save, and exit 130 and 143; the run can be loaded and resumed."""
    toy(workplace, arrays)
    words = ["train", "toy.npz", "--architecture", TINY, "--epochs", "150", "--batch-size", "32", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "convlens", *words], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith("epoch"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == code, rest
    assert "--resume run" in rest
    run = find_run("run")
    assert run.status == "interrupted" and convlens.load(run).class_names == ("0", "1", "2")
    line = [sys.executable, "-m", "convlens", "train", "--resume", "run", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "complete", done.stderr


BAD: list[tuple[list[str], str]] = [
    (["train", "mnits"], "did you mean 'mnist'"),
    (["train", "--preset", "standrad"], "did you mean 'standard'"),
    (["train", "nowhere/at/all"], "no data set or path"),
    (["train", "--architecture", "conv(8, 5) rleu flatten linear(classes)"], "did you mean 'relu'"),
    (["train", "--architecture", "conv(8, 50) flatten linear(classes)"], "at most 28×28 would fit"),
    (["train", "--architecture", "conv(8, 5) linear(classes)"], "put flatten before it"),
    (["train", "--architecture", "flatten linear(9)"], "10 classes"),
    (["train", "--lr", "-1"], "lr must be"),
    (["train", "--set", "lr"], "field=value"),
    (["train", "--set", "speed=9"], "no 'speed'"),
    (["train", "--device", "cuba"], "did you mean 'cuda'"),
    (["train", "--seed", "x"], "--seed"),
    (["train", "--val-frac", "2"], "--val-frac must be a number"),
    (["train", "--exclude", "a", "--exclude=b"], "--exclude stands twice: put both lists into one file"),
    (["train", "--lr", "fast"], "--lr takes a number, not 'fast'"),
    (["train", "--batch-size=1.5"], "--batch-size takes a whole number, not '1.5'"),
    (["train", "--learning-rate", "1"], "did you mean --lr?"),
    (["train", "--time", "5"], "--time must be like 90s, 5m or 1.5h"),
    (["train", "--out", "taken"], "exists already"),
    (["train", "--resume", "nowhere"], "no run folder"),
    (["train", "--sped", "1"], "--sped"),
    (["trian"], "trian"),
    (["evaluate", "nowhere"], "no model file"),
    (["evaluate", "last"], "no last run"),
    (["predict", "last", "x.png"], "no last run"),
    (["explain", "conv(8"], "expected"),
    (["explain", "nowhere.safetensors"], "no model file"),
    (["explain", "relu", "--input", "big"], "height x width x channels"),
    (["pack", "taken"], "no class folders"),
    (["pack", "mnist", "--framing", "squash"], "unknown --framing"),
    (["pack", "mnist", "--group", "parent"], "no paths to read it off"),
]


def test_bad_input_is_one_line_and_exit_code_2(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends with exit code 2 and one line (a sentence error adds the line with its caret), nothing written."""
    from convlens.cli import main

    Path("taken").mkdir()
    Path("taken/file.txt").write_text("mine", encoding="utf-8")
    for words, expected in BAD:
        code = main(words)
        out, error = capsys.readouterr()
        assert code == 2, (words, out, error)
        last = [line for line in error.splitlines() if line.startswith("convlens: ")]
        assert len(last) == 1 and expected in error, (words, error)
        assert len(error.splitlines()) == (3 if "column" in error else 1), (words, error)
        assert out == "", words
    assert [path.name for path in Path().iterdir()] == ["taken"]
    assert Path("taken/file.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_full_disk_is_found_before_training(workplace: Path, arrays: Any) -> None:
    """Where nothing can be written the training is refused before it begins, in one line, and nothing is left."""
    toy(workplace, arrays)
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from convlens.cli import main\n"
        "import convlens, convlens.data.packed.pack; convlens.data.packed.pack.open_data('toy.npz')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "train", "toy.npz", "--architecture", TINY, "--out", "run"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2 and "no space left" in done.stderr, done.stderr
    assert [path.name for path in workplace.iterdir()] == ["toy.npz"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_disk_that_fills_leaves_earlier_files_whole(workplace: Path, arrays: Any) -> None:
    """If writing the model fails, the message says so in one line and the run can still be resumed."""
    script = (
        "import sys, convlens.cli\n"
        "from convlens import files\n"
        "real = files.write_with\n"
        "def full(file): raise OSError(28, 'No space left on device')\n"
        "files.write_with = lambda path, write: real(path, full if path.name == 'model.safetensors' else write)\n"
        "sys.exit(convlens.cli.main(sys.argv[1:]))"
    )
    toy(workplace, arrays)
    words = ["train", "toy.npz", "--architecture", TINY, "--epochs", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2 and "no space left to write" in done.stderr
    assert done.stderr.count("convlens:") == 1
    assert not Path("run/model.safetensors").exists() and not list(Path("run").glob(".*partial"))
    assert convlens.train(resume="run").status == "complete"


def test_a_file_where_a_folder_is_needed(workplace: Path, arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out file/run` is one line, and the file stays as it was."""
    from convlens.cli import main

    toy(workplace, arrays)
    Path("file").write_text("mine", encoding="utf-8")
    assert main(["train", "toy.npz", "--architecture", TINY, "--out", "file/run"]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err
    assert Path("file").read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_names_that_look_like_markup(workplace: Path, tmp_path: Path, command: Command) -> None:
    """Class and file names with brackets, colours and escapes are shown as text."""
    root = write_folders(tmp_path / "odd", 12)
    (root / "circle").rename(root / "[red]circle")
    Image.open(root / "square" / "000.png").save(root / "square" / "[bold].png")
    trained = command("train", root, *FLAGS)
    assert trained.returncode == 0, trained.stderr
    assert "[red]circle" in command("evaluate", "last").stdout
    assert "[bold].png" in command("predict", "last", root / "square" / "[bold].png").stdout


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints it; --help lists the commands."""
    from convlens.cli import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("convlens 0.")
    main(["--help"])
    assert "Commands" in capsys.readouterr().out


def test_help_is_light() -> None:
    """`convlens --help`, and each command's, import neither torch nor NumPy nor Pillow."""
    script = (
        "import sys\nfor name in ('torch', 'numpy', 'PIL', 'safetensors', 'matplotlib'): sys.modules[name] = None\n"
        f"from convlens.cli import main\nfor words in ([], *[[name] for name in {COMMANDS}]):\n"
        "    assert main([*words, '--help']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Train a network" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_is_the_python_api(name: str) -> None:
    """Each command takes the parameters of its function under the same names, with the same defaults.

    What cannot be typed (progress, stop, a Recipe) is Python's alone; recipe flags and formats the command line's.
    """
    function, command = getattr(convlens, name), getattr(cli, name)
    python_only = {"progress", "stop", "more", "recipe", "recipe_fields"}
    command_only = {
        "train": {
            "epochs",
            "batch_size",
            "lr",
            "optimizer",
            "precision",
            "balance",
            "patience",
            "freeze",
            "set_",
            "shards",
        }
        | {"processes", "max_restarts"},
        "check": {"out", "write_exclusions", "write_groups", "write_labels", "overwrite"},
        "explain": {"torch", "svg", "overwrite"},
        "evaluate": {"report", "csv", "overwrite"},
        "compare": {"report", "overwrite"},
        "predict": {"csv", "jsonl", "overwrite"},
        "look": {"out", "arrays", "film", "overwrite"},
    }.get(name, set()) | {"json"}
    of_function = {k: p for k, p in inspect.signature(function).parameters.items() if k not in python_only}
    of_command = {k: p for k, p in inspect.signature(command).parameters.items() if k not in command_only}
    assert list(of_function) == [k for k in of_command if k in of_function] or set(of_function) == set(of_command)
    assert set(of_function) == set(of_command)
    for key, parameter in of_command.items():
        if parameter.default is not inspect.Parameter.empty and parameter.default is not None:
            assert str(of_function[key].default) == str(parameter.default), key


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


def test_runs_name_the_nearest_preset(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of presets with the same sentence a run is listed under the one that fewest values differ from."""
    x, y = shapes(60, 1)
    convlens.train((x, y), preset="natural", recipe={"epochs": 1}, progress="none")
    assert cli.main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "natural epochs=1" in " ".join(out.split()) and "accurate" not in out
