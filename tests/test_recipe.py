"""Recipes: values, ranges, schedules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlens.errors import RecipeError
from convlens.recipe import OPTIMIZERS, SCHEDULES, Recipe

RECIPES = st.builds(
    Recipe,
    optimizer=st.sampled_from(OPTIMIZERS),
    lr=st.floats(1e-6, 10),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    momentum=st.floats(0, 0.99),
    weight_decay=st.floats(0, 1),
    schedule=st.sampled_from(SCHEDULES),
    warmup_frac=st.floats(0, 1),
    label_smoothing=st.floats(0, 0.9),
    shift_px=st.integers(0, 5),
    flip=st.booleans(),
    ema=st.floats(0, 0.999),
    epochs=st.floats(0.01, 100),
    batch_size=st.integers(1, 4096),
)


@given(RECIPES)
def test_json_round_trips(recipe: Recipe) -> None:
    """Through JSON text and back it is an equal recipe."""
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@given(RECIPES, st.integers(1, 500))
def test_learning_rates_stay_within_bounds(recipe: Recipe, num_steps: int) -> None:
    """Every step's rate is above 0 and at most lr; triangle and cosine end lower than they were at the top."""
    rates = [recipe.lr_at(step, num_steps) for step in range(num_steps)]
    assert all(0 < rate <= recipe.lr * (1 + 1e-9) for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_triangle_by_hand() -> None:
    """Ten steps with a fifth of them on the way up."""
    recipe = Recipe(lr=1.0, schedule="triangle", warmup_frac=0.2)
    assert [round(recipe.lr_at(k, 10), 3) for k in range(10)] == [
        0.5,
        1.0,
        0.889,
        0.778,
        0.667,
        0.556,
        0.444,
        0.333,
        0.222,
        0.111,
    ]
    assert Recipe(lr=0.3, schedule="constant", warmup_frac=0).lr_at(0, 10) == 0.3


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lr": 0}, "lr must be a number above 0"),
    ({"lr": "fast"}, "lr must be a number"),
    ({"lr": float("nan")}, "lr must"),
    ({"optimizer": "adm"}, "did you mean 'adam'"),
    ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ({"betas": (0.9,)}, "two numbers"),
    ({"betas": (0.9, 1.0)}, "below 1"),
    ({"batch_size": 0}, "whole number"),
    ({"batch_size": 2.5}, "whole number"),
    ({"epochs": -1}, "epochs"),
    ({"flip": 1}, "true or false"),
    ({"label_smoothing": 1}, "below 1"),
    ({"shift_px": 65}, "from 0 to 64"),
    ({"precision": "float16"}, "bfloat16"),
]


@pytest.mark.parametrize(("values", "words"), BAD)
def test_values_out_of_range(values: dict[str, Any], words: str) -> None:
    """Each value is refused with its name, its range and what was given."""
    with pytest.raises(RecipeError, match=words):
        Recipe().replace(**values)


def test_settings_from_text() -> None:
    """`--set field=value` reads each type, and says what it cannot read."""
    texts = {"lr": "0.5", "flip": "true", "batch_size": "64", "betas": "0.8,0.95", "schedule": "cosine"}
    recipe = Recipe().replace(**{name: Recipe().parsed(name, text) for name, text in texts.items()})
    assert (recipe.lr, recipe.flip, recipe.batch_size, recipe.betas) == (0.5, True, 64, (0.8, 0.95))
    for name, text, words in (
        ("lr", "x", "a number"),
        ("flip", "maybe", "true or false"),
        ("batch_size", "1.5", "whole number"),
    ):
        with pytest.raises(RecipeError, match=words):
            Recipe().parsed(name, text)
    with pytest.raises(RecipeError, match="no 'learning'"):
        Recipe().replace(learning=1)


def test_usual_views() -> None:
    """Mirrored where it learns from mirrored pictures and nothing is frozen; with frozen layers they are refused."""
    flipped = Recipe(flip=True)
    assert flipped.with_usual_views().views == "mirror" and Recipe(views="mirror").with_usual_views().views == "none"
    assert flipped.replace(freeze="head").with_usual_views().views == "none"
    with pytest.raises(RecipeError, match="frozen layers"):
        flipped.replace(freeze="head", views="mirror")
    assert "mirrored views" in str(flipped.with_usual_views()) and "mirrored views" not in str(flipped)
    assert flipped.plan_key() != flipped.with_usual_views().plan_key() and "views" not in flipped.plan_key()
