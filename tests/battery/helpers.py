"""What the rows share: the program in a process of its own, its pieces, and how an outcome is judged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlens.text import printable
from tests.conftest import TINY, shapes

PROGRAM = [sys.executable, "-m", "convlens"]
TRAIN = ["train", "toy.npz", "--architecture", TINY, "--epochs", "2", "--batch-size", "32"]
TRAIN += ["--precision", "float32", "--threads", "1"]


def row(name: str, what: str) -> pytest.MarkDecorator:
    """Marks a test as a row of the battery: its name and what is done."""
    return pytest.mark.row(name, what)


def write_toy(folder: Path, num: int = 300) -> None:
    """toy.npz, three classes of 16×16, with a split."""
    (x, y), (x_test, y_test) = shapes(num, 1), shapes(100, 2)
    np.savez(folder / "toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def start(folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """The program, started in a folder; both its streams are pipes unless options say otherwise."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], cwd=folder, **(given | options))


def done(folder: Path, *arguments: object, **options: Any) -> tuple[int, str, str]:
    """The program run to its end: exit code, standard output and standard error."""
    process = start(folder, *arguments, **options)
    out, err = process.communicate(timeout=180)
    return process.returncode, (out or b"").decode("utf-8", "replace"), (err or b"").decode("utf-8", "replace")


def one_line(code: int, err: str, *words: str) -> str:
    """Bad input: exit code 2, the last line says what is wrong, no traceback. Returns the line."""
    assert "Traceback" not in err, err[-2_000:]
    lines = err.strip().splitlines()
    assert code == 2 and lines and lines[-1].startswith("convlens: "), (code, err[-2_000:])
    assert all(word in lines[-1] for word in words), lines[-1]
    assert printable(lines[-1]) == lines[-1]
    return lines[-1]


def tensors(run: Path) -> str:
    """SHA-256 of a model file's tensors, which its card (it has times) is no part of."""
    data = (run / "model.safetensors").read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def record(run: Path) -> dict[str, Any]:
    """What stands in run.json."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return found


def wait_for(what: Any, seconds: float = 60) -> Any:
    """Ask until the answer is true: rows wait for what happens, not for a time."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
    return found


def leftovers(folder: Path) -> list[Path]:
    """What is half made."""
    return list(folder.rglob("*.partial"))


def resident_mb(pid: int, key: str = "VmHWM") -> float:
    """Megabytes a process has in memory (VmRSS) or had at most (VmHWM)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


IS_LINUX = sys.platform.startswith("linux")
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
