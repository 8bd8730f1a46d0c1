"""Layers that stay as they are: computed once, kept, and trained behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import convlens
from convlens import files
from convlens.errors import RecipeError, SentenceError, StorageError
from convlens.modelfile import read_model
from convlens.network import frozen
from convlens.network.forward import as_maps, tensor_of
from convlens.network.frozen import AS_THEY_ARE, View, frozen_outputs
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.run import Run
from convlens.training.fit import fit, network_of
from convlens.training.head import fitted_head
from convlens.training.plan import TrainingPlan
from tests.choosing.test_choose import Said
from tests.helpers import NET, SHORT, folder, same, trained

SECOND = "4"  # NET's second convolution
DEEP = (
    "conv(6, 3, padding=1, bias=False) batchnorm relu repeat(2, conv(6, 3, padding=1) batchnorm relu6) "
    "residual(relu conv(6, 3, padding=1, bias=False) batchnorm) relu "
    "residual(conv(8, 3, stride=2, padding=1) batchnorm | conv(8, 1, stride=2) batchnorm) relu "
    "globalavgpool flatten linear(classes)"
)


@pytest.fixture
def parent(tmp_path: Path, workplace: Path) -> Run:
    return trained(folder(tmp_path / "old", range(9000, 9080)), architecture=DEEP)


def plan_of(parent: Run, data: Path, **recipe: Any) -> TrainingPlan:
    """The plan of a training that starts from the parent."""
    from convlens.experiment import resolve
    from convlens.training.request import TrainRequest

    return resolve(TrainRequest(data=data, parent=parent.path, recipe=SHORT.replace(**recipe)), Progress())[0]


def test_outputs_are_the_networks_own(parent: Run, tmp_path: Path) -> None:
    """What is kept is what the layers give in evaluation mode, to float32's rounding, wherever the network is cut:
    batch norm is folded into convolutions, in repeats, residuals and shortcuts, and nothing is overwritten."""
    plan = plan_of(parent, folder(tmp_path / "new", range(1000, 1030)), freeze="head")
    network, images = network_of(plan).eval(), plan.dataset.images("train")
    x = network.normalise(torch.from_numpy(images[:]))
    with torch.inference_mode():
        for first in range(1, len(plan.network.nodes)):
            x = list(network.layers.children())[first - 1](x)
            kept = frozen_outputs(network, first, images, plan.compute, Progress())
            assert torch.allclose(as_maps(tensor_of(kept[:])), x, rtol=1e-4, atol=1e-5), first


def test_what_is_frozen_stays_and_the_rest_learns(parent: Run, tmp_path: Path) -> None:
    """Layers before the address keep their weights and statistics to the bit, those from it on do not. What
    is printed of validation is what `evaluate` finds."""
    root, before = folder(tmp_path / "new", range(1000, 1120)), read_model(parent.model).tensors
    frozen_names = {name for name in before if name.split(".")[0] in ("0", "1", "2", "3[0]", "3[1]")}
    recipe = SHORT.replace(freeze="4", flip=True, frozen_views=2, epochs=3)
    run = convlens.train(root, parent=parent.path, recipe=recipe, progress="none")
    after = read_model(run.model).tensors
    assert frozen_names and all(np.array_equal(before[name], after[name]) for name in frozen_names)
    assert not np.array_equal(before["4.1.weight"], after["4.1.weight"])
    assert not np.array_equal(before["4.2.running_mean"], after["4.2.running_mean"])
    report = convlens.evaluate(run, split="val", progress="none")
    assert run.record.val is not None
    assert report.score.accuracy == run.record.val.accuracy
    assert report.score.loss == pytest.approx(run.record.val.loss, abs=1e-4)


def test_what_does_nothing_is_said(parent: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Fields that were typed and do nothing beside the others are named, and tell no two plans apart."""
    root = folder(tmp_path / "new", range(1000, 1060))
    head = {"freeze": "head", "head": "logistic", "epochs": 0}
    convlens.train(root, parent=parent.path, recipe={**head, "frozen_views": 8, "lr": 0.3}, progress="lines")
    assert "without effect here: `frozen_views`, `lr` (the head alone is fitted" in capfd.readouterr().err
    plain = Recipe(freeze="head", head="logistic", epochs=0)
    assert plain.plan_key() == plain.replace(frozen_views=8, lr=0.3, flip=True, batch_size=7).plan_key()
    assert plain.plan_key() != plain.replace(head_penalty=3.0).plan_key() != plain.replace(balance="weights").plan_key()
    tuned = Recipe(freeze="4", epochs=2, flip=True)
    assert tuned.plan_key() != tuned.replace(frozen_views=8).plan_key()


