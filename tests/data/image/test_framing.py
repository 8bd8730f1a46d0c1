"""Pixels become an input of the asked size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import convlens
from convlens.data.image.decode import decode
from convlens.data.image.framing import FRAMINGS, InputSpec, fit
from tests.conftest import Command
from tests.helpers import NET, folder


@pytest.mark.training
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

    path = root / "ant" / "0.png"
    assert np.array_equal(model.frame(path), decode(path.read_bytes())[2:16, 4:16])
    small = workplace / "small.png"

    Image.new("RGB", (10, 10)).save(small)
    refused = command("predict", model.path, small)
    assert refused.returncode == 2 and "outside a picture 10 pixels wide" in refused.stderr
    odd = command("train", root, "--region", "1,2,3")
    assert odd.returncode == 2 and "region must be x,y,width,height" in odd.stderr


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([f for f in FRAMINGS if f != "ink"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_framing_gives_the_asked_shape_and_is_idempotent(
    framing: str, h: int, w: int, c_in: int, c_out: int, out_h: int, out_w: int, seed: int
) -> None:
    """Any picture comes out in the input's shape, and a framed one comes back unchanged."""
    spec = InputSpec(out_h, out_w, c_out, framing)
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, c_in), dtype=np.uint8)
    framed = fit(pixels, spec)
    assert framed.shape == (out_h, out_w, c_out) and framed.dtype == np.uint8
    assert np.array_equal(fit(framed, spec), framed)


def test_pad_cuts_nothing_off_and_fills_with_the_edge() -> None:
    """A wide picture is letterboxed with the mean of the edges that are extended; crop cuts, stretch squeezes."""
    wide = np.full((10, 40), 100, np.uint8)
    wide[:, :4] = 0
    padded = fit(wide, InputSpec(20, 20, 1, "pad"))[:, :, 0]
    assert padded[0, 0] == padded[-1, -1] == 90
    assert padded[10, 0] < 30 and padded[10, 15] == 100
    assert fit(wide, InputSpec(20, 20, 1, "crop")).min() == 100
    assert fit(wide, InputSpec(20, 20, 1, "stretch"))[10, 0, 0] < 40
