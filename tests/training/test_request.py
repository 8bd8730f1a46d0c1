"""What was said: frozen, by keyword, checked before any data is read; and what that pins."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

import convlens
from convlens.errors import ConvlensError, UsageError
from convlens.experiment import resolve
from convlens.presets import PRESETS, STANDARD
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.request import TrainRequest
from tests.conftest import QUICK, TINY, shapes


def test_a_request_is_frozen_and_takes_keywords_only() -> None:
    """Nobody changes what was said, or says it by place."""
    request = TrainRequest(data="mnist")
    with pytest.raises(FrozenInstanceError):
        request.data = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainRequest("mnist")  # type: ignore[call-arg]


def test_nothing_said_is_nothing_pinned() -> None:
    """Every field's default means that nothing was said."""
    assert all(f.default in (None, False) for f in fields(TrainRequest))
    assert TrainRequest().said == () and TrainRequest().pinned == {}


def test_a_recipe_pins_all_and_a_mapping_its_own_fields() -> None:
    """A Recipe is taken whole; of a mapping those fields, and the preset's others."""
    whole = TrainRequest(recipe=QUICK)
    assert whole.pinned == QUICK.to_json() and whole.draft(None).recipe == QUICK
    some = TrainRequest(recipe={"epochs": 3, "flip": True}, seed=5)
    assert some.pinned == {"epochs": 3, "flip": True} and some.said == ("seed", "epochs", "flip")
    assert some.draft(None).recipe == STANDARD.recipe.replace(epochs=3, flip=True)
    unflipped = TrainRequest(preset="natural", recipe={"flip": False}).draft(None).recipe
    assert unflipped == PRESETS["natural"].recipe.replace(flip=False, views="none"), "mirrored views go with flips"


def test_what_was_typed_is_kept_in_the_plan_and_the_run(workplace: Any) -> None:
    """The plan is frozen, knows what was typed, and the run's record does too."""
    request = TrainRequest(data=shapes(60), architecture=TINY, recipe={"epochs": 1, "lr": 0.02}, seed=3)
    found, _ = resolve(request, Progress())
    assert isinstance(found, TrainingPlan) and found.pinned == ("data", "architecture", "seed", "epochs", "lr")
    with pytest.raises(FrozenInstanceError):
        found.seed = 4  # type: ignore[misc]
    run = convlens.train(shapes(60), architecture=TINY, recipe={"epochs": 1, "lr": 0.02}, seed=3, progress="none")
    assert tuple(run.record.pinned) == found.pinned


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"seed": -1}, "`?seed`? must be"),
        ({"seed": True}, "`?seed`? must be"),
        ({"seed": 2**63}, "`?seed`? must be"),
        ({"seeds": 0}, "`?seeds`? must be"),
        ({"folds": 1}, "`?folds`? must be"),
        ({"folds": 3, "test": True}, "leave `test`"),
        ({"folds": 3, "recipe": Recipe(patience=2)}, "patience"),
        ({"preset": "slow"}, "unknown preset"),
        ({"architecture": "conv(8"}, "column"),
        ({"recipe": "adam"}, "must be a Recipe or a mapping"),
        ({"recipe": {"lr": -1}}, "lr"),
        ({"recipe": {"learning_rate": 1}}, "learning_rate"),
        ({"augment": "flop"}, "did you mean 'flip'"),
        ({"time": "soon"}, "time must be"),
        ({"size": "large"}, "size"),
        ({"parent": "m.safetensors", "preset": "fast"}, "parent's architecture is taken"),
    ],
)
def test_what_cannot_be_is_refused_before_data_is_read(said: dict[str, Any], words: str) -> None:
    """One line, in words of parameters and not of flags, from the request alone."""
    with pytest.raises(ConvlensError, match=words) as caught:
        TrainRequest(data="no/such/folder", **said)
    assert "--" not in str(caught.value)


def test_refusing_names_the_parameter_and_the_value() -> None:
    """What a resumed run cannot take is named as it was said."""
    with pytest.raises(UsageError, match="keeps its plan: leave `seeds` away, not 3"):
        TrainRequest(seeds=3).refuse(("seeds", "time"), "a resumed run keeps its plan")