def test_outputs_are_computed_once(parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second training of the same images reads them; other weights, another seed's views, another precision or
    address are other outputs."""
    data, made = folder(tmp_path / "new", range(1000, 1040)), []
    compute = frozen._compute

    def counted(path: Path, *rest: Any) -> None:
        made.append(path)
        compute(path, *rest)

    monkeypatch.setattr(frozen, "_compute", counted)

    def outputs(network: Any, first: int, plan: TrainingPlan, view: View = AS_THEY_ARE) -> int:
        made.clear()
        frozen_outputs(network, first, plan.dataset.images("train"), plan.compute, Progress(), view)
        return len(made)

    plan = plan_of(parent, data, freeze=SECOND, flip=True)
    network, flip = network_of(plan), plan.recipe.augmentation
    assert outputs(network, 5, plan) == 1 and outputs(network, 5, plan) == 0
    assert outputs(network, 6, plan) == 1
    assert outputs(network, 5, plan, View(flip, 0, 1)) == 1 and outputs(network, 5, plan, View(flip, 0, 2)) == 1
    assert outputs(network, 5, plan, View(flip, 1, 1)) == 1 and outputs(network, 5, plan, View(flip, 0, 1)) == 0
    assert outputs(network, 5, replace(plan, compute=replace(plan.compute, precision="bfloat16"))) == 1
    with torch.no_grad():
        network.layers.get_submodule("3[1].1").running_mean.add_(1)  # type: ignore[operator]
    assert outputs(network, 5, plan) == 1


def test_a_damaged_file_is_made_anew(parent: Run, tmp_path: Path) -> None:
    """A byte that fell over, a file cut short, keys of others: computed anew, to the same values, and said."""
    plan, said = plan_of(parent, folder(tmp_path / "new", range(1000, 1040)), freeze=SECOND), Said()
    network, images = network_of(plan), plan.dataset.images("train")

    def outputs() -> Any:
        return frozen_outputs(network, 5, images, plan.compute, said)

    first = outputs()
    whole, path = first[:].copy(), first.path
    assert path is not None and not said.lines
    keys = path.with_suffix(".keys.npy")
    middle = path.stat().st_size // 2
    content = path.read_bytes()
    for what in (content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], content[:middle], b""):
        path.write_bytes(what)
        assert np.array_equal(outputs()[:], whole)
    np.save(keys, np.zeros(3, np.uint64))
    assert np.array_equal(outputs()[:], whole)
    keys.unlink()
    assert np.array_equal(outputs()[:], whole)
    assert len(said.lines) == 5 and all("damaged" in line and "anew" in line for line in said.lines)


class Killed(BaseException):
    """As if the process had ended there."""


def dying(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """The function, which after so many calls is the end."""
    left = iter(range(calls))

    def dies(*args: Any, **rest: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return function(*args, **rest)

    return dies


def test_a_training_that_is_killed_comes_to_the_same_bits(
    parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped dead while outputs are computed, before the head is fitted, or between two steps: the resumed run ends
    with the weights of one that was left alone."""
    data = folder(tmp_path / "new", range(1000, 1060))
    recipe = SHORT.replace(freeze="4", head="logistic", flip=True, frozen_views=2, epochs=2)
    alone = convlens.train(data, parent=parent.path, recipe=recipe, progress="none")
    wanted = read_model(alone.model).tensors

    for number, (module, name, calls) in enumerate(
        [("frozen", "key_of", 30), ("frozen", "key_of", 110), ("head", "_curved", 3), ("step", "loss_of", 3)]
    ):
        for path in (files.cache_folder() / "frozen").glob("*"):
            path.unlink()
        out = tmp_path / f"run-{number}"
        room = "convlens.network." if module == "frozen" else "convlens.training."
        real = getattr(__import__(room + module, fromlist=[name]), name)
        with monkeypatch.context() as patch:
            patch.setattr(f"{room}{module}.{name}", dying(real, calls))
            with pytest.raises(Killed):
                convlens.train(data, parent=parent.path, recipe=recipe, out=out, checkpoint_every=0, progress="none")
        resumed = convlens.train(resume=out, progress="none")
        assert resumed.status == "complete" and same(read_model(resumed.model).tensors, wanted), (module, name, calls)


KILLED = """
import importlib, json, os, signal, sys
import convlens
name, place, calls, said = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
module = importlib.import_module(name)
real = getattr(module, place)
def dies(*args, **rest):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **rest)
setattr(module, place, dies)
convlens.train(said["data"], parent="efficientnet-lite0", size=64, recipe=said["recipe"], out=said["out"],
               checkpoint_every=0, progress="none")
"""


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_photographs_killed_by_the_system_come_to_the_same_bits(tmp_path: Path, workplace: Path) -> None:
    """SIGKILL while features are computed, the head is fitted, or the last stages are tuned: the pretrained network
    ends with the weights of a training that was left alone."""
    data = folder(tmp_path / "new", range(1000, 1060))
    said = {"head": "logistic", "freeze": "50", "flip": True, "frozen_views": 2, "epochs": 2, "batch_size": 16}
    alone = convlens.train(data, parent="efficientnet-lite0", size=64, recipe=said, progress="none")
    wanted = read_model(alone.model).tensors
    for number, (room, name, calls) in enumerate(
        [
            ("network.frozen", "key_of", 20),
            ("network.frozen", "key_of", 70),
            ("training.head", "_curved", 5),
            ("training.step", "loss_of", 2),
        ]
    ):
        for path in (files.cache_folder() / "frozen").glob("*"):
            path.unlink()
        out = tmp_path / f"run-{number}"
        asked = json.dumps({"data": str(data), "recipe": said, "out": str(out)})
        script = [sys.executable, "-c", KILLED, f"convlens.{room}", name, str(calls), asked]
        assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
        resumed = convlens.train(resume=out, progress="none")
        assert resumed.status == "complete" and same(read_model(resumed.model).tensors, wanted), (room, name, calls)


def test_steps_that_make_it_worse_are_undone(parent: Run, tmp_path: Path) -> None:
    """With patience a fitted head is the first of the weights that are kept: steps that raise the loss on validation
    leave it as it was fitted."""
    data = folder(tmp_path / "new", range(1000, 1160))
    recipe = SHORT.replace(freeze="4", head="logistic", epochs=2, patience=9)
    head = convlens.train(data, parent=parent.path, recipe=recipe.replace(epochs=0), progress="none")
    worse = convlens.train(data, parent=parent.path, recipe=recipe.replace(lr=30.0), progress="none")
    assert same(read_model(head.model).tensors, read_model(worse.model).tensors)
    assert worse.record.val == head.record.val
    card = read_model(worse.model).card
    assert card.training is not None and (card.training.weights, card.training.step) == ("best", 0)
    assert worse.kept_epoch == "the fitted head: no epoch lowered the validation loss"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"freeze": "99"}, "outermost ones are 0 to"),
        ({"freeze": "5.1"}, "address"),
        ({"freeze": "behind"}, "address of a layer"),
        ({"epochs": 0}, "unless `head` is fitted"),
    ],
)
def test_what_cannot_be_frozen(parent: Run, folders: Path, recipe: dict[str, Any], words: str) -> None:
    """An address that is not there or inside a block: one line that says which ones are."""
    with pytest.raises((SentenceError, RecipeError), match=words):
        convlens.train(folders, parent=parent.path, progress="none", recipe=recipe)


