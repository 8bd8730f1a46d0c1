"""`features`: every layer of a picture, as arrays."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import convlens
from convlens.errors import ImageError, UsageError
from convlens.lens.features import all_zero_maps
from convlens.network.build import tensors_of


def test_features(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Layers, answer, filters, attributions and a unit's field are those of the network; maps of zeros are counted."""
    features = convlens.look(toy.path, picture, unit="4:3,2,5", label="0")
    classifier = convlens.load(toy.path)
    assert features.label == classifier.predict(picture)[0].label
    assert [layer.address for layer in features.layers] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "7",
    ]  # flatten changes nothing
    assert features.explained == 0 and features.grad_cam_layer == "5"
    assert features.grad_cam is not None and features.grad_cam.shape == (16, 16) and features.grad_cam.min() >= 0
    assert features.unit is not None and features.unit.value == features.layers[4].values[3, 2, 5]
    assert np.array_equal(features.arrays()["kernels"], tensors_of(classifier.network)["0.weight"])
    assert "unit 4:3,2,5" in str(features) and json.dumps(features.to_json())
    empty = replace(features.layers[2], values=np.zeros((5, 2, 2), np.float32))
    assert "5 of 5 maps all zero for this picture" in str(replace(features, layers=(empty,)))
    assert ("explained: 0 (" in str(features) and "is not the answer" in str(features)) or features.label == "0"
    assert all(" 0" in panel.under for panel in features._content().panels[2:5]), "each says what it explains"
    nothing = replace(features, grad_cam=np.full((16, 16), 1e-12, np.float32))
    assert "nothing in the maps of layer 5 speaks for it" in str(nothing)
    (cam,) = [panel for panel in nothing._content().panels if panel.name.startswith("Grad-CAM")]
    assert cam.values is not nothing.grad_cam and "nothing speaks for it" in cam.under
    some = convlens.look(toy.path, picture, layers=["2", "0"])
    assert [layer.address for layer in some.layers] == ["0", "2"]
    assert all_zero_maps(np.stack([np.zeros((2, 2)), np.ones((2, 2))]).astype(np.float32)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "0,9"}, "there are 0, 1, 2, 3, 4, 5, 6, 7"),
        ({"layers": ","}, "at least one"),
        ({"unit": "0:99,0,0"}, "from 0,0,0 to 3,7,7"),
        ({"unit": "x"}, "LAYER:"),
        ({"label": "seven"}, "there are 0, 1, 2"),
        ({"label": "²"}, "no class"),
        ({"label": "9" * 5000}, "no class"),
        ({"label": 10**5000}, "no class"),
        ({"image": [[1], [2, 3]]}, "not a picture"),
        ({"image": None}, "name a picture"),
    ],
)
def test_what_is_not_there(toy: convlens.Run, picture: NDArray[np.uint8], options: dict[str, Any], words: str) -> None:
    """Layers, units and classes that are not there: one line that lists those that are."""
    with pytest.raises((UsageError, ImageError), match=words):
        convlens.look(toy.path, **{"image": picture, **options})
