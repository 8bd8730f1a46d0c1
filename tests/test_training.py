"""Training: batches, the loop against a plain torch loop, golden losses, and resuming to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import convlens
from convlens import files
from convlens.architecture import parse, plan
from convlens.augmentation import Augmentation
from convlens.data.image.framing import InputSpec
from convlens.data.packed.image_rows import ImageRows
from convlens.data.packed.pack import open_data
from convlens.data.sources.named import mnist_arrays
from convlens.errors import ConvlensError, DeviceError, DivergedError, RunError, UsageError
from convlens.modelfile import read_model
from convlens.network.build import arrays_of, build, tensors_of
from convlens.network.compute import has_fast_bfloat16, resolve_compute
from convlens.presets import PRESETS
from convlens.recipe import Recipe
from convlens.training import checkpoint, fit
from convlens.training.batches import Batches, gather
from convlens.training.loop import train_steps
from convlens.training.state import TrainingState
from tests.conftest import QUICK, TINY, shapes

Tensors = dict[str, np.ndarray[Any, Any]]


def same(a: Tensors, b: Tensors) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def weights(run: convlens.Run) -> Tensors:
    return read_model(run.model).tensors


# ---------------------------------------------------------------- batches


@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**63 - 1), st.integers(0, 12))
def test_batches_cover_each_epoch_once(num: int, size: int, seed: int, epoch: int) -> None:
    """Any stretch of one epoch's places names each image once, whatever the batch size."""
    batches = Batches(num, size, seed)
    first = epoch * num // size
    positions = np.concatenate([batches.at(step).positions for step in range(first, first + num // size + 3)])
    offset = epoch * num - first * size
    assert sorted(positions[offset : offset + num]) == list(range(num))


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 1000), st.integers(0, 9), st.integers(1, 5))
def test_batches_do_not_depend_on_rank_or_history(num: int, size: int, seed: int, step: int, ranks: int) -> None:
    """The ranks' parts together are the whole batch, and asking for other steps before changes nothing."""
    augmentation = Augmentation(shift_px=2, flip=True, rotate_deg=9, brightness_frac=0.2)
    batches = Batches(num, size, seed, augmentation)
    whole = batches.at(step)
    assert set(whole.draws) == {"shift", "flip", "affine", "colour"}
    for rank in range(ranks):
        part = Batches(num, size, seed, augmentation).at(step, rank, ranks)
        assert np.array_equal(part.positions, whole.positions[rank::ranks])
        for name, drawn in whole.draws.items():
            assert np.array_equal(part.draws[name], drawn[rank::ranks])
    assert np.abs(whole.draws["shift"]).max(initial=0) <= 2


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.integers(0, 3))
def test_gather_moves_and_mirrors(seed: int, flip: bool, shift: int) -> None:
    """Against pixel by pixel: mirrored first, then moved, with the edge repeated; on the device as from the map."""
    images = np.random.default_rng(seed).integers(0, 255, (6, 5, 7, 2), dtype=np.uint8)
    batch = Batches(6, 6, seed, Augmentation(shift_px=shift, flip=flip)).at(0)
    there = gather(torch.from_numpy(images), batch, "cpu").numpy()
    rows = np.arange(6)[::-1]
    got = gather(ImageRows(images[::-1], rows), batch, "cpu").numpy()
    assert np.array_equal(there, got)
    for i, position in enumerate(batch.positions):
        image = images[position]
        if flip and batch.draws["flip"][i]:
            image = image[:, ::-1]
        if shift:
            down, right = batch.draws["shift"][i].astype(int)
            rows, columns = np.clip(np.arange(5) - down, 0, 4), np.clip(np.arange(7) - right, 0, 6)
            image = image[rows][:, columns]
        assert np.array_equal(got[i], image)


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_loop_is_a_plain_torch_loop(optimizer: str) -> None:
    """Weights after ten steps are those of a loop written out with torch's own classes."""
    x, y = shapes(90, 3)
    recipe = Recipe(
        optimizer=optimizer, lr=0.02, weight_decay=0.01, label_smoothing=0.1, batch_size=30, precision="float32"
    )
    network_plan = plan(parse(TINY), (1, 16, 16), 3)
    spec = InputSpec(16, 16, 1, mean=(50.0,), std=(70.0,))
    images, labels = torch.from_numpy(x[..., None]), torch.from_numpy(y)
    state = TrainingState.new(build(network_plan, spec, seed=4), recipe)
    batches = Batches.of(recipe, np.zeros(90, int), 5)
    losses = [
        v
        for part in train_steps(state, images, labels, batches, recipe, 10, resolve_compute("cpu", "float32"))
        for v in part.values
    ]
    plain = build(network_plan, spec, seed=4)
    makers: dict[str, Any] = {
        "adam": lambda p: torch.optim.Adam(p, weight_decay=0.01, betas=recipe.betas),
        "adamw": lambda p: torch.optim.AdamW(p, weight_decay=0.01, betas=recipe.betas),
        "sgd": lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True, weight_decay=0.01),
    }
    rule = makers[optimizer](plain.parameters())
    expected = []
    for step in range(10):
        rule.param_groups[0]["lr"] = recipe.lr_at(step, 10)
        at = torch.from_numpy(Batches.of(recipe, np.zeros(90, int), 5).at(step).positions)
        loss = F.cross_entropy(plain(images[at]), labels[at], label_smoothing=0.1)
        rule.zero_grad()
        torch.autograd.backward(loss)
        rule.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for name, tensor in tensors_of(plain).items():
        torch.testing.assert_close(tensors_of(state.network)[name], tensor, rtol=1e-3, atol=1e-5)


