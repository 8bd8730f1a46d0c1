"""Which augmentations are kept, by a balanced design of short trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import convlens
from convlens.architecture import parse, plan
from convlens.augmentation import TRIED
from convlens.choosing.augmenting import _DESIGN, Effect, _main_effects, effects
from convlens.choosing.probe import material_of
from convlens.network.compute import resolve_compute
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from tests.helpers import TINY_COLOUR


def hands(root: Path, num: int = 60) -> Path:
    """Left and right hands: thumbs on one side or the other. Mirroring makes one of them the other."""
    rng = np.random.default_rng(4)
    for label in ("left", "right"):
        (root / label).mkdir(parents=True)
        for i in range(num):
            image = Image.new("RGB", (24, 24), tuple(int(v) for v in rng.integers(0, 60, 3)))
            draw, colour = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(150, 255, 3))
            x, y = (int(v) for v in rng.integers(7, 10, 2))
            draw.rectangle((x, y, x + 7, y + 9), fill=colour)
            thumb = (x + 8, y + 5, x + 11, y + 7) if label == "left" else (x - 4, y + 5, x - 1, y + 7)
            draw.rectangle(thumb, fill=colour)
            image.save(root / label / f"{i}.png")
    return root


@pytest.mark.slow
def test_mirroring_is_refused_where_it_hurts(tmp_path: Path) -> None:
    """Left and right hands: the trial shows that flips are harmful, and they are left out."""
    dataset = convlens.pack(hands(tmp_path / "hands"))
    network = plan(parse(TINY_COLOUR), dataset.input_spec.shape, 2)
    recipe = Recipe(lr=0.02, epochs=12, batch_size=16, precision="float32")
    tried = TrainingPlan(
        dataset=dataset, network=network, recipe=recipe, seed=0, compute=resolve_compute("cpu", "float32")
    )
    found = {e.kind: e for e in effects(material_of(dataset), tried, Progress())}
    assert found["flip"].loss > 0 and found["flip"].is_usual and not found["flip"].is_kept
    assert found["flip"].loss > 2 * max(abs(e.loss) for kind, e in found.items() if kind in ("shift", "cutout"))


def test_main_effects_are_what_was_put_in() -> None:
    """The design of eight trainings gives each kind's own effect back, clear of interactions of two."""
    rng = np.random.default_rng(0)
    truth = dict(zip(TRIED, (-0.3, 0.2, 0.0, -0.1), strict=True))
    base = rng.normal(1, 0.3, 400)
    losses = np.stack(
        [
            base
            + sum(truth[k] for k, on in zip(TRIED, row, strict=True) if on)
            + 0.5 * (row[0] and row[1])
            + rng.normal(0, 0.01, 400)
            for row in _DESIGN
        ]
    )
    found = {e.kind: e for e in _main_effects(losses, (losses < 1).astype(np.float64))}
    for kind, effect in truth.items():  # the interaction of flip and shift adds half of itself to both
        expected = effect + (0.25 if kind in ("flip", "shift") else 0)
        assert abs(found[kind].loss - expected) < 0.01
    assert found["flip"].standard_error > 0.1, "what interacts shows in the contrasts that are left over"


@pytest.mark.parametrize(
    ("loss", "is_usual", "is_kept"),
    [(-0.1, False, True), (-0.01, False, False), (-0.01, True, True), (0.01, True, True), (0.1, True, False)],
)
def test_what_a_trial_cannot_tell_stays_as_is_usual(loss: float, is_usual: bool, is_kept: bool) -> None:
    """Noise decides nothing: what is usual goes only where it hurts, anything else comes only where it helps."""
    effect = Effect("flip", loss, 0.03, 0.0, is_usual)
    assert effect.is_kept is is_kept
    assert ("cannot tell" in str(effect)) is (is_usual and abs(loss) < 0.03)


def test_the_design_is_balanced() -> None:
    """Each kind is on in four of the eight trainings, and each pair of kinds in two."""
    signs = np.where(np.array(_DESIGN), 1, -1)
    assert np.array_equal(signs.T @ signs, 8 * np.eye(4, dtype=int))


def test_augmentation_that_is_set_stays(workplace: Path) -> None:
    """--set shift_px=3 is kept, whatever the trial says of shifts."""
    data = hands(workplace / "hands")
    run = convlens.train(data, time=8, recipe={"shift_px": 3}, progress="none", stop=lambda: True)
    assert run.record.recipe["shift_px"] == 3
    assert any(line.startswith("  tried shift") for line in run.record.choices)
