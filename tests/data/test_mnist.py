"""The MNIST that is embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from convlens.data.packed.pack import open_data
from convlens.errors import DataError


def test_mnist_is_the_published_one() -> None:
    """60,000 and 10,000 images with the published mean and sd; test is sealed; opening again reads no pixels."""
    dataset = open_data("mnist")
    counts = dataset.counts
    assert counts["train"] + counts["val"] == 60_000 and counts["test"] == 10_000
    assert 5_700 <= counts["val"] <= 6_300
    spec = dataset.input_spec
    assert (spec.height, spec.width, spec.channels, spec.framing) == (28, 28, 1, "ink")
    assert spec.mean[0] / 255 == pytest.approx(0.1307, abs=1e-4)
    assert spec.std[0] / 255 == pytest.approx(0.3081, abs=1e-4)
    assert open_data("mnist").fingerprint == dataset.fingerprint
    for sealed in (dataset.images, dataset.labels):
        with pytest.raises(DataError, match="sealed"):
            sealed("test")


def test_damaged_mnist_in_the_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded set is unpacked again where its packed copy is damaged."""
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path))
    first = open_data("mnist")
    (first.folder / "index.npy").write_bytes(b"damaged")
    again = open_data("mnist")
    assert again.fingerprint == first.fingerprint and again.counts == first.counts