def test_golden_losses() -> None:
    """The first losses of a tiny float32 run are those written down here (another order, augmentation or
    initialisation moves them)."""
    x, y = shapes(90, 3)
    recipe = QUICK.replace(batch_size=30)
    state = TrainingState.new(
        build(plan(parse(TINY), (1, 16, 16), 3), InputSpec(16, 16, 1, mean=(50.0,), std=(70.0,)), seed=0), recipe
    )
    steps = train_steps(
        state,
        torch.from_numpy(x[..., None]),
        torch.from_numpy(y),
        Batches.of(recipe, np.zeros(90, int), 0),
        recipe,
        6,
        resolve_compute("cpu", "float32"),
    )
    losses = [part.values[0] for part in steps]
    np.testing.assert_allclose(losses, GOLDEN, rtol=2e-3)


GOLDEN = [1.092103, 1.074171, 0.963576, 0.861429, 0.746561, 0.790727]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_golden_losses_of_each_preset(preset: str) -> None:
    """The first losses of each preset on MNIST, in float32, are those written down here."""
    x, y = mnist_arrays("train")
    recipe = PRESETS[preset].recipe.replace(batch_size=100)
    state = TrainingState.new(
        build(plan(parse(PRESETS[preset].architecture), (1, 28, 28), 10), MNIST_SPEC, seed=0), recipe
    )
    images, batches = ImageRows(x, np.arange(1000)), Batches.of(recipe, np.zeros(1000, int), 0)
    steps = train_steps(
        state, images, torch.from_numpy(y[:1000]), batches, recipe, 400, resolve_compute("cpu", "float32")
    )
    losses = [next(steps).values[0] for _ in range(4)]
    np.testing.assert_allclose(losses, GOLDEN_OF_PRESETS[preset], rtol=1e-2)


MNIST_SPEC = InputSpec(28, 28, 1, mean=(33.3,), std=(78.6,))
GOLDEN_OF_PRESETS = {
    "standard": [2.376782, 2.352896, 2.263079, 2.103176],
    "fast": [2.28906, 2.274344, 2.130338, 2.135188],
    "natural": [2.317649, 2.304022, 2.310728, 2.309618],
    "tutorial-fast": [2.297159, 2.375093, 2.257576, 2.115458],
    "tutorial": [2.293872, 60.242657, 5.951694, 2.885552],
}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_batches_of_each_preset_do_not_depend_on_rank(preset: str) -> None:
    """Whatever the number of processes, the same images get the same shifts in the same step."""
    batches = Batches.of(PRESETS[preset].recipe, np.zeros(1000, int), 7)
    images = ImageRows(shapes(1000)[0][..., None], np.arange(1000))
    for step in (0, 3, 9):
        whole = gather(images, batches.at(step), "cpu")
        for rank in range(3):
            part = gather(images, batches.at(step, rank, 3), "cpu")
            assert torch.equal(part, whole[rank::3])


