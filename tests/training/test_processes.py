"""Several processes: the same bits by shards, exact sums, and an end in one line when one of them is lost.

Processes are started as a person starts them, by the command line; what they compute is held against one process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convlens
from convlens.architecture import parse, plan
from convlens.data.image.framing import InputSpec
from convlens.errors import ProcessError, RecipeError, TrainingError
from convlens.launched import is_follower, num_processes
from convlens.network.build import build, tensors_of
from convlens.network.compute import Compute
from convlens.network.processes import ALONE, TIMEOUT_S, Processes, joined, timeout_s
from convlens.presets import PRESETS
from convlens.recipe import Recipe
from convlens.training.batches import Batches
from convlens.training.parts import check_cut, cut_of
from convlens.training.shared import _difference
from convlens.training.state import TrainingState
from convlens.training.step import Stepper
from tests.conftest import QUICK
from tests.helpers import same, weights

NET = "conv(4, 3) batchnorm relu maxpool(2) dropout(0.3) flatten linear(classes)"
SPEC = InputSpec(10, 10, 1, mean=(120.0,), std=(70.0,))


@pytest.fixture
def data(workplace: Path) -> Path:
    """340 pictures of three classes that can be told apart, a fifth of them test."""
    rng = np.random.default_rng(0)
    labels = np.arange(340) % 3
    images = rng.integers(0, 120, (340, 10, 10)) + 40 * labels[:, None, None] * (np.arange(10) < 5)
    np.savez(workplace / "set.npz", x=images.astype(np.uint8), y=labels)
    return workplace / "set.npz"


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "convlens", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line."""
    process = start(*words, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def quick(*more: str) -> list[str]:
    """The words of a short training."""
    words = ["--architecture", NET, "--epochs", "3", "--batch-size", "32", "--precision", "float32", "--threads", "1"]
    return ["train", "set.npz", *words, *more]


class _Other(Processes):
    """A process among others that nobody started, for what a cut depends on."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


# ---------------------------------------------------------------- the parts of a batch


@pytest.mark.parametrize("num", [1, 2, 4, 8])
def test_every_shard_is_one_process_s(num: int) -> None:
    """Over all processes each of the eight parts of a batch comes up once, in order."""
    cuts = [cut_of(Recipe(shards=8), _Other(rank, num)) for rank in range(num)]
    assert [part for cut in cuts for part in cut.own] == list(range(8)) and {cut.num for cut in cuts} == {8}


@pytest.mark.parametrize("num", [1, 2, 3, 7])
@pytest.mark.parametrize("num_images", [17, 100])
def test_no_image_twice_and_none_left_out(num: int, num_images: int) -> None:
    """What the parts of a step have is the batch, however many there are; also of a batch across two epochs."""
    batches = Batches(num_images, 13, seed=1)
    for step in range(4):
        parts = [batches.at(step, part, num).positions for part in range(num)]
        assert sorted(np.concatenate(parts)) == sorted(batches.at(step).positions)


@pytest.mark.parametrize(
    ("recipe", "num", "has_batchnorm", "word"),
    [
        ({"shards": 4}, 3, False, "evenly"),
        ({"shards": 2}, 4, False, "evenly"),
        ({"batch_size": 5}, 6, False, "at least 6"),
        ({"batch_size": 7}, 4, True, "at least 8"),
        ({"batch_size": 8, "shards": 8}, 1, True, "at least 16"),
    ],
)
def test_a_world_that_does_not_fit_the_batch(recipe: dict[str, Any], num: int, has_batchnorm: bool, word: str) -> None:
    """It is refused, with what would fit."""
    with pytest.raises(TrainingError, match=word):
        check_cut(Recipe(**recipe), num, has_batchnorm=has_batchnorm)


@pytest.mark.parametrize("value", [0, 3, 6, 2048, True, 2.0, "2"])
def test_shards_are_a_power_of_two(value: Any) -> None:
    """Anything else is refused: gradients are added in pairs."""
    with pytest.raises(RecipeError, match="power of two"):
        Recipe(shards=value)


def test_no_shard_is_empty() -> None:
    """More shards than images in a batch are refused."""
    with pytest.raises(RecipeError, match="without any"):
        Recipe(shards=64, batch_size=32)


def _stepped(recipe: Recipe, sentence: str, num: int = 2) -> dict[str, torch.Tensor]:
    """The tensors of a network after so many steps."""
    rng = np.random.default_rng(3)
    images, labels = torch.from_numpy(rng.integers(0, 256, (64, 10, 10, 1), np.uint8)), torch.arange(64) % 3
    network = build(plan(parse(sentence), SPEC.shape, 3), SPEC)
    state = TrainingState.new(network, recipe)
    batches = Batches.of(recipe, labels.numpy(), 0)
    Stepper(state, images, labels, batches, recipe, 10, Compute("cpu", "float32", 1)).run(0, num)
    return tensors_of(network)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_shards_give_the_gradient_of_the_whole_batch(balance: str) -> None:
    """Without batch statistics and dropout a step of four shards is that of the batch, but for rounding, with class
    weights too."""
    sentence, recipe = "conv(4, 3) relu flatten linear(classes)", QUICK.replace(optimizer="sgd", balance=balance)
    whole, parts = _stepped(recipe, sentence), _stepped(recipe.replace(shards=4), sentence)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-6)


def test_running_statistics_of_shards_are_one_update() -> None:
    """They move by the mean of the parts' statistics, and the counter of batches by one a step."""
    sentence, recipe = "batchnorm flatten linear(classes)", QUICK.replace(shards=4, shift_px=0)
    found, whole = _stepped(recipe, sentence, 1), _stepped(recipe.replace(shards=1), sentence, 1)
    torch.testing.assert_close(found["0.running_mean"], whole["0.running_mean"], rtol=1e-5, atol=1e-6)
    assert int(found["0.num_batches_tracked"]) == 1
    assert not torch.equal(found["0.running_var"], whole["0.running_var"])  # of eight images each, with n - 1


# ---------------------------------------------------------------- processes, as a person starts them


@pytest.mark.parametrize("num", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_shards_come_to_the_same_bits(data: Path, num: int) -> None:
    """One, two and four processes give the same tensors, losses and validation."""
    one = convlens.train("set.npz", architecture=NET, threads=1, out="one", progress="none", **_sharded())
    code, _, errors = run(*quick("--shards", "4", "--processes", str(num), "--out", "several"))
    assert code == 0, errors
    other = convlens.run.Run(Path("several"))
    assert same(weights(other), weights(one)) and other.record.compute.processes == num
    assert other.val == one.val
    assert [line["loss"] for line in other.history] == [line["loss"] for line in one.history]


def _sharded() -> dict[str, Any]:
    return {"epochs": 3, "batch_size": 32, "precision": "float32", "shards": 4}


def test_frozen_layers_are_the_leader_s(data: Path) -> None:
    """Where layers are frozen, each process learns from what the parent's make of the images, and the head that was
    fitted: two come to the bits of one."""
    convlens.train("set.npz", architecture=NET, epochs=2, batch_size=32, out="parent", progress="none")
    more = ["--freeze", "head", "--set", "head=logistic", "--shards", "2", "--threads", "1", "--precision", "float32"]
    words = ["train", "set.npz", "--from", "parent", "--epochs", "2", "--batch-size", "32", "--seed", "3", *more]
    for name, processes in (("one", []), ("two", ["--processes", "2"])):
        code, _, errors = run(*words, *processes, "--out", name)
        assert code == 0, errors
    assert same(weights(convlens.run.Run(Path("two"))), weights(convlens.run.Run(Path("one"))))
    assert convlens.run.Run(Path("two")).val == convlens.run.Run(Path("one")).val


IN_FOURS = """
import sys
from convlens.launched import quieten
quieten()
import convlens.network.forward as forward
from convlens.cli import main
forward.BATCH_SIZE = 4
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("num", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_seventeen_pictures_are_measured_alike(workplace: Path, num: int) -> None:
    """Seventeen pictures evaluated by two and three processes, four at a time, give the numbers that one gives, to the
    last digit."""
    rng = np.random.default_rng(0)
    labels = np.arange(51) % 3
    np.savez("set.npz", x=rng.integers(0, 256, (51, 10, 10), np.uint8), y=labels)
    convlens.train("set.npz", architecture=NET, epochs=1, batch_size=8, out="model", progress="none")
    np.savez("other.npz", x=rng.integers(0, 256, (17, 10, 10), np.uint8), y=labels[:17])
    Path("fours.py").write_text(IN_FOURS, encoding="utf-8")
    words = ["fours.py", "evaluate", "model", "other.npz", "--json"]
    found = []
    for command in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num)]):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *command, *words], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    one, several = found
    assert one.pop("openings")["count"] + 1 == several.pop("openings")["count"]  # one look, however many processes
    assert several == one and several["n"] == 17


def ranks(out: str) -> dict[int, int]:
    """The processes that train a run now, by rank."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                command, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            except OSError:
                continue
            if f"\0--out\0{out}\0".encode() in command and b"\0RANK=" in environment:
                found[int(environment.split(b"\0RANK=")[1].split(b"\0")[0])] = int(place.name)
    return found


def killed_at(words: list[str], out: str, rank: int, step: int, number: int = signal.SIGKILL) -> tuple[int, str]:
    """Exit code and errors of a training of two processes, one of which gets a signal once a checkpoint of this step or
    a later one is there."""
    process = start(*words, "--checkpoint-every", "0", "--processes", "2", "--out", out)
    place = Path(out, "checkpoints")
    while process.poll() is None:
        steps = [int(path.name.removeprefix("step-")) for path in place.glob("step-*")] if place.is_dir() else []
        if max(steps, default=-1) >= step:
            os.kill(ranks(out)[rank], number)
            break
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_process_ends_all_in_one_line(data: Path, rank: int) -> None:
    """SIGKILL of one rank: the other ends by itself and says which was lost; what was reached can be resumed."""
    code, errors = killed_at(quick("--epochs", "200"), f"lost{rank}", rank, 20)
    assert code != 0 and "Traceback" not in errors
    assert f"convlens: rank {rank} of 2 (" in errors or f"rank {rank} of 2 ended by SIGKILL" in errors
    assert ranks(f"lost{rank}") == {} and convlens.run.Run(Path(f"lost{rank}")).status in ("stopped", "interrupted")


@linux
@pytest.mark.slow
def test_a_restart_comes_to_the_same_bits(data: Path) -> None:
    """With `--max-restarts` the run goes on from its newest checkpoint, and ends as one that nobody disturbed."""
    words = quick("--epochs", "12")
    assert run(*words, "--processes", "2", "--out", "whole")[0] == 0
    code, errors = killed_at([*words, "--max-restarts", "1"], "killed", 1, 30)
    assert code == 0, errors
    assert "restarted: going on with killed" in errors
    assert same(weights(convlens.run.Run(Path("killed"))), weights(convlens.run.Run(Path("whole"))))


@linux
@pytest.mark.slow
def test_an_interrupt_ends_all_and_is_gone_on_with(data: Path) -> None:
    """Ctrl-C, which a terminal sends to all of them: the run is saved, the exit code says so; it goes on with the same
    number of processes alone, to the bits of a run that was not stopped."""
    words = quick("--epochs", "12")
    assert run(*words, "--processes", "2", "--out", "whole")[0] == 0
    process = start(*words, "--checkpoint-every", "0", "--processes", "2", "--out", "cut")
    while not list(Path("cut", "checkpoints").glob("step-*2?")):
        assert process.poll() is None
    for pid in (process.pid, *ranks("cut").values()):
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert convlens.run.Run(Path("cut")).status == "interrupted"
    code, _, errors = run("train", "--resume", "cut")
    assert code == 2 and "was begun with 2 processes" in errors and "--processes 2" in errors
    code, _, errors = run("train", "--resume", "cut", "--processes", "2")
    assert code == 0, errors
    assert same(weights(convlens.run.Run(Path("cut"))), weights(convlens.run.Run(Path("whole"))))


@linux
@pytest.mark.slow
def test_shards_begun_with_two_go_on_with_one(data: Path) -> None:
    """A run that two processes began, and of which one was lost, is resumed by one process alone, to the same bits."""
    words = quick("--epochs", "12", "--shards", "4")
    assert run(*words, "--out", "whole")[0] == 0
    code, _ = killed_at(words, "left", 1, 30)
    assert code != 0
    code, _, errors = run("train", "--resume", "left")
    assert code == 0, errors
    assert same(weights(convlens.run.Run(Path("left"))), weights(convlens.run.Run(Path("whole"))))


def test_what_is_wrong_is_said_once(data: Path) -> None:
    """Bad input to several processes is one line, exit code 2, and no restart."""
    code, _, errors = run(*quick("--shards", "4", "--processes", "3", "--max-restarts", "2"))
    assert code == 2 and errors.count("convlens:") == 1 and "Traceback" not in errors, errors


@pytest.mark.slow
def test_a_diverged_training_ends_all(data: Path) -> None:
    """A loss that is not finite: one line, exit code 2, and the run says so."""
    code, _, errors = run(*quick("--lr", "900", "--optimizer", "sgd", "--processes", "2", "--out", "run"))
    assert code == 2 and "diverged" in errors and "Traceback" not in errors
    assert convlens.run.Run(Path("run")).status == "diverged"


def test_a_rendezvous_that_nobody_joins(data: Path) -> None:
    """A process that was told of another waits for the stated time, and says where."""
    alone = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    code, _, errors = run(*quick(), **alone, CONVLENS_TIMEOUT_S="2")
    assert code == 2 and "rank 0 of 2 waited 2 s for the others at 127.0.0.1" in errors
    code, _, errors = run(*quick(), WORLD_SIZE="2")
    assert code == 2 and "RANK is not set" in errors


@pytest.mark.slow
def test_folds_and_seeds_are_shared(data: Path) -> None:
    """What trains several times shares each of them: folds measure all images, and seeds make a series."""
    code, _, errors = run(*quick("--folds", "2", "--processes", "2", "--out", "folds"))
    assert code == 0, errors
    record = convlens.run.Run(Path("folds")).record
    assert record.cross_validation is not None and record.cross_validation.n == 340
    code, _, errors = run(*quick("--seeds", "2", "--processes", "2", "--out", "seeds"))
    assert code == 0, errors
    assert [convlens.run.Run(Path("seeds", name)).record.seed for name in "12"] == [0, 1]


def test_what_differs_is_named() -> None:
    """A process with another torch, or another source of the same version, is named with what it has."""
    own = {"code": "a", "torch": "2.13.0", "python": "3.11"}
    assert _difference(own, dict(own)) is None
    assert "torch 2.12.0, rank 0 2.13.0" in str(_difference(own, own | {"torch": "2.12.0", "code": "b"}))
    assert "another convlens" in str(_difference(own, own | {"code": "b"}))


def test_one_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun's words in the environment there is one process, which leads nobody; the timeout is checked."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as found:
        assert found is ALONE and not found.leads and not found.follows
    assert num_processes() == 1 and not is_follower() and timeout_s() == TIMEOUT_S
    monkeypatch.setenv("CONVLENS_TIMEOUT_S", "soon")
    with pytest.raises(ProcessError, match="must be seconds"):
        timeout_s()


# ---------------------------------------------------------------- over many cases


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if preset.parent is None])
def test_every_preset_by_shards(workplace: Path, preset: str) -> None:
    """Of each preset's network and recipe, cut to some steps of MNIST, four shards come to the same tensors in one, two
    and four processes."""
    found = []
    for num in (1, 2, 4):
        words = ["train", "mnist", "--preset", preset, "--epochs", "0.02", "--shards", "4", "--threads", "1"]
        code, _, errors = run(*words, "--processes", str(num), "--out", f"of{num}")
        assert code == 0, errors
        found.append(weights(convlens.run.Run(Path(f"of{num}"))))
    assert same(found[0], found[1]) and same(found[0], found[2])


@linux
@pytest.mark.slow
@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [0, 3, 7, 12, 20, 28, 36, 47, 60, 71])
def test_killed_anywhere(data: Path, shards: str, rank: int, step: int) -> None:
    """SIGKILL of either rank at any of ten points, and a restart: the bits of the run that nobody disturbed."""
    words = quick("--epochs", "12", "--shards", shards)
    assert run(*words, "--processes", "2", "--out", "whole")[0] == 0
    code, errors = killed_at([*words, "--max-restarts", "1"], f"killed-{shards}-{rank}-{step}", rank, step)
    assert code == 0, errors
    assert same(
        weights(convlens.run.Run(Path(f"killed-{shards}-{rank}-{step}"))), weights(convlens.run.Run(Path("whole")))
    )
