"""Random single faults in a finished run's folder, its cache and its model; then the program is asked again.

    python -m tests.battery.faults [--num 1000] [--seed 0]

Each must end in the same answer as before, or in one line that names a file, within five seconds. The program runs in
one process that is forked for each fault (a fresh interpreter would spend the time on importing torch).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.battery.helpers import IS_ROOT, TRAIN, done, tensors, write_toy

COMMANDS = (["evaluate", "runs/toy-1", "--json"], ["train", "--resume", "runs/toy-1"], ["runs", "--json"])
MOST_S = 5.0


@dataclass
class Faults:
    """What came of them: how many ended how, and a line on each that did not hold."""

    num: int = 0
    same: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all held."""
        return not self.broken

    def text(self) -> str:
        """As it stands on the page."""
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in self.kinds.most_common())
        asked = ", ".join(f"`{command[0]}`" for command in COMMANDS)
        lines = [
            f"**{self.num:,} random single faults** ({kinds}) in a finished run's folder, its cache and model, then "
            f"one of {asked}: {self.same:,} gave the same answer as before, {self.refused:,} one line that names the "
            f"file, {len(self.broken):,} anything else; the slowest took {self.slowest_s:.1f} s."
        ]
        return "\n".join([*lines, *(f"- FAILS: {line}" for line in self.broken[:20])])


# ---------------------------------------------------------------- one fault


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(bytes(data))


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _append(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.choice([b"\0", b"\n", b"{}", b'{"a": NaN}\n', bytes(100)]))


def _fill(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    path.write_bytes(bytes([rng.choice([0, 0x20, 0xFF])]) * size)


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["/dev/zero", "/nowhere", str(path), "/etc"]))


def _field(path: Path, rng: random.Random) -> None:
    """One value of a JSON file changed; of other files, a byte."""
    try:
        value = json.loads(path.read_bytes().partition(b"\n")[0] if path.suffix == ".jsonl" else path.read_bytes())
    except ValueError:
        _flip(path, rng)
        return
    inner = value
    while isinstance(inner, dict) and inner:
        name = rng.choice(sorted(inner))
        if not isinstance(inner[name], dict) or rng.random() < 0.3:
            odd: list[object] = [None, True, -1, 1e308, "", "\x1b[31m", [], {}, 10**25, float("nan"), "x" * 100_000]
            inner[name] = rng.choice(odd)
            break
        inner = inner[name]
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def _mode(path: Path, rng: random.Random) -> None:
    """The file, or the folder that it is in, may not be read, or not be written."""
    rng.choice([path, path.parent]).chmod(rng.choice([0, 0o444, 0o555]))


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "byte": _flip, "cut": _cut, "appended": _append, "filled": _fill, "gone": _remove, "a folder": _folder,
    "a pipe": _pipe, "a link": _link, "field": _field, "permissions": _mode,
}  # fmt: skip


# ---------------------------------------------------------------- the answer


def _answer(work: Path, command: list[str]) -> tuple[int, str, str, float]:
    """The program in a forked child of this process: exit code, output, errors, seconds."""
    reads, writes = os.pipe()
    started = time.monotonic()
    if (child := os.fork()) == 0:
        os.close(reads)
        out, err = io.StringIO(), io.StringIO()
        code = 99
        try:
            os.chdir(work)
            _obey_permissions()
            from convlens.cli import main

            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(command)
        except BaseException as error:  # a traceback is what is looked for
            err.write(f"Traceback {type(error).__name__}: {error}")
        with os.fdopen(writes, "w", encoding="utf-8") as pipe:
            json.dump([code, out.getvalue(), err.getvalue()], pipe)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    code, out_text, err_text = json.loads(text) if text else (99, "", "Traceback: it died")
    return code, out_text, err_text, time.monotonic() - started


