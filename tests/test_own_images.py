"""A person's own folder: honest numbers, repeated trainings, folds, balance, patience, regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.errors import DataError, UsageError
from convlens.evaluation.cross_validation import deal
from convlens.evaluation.test_ledger import ledger_path
from convlens.files import read_lines
from convlens.metrics import score
from convlens.modelfile import read_model
from convlens.recipe import Recipe
from convlens.run import Run, Series
from convlens.training.batches import Batches
from convlens.training.loop import class_weights_of
from tests.conftest import TINY, Command, shapes, write_folders
from tests.test_growing import NET, folder, trained

QUICK = Recipe(lr=0.02, epochs=2, batch_size=32, precision="float32")


def test_permuted_labels_land_at_chance(workplace: Path) -> None:
    """Labels that say nothing: whatever training does, test comes out at chance. Anything else would be a leak."""
    x, y = shapes(900, 5)
    permuted = np.random.default_rng(1).permutation(y)
    run = convlens.train((x, permuted), architecture=TINY, recipe=QUICK.replace(epochs=15), test=True, progress="none")
    assert run.test is not None
    chance = np.bincount(permuted).max() / len(permuted)
    low, high = run.test.interval
    assert low < chance < high or run.test.accuracy < chance
    honest = convlens.train((x, y), architecture=TINY, recipe=QUICK.replace(epochs=8), test=True, progress="none")
    assert honest.test is not None and honest.test.accuracy > 0.9


def test_a_perfect_score_is_doubted() -> None:
    """100.0 % of 1,000 images or more comes with a warning; of fewer, or with one mistake, it does not."""
    labels = np.arange(1000) % 3
    perfect = np.eye(3, dtype=np.float32)[labels] * 9
    assert "rarely true" in str(score(perfect, labels).leak_warning)
    assert score(perfect[:999], labels[:999]).leak_warning is None
    perfect[0] = -perfect[0]
    assert score(perfect, labels).leak_warning is None


def test_the_warning_is_printed(workplace: Path) -> None:
    """A report of a perfect score on 1,200 test images says so to a person."""
    plain = np.zeros((1500, 8, 8), np.uint8)
    labels = np.arange(1500) % 2
    plain[labels == 1] = 200
    plain += np.random.default_rng(0).integers(0, 20, plain.shape, dtype=np.uint8)
    run = convlens.train(
        (plain[:300], labels[:300], plain[300:], labels[300:]),
        test=True,
        progress="none",
        architecture="conv(2, 3) batchnorm relu flatten linear(classes)",
        recipe=QUICK.replace(epochs=6),
    )
    assert run.test is not None and run.test.accuracy == 1
    assert any("rarely true" in line for line in convlens.evaluate(run, progress="none").lines())
    assert any(what == "warning" for what, _ in run.summary())


def test_imbalance_stands_first() -> None:
    """Balanced accuracy (mean recall) and the majority baseline, against scikit-learn, first in what is printed."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.zeros(300, int), np.ones(60, int), np.full(40, 2)])
    logits = rng.normal(size=(400, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[labels]
    found = score(logits, labels)
    assert found.balanced == pytest.approx(metrics.balanced_accuracy_score(labels, logits.argmax(axis=1)))
    assert (found.majority, found.imbalance) == (0.75, 7.5)
    assert str(found).startswith("balanced accuracy") and "majority baseline 75.00 %" in str(found)
    even = np.arange(400) % 2
    assert not score(logits, even).is_imbalanced and str(score(logits, even))[0].isdigit()


def test_balanced_sampling_draws_each_class_alike() -> None:
    """An epoch has as many images of each class; small classes come round again, each image before any a third time."""
    labels = np.concatenate([np.zeros(90, int), np.ones(7, int), np.full(2, 2)])
    batches = Batches.of(QUICK.replace(balance="sampling", batch_size=99), labels, 3)
    first, second = batches.at(0).positions, batches.at(1).positions
    assert np.bincount(labels[first]).tolist() == [33, 33, 33]
    times = np.bincount(first, minlength=99)
    assert set(times[90:97]) <= {4, 5} and set(times[97:]) <= {16, 17} and times[:90].max() == 1
    assert not np.array_equal(first, second)
    again = Batches.of(QUICK.replace(balance="sampling", batch_size=33), labels, 3)
    assert np.array_equal(np.concatenate([again.at(i).positions for i in range(3)]), first)


def test_class_weights() -> None:
    """N / (K n_k): every class has the same weight in all, and the mean weight of an image is 1."""
    import torch

    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights_of(labels, 3)
    assert torch.allclose(weights * torch.tensor([6.0, 3.0, 1.0]), torch.full((3,), 10 / 3))
    assert weights[labels].mean() == pytest.approx(1)


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
            recipe=QUICK.replace(epochs=6, balance=balance),
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
    recipe = QUICK.replace(epochs=60, batch_size=16, patience=3, schedule="constant", warmup_frac=0.0)
    run = trained((x, y), architecture=TINY, recipe=recipe)
    losses = [line["val"]["loss"] for line in run.history]
    assert run.status == "complete" and len(losses) < 60
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3
    card = read_model(run.model).card
    assert card.training["weights"] == "best" and card.training["step"] == run.history[best]["step"]
    assert run.val is not None and run.val.loss == losses[best]
    assert convlens.evaluate(run, split="val", progress="none").score.loss == pytest.approx(losses[best], rel=1e-5)
    with pytest.raises(UsageError, match="validation"):
        trained((x, y), architecture=TINY, recipe=recipe, val_frac=0)


def test_patience_resumes_to_the_same_bits(workplace: Path) -> None:
    """Interrupted in the middle, a run with patience stops at the same step with the same weights."""
    x, y = shapes(240, 3)
    y = np.where(np.random.default_rng(0).random(240) < 0.3, (y + 1) % 3, y)
    recipe = QUICK.replace(epochs=40, batch_size=16, patience=3, schedule="constant", warmup_frac=0.0)
    whole = trained((x, y), architecture=TINY, recipe=recipe)
    calls = iter(range(10_000))
    part = trained((x, y), architecture=TINY, recipe=recipe, stop=lambda: next(calls) > 40)
    assert part.status == "interrupted"
    ended = convlens.train((x, y), resume=part.path, progress="none")
    one, other = read_model(whole.model), read_model(part.model)
    assert ended.status == "complete"
    assert one.card.training["step"] == other.card.training["step"]
    assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_seeds_give_mean_and_spread(workplace: Path, command: Command) -> None:
    """--seeds N: N runs that differ in their seed alone, and mean ± sd of what was measured."""
    write_folders(workplace / "data", 30)
    result = command(
        "train", "data", "--architecture", NET, "--epochs", 1, "--seeds", 3, "--seed", 5, "--test", "--json"
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [run["seed"] for run in document["runs"]] == [5, 6, 7]
    values = [run["test"]["accuracy"] for run in document["runs"]]
    assert document["test"] == pytest.approx({"mean": np.mean(values), "sd": np.std(values, ddof=1), "n": 3})
    shown = Series(
        tuple(
            Run(Path(run["run"]) if Path(run["run"]).is_absolute() else workplace / run["run"])
            for run in document["runs"]
        )
    ).summary()
    assert "mean ± sd over 3 seeds" in dict(shown)["test"]
    with pytest.raises(UsageError, match="seeds must be"):
        convlens.train(workplace / "data", seeds=0)


def test_folds_measure_every_image_once_and_train_on_all(workplace: Path) -> None:
    """--folds: n is the whole set, the delivered model has seen everything, its opening is in the ledger."""
    root = folder(workplace / "data", range(90))
    run = trained(root, folds=3)
    assert run.cross_validation is not None and run.cross_validation.n == 90
    assert run.record["dataset"]["num_samples"] == {"train": 90, "val": 0, "test": 0}
    assert read_model(run.model).card.metrics["cross_validation"]["n"] == 90
    assert len(read_lines(ledger_path())) == 1
    assert any(what == "3 folds" for what, _ in run.summary())
    with pytest.raises(DataError, match="cross-validation"):
        convlens.evaluate(run, progress="none")
    stopped = convlens.train(root, architecture=NET, recipe=QUICK, folds=3, progress="none", stop=lambda: True)
    resumed = convlens.train(resume=stopped.path, progress="none")
    assert resumed.status == "complete" and resumed.cross_validation is not None


def test_folds_keep_groups_together_and_classes_even() -> None:
    """Images of one draw share a fold; each class is spread evenly; every fold is dealt the same whatever the order."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 2**63, 120).astype(np.uint64)[rng.integers(0, 120, 400)]
    labels = (draws % np.uint64(3)).astype(np.int64)
    folds = deal(draws, labels, 5)
    assert all(len(np.unique(folds[draws == draw])) == 1 for draw in np.unique(draws))
    groups = {int(d): int(f) for d, f in zip(draws, folds, strict=True)}
    for label in range(3):
        counts = np.bincount([f for d, f in groups.items() if d % 3 == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    order = rng.permutation(400)
    assert np.array_equal(deal(draws[order], labels[order], 5), folds[order])


def test_odd_folds_are_refused(workplace: Path) -> None:
    """Folds that cannot be, and wishes that contradict them."""
    root = folder(workplace / "data", range(30))
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"folds": 1}, "whole number from 2"),
        ({"folds": 3, "test": True}, "leave `test`"),
        ({"folds": 3, "val_frac": 0.1}, "val_frac"),
        ({"folds": 3, "recipe": {"patience": 2}}, "patience"),
    ]
    for wish, words in wishes:
        with pytest.raises(UsageError, match=words):
            trained(root, **wish)
    with pytest.raises(DataError, match="too few"):
        trained(folder(workplace / "few", range(4)), folds=5)


def test_a_region_belongs_to_the_model(workplace: Path, command: Command) -> None:
    """--region: cut from every picture alike, in training and prediction; a picture without it is refused."""
    root = folder(workplace / "data", range(40))
    result = command("train", root, "--region", "4,2,12,14", "--architecture", NET, "--epochs", 1, "--json")
    assert result.returncode == 0, result.stderr
    model = convlens.load(
        json.loads(result.stdout)["model"]
        if Path(json.loads(result.stdout)["model"]).is_absolute()
        else workplace / json.loads(result.stdout)["model"]
    )
    assert model.card.input_spec.region == (4, 2, 12, 14)
    assert (model.card.input_spec.height, model.card.input_spec.width) == (14, 12)
    from convlens.data.image.decode import decode

    path = root / "ant" / "0.png"
    assert np.array_equal(model.frame(path), decode(path.read_bytes())[2:16, 4:16])
    small = workplace / "small.png"
    from PIL import Image

    Image.new("RGB", (10, 10)).save(small)
    refused = command("predict", model.path, small)
    assert refused.returncode == 2 and "outside a picture 10 pixels wide" in refused.stderr
    odd = command("train", root, "--region", "1,2,3")
    assert odd.returncode == 2 and "region must be x,y,width,height" in odd.stderr


def test_new_augmentation_is_a_function_of_seed_and_step() -> None:
    """Crops and cutout are drawn per (seed, epoch), alike for every rank, and leave uint8 images of the same shape."""
    import torch

    from convlens.data.packed.image_rows import ImageRows
    from convlens.training.batches import gather

    x = np.random.default_rng(0).integers(0, 256, (50, 12, 10, 3), dtype=np.uint8)
    recipe = QUICK.replace(batch_size=20, crop_frac=0.4, cutout_frac=0.3)
    batches, images = Batches.of(recipe, np.zeros(50, int), 4), ImageRows(x, np.arange(50))
    whole = gather(images, batches.at(7), "cpu")
    assert whole.dtype == torch.uint8 and whole.shape == (20, 12, 10, 3)
    parts = [gather(images, batches.at(7, rank, 2), "cpu") for rank in range(2)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1])
    assert torch.equal(gather(torch.from_numpy(x), batches.at(7), "cpu"), whole)
    plain = Batches.of(recipe.without_augmentation(), np.zeros(50, int), 4)
    assert np.array_equal(plain.at(7).positions, batches.at(7).positions)


def test_enlarging_is_bilinear_and_covering_covers() -> None:
    """The whole as its own part is unchanged; half of a ramp comes out twice as wide; the hole has the mean."""
    import torch

    from convlens.augmentation import Augmentation, Crop, Cutout

    def enlarged(images: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = Crop().apply(torch, images, parts, Augmentation(crop_frac=0.5))
        return done

    def covered(images: torch.Tensor, middles: torch.Tensor, share: float) -> torch.Tensor:
        done: torch.Tensor = Cutout().apply(torch, images, middles, Augmentation(cutout_frac=share))
        return done

    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 24, 1).repeat(2, 24, 1, 1)
    assert torch.equal(enlarged(ramp, torch.tensor([[0.0, 0.0, 1.0]] * 2)), ramp)
    half = enlarged(ramp, torch.tensor([[0.0, 0.25, 0.5]] * 2)).float()
    assert torch.allclose(half[0, 5, 2:-2, 0].diff(), torch.tensor(5.0), atol=1)
    hole = covered(ramp, torch.tensor([[0.5, 0.5]] * 2), 0.25)
    assert (hole[0, 9:15, 9:15, 0] == 115).all() and torch.equal(hole[0, :9], ramp[0, :9])


def test_exclusions_are_kept_with_the_data(workplace: Path) -> None:
    """A run packed with exclusions is reopened and evaluated with them; unknown names and odd files are refused."""
    root = folder(workplace / "data", range(60))
    run = trained(root, exclude=["ant/0.png", "bee/1.png"])
    assert run.record["dataset"]["options"]["exclude"] == ["ant/0.png", "bee/1.png"]
    assert (
        convlens.evaluate(run, progress="none").n
        == open_data(
            root,
            PackOptions(exclude=("ant/0.png", "bee/1.png")),
        ).counts["test"]
    )
    with pytest.raises(DataError, match="not in"):
        trained(root, exclude=["ant/9999.png"])
    (workplace / "odd.jsonl").write_text('{"reason": "none"}\n')
    with pytest.raises(DataError, match="line 1"):
        trained(root, exclude="odd.jsonl")
    with pytest.raises(DataError, match="no list of exclusions"):
        trained(root, exclude="missing.jsonl")


def test_excluding_everything_says_so(workplace: Path) -> None:
    """A list that names every picture leaves nothing, and the error says that and not that files are broken."""
    root = folder(workplace / "data", range(4))
    with pytest.raises(DataError, match="is excluded: nothing is left"):
        convlens.pack(root, exclude=["ant/0.png", "bee/1.png", "ant/2.png", "bee/3.png"])
