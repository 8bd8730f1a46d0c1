"""What `look` returns: the arrays behind every picture of `pictures.py`, and the text about them.

Owns `Features`. How they come about is `looking.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.architecture.windows import Box
from convlens.data.image.decode import Pixels
from convlens.lens.pictures import as_html, save
from convlens.lens.recording import Values
from convlens.text import by


def dead_maps(values: Values) -> NDArray[np.bool_]:
    """bool (C,): the maps (C, h, w) that are zero everywhere; none where maps are 1×1, or in a vector."""
    if values.ndim != 3 or values[0].size == 1:
        return np.zeros(len(values), bool)
    return np.asarray(~values.any(axis=(1, 2)))


@dataclass(frozen=True)
class LayerValues:
    """What one layer made of the picture: float32 maps (C, h, w) or a vector (K,), all of them.

    `name` is the layer as the sentence writes it, `formula` how its size follows.
    """

    address: str
    name: str
    formula: str
    values: Values

    @property
    def dead(self) -> NDArray[np.bool_]:
        """bool (C,), as `dead_maps` says."""
        return dead_maps(self.values)

    def to_json(self) -> dict[str, Any]:
        """Shape, range, and which maps are dead."""
        return {
            "address": self.address,
            "layer": self.name,
            "shape": list(self.values.shape),
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "dead": np.flatnonzero(self.dead).tolist(),
        }


@dataclass(frozen=True)
class UnitSeen:
    """A chosen unit: its value, and the box of pixels that it sees (None: nothing but padding)."""

    text: str
    value: float
    box: Box | None


@dataclass(frozen=True, repr=False)
class Features:
    """What `look` found.

    original      the picture as it came, uint8 (H, W, C); None where a tensor was given
    image         as the network sees it: uint8 (H, W, C), or None where a tensor was given
    input         what went in, normalised: float32 (C, H, W)
    layers        the values of each chosen layer
    kernels       the first convolution's, float32 (O, I, kh, kw); None without one
    probabilities float64 (K,)
    explained     number of the class that the three attributions explain
    grad_cam      float32 (H, W) from 0 on, of the maps of layer `grad_cam_layer`, resized bilinearly
    integrated_gradients, occlusion      float32 (C, H, W) and (H, W), in units of the class's logit
    baseline      in words: what the two compare the picture with
    """

    title: str
    original: Pixels | None
    image: Pixels | None
    input: Values
    layers: tuple[LayerValues, ...]
    kernels: Values | None
    class_names: tuple[str, ...]
    probabilities: NDArray[np.float64]
    explained: int
    baseline: str
    grad_cam: Values | None = None
    grad_cam_layer: str | None = None
    integrated_gradients: Values | None = None
    occlusion: Values | None = None
    unit: UnitSeen | None = None

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.class_names[int(self.probabilities.argmax())]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, under the names that `--arrays` gives them: `layer/ADDRESS` for the layers."""
        found = {
            "original": self.original,
            "image": self.image,
            "input": self.input,
            "kernels": self.kernels,
            "probabilities": self.probabilities,
            "grad_cam": self.grad_cam,
            "integrated_gradients": self.integrated_gradients,
            "occlusion": self.occlusion,
        }
        arrays: dict[str, NDArray[Any]] = {name: array for name, array in found.items() if array is not None}
        return arrays | {f"layer/{layer.address}": layer.values for layer in self.layers}

    def save(self, path: str | Path) -> None:
        """Draw everything into a PNG, SVG or PDF, by the suffix; .npz keeps the arrays instead.

        Nothing is replaced. Raises UsageError for other suffixes or where the file exists, StorageError.
        """
        save(self, Path(path))

    def lines(self) -> list[str]:
        """The answer and what is remarkable, as text."""
        lines = [self.title]
        for layer in self.layers:
            num_dead = int(layer.dead.sum())
            dead = f", {num_dead} of {len(layer.values)} maps dead" if num_dead else ""
            low, high = float(layer.values.min()), float(layer.values.max())
            lines.append(
                f"{layer.address:<6} {by(layer.values.shape):<12} {low:9.3f} to {high:9.3f}{dead}  {layer.name}"
            )
        if self.unit is not None:
            box = self.unit.box
            where = (
                "nothing but padding"
                if box is None
                else (f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1} of the input")
            )
            lines.append(f"unit {self.unit.text}: value {self.unit.value:.5g}, sees {where}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """For machines; the arrays themselves are `arrays()`."""
        unit = self.unit and {
            "unit": self.unit.text,
            "value": self.unit.value,
            "sees": self.unit.box and list(self.unit.box),
        }
        probabilities = dict(zip(self.class_names, self.probabilities.tolist(), strict=True))
        return {
            "title": self.title,
            "label": self.label,
            "probabilities": probabilities,
            "explained": self.class_names[self.explained],
            "grad_cam_layer": self.grad_cam_layer,
            "baseline": self.baseline,
            "unit": unit,
            "layers": [layer.to_json() for layer in self.layers],
        }

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__  # a notebook or a terminal is not flooded with arrays

    def _repr_html_(self) -> str:
        return as_html(self)