def _obey_permissions() -> None:
    """Root reads and writes everything: give that up (the capabilities DAC_OVERRIDE and DAC_READ_SEARCH)."""
    if not IS_ROOT:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for place in (0, 1):  # effective and permitted
        sets[place] &= ~0b110
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _result(command: list[str], code: int, out: str, work: Path) -> object:
    """What of an answer must stay the same."""
    if code != 0:
        return code
    if "--resume" in command:
        return tensors(work / "runs" / "toy-1")
    value = json.loads(out)
    if isinstance(value, dict):
        return {name: value[name] for name in ("accuracy", "n", "confusion", "loss", "class_names", "split")}
    return [(one["run"], one["status"], one["val"], one["architecture"]) for one in value]


def report(num: int = 1_000, seed: int = 0) -> Faults:
    """Do so many faults, one at a time, each in a fresh copy."""
    found, rng = Faults(), random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    whole, work = root / "whole", root / "here" / "work"
    try:
        (whole / "work").mkdir(parents=True)
        write_toy(whole / "work")
        places = {"CONVLENS_CACHE": str(root / "here" / "cache"), "CONVLENS_STATE": str(root / "here" / "state")}
        os.environ.update(places | {"OMP_NUM_THREADS": "1"})
        shutil.copytree(whole, root / "here")
        assert done(work, *TRAIN, "--checkpoint-every", "0")[0] == 0
        shutil.rmtree(whole)
        shutil.copytree(root / "here", whole)
        import convlens
        import convlens.classifier
        import convlens.experiment  # noqa: F401  # so that a forked child has it

        expected = {}
        for command in COMMANDS:
            _fresh(whole, root / "here")
            _unfinished(work, command)
            code, out, err, _ = _answer(work, command)
            assert code == 0, err
            expected[command[0]] = _result(command, code, out, work)
        files = sorted(
            path.relative_to(whole) for path in whole.rglob("*")
            if path.is_file() and path.suffix != ".lock" and path.name not in ("toy.npz", ".lock")
        )  # fmt: skip
        for number in range(num):
            _fresh(whole, root / "here")
            path, kind, command = rng.choice(files), rng.choice(sorted(KINDS)), COMMANDS[number % len(COMMANDS)]
            _unfinished(work, command)
            if not (root / "here" / path).exists():
                path = path.with_name("log.jsonl")
            KINDS[kind](root / "here" / path, rng)
            code, out, err, seconds = _answer(work, command)
            found.num += 1
            found.kinds[kind] += 1
            found.slowest_s = max(found.slowest_s, seconds)
            what = f"{path} {kind}, then `{command[0]}`: "
            lines = err.strip().splitlines()
            if "Traceback" in err or seconds > MOST_S:
                found.broken.append(f"{what}{seconds:.1f} s, {err[-300:]!r}")
            elif code == 0 and _result(command, code, out, work) == expected[command[0]]:
                found.same += 1
            elif lines and lines[-1].startswith("convlens: ") and _names(path, err) and code in _allowed(command):
                found.refused += 1
            else:
                found.broken.append(f"{what}code {code}, {(err or out)[-300:]!r}")
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {num}, {len(found.broken)} broken", end="", file=sys.stderr)
        return found
    finally:
        for path in root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(root, ignore_errors=True)


def _allowed(command: list[str]) -> set[int]:
    """Exit codes beside a line: bad input is 2; the list goes on with what it can read."""
    return {0, 2} if command[0] == "runs" else {2}


def _names(path: Path, text: str) -> bool:
    """Whether a line names the file, or the folder that it is in."""
    return any(part in text for part in path.parts[-2:])


def _unfinished(work: Path, command: list[str]) -> None:
    """Before it is resumed, a run as a kill before its end leaves it: there is work to do."""
    if "--resume" in command:
        (work / "runs" / "toy-1" / "model.safetensors").unlink()


def _fresh(whole: Path, here: Path) -> None:
    for path in (here, *here.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(here)
    shutil.copytree(whole, here)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faults = report(asked.num, asked.seed)
    print(faults.text())
    sys.exit(0 if faults.holds else 1)
