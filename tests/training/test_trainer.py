"""A run from first to last step: its record, patience, interruption."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.errors import UsageError
from convlens.modelfile import read_model
from convlens.recipe import Recipe
from tests.conftest import QUICK, REPOSITORY, TINY, shapes
from tests.helpers import PLAIN, same, trained, weights


def test_balance_helps_the_small_class(workplace: Path) -> None:
    """On overlapping classes of 20 to 1 both ways of balancing raise the recall of the small one."""
    rng = np.random.default_rng(0)

    def images(num: int, mean: int) -> Any:
        return np.clip(rng.normal(mean, 30, (num, 1, 1)) + rng.normal(0, 10, (num, 8, 8)), 0, 255).astype(np.uint8)

    x = np.concatenate([images(800, 110), images(40, 150)])
    y = np.concatenate([np.zeros(800, int), np.ones(40, int)])
    test = np.concatenate([images(200, 110), images(200, 150)])
    recalls = {}
    for balance in ("none", "weights", "sampling"):
        data = (x, y, test, np.repeat([0, 1], 200))
        run = convlens.train(
            data,
            architecture="conv(4, 3) relu flatten linear(classes)",
            recipe=PLAIN.replace(epochs=6, balance=balance),
            test=True,
            progress="none",
        )
        report = convlens.evaluate(run, progress="none")
        recalls[balance] = report.classes()[1]["recall"]
    assert min(recalls["weights"], recalls["sampling"]) > recalls["none"] + 0.2, recalls


def test_patience_keeps_the_best_weights(workplace: Path) -> None:
    """Training ends after so many epochs without a lower validation loss, with the weights of the lowest."""
    x, y = shapes(240, 3)
    y = np.where(np.random.default_rng(0).random(240) < 0.3, (y + 1) % 3, y)  # enough to overfit to
    recipe = PLAIN.replace(epochs=60, batch_size=16, patience=3, schedule="constant", warmup_frac=0.0)
    run = trained((x, y), architecture=TINY, recipe=recipe)
    losses = [line["val"]["loss"] for line in run.history]
    assert run.status == "complete" and len(losses) < 60
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3
    card = read_model(run.model).card
    assert card.training is not None and card.training.weights == "best"
    assert card.training.step == run.history[best]["step"]
    assert run.val is not None and run.val.loss == losses[best]
    calibrated = [line["calibrated_val_loss"] for line in run.history]
    assert int(np.argmin(calibrated)) == best, "what it is decided by stands in the history"
    assert (
        run.kept_epoch == f"epoch {best + 1} of {best + 4} trained, stopped early: the lowest calibrated "
        f"validation loss ({calibrated[best]:.4f})"
    )
    assert convlens.evaluate(run, split="val", progress="none").score.loss == pytest.approx(losses[best], rel=1e-5)
    with pytest.raises(UsageError, match="validation"):
        trained((x, y), architecture=TINY, recipe=recipe, val_frac=0)


def test_patience_resumes_to_the_same_bits(workplace: Path) -> None:
    """Interrupted in the middle, a run with patience stops at the same step with the same weights."""
    x, y = shapes(240, 3)
    y = np.where(np.random.default_rng(0).random(240) < 0.3, (y + 1) % 3, y)
    recipe = PLAIN.replace(epochs=40, batch_size=16, patience=3, schedule="constant", warmup_frac=0.0)
    whole = trained((x, y), architecture=TINY, recipe=recipe)
    calls = iter(range(10_000))
    part = trained((x, y), architecture=TINY, recipe=recipe, stop=lambda: next(calls) > 40)
    assert part.status == "interrupted" and part.val is not None, "that of the weights that are kept"
    ended = convlens.train((x, y), resume=part.path, progress="none")
    one, other = read_model(whole.model), read_model(part.model)
    assert ended.status == "complete"
    assert one.card.training is not None and other.card.training is not None
    assert one.card.training.step == other.card.training.step
    assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_a_run_knows_everything(arrays: Any, workplace: Path) -> None:
    """Folder, log, model card and scores are there, agree with one another, and learn the toy."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=8), seed=3, test=True)
    assert run.path == Path("runs/arrays-1") and run.status == "complete"
    assert run.val is not None and run.val.accuracy > 0.9 and run.test is not None and run.test.n == 100
    assert [line["step"] for line in run.history] == sorted(line["step"] for line in run.history)
    assert len(run.history) == 8 and run.history[-1]["val"]["accuracy"] == run.val.accuracy
    card = read_model(run.model).card
    assert card.architecture == TINY and card.seed == 3 and card.recipe == Recipe.from_json(run.record.recipe)
    assert card.metrics.val == run.val and card.dataset == run.record.dataset
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


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "ratios"), [("standard", (19, 1_000)), ("natural", (1_000,))])
def test_balance_is_never_worse_than_none(preset: str, ratios: tuple[int, ...], workplace: Path) -> None:
    """On separable classes (the digits 0 and 1), three seeds, of 19 and 1,000 to 1, or of 1,000 to 1 alone (the others
    are in bench/imbalance.py: all of them take an hour of one core): neither way of balancing comes
    out below none by more than half a point of balanced accuracy."""
    where = importlib.util.spec_from_file_location("imbalance", REPOSITORY / "bench" / "imbalance.py")
    assert where is not None and where.loader is not None
    bench = importlib.util.module_from_spec(where)
    where.loader.exec_module(bench)
    for ratio in ratios:
        found = {
            balance: np.mean([bench.measure((0, 1), ratio, preset, balance, seed) for seed in range(3)])
            for balance in ("none", "weights", "sampling")
        }
        assert min(found["weights"], found["sampling"]) >= found["none"] - 0.005, (ratio, found)
