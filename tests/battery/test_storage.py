"""Rows A: storage, resumption, signals, streams, and files that are not what they were."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.battery.helpers import (
    IS_ROOT,
    PROGRAM,
    TRAIN,
    done,
    leftovers,
    one_line,
    record,
    row,
    start,
    tensors,
    wait_for,
)
from tests.helpers import folder

# ---------------------------------------------------------------- killed


@pytest.mark.slow
@row("A1", "SIGKILL at 12 random moments, resumed")
def test_killed_at_random_moments(copied: Callable[[], Path], whole: Path) -> None:
    """Each comes to the tensors of the run that was not disturbed, and nothing half made is left."""
    rng, expected = random.Random(1), tensors(whole / "work" / "runs" / "toy-1")
    work = copied()
    for number in range(12):
        out = work / "runs" / f"killed-{number}"
        process = start(work, *TRAIN, "--checkpoint-every", "0", "--out", out)
        steps = rng.randint(0, 15)
        places = out / "checkpoints"
        while process.poll() is None and len(list(places.glob("*"))) < min(steps, 2):
            pass
        process.kill()
        process.communicate()
        again = ["train", "--resume", out] if out.exists() else [*TRAIN, "--out", out]  # killed before there was a run
        code, _, err = done(work, *again)
        assert code == 0, err
        assert tensors(out) == expected and not leftovers(out)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "truncated":
        path.write_bytes(data[:middle])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "flipped":
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "missing":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_text(how, encoding="utf-8")


ODD_MANIFESTS = (
    '{"files": []}',
    '{"step": 1, "files": {"a\\u0000b": {"bytes": 1, "sha256": "0"}}}',
    "[]",
    "null",
    "{}",
)


@pytest.mark.parametrize("how", ["truncated", "flipped", "a pipe", *ODD_MANIFESTS[:2]])
@row("A2", "the newest checkpoint damaged: file and manifest, cut, flipped, another shape, a pipe")
def test_the_newest_checkpoint_is_damaged(copied: Callable[[], Path], whole: Path, how: str) -> None:
    """The one before serves; the damaged one is named; the tensors are the same."""
    work = copied()
    run = work / "runs" / "toy-1"
    (run / "model.safetensors").unlink()
    newest = max((run / "checkpoints").iterdir())
    damage(newest / ("state.safetensors" if how in ("truncated", "flipped") else "manifest.json"), how)
    code, _, err = done(work, "train", "--resume", "runs/toy-1")
    assert code == 0 and "a newer checkpoint is passed over" in err and newest.name in err, err
    assert "Traceback" not in err and tensors(run) == tensors(whole / "work" / "runs" / "toy-1")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["emptied", "missing", "a folder", *ODD_MANIFESTS])
@row("A2", "the newest checkpoint damaged: file and manifest, cut, flipped, another shape, a pipe")
def test_the_newest_checkpoint_is_damaged_otherwise(copied: Callable[[], Path], whole: Path, how: str) -> None:
    """As above, for more kinds of damage."""
    test_the_newest_checkpoint_is_damaged(copied, whole, how)


@pytest.mark.slow
@row("A2d", "run.json truncated, emptied, edited, of another shape, a pipe; resumed, evaluated, listed")
def test_run_json_is_damaged(copied: Callable[[], Path]) -> None:
    """One line that names it; the list goes on and counts it."""
    for how in ("truncated", "a pipe", "edited"):
        work = copied()
        path = work / "runs" / "toy-1" / "run.json"
        if how == "edited":
            path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
        else:
            damage(path, how)
        code, _, err = done(work, "train", "--resume", "runs/toy-1")
        one_line(code, err, "run")
        code, out, err = done(work, "runs", "--json")
        assert code == 0 and json.loads(out) == [] and "run.json" in err and "Traceback" not in err, (out, err)


# ---------------------------------------------------------------- disks and users


@pytest.mark.parametrize("limit", [1_000, 150_000])
@row("A3", "no room: files may have 1 KB, 150 KB; pack, train, evaluate")
def test_no_room(copied: Callable[[], Path], limit: int) -> None:
    """One line each, nothing half made, what was there stays."""
    work = copied()
    (work / "other.npz").write_bytes((work / "toy.npz").read_bytes())
    x = np.random.default_rng(0).integers(0, 256, (400, 40, 40), np.uint8)
    np.savez(work / "large.npz", x=x, y=np.arange(400) % 2)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    signals = {"preexec_fn": limited}
    code, _, err = done(work, "pack", "large.npz", "--out", "packed", **signals)
    one_line(code, err, "space")
    assert not (work / "packed").exists() and not leftovers(work)
    code, _, err = done(work, "evaluate", "runs/toy-1", **signals)
    assert code in (0, 2) and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(IS_ROOT and not shutil.which("setpriv"), reason="root reads everything, and setpriv is missing")
@row("A4", "permissions: read-only run, cache and state, unreadable files and folders, as a user that is not root")
def test_permissions(copied: Callable[[], Path], tmp_path: Path) -> None:
    """Never a traceback; evaluation and the list work on what can be read, all else is one line that names the path."""
    work = copied()
    run = work / "runs" / "toy-1"

    def ordinary(*command: str) -> tuple[int, str, str]:
        """As somebody whom permissions hold."""
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"] if IS_ROOT else []
        found = subprocess.run([*drop, *PROGRAM, *command], cwd=work, capture_output=True, text=True, check=False)
        assert "Traceback" not in found.stderr, found.stderr
        return found.returncode, found.stdout, found.stderr

    for inside in (run, tmp_path / "cache" / "packed", tmp_path / "state", work):
        inside.chmod(0o555)
    code, out, err = ordinary("runs")
    assert code == 0 and "complete" in out, err
    code, out, err = ordinary("evaluate", "runs/toy-1", "--split", "val")
    assert code == 0 and "the report was not kept" in out, (out, err)
    for command in (TRAIN, ["train", "--resume", "runs/toy-1"], ["pack", "toy.npz", "--out", "packed"]):
        code, _, err = ordinary(*command)
        assert code == 0 or one_line(code, err, "cannot"), err
    for inside in (run, tmp_path / "cache" / "packed", tmp_path / "state", work):
        inside.chmod(0o755)
    for path in (run / "run.json", run / "model.safetensors", work / "toy.npz"):
        path.chmod(0)
    code, out, err = ordinary("runs")
    assert code == 0 and "cannot read" in err, err
    for command in (["evaluate", "runs/toy-1"], ["explain", "runs/toy-1/model.safetensors"], ["check", "toy.npz"]):
        code, _, err = ordinary(*command)
        one_line(code, err)


# ---------------------------------------------------------------- several at once


@pytest.mark.slow
@row("A5a", "three processes resume one run")
def test_three_resume_one_run(copied: Callable[[], Path], whole: Path) -> None:
    """One trains, the others are told; the tensors are those of the undisturbed run."""
    work = copied()
    run = work / "runs" / "toy-1"
    (run / "model.safetensors").unlink()
    three = [start(work, "train", "--resume", "runs/toy-1") for _ in range(3)]
    said = [process.communicate()[1].decode() for process in three]
    codes = [process.returncode for process in three]
    assert 0 in codes and set(codes) <= {0, 2} and not any("Traceback" in one for one in said), said
    assert all("is being trained by another" in one for one, code in zip(said, codes, strict=True) if code == 2)
    assert tensors(run) == tensors(whole / "work" / "runs" / "toy-1")


@pytest.mark.slow
@row("A5b", "two trainings at the same instant, five times; two with the same --out")
def test_two_at_the_same_instant(copied: Callable[[], Path]) -> None:
    """Names are unique, each record is its own; of two with one --out one wins whole."""
    work = copied()
    for number in range(5):
        two = [start(work, *TRAIN, "--seed", str(10 * number + i)) for i in range(2)]
        for process in two:
            assert process.wait(120) == 0
            process.communicate()
    seeds = [record(path)["seed"] for path in (work / "runs").glob("toy-*") if path.name != "toy-1"]
    assert sorted(seeds) == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
    two = [start(work, *TRAIN, "--out", "same") for _ in range(2)]
    said = [process.communicate()[1].decode() for process in two]
    assert sorted(process.returncode for process in two) == [0, 2] and any("exists already" in one for one in said)


@pytest.mark.slow
@row("A10a", "four processes pack one folder into one cache, one of them killed")
def test_four_pack_at_once(place: Path, tmp_path: Path) -> None:
    """All get the same data; nothing half made is left after the next."""
    for number in range(3):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        four = [start(place, "pack", "toy.npz", "--json") for _ in range(4)]
        if number:
            while not leftovers(tmp_path / "cache") and any(p.poll() is None for p in four):
                pass
            four[0].kill()
        outs = [process.communicate()[0] for process in four]
        prints = {json.loads(out)["fingerprint"] for out, p in zip(outs, four, strict=True) if p.returncode == 0}
        assert len(prints) == 1 and sum(p.returncode == 0 for p in four) >= 3
        assert done(place, "pack", "toy.npz", "--json")[0] == 0 and not leftovers(tmp_path / "cache")


# ---------------------------------------------------------------- signals and streams


_SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in ("SIGINT", "SIGTERM")]  # tests/commands has them too


@pytest.mark.parametrize("how", ["SIGHUP", "twice", *_SLOW])
@row("A6a", "SIGINT, SIGTERM, SIGHUP (a closed terminal), one after the other, while it trains")
def test_a_signal_ends_a_training_well(copied: Callable[[], Path], whole: Path, how: str) -> None:
    """Saved, interrupted, exit code 130, 143 or 129; resumed to the same tensors."""
    work = copied()
    out = work / "stopped"
    process = start(work, *TRAIN, "--checkpoint-every", "0", "--out", out)
    wait_for(lambda: list((out / "checkpoints").glob("step-*")) if out.exists() else process.poll() is not None)
    process.send_signal(getattr(signal, how, signal.SIGINT))
    if how == "twice":
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    wanted = {"SIGINT": {130}, "SIGTERM": {143}, "SIGHUP": {129}, "twice": {130, 143, -15}}[how]
    assert process.returncode in wanted | {0} and b"Traceback" not in err, err
    code, _, text = done(work, "train", "--resume", "stopped")
    assert code == 0 and tensors(out) == tensors(whole / "work" / "runs" / "toy-1"), text


@pytest.mark.slow
@pytest.mark.parametrize("command", [["--help"], ["runs"], ["evaluate", "runs/toy-1"], ["explain", "flatten"]])
@row("A6b", "Ctrl-C at 25 moments from the start on")
def test_ctrl_c_is_one_line(copied: Callable[[], Path], command: list[str]) -> None:
    """From the first instruction of ours: one line, exit code 130. (Before it the interpreter itself is starting.)"""
    work = copied()
    for number in range(25):
        process = start(work, *command)
        begun = time.monotonic()
        while time.monotonic() - begun < 0.02 * number and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        if b"Traceback" in err:
            assert b"convlens" not in err, err.decode()  # the interpreter's own
        elif process.returncode == 130:
            assert err.count(b"convlens: interrupted") == 1 and len(err.splitlines()) <= 2, err


@pytest.mark.parametrize("ignored", [pytest.param(False, marks=pytest.mark.slow), True])
@row("A6d", "the terminal goes away while it trains, SIGHUP ignored (nohup, disown) and not")
def test_the_terminal_goes_away(copied: Callable[[], Path], whole: Path, ignored: bool) -> None:
    """Ignored: the training goes on to its end. Not: it is saved. Either way it comes to the same tensors."""
    work = copied()
    out = work / "gone"
    master, slave = pty.openpty()

    def own_terminal() -> None:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    options: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave, "preexec_fn": own_terminal}
    process = start(work, *TRAIN, "--checkpoint-every", "0", "--out", out, **options)
    os.close(slave)
    while process.poll() is None and not list((out / "checkpoints").glob("step-*")):
        if select.select([master], [], [], 0.005)[0]:
            os.read(master, 65_536)
    os.close(master)
    assert process.wait(120) in ({0} if ignored else {129, 0})
    assert record(out)["status"] == "complete" or not ignored
    if record(out)["status"] != "complete":
        assert record(out)["status"] == "interrupted"
        assert done(work, "train", "--resume", "gone")[0] == 0
    assert tensors(out) == tensors(whole / "work" / "runs" / "toy-1")


def closed(*numbers: int) -> dict[str, Any]:
    """Start with these standard streams closed, as `2>&-` does."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return {"preexec_fn": close}


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(0, 1, 2), *(pytest.param((n,), marks=pytest.mark.slow) for n in (1, 2))])
@row("A6e", "standard streams closed: train, evaluate, pack, check, predict, runs, explain")
def test_closed_streams_change_nothing(copied: Callable[[], Path], whole: Path, numbers: tuple[int, ...]) -> None:
    """Exit codes and results are those with open streams."""
    work = copied()
    options: dict[str, Any] = {**closed(*numbers), "stdout": None, "stderr": None, "stdin": None}
    assert done(work, *TRAIN, "--out", "closed", **options)[0] == 0
    assert tensors(work / "closed") == tensors(whole / "work" / "runs" / "toy-1")
    assert done(work, "evaluate", "closed", **options)[0] == 0
    assert list((work / "closed").glob("evaluation-test-*.json"))
    assert done(work, "pack", "toy.npz", "--out", "packed", **options)[0] == 0
    folder(work / "pictures", range(40))
    with_streams = done(work, "check", "pictures", "--out", "a.html")[0]
    assert done(work, "check", "pictures", "--out", "b.html", **options)[0] == with_streams
    assert (work / "b.html").exists()
    for command in (["runs"], ["explain", "runs/toy-1"], ["--help"]):
        assert done(work, *command, **options)[0] == 0


