"""The loop against a plain torch loop, golden losses, averages, divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlens
from convlens.architecture import parse, plan
from convlens.augmentation import KIND_NAMES
from convlens.data.image.framing import InputSpec
from convlens.data.packed.image_rows import ImageRows
from convlens.data.packed.pack import open_data
from convlens.data.sources.named import mnist_arrays
from convlens.errors import DivergedError
from convlens.modelfile import read_model
from convlens.network.build import arrays_of, build, tensors_of
from convlens.network.compute import Compute, resolve_compute, settled
from convlens.presets import PRESETS
from convlens.recipe import Recipe
from convlens.training import checkpoint
from convlens.training.batches import Batches
from convlens.training.loop import train_steps
from convlens.training.state import TrainingState
from convlens.training.step import ReplayedStepper, Stepper, class_weights_of, loss_of
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import FROM_NOTHING, same, weights


def test_class_weights() -> None:
    """N / (K n_k): every class has the same weight in all, and the mean weight of an image is 1."""
    import torch

    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights_of(labels, 3, "weights")
    assert weights is not None and class_weights_of(labels, 3, "none") is None
    assert torch.allclose(weights * torch.tensor([6.0, 3.0, 1.0]), torch.full((3,), 10 / 3))
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.3])
def test_the_loss_with_class_weights_is_its_formula(label_smoothing: float) -> None:
    """w_y [(1 - e) (-log p_y) + (e / K) sum_c -log p_c], over the batch's sum of w_y; without weights torch's own."""
    rng = np.random.default_rng(0)
    logits, labels, weights = rng.normal(size=(50, 4)), rng.integers(0, 4, 50), np.array([0.3, 9.0, 0.0, 1.5])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = -(1 - label_smoothing) * log_p[np.arange(50), labels] - label_smoothing / 4 * log_p.sum(1)
    given = torch.from_numpy(logits), torch.from_numpy(labels)
    found = loss_of(*given, torch.from_numpy(weights), label_smoothing)
    assert float(found) == pytest.approx((weights[labels] * own).sum() / weights[labels].sum())
    assert float(loss_of(*given, None, label_smoothing)) == pytest.approx(own.mean())


@pytest.mark.parametrize("ratio", [1, 19, 100, 1_000, 1_000_000])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_optimum_of_the_weighted_loss_answers_separable_classes_right(ratio: int, num_classes: int) -> None:
    """Whatever the ratio and the smoothing: where each class can have logits of its own, the best ones are right."""
    labels = torch.arange(num_classes)
    counts = torch.ones(num_classes, dtype=torch.float64)
    counts[0] = ratio
    weights = counts.sum() / (num_classes * counts)
    for label_smoothing in (0.02, 0.1, 0.4):
        logits = torch.zeros(num_classes, num_classes, dtype=torch.float64, requires_grad=True)
        # A batch with as many images of each class as the set has: an image of class c stands for counts[c] of them.
        times = counts / counts.sum()

        def loss(logits: Any = logits, e: float = label_smoothing, times: Any = times) -> Any:
            each = torch.stack([loss_of(logits[k : k + 1], labels[k : k + 1], weights, e) for k in range(num_classes)])
            return (times * weights * each).sum() / (times * weights).sum()

        optimizer = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

        def closure(loss: Any = loss, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)
        assert logits.argmax(dim=1).tolist() == labels.tolist()


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


@pytest.mark.parametrize("preset", FROM_NOTHING)
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
    "natural": [2.301962, 2.267967, 2.232949, 2.191037],
    "accurate": [2.304977, 2.251672, 2.195859, 2.106026],
    "tutorial-fast": [2.297159, 2.375093, 2.257576, 2.115458],
    "tutorial": [2.293872, 60.242657, 5.951694, 2.885552],
}


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


def test_validation_and_saving_use_the_average(arrays: Any, workplace: Path) -> None:
    """With EMA the saved model is the average, and its card says so."""
    plain = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    ema = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(ema=0.9))
    training = read_model(ema.model).card.training
    assert training is not None and training.weights == "ema"
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
    last, _ = checkpoint.newest(run.path / "checkpoints")
    assert last is not None and last.card.state.step == caught.value.step
    assert all(np.isfinite(a).all() for a in last.arrays.values())


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
    assert open_data(arrays).fingerprint == whole.record.dataset.fingerprint


EVERYTHING = Recipe(
    optimizer="muon",
    batch_size=40,
    epochs=6,
    grow_from=0.5,
    ema=0.9,
    label_smoothing=0.1,
    balance="weights",
    weight_decay=0.01,
    precision="bfloat16",
).with_kinds(KIND_NAMES, 16)
RECORDED = {
    "everything": (
        "conv(8, 3) residual(conv(8, 3, padding=1) batchnorm) gelu maxpool(2) dropout(0.2) flatten linear(20) relu "
        "linear(classes)",
        EVERYTHING.replace(grow_from=1.0),
    ),
    "growing": ("conv(8, 3, padding=1) groupnorm(2) relu globalavgpool flatten linear(classes)", EVERYTHING),
    "adamw": (TINY, QUICK.replace(batch_size=40, epochs=6)),
    "sgd": (TINY, QUICK.replace(optimizer="sgd", lr=0.05, batch_size=40, epochs=6)),
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", list(RECORDED))
def test_recorded_steps_give_the_bits_of_those_carried_out_one_by_one(name: str) -> None:
    """On a GPU, with every augmentation, dropout, growing images and each optimizer: losses and weights are the same
    whether steps are replayed or not, and where a training is taken up again in its middle."""
    x, y = shapes(150, 3)
    sentence, recipe = RECORDED[name]
    compute = Compute("cuda:0", recipe.precision, 1)
    images, labels = torch.from_numpy(x[..., None]).cuda(), torch.from_numpy(y).cuda()

    def trained(kind: type[Stepper], taken_up_at: int = 0) -> tuple[list[float], dict[str, np.ndarray]]:
        spec = InputSpec(16, 16, 1, mean=(50.0,), std=(70.0,))
        network = build(plan(parse(sentence), (1, 16, 16), 3), spec, seed=1, device="cuda:0")
        state, num_steps = TrainingState.new(network, recipe), recipe.num_steps(150)
        given = (state, images, labels, Batches.of(recipe, y, 2), recipe, num_steps, compute)
        stepper, losses = kind(*given), []
        for step in range(num_steps):
            stepper = kind(*given) if step == taken_up_at else stepper
            losses += stepper.run(step, 1).tolist()
        return losses, arrays_of(tensors_of(network))

    with settled(compute):
        plain, weights_then = trained(Stepper)
        for taken_up_at in (0, 11):
            losses, weights_now = trained(ReplayedStepper, taken_up_at)
            assert losses == plain and same(weights_now, weights_then)
    assert np.isfinite(plain).all() and len(set(plain)) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_several_recorded_steps_are_one_after_the_other() -> None:
    """On a GPU, blocks of steps give what steps alone give."""
    x, y = shapes(150, 3)
    recipe, compute = QUICK.replace(batch_size=40, epochs=6), Compute("cuda:0", "float32", 1)
    found = []
    for num in (1, 4, 20):
        spec = InputSpec(16, 16, 1, mean=(50.0,), std=(70.0,))
        state = TrainingState.new(build(plan(parse(TINY), (1, 16, 16), 3), spec, seed=1, device="cuda:0"), recipe)
        images, labels = torch.from_numpy(x[..., None]).cuda(), torch.from_numpy(y).cuda()
        with settled(compute):
            stepper = ReplayedStepper(state, images, labels, Batches.of(recipe, y, 2), recipe, 20, compute)
            found.append([loss for first in range(0, 20, num) for loss in stepper.run(first, num).tolist()])
    assert found[0] == found[1] == found[2]