def test_network_contract() -> None:
    """uint8 and float 0..255 NHWC give the same logits; normalisation is (value - mean) / std."""
    spec = InputSpec(16, 16, 3, mean=(10.0, 20.0, 30.0), std=(2.0, 3.0, 4.0))
    network = build(plan(parse(TINY), (3, 16, 16), 3), spec).eval()
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images.float()))
        x = network.normalise(images)
        assert torch.equal(network.forward_normalised(x), network(images))
    expected = (images.permute(0, 3, 1, 2).float() - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
        :, None, None
    ]
    torch.testing.assert_close(x, expected)


def test_average_of_the_weights() -> None:
    """EMA averages parameters and float buffers by its formula, and leaves the raw weights to training."""
    x, y = shapes(60, 3)
    recipe = QUICK.replace(ema=0.9, batch_size=20)
    spec = InputSpec(16, 16, 1, mean=(0.0,), std=(9.0,))
    state = TrainingState.new(build(plan(parse(TINY), (1, 16, 16), 3), spec), recipe)
    assert state.ema is not None and "1.running_mean" in state.ema and "1.num_batches_tracked" not in state.ema
    expected = {name: average.clone() for name, average in state.ema.items()}
    images, labels, batches = torch.from_numpy(x[..., None]), torch.from_numpy(y), Batches.of(recipe, y, 0)
    for step, _ in enumerate(train_steps(state, images, labels, batches, recipe, 8, resolve_compute("cpu", "float32"))):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, average in expected.items():
            average.mul_(decay).add_(tensors_of(state.network)[name], alpha=1 - decay)
    for name, average in expected.items():
        torch.testing.assert_close(state.ema[name], average)
    raw = arrays_of(tensors_of(state.network))
    with state.averaged() as network:
        for name, average in expected.items():
            torch.testing.assert_close(tensors_of(network)[name], average)
    assert same(arrays_of(tensors_of(state.network)), raw)


def test_training_leaves_the_callers_torch_alone(arrays: Any, workplace: Path) -> None:
    """Threads and the global random state are as before."""
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=0.2), threads=1)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


# ---------------------------------------------------------------- whole runs


def test_a_run_knows_everything(arrays: Any, workplace: Path) -> None:
    """Folder, log, model card and scores are there, agree with one another, and learn the toy."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=8), seed=3, test=True)
    assert run.path == Path("runs/arrays-1") and run.status == "complete"
    assert run.val is not None and run.val.accuracy > 0.9 and run.test is not None and run.test.n == 100
    assert [line["step"] for line in run.history] == sorted(line["step"] for line in run.history)
    assert len(run.history) == 8 and run.history[-1]["val"]["accuracy"] == run.val.accuracy
    card = read_model(run.model).card
    assert card.architecture == TINY and card.seed == 3 and card.recipe == Recipe.from_json(run.record["recipe"])
    assert card.metrics["val"]["n"] == run.val.n and card.dataset["fingerprint"] == run.record["dataset"]["fingerprint"]
    document = run.to_json()
    for key in (
        "run",
        "model",
        "dataset",
        "architecture",
        "recipe",
        "seed",
        "num_parameters",
        "train_s",
        "images_per_s",
    ):
        assert document[key] is not None, key
    assert (
        convlens.runs()[-1].path == run.path and convlens.load("last").path == run.path.absolute() / "model.safetensors"
    )
    assert "<table>" in run._repr_html_() and "validation" in str(run)


def test_val_frac_zero_trains_on_everything(arrays: Any, workplace: Path) -> None:
    """With val_frac 0 there is no validation score, and none is made up."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, val_frac=0)
    assert run.val is None and run.record["dataset"]["num_samples"]["train"] == 300