@row("A6f", "output into a pipe that closes, a full device, a reader that reads one line")
def test_lost_output_changes_nothing(copied: Callable[[], Path]) -> None:
    """Nobody listening is no error and changes no exit code; a full device is one line."""
    work = copied()
    for shell in ("{} runs | head -1", "{} explain runs/toy-1 | head -1", "{} --help | head -1"):
        program = " ".join(PROGRAM)
        found = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {shell.format(program)}"], cwd=work, capture_output=True, check=False
        )
        assert b"Traceback" not in found.stderr and found.stderr == b"" and found.returncode in (0, 141), found.stderr
    with Path("/dev/full").open("wb") as full:
        code, _, err = done(work, "runs", stdout=full)
        one_line(code, err, "No space left")
        code, _, _ = done(work, *TRAIN, "--out", "full", stderr=full)
        assert code == 0 and record(work / "full")["status"] == "complete"


# ---------------------------------------------------------------- hostile files


def bundle(path: Path, header: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


MEASURED = """
import resource, sys, time
import convlens, convlens.modelfile
from convlens.errors import ConvlensError
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
try:
    convlens.modelfile.read_model(Path(sys.argv[1]))
    print("read", end=" ")
except ConvlensError as error:
    print("refused", end=" ")
print(time.process_time() - started, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@row("A7c", "model files with a million tensors, 100 MB of header, deep, wide and overlapping ones")
def test_bombs_for_the_reader_of_models(copied: Callable[[], Path]) -> None:
    """Refused in less than half a second and 50 MB, whatever they hold."""
    work = copied()
    path = work / "bomb.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = {f"t{i}": empty for i in range(1_000_000)}
    some = {f"t{i}": empty for i in range(60_000)}
    wide = {"a": {"dtype": "F32", "shape": [1] * 2_000_000, "data_offsets": [0, 4]}}
    model = (work / "runs" / "toy-1" / "model.safetensors").read_bytes()
    length = int.from_bytes(model[:8], "little")
    own = json.loads(model[8 : 8 + length])
    card = json.loads(own["__metadata__"]["convlens"])
    names = {"__metadata__": own["__metadata__"] | {"convlens": json.dumps(card | {"class_names": ["x"] * 2_000_000})}}
    deep = {"__metadata__": own["__metadata__"] | {"convlens": "[" * 3_000_000}}
    dicts = {"__metadata__": own["__metadata__"] | {"convlens": "[" + "{}," * 2_000_000 + "{}]"}}
    overlap = {name: one | ({"data_offsets": [0, 4]} if name != "__metadata__" else {}) for name, one in own.items()}
    for name, header in {
        "a million tensors": many, "60,000 tensors": some, "a wide shape": wide, "two million classes": names,
        "depth": deep, "two million objects": dicts, "overlapping": overlap,
    }.items():  # fmt: skip
        bundle(path, header, model[8 + length :])
        out = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
        word, seconds, megabytes = out.stdout.split()
        assert word == "refused" and float(seconds) < 0.5 and float(megabytes) < 50, (name, out.stdout)


@row("A7e", "model cards with NaN, infinity, an accuracy of 2.5, odd options and scores")
def test_odd_cards_are_refused(copied: Callable[[], Path]) -> None:
    """One line each; nothing of them is served."""
    work = copied()
    model = (work / "runs" / "toy-1" / "model.safetensors").read_bytes()
    length = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + length])
    card = header["__metadata__"]["convlens"]
    changes = [
        ('"accuracy": [^,]*', '"accuracy": 2.5'),
        ('"accuracy": [^,]*', '"accuracy": NaN'),
        ('"accuracy": ', '"accuracy": 1.0, "accuracy": '),
        ('"epochs": [^,]*', '"epochs": NaN'),
        ('"train_s": [^,}]*', '"train_s": 1e999'),
        ('"options": {', '"options": {"sise": 3, '),
        ('"n": [^,]*', '"n": -1'),
        ('"created": ("[^"]*")', r'"created": [\1]'),
    ]
    for old, new in changes:
        text, times = re.subn(old, new, card, count=1)
        assert times == 1, old
        bundle(work / "odd.safetensors", header | {"__metadata__": header["__metadata__"] | {"convlens": text}})
        code, _, err = done(work, "explain", "odd.safetensors")
        one_line(code, err, "odd.safetensors")


@row("A9", "`runs` over NaN, pipes, escapes, folders and garbage in the place of run.json")
def test_the_list_of_runs_survives_bad_neighbours(copied: Callable[[], Path]) -> None:
    """The good run is listed, the bad are counted on standard error, nothing steers the terminal."""
    work = copied()
    good = (work / "runs" / "toy-1" / "run.json").read_text(encoding="utf-8")
    bad = {
        "nan": good.replace('"val_s": ', '"val_s": NaN, "x": '),
        "escape": good.replace('"complete"', '"\\u001b]0;owned\\u0007\\u001b[31m\\nINJECTED"'),
        "list": "[1, 2]",
        "garbage": "\x00\x1b[2J",
        "edited": good.replace("toy", "boy"),
    }
    for name, text in bad.items():
        (work / "runs" / name).mkdir()
        (work / "runs" / name / "run.json").write_text(text, encoding="utf-8")
    for name in ("pipe", "folder"):
        (work / "runs" / name).mkdir()
    os.mkfifo(work / "runs" / "pipe" / "run.json")
    (work / "runs" / "folder" / "run.json").mkdir()
    code, out, err = done(work, "runs", "--json")
    assert code == 0 and [one["run"] for one in json.loads(out)] == ["runs/toy-1"]
    assert len(err.splitlines()) == 6 and "7 run folders of runs cannot be read" in err, err
    assert err.isascii() and "\x1b" not in err and "\nINJECTED" not in err, err
    code, out, err = done(work, "runs")
    assert code == 0 and "complete" in out and "\x1b" not in out + err


@row("A6g", "a run whose process was killed, in the list")
def test_the_list_says_what_was_stopped(copied: Callable[[], Path]) -> None:
    """It is *stopped*, with how to go on; one that is being trained is *running*."""
    work = copied()
    out = work / "runs" / "toy-2"
    long = [*TRAIN, "--epochs", "2000", "--checkpoint-every", "0", "--out", str(out)]
    process = start(work, *long)
    wait_for(lambda: out.exists() and list((out / "checkpoints").glob("step-*")))
    statuses = {one["run"]: one["status"] for one in json.loads(done(work, "runs", "--json")[1])}
    assert statuses == {"runs/toy-1": "complete", "runs/toy-2": "running"}
    process.kill()
    process.communicate()
    code, text, _ = done(work, "runs")
    assert code == 0 and "stopped" in text and "train --resume runs/toy-2" in text


@pytest.mark.slow
@row("A10c", "pixels, labels, class names, mean and samples of a packed set overwritten")
def test_a_packed_set_that_was_changed(copied: Callable[[], Path], tmp_path: Path) -> None:
    """Never a number from it: the pixels are named, everything else is noticed on opening and packed anew."""
    work = copied()
    (packed,) = (path.parent for path in (tmp_path / "cache" / "packed").glob("*/dataset.json"))
    images = bytearray((packed / "images.npy").read_bytes())
    images[len(images) // 2 :] = b"\xff" * (len(images) - len(images) // 2)
    (packed / "images.npy").write_bytes(bytes(images))
    for command in (["train", "toy.npz", *TRAIN[2:]], ["evaluate", "runs/toy-1"]):
        code, _, err = done(work, *command)
        one_line(code, err, "images.npy is damaged")
    assert done(work, "pack", "toy.npz", "--verify")[0] == 0
    card = packed / "dataset.json"
    card.write_text(card.read_text(encoding="utf-8").replace('"0"', '"9"'), encoding="utf-8")
    (packed / "samples.jsonl").write_bytes(b"")
    code, out, err = done(work, "evaluate", "runs/toy-1", "--json")
    assert code == 0 and json.loads(out)["class_names"] == ["0", "1", "2"], err


@pytest.mark.slow
@row("A11", "a model trained on noise, evaluated on its own pictures: folder renamed, another cache, one picture fewer")
def test_no_score_over_the_training_images(copied: Callable[[], Path], tmp_path: Path) -> None:
    """What it learned from is left out and counted, wherever the model is copied; chance is what it gets."""
    work = copied()
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, 12, 12), np.uint8), rng.integers(0, 5, 200)
    np.savez(work / "noise.npz", x=x, y=y)
    net = ["--architecture", "flatten linear(64) relu linear(classes)", "--epochs", "60", "--set", "lr=0.01"]
    assert done(work, "train", "noise.npz", *net, "--augment", "none", "--out", "noise")[0] == 0
    shutil.copy(work / "noise" / "model.safetensors", work / "alone.safetensors")
    (work / "noise.npz").rename(work / "renamed.npz")
    np.savez(work / "fewer.npz", x=x[1:], y=y[1:])
    shutil.rmtree(tmp_path / "cache")
    for data in ("renamed.npz", "fewer.npz"):
        code, out, err = done(work, "evaluate", "alone.safetensors", data, "--json")
        assert code == 0, err
        report = json.loads(out)
        assert report["num_left_out"] > 120 and report["n"] < 80 and report["interval"][0] < 0.35, report["accuracy"]
        assert not report["may_count_seen"]
    assert done(work, "train", "renamed.npz", *net, "--augment", "none", "--out", "bare", "--omit-record")[0] == 0
    shutil.copy(work / "bare" / "model.safetensors", work / "bare.safetensors")
    shutil.rmtree(tmp_path / "cache")
    (work / "renamed.npz").unlink()
    code, out, err = done(work, "evaluate", "bare.safetensors", "fewer.npz")
    assert code == 0 and out.startswith("may count pictures it was made with"), out
