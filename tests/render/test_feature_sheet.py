"""The sheet of a network's feature maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.errors import UsageError
from tests.conftest import QUICK, Command


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".npz"])
def test_sheet(toy: convlens.Run, picture: NDArray[np.uint8], tmp_path: Path, suffix: str) -> None:
    """The suffix decides what is written; what is there is never replaced."""
    features = convlens.look(toy.path, picture, unit="0:1,0,0")
    path = tmp_path / f"sheet{suffix}"
    features.save(path)
    data = path.read_bytes()
    if suffix == ".png":
        assert Image.open(path).size[0] > 1000
    elif suffix == ".svg":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    elif suffix == ".pdf":
        assert data.startswith(b"%PDF")
    else:
        arrays = np.load(path)
        assert np.array_equal(arrays["layer/0"], features.layers[0].values) and "grad_cam" in arrays
    with pytest.raises(UsageError, match="exists already"):
        features.save(path)
    assert path.read_bytes() == data


def test_sheet_takes_any_names_and_shapes(tmp_path: Path) -> None:
    """RGB, many classes, odd names ($, <, right-to-left), 1×1 maps, thousands of channels: all can be drawn."""
    names = ("$x^2$", "<b>", "עברית", "name with spaces and more of them", *(f"class {i}" for i in range(20)))
    images = np.random.default_rng(0).integers(0, 256, (48, 10, 10, 3), np.uint8)
    labels = np.arange(48) % len(names)
    run = convlens.train(
        {"train": (images, np.array(names)[labels])},
        out=tmp_path / "run",
        progress="none",
        val_frac=0,
        architecture="conv(1500, 3) relu globalavgpool conv(80, 1) relu flatten linear(1100) linear(classes)",
        recipe=QUICK.replace(epochs=0.1, batch_size=8),
    )
    features = convlens.look(run.path, images[0])
    features.save(tmp_path / "sheet.png")
    assert features.grad_cam_layer == "1" and features._repr_html_().startswith("<img ")


def test_sheet_of_a_damaged_picture(toy: convlens.Run, command: Command, workplace: Path) -> None:
    """A picture that cannot be read: one line, exit code 2, nothing written."""
    (workplace / "bad.png").write_bytes(b"\x89PNG nothing")
    done = command("look", toy.path, "bad.png")
    assert done.returncode == 2 and "bad.png" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in workplace.iterdir()) == ["bad.png"]


@pytest.mark.slow
def test_a_deep_network_has_one_landscape_sheet(tmp_path: Path) -> None:
    """More than forty layers: one layer a resolution, without integrated gradients, on one sheet wider than high; a
    module of somebody's own likewise; layers that are named are drawn as ever."""
    from tests.network.test_pretrained import mobilenet

    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (300, 420, 3), np.uint8)
    features = convlens.look("efficientnet-lite0", photograph)
    sizes = [layer.values.shape[1:] for layer in features.layers]
    assert sizes == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    assert features.integrated_gradients is None and features.overview_of is not None and features.overview_of > 100
    assert features.place == pytest.approx((420 / 2 - 150 * 0.875, 150 - 150 * 0.875, 210 + 131.25, 150 + 131.25))
    features.save(tmp_path / "overview.png")
    width, height = Image.open(tmp_path / "overview.png").size
    assert 1.4 * height < width
    foreign = convlens.look(mobilenet(), photograph[:96, :96])
    assert len(foreign.layers) == 5 and foreign.overview_of is not None
    named = [layer.address for layer in foreign.layers[:2]]
    some = convlens.look(mobilenet(), photograph[:96, :96], layers=named)
    assert [layer.address for layer in some.layers] == named and some.overview_of is None
    assert some.integrated_gradients is not None


def test_all_maps_on_pages(toy: convlens.Run, picture: NDArray[np.uint8], tmp_path: Path) -> None:
    """`layers="all"` into a PDF: every layer, on as many pages as it takes; a sheet of too many layers is refused, with
    the remedy."""
    features = convlens.look(toy.path, picture, layers="all")
    features.save(tmp_path / "all.pdf")
    data = (tmp_path / "all.pdf").read_bytes()
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") >= 2
    features.save(tmp_path / "all.png")
    deep = replace(features, layers=features.layers * 20)
    with pytest.raises(UsageError, match=r"give a \.pdf"):
        deep.save(tmp_path / "deep.png")
    assert not (tmp_path / "deep.png").exists()