def test_seeds_differ_and_repeat(arrays: Any, workplace: Path) -> None:
    """One seed is one result; another seed is another."""
    first, again, other = (convlens.train(arrays, architecture=TINY, recipe=QUICK, seed=s) for s in (1, 1, 2))
    assert same(weights(first), weights(again)) and not same(weights(first), weights(other))


def test_validation_and_saving_use_the_average(arrays: Any, workplace: Path) -> None:
    """With EMA the saved model is the average, and its card says so."""
    plain = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    ema = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(ema=0.9))
    assert read_model(ema.model).card.training["weights"] == "ema"
    assert not same(weights(plain), weights(ema))


def test_weights_that_are_not_finite_are_noticed(arrays: Any, workplace: Path) -> None:
    """If the last update breaks the weights, no loss shows it: the run is diverged all the same, in one line."""
    recipe = Recipe(optimizer="sgd", lr=1000, momentum=0.0, schedule="constant", warmup_frac=0, batch_size=32)
    for num_steps in range(1, 6):
        for val_frac in (0.1, 0):
            epochs = num_steps * 32 / (300 if val_frac == 0 else 270)
            try:
                run = convlens.train(
                    arrays,
                    architecture="flatten linear(500) linear(500) linear(classes)",
                    val_frac=val_frac,
                    recipe=recipe.replace(epochs=epochs, precision="float32"),
                )
            except DivergedError as error:
                assert "\n" not in str(error)
            else:
                assert all(np.isfinite(a).all() for a in weights(run).values())


def test_divergence_stops_at_once(arrays: Any, workplace: Path) -> None:
    """A loss that is not finite ends the run, names the step, and keeps the last good checkpoint."""
    recipe = Recipe(
        optimizer="sgd", lr=1000, momentum=0.0, schedule="constant", warmup_frac=0, batch_size=32, precision="float32"
    )
    with pytest.raises(DivergedError, match=r"at step \d+.*last good checkpoint is that of step \d+") as caught:
        convlens.train(
            arrays,
            architecture="flatten linear(500) linear(500) linear(classes)",
            recipe=recipe.replace(epochs=50),
            checkpoint_every=0,
        )
    run = convlens.runs()[-1]
    assert run.status == "diverged" and not run.model.exists()
    last = checkpoint.newest(run.path / "checkpoints")
    assert last is not None and last.step == caught.value.step
    assert all(np.isfinite(a).all() for a in last.arrays.values())


def test_keyboard_interrupt_saves_a_loadable_run(arrays: Any, workplace: Path) -> None:
    """In Python, Ctrl-C returns a run whose model loads, and resuming gives the bits of the whole run."""
    calls = 0

    def interrupt() -> bool:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return False

    whole = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=interrupt)
    assert run.status == "interrupted"
    assert convlens.load(run).class_names == ("0", "1", "2")
    assert same(weights(convlens.train(resume=run)), weights(whole))


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("stop_at", [1, 3, 9, 16])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_stopped_and_resumed_is_uninterrupted(arrays: Any, workplace: Path, stop_at: int, optimizer: str) -> None:
    """Stopped after any step and resumed, tensors and log are those of the run that went through."""
    recipe = QUICK.replace(optimizer=optimizer, ema=0.8, flip=True)
    architecture = TINY.replace("flatten", "flatten dropout(0.3)")
    whole = convlens.train(arrays, architecture=architecture, recipe=recipe, out="whole")
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > stop_at

    part = convlens.train(arrays, architecture=architecture, recipe=recipe, out="part", stop=stop)
    assert part.status == "interrupted" and part.record["step"] == stop_at
    resumed = convlens.train(resume="part")
    assert resumed.status == "complete" and same(weights(resumed), weights(whole))
    assert [(line["step"], line["loss"]) for line in resumed.history] == [
        (line["step"], line["loss"]) for line in whole.history
    ]


