"""The model file: it round-trips, and every way to damage it is an error that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import convlens
from convlens.errors import ModelFileError
from convlens.modelfile import ModelFile, read_model, write_bundle, write_model
from tests.conftest import QUICK, TINY


@pytest.fixture(scope="module")
def model(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    out = tmp_path_factory.mktemp("model") / "run"
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=0.2), out=out)
    return read_model(run.model)


def test_round_trip(model: ModelFile, tmp_path: Path) -> None:
    """Written and read again, card and tensors are the same."""
    write_model(tmp_path / "m.safetensors", model.card, model.tensors)
    again = read_model(tmp_path / "m.safetensors")
    assert again.card == model.card
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in model.tensors.items())
    assert json.loads(json.dumps(model.card.to_json())) == model.card.to_json()
    assert again.card.seen is not None and again.card.seen.to_json() == model.card.to_json()["seen"]


def test_any_safetensors_reader_can_open_it(model: ModelFile) -> None:
    """It is a plain safetensors file: torch's own loader gives the tensors by their addresses."""
    from safetensors.torch import load_file

    assert load_file(model.path)["0.weight"].shape == (4, 1, 3, 3)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_changed_byte_is_noticed(
    model: ModelFile, tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    """Any byte changed anywhere gives a ModelFileError (or, in white space of the header, the same model)."""
    data = bytearray(model.path.read_bytes())
    data[at % len(data)] ^= flip
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(bytes(data))
    try:
        read = read_model(path)
    except ModelFileError as error:
        assert "\n" not in str(error)
    else:
        assert read.card == model.card and all(np.array_equal(read.tensors[n], t) for n, t in model.tensors.items())


def test_a_truncated_file_is_noticed(model: ModelFile, tmp_path: Path) -> None:
    """Cut at any length it is an error."""
    data = model.path.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(64), *range(64, len(data), 211), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"damaged, truncated|not of convlens"):
            read_model(path)


def test_cards_and_tensors_that_cannot_be(model: ModelFile, tmp_path: Path) -> None:
    """Another kind or version, missing or odd parts, missing, extra or misshapen tensors: each is named."""
    path = tmp_path / "odd.safetensors"
    card, tensors = model.card.to_json(), model.tensors
    weight = tensors["0.weight"]

    def without(key: str) -> dict[str, Any]:
        return {k: v for k, v in card.items() if k != key}

    cases: list[tuple[dict[str, Any], Any, str]] = [
        ({**card, "kind": "convlens-checkpoint"}, tensors, "is no convlens-model"),
        ({**card, "format_version": 99}, tensors, "format version 99"),
        (without("input"), tensors, "missing required field input"),
        ({**card, "class_names": ["a", "a", "b"]}, tensors, "stands twice"),
        ({**card, "class_names": ["a", "b"]}, tensors, "tensor"),
        ({**card, "architecture": "conv(8"}, tensors, "column"),
        ({**card, "architecture": "repeat(9999, conv(1,1))"}, tensors, "1,000 layers"),
        ({**card, "architecture": 7}, tensors, "architecture: Expected"),
        ({**card, "recipe": {"lr": 1}}, tensors, "recipe"),
        ({**card, "dataset": {}}, tensors, "dataset: Object missing"),
        ({**card, "training": {}}, tensors, "training: Object missing"),
        ({**card, "metrics": {"val": {}}}, tensors, "metrics.val: Object missing"),
        ({**card, "input": {**card["input"], "mean": [300.0]}}, tensors, "mean"),
        (card, {**tensors, "0.weight": weight * np.nan}, "not finite"),
        ({**card, "input": {**card["input"], "std": [0.0]}}, tensors, "std"),
        (card, {k: v for k, v in tensors.items() if k != "0.weight"}, "misses tensor '0.weight'"),
        (card, {**tensors, "9.weight": weight}, "'9.weight' too many"),
        (card, {**tensors, "0.weight": weight[:2]}, "tensor '0.weight' is float32"),
        (card, {**tensors, "0.weight": weight.astype(np.float64)}, "F64"),
    ]
    for odd_card, odd_tensors, words in cases:
        write_bundle(path, odd_card, odd_tensors | (model.card.seen.tensors() if model.card.seen else {}))
        with pytest.raises(ModelFileError) as caught:
            read_model(path)
        assert words in str(caught.value), str(caught.value)
    for text in ("[" * 200_000, '{"kind": "convlens-model", "format_version": 1, "seed": Infinity}', "7"):
        path.write_bytes(save({"w": weight}, {"convlens": text, "sha256": ""}))
        with pytest.raises(ModelFileError):
            read_model(path)
    path.write_bytes(save({"w": weight}))
    with pytest.raises(ModelFileError, match="not of convlens"):
        read_model(path)
    with pytest.raises(ModelFileError, match="is a folder"):
        read_model(tmp_path)
    with pytest.raises(ModelFileError, match="cannot read"):
        read_model(tmp_path / "none")