def test_freezing_needs_weights(folders: Path, workplace: Path) -> None:
    """Layers of a network that has learned nothing are not frozen, and no head is fitted to them; nor one whose last
    layer is no linear one."""
    for recipe in ({"freeze": "3"}, {"head": "logistic"}):
        with pytest.raises(RecipeError, match="say which with `parent`"):
            convlens.train(folders, architecture=NET, recipe=recipe, progress="none")
    scaled = trained(folders, architecture=f"{NET} scale(0.5)")
    with pytest.raises(RecipeError, match="ends in scale"):
        convlens.train(folders, parent=scaled.path, recipe={"head": "logistic"}, progress="none")
    with pytest.raises(RecipeError, match="leaves nothing to train"):
        convlens.train(folders, parent=scaled.path, recipe={"freeze": "9"}, progress="none")


def test_a_disk_that_is_too_small_is_found_before(parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much room the outputs need is said before the first is computed."""
    plan = plan_of(parent, folder(tmp_path / "new", range(1000, 1040)), freeze=SECOND)
    network = network_of(plan)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1_000))
    with pytest.raises(StorageError, match="MB needed"):
        frozen_outputs(network, 5, plan.dataset.images("train"), plan.compute, Progress())


def test_what_a_killed_process_left_is_removed(parent: Run, tmp_path: Path) -> None:
    """A half-written file of a process that was killed while it computed these outputs goes; others' stay."""
    plan = plan_of(parent, folder(tmp_path / "new", range(1000, 1030)), freeze=SECOND)
    network, images = network_of(plan), plan.dataset.images("train")
    path = frozen_outputs(network, 5, images, plan.compute, Progress()).path
    assert path is not None
    path.unlink()
    own, other = (path.parent / f".{name}.0123abcd.partial" for name in (path.name, "another.npy"))
    for left in (own, other):
        left.write_bytes(b"half")
    frozen_outputs(network, 5, images, plan.compute, Progress())
    assert not own.exists() and other.exists()
    other.unlink()


def test_what_was_used_longest_ago_makes_room(parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache keeps so many bytes, and drops the oldest file first."""
    plan = plan_of(parent, folder(tmp_path / "new", range(1000, 1040)), freeze=SECOND)
    network, images = network_of(plan), plan.dataset.images("train")
    for path in (files.cache_folder() / "frozen").glob("*"):
        path.unlink()
    first, second = (frozen_outputs(network, at, images, plan.compute, Progress()).path for at in (5, 6))
    assert first is not None and second is not None
    os.utime(first, (1_000, 1_000))
    monkeypatch.setattr(frozen, "KEPT_BYTES", 2 * second.stat().st_size + 1_000)
    frozen_outputs(network, 4, images, plan.compute, Progress())
    assert not first.exists() and second.exists()


# ---------------------------------------------------------------- the head


def clouds(num: int, num_features: int, num_classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    labels[:num_classes] = np.arange(num_classes)
    means = rng.normal(size=(num_classes, num_features))
    x = 3 + means[labels] + 2 * rng.normal(size=(num, num_features))
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 3.0])
@pytest.mark.parametrize("balance", ["none", "weights"])
def test_logistic_regression_is_scikit_learns(penalty: float, balance: str) -> None:
    """The fitted head is scikit-learn's on the same scaled features, class weights among it: its probabilities agree to
    1e-3."""
    x, y = clouds(400, 20, 5, seed=1)
    weight, bias = fitted_head(x, y, 5, Recipe(head="logistic", head_penalty=penalty, balance=balance))
    scaled = (x - x.mean(0)) / x.std(dim=0).square().mean().sqrt()
    theirs = LogisticRegression(
        C=1 / (penalty * len(x)), class_weight="balanced" if balance == "weights" else None, max_iter=5000, tol=1e-8
    ).fit(scaled.double(), y)
    ours = torch.softmax(x @ weight.T + bias, dim=1).numpy()
    assert np.abs(ours - theirs.predict_proba(scaled.double())).max() < 1e-3


def test_means_answer_with_the_nearest() -> None:
    """head=means gives the class whose mean is nearest, whatever the variance."""
    x, y = clouds(300, 12, 4, seed=2)
    means = torch.stack([x[y == k].mean(0) for k in range(4)])
    nearest = torch.cdist(x, means).argmin(1)
    for variance in (0.1, 1.0, 100.0):
        weight, bias = fitted_head(x, y, 4, Recipe(head="means", head_penalty=variance))
        assert torch.equal((x @ weight.T + bias).argmax(1), nearest)


def test_views_take_turns(parent: Run, tmp_path: Path) -> None:
    """Epoch e learns from view e modulo their number; a view is a function of the seed and of the image alone."""
    data = folder(tmp_path / "new", range(1000, 1060))
    plan = plan_of(parent, data, freeze=SECOND, flip=True, frozen_views=3, epochs=5)
    with fit(plan) as fitting:
        assert isinstance(fitting.images, tuple) and len(fitting.images) == 3
        size, num = fitting.batches.batch_size, len(plan.dataset.rows("train"))
        for step in (0, num // size, 3 * num // size):
            batch = fitting.batches.at(step)
            from convlens.training.batches import gather

            got = gather(fitting.images, batch, "cpu").numpy()
            for row, (position, epoch) in enumerate(zip(batch.positions, batch.epochs, strict=True)):
                assert np.array_equal(got[row], np.asarray(fitting.mapped[epoch % 3][np.array([position])])[0])
    few = plan_of(parent, data, freeze=SECOND, flip=True, frozen_views=3, epochs=1)
    with fit(few) as fitting:
        assert isinstance(fitting.images, tuple) and len(fitting.images) == 1, "no more views than epochs"