KILLED = """
import os, signal, sys
import convlens
from convlens.recipe import Recipe
real, seen = os.fsync, 0
def fsync(descriptor):
    global seen
    seen += 1
    if seen == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
recipe = Recipe.from_json(eval(sys.argv[3]))
convlens.train("toy.npz", architecture=sys.argv[2], recipe=recipe, out="killed", checkpoint_every=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("at", [12, 26, 27, 29, 31, 150])
def test_killed_while_writing_and_resumed(arrays: Any, workplace: Path, at: int) -> None:
    """SIGKILL before the n-th fsync, so in the middle of writing a run, a checkpoint's state or its manifest:
    either there is no run at all, or resuming it gives the bits of the run that went through."""
    x, y, x_test, y_test = arrays
    np.savez("toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    whole = convlens.train("toy.npz", architecture=TINY, recipe=QUICK, out="whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(at), TINY, repr(QUICK.to_json())], check=False)
    assert done.returncode in (-signal.SIGKILL, 0)
    if done.returncode == 0:
        pytest.fail(f"the training ended before its {at}. fsync")
    if not Path("killed").exists():
        assert at < 20 and list(Path().glob(".killed*.partial")), "killed while the run folder was being made"
        return
    resumed = convlens.train(resume="killed")
    assert same(weights(resumed), weights(whole))
    assert [line["step"] for line in resumed.history] == [line["step"] for line in whole.history]


PRESET_KILLED = """
import os, signal, sys
import convlens
from convlens.presets import PRESETS
steps = 0
def stop():
    global steps
    steps += 1
    if steps == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False
recipe = PRESETS[sys.argv[1]].recipe.replace(epochs=0.03)
convlens.train("mnist", preset=sys.argv[1], recipe=recipe, out=sys.argv[1], stop=stop, checkpoint_every=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_preset_killed_and_resumed(workplace: Path, preset: str) -> None:
    """For each preset, on MNIST, in its own precision: killed and resumed is uninterrupted, bit for bit."""
    recipe = PRESETS[preset].recipe.replace(epochs=0.03)
    whole = convlens.train("mnist", preset=preset, recipe=recipe, out="whole")
    done = subprocess.run([sys.executable, "-c", PRESET_KILLED, preset, "5"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert same(weights(convlens.train(resume=preset)), weights(whole))


def test_a_damaged_checkpoint_is_passed_over(arrays: Any, workplace: Path) -> None:
    """If the newest checkpoint is damaged, the one before serves, and the bits are the same."""
    whole = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    calls = iter([False] * 9 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls), checkpoint_every=0)
    newest = sorted((run.path / "checkpoints").iterdir())[-1] / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(bytes(data))
    assert same(weights(convlens.train(resume=run)), weights(whole))


def test_resuming_keeps_its_values(arrays: Any, workplace: Path) -> None:
    """Changed values are refused by name; equal ones are fine; a complete run stays as it is; --out is refused."""
    calls = iter([False] * 4 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, seed=1, stop=lambda: next(calls))
    stored = Recipe.from_json(run.record["recipe"])
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seed": 2}, "seed 1, not 2"),
        ({"recipe": stored.replace(lr=0.5)}, "lr 0.02, not 0.5"),
        ({"architecture": "flatten linear(classes)"}, "architecture"),
        ({"val_frac": 0.2}, "val_frac"),
        ({"preset": "fast"}, "preset"),
        ({"data": shapes(50)}, "other data"),
        ({"size": 8}, "size"),
        ({"out": "elsewhere"}, "leave `out` away"),
    ]
    for values, words in changes:
        with pytest.raises(ConvlensError, match=words):
            convlens.train(resume=run, **values)
    done = convlens.train(resume=run, seed=1, recipe=stored, architecture=TINY)
    assert done.status == "complete"
    before = weights(done)
    assert same(weights(convlens.train(resume=done)), before)


def test_what_killed_processes_left_is_removed(arrays: Any, workplace: Path) -> None:
    """Half-written files and checkpoints of a killed process are gone after resuming."""
    calls = iter([False] * 3 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    (run.path / ".model.safetensors.abcd.partial").write_bytes(b"half")
    (run.path / "checkpoints" / ".step-000000009.abcd.partial").mkdir()
    convlens.train(resume=run)
    assert not list(run.path.rglob("*.partial"))


def test_resuming_without_a_whole_checkpoint_says_so(
    arrays: Any, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If every checkpoint is damaged, training begins anew, says so, and comes to the same bits."""
    whole = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    calls = iter([False] * 3 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    for path in (run.path / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}", encoding="utf-8")
    resumed = convlens.train(resume=run, progress="lines")
    assert "no checkpoint of this run is whole" in capsys.readouterr().err
    assert same(weights(resumed), weights(whole))


def test_interrupted_before_the_first_state(arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the network is being made is a KeyboardInterrupt, nothing else, and the run can be resumed."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as early:
        early.setattr(fit, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convlens.train(arrays, architecture=TINY, recipe=QUICK, out="run")
    assert convlens.train(resume="run").status == "complete"


def test_checkpoints_of_another_version_are_not_continued(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bits would not be those of an uninterrupted run: one line says so, and the run stays as it is."""
    calls = iter([False] * 6 + [True] * 9)
    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoint, "FORMAT_VERSION", 1)
        run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    before = weights(run)
    with pytest.raises(RunError, match="another version of convlens"):
        convlens.train(resume=run)
    assert same(weights(run), before)


def test_resuming_a_complete_run_does_not_open_test_again(arrays: Any, workplace: Path) -> None:
    """A run whose test score stands in it is not measured a second time."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, test=True)
    convlens.train(resume=run)
    assert len(files.read_lines(files.state_folder() / "openings.jsonl")) == 1


def test_two_processes_cannot_train_one_run(arrays: Any, workplace: Path) -> None:
    """While one holds the run, another is refused at once."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: True)
    with files.lock(run.path / ".lock"), pytest.raises(RunError, match="being trained by another process"):
        convlens.train(resume=run)


# ---------------------------------------------------------------- devices and bad values


def test_devices() -> None:
    """Unknown and absent devices are named; auto finds one; threads are checked."""
    assert resolve_compute("cpu", "float32", 1).threads == 1
    with pytest.raises(DeviceError, match="did you mean 'cuda'"):
        resolve_compute("cuba")
    if not torch.cuda.is_available():
        assert resolve_compute().device in ("cpu", "mps")
        with pytest.raises(DeviceError, match="no CUDA device"):
            resolve_compute("cuda")
    for threads in (0, -1, True, 10_000):
        with pytest.raises(UsageError, match="threads"):
            resolve_compute("cpu", threads=threads)
    assert has_fast_bfloat16("mps") is False


def test_bad_values_leave_nothing_behind(arrays: Any, workplace: Path) -> None:
    """What cannot be trained is refused before a run folder exists."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"architecture": "conv(8, 30) flatten linear(classes)"}, "does not fit"),
        ({"preset": "slow"}, "unknown preset"),
        ({"seed": -1}, "seed"),
        ({"val_frac": 1.0}, "val_frac"),
        ({"device": "tpu"}, "unknown device"),
        ({"checkpoint_every": -1}, "checkpoint_every"),
        ({"resume": "nowhere"}, "no run folder"),
        ({"recipe": QUICK.replace(batch_size=1)}, "batchnorm cannot learn"),
        ({"progress": "loud"}, "unknown progress"),
    ]
    for values, words in cases:
        with pytest.raises(ConvlensError, match=words):
            convlens.train(arrays, **{"architecture": TINY, **values})
    assert not Path("runs").exists() or not [p for p in Path("runs").iterdir() if p.name != ".lock"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_training_on_a_gpu(arrays: Any, workplace: Path) -> None:
    """On a GPU the toy is learned, the model loads on the CPU, and resuming is exact in deterministic mode."""
    recipe = QUICK.replace(epochs=8)
    whole = convlens.train(arrays, architecture=TINY, recipe=recipe, device="cuda", test=True)
    assert whole.test is not None and whole.test.accuracy > 0.9
    assert convlens.load(whole, device="cpu").device == "cpu"
    calls = iter([False] * 2 + [True] * 99)
    part = convlens.train(arrays, architecture=TINY, recipe=recipe, device="cuda", stop=lambda: next(calls))
    assert same(weights(convlens.train(resume=part)), weights(whole))
    assert open_data(arrays).fingerprint == whole.record["dataset"]["fingerprint"]
