"""What `look` returns: the arrays behind every picture of its sheet, and the text about them.

Owns `Features`. How they come about is `looking.py`'s business.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.architecture.windows import Box
from convlens.data.image.decode import Pixels
from convlens.errors import UsageError
from convlens.lens.recording import Values
from convlens.render.feature_sheet import Content, MapRow, Panel, figure_of, pages_of
from convlens.render.figures import SUFFIXES, save_figure, save_pages
from convlens.render.overview_sheet import overview_of
from convlens.render.pages import data_url, notebook
from convlens.text import by, number, probability, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_ON_A_SHEET = 40
_GRAD_CAM = "Grad-CAM"
_LEAST_EVIDENCE = 1e-6  # of Grad-CAM, in units of the logit: below is what rounding leaves of nothing


def all_zero_maps(values: Values) -> NDArray[np.bool_]:
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
    def all_zero(self) -> NDArray[np.bool_]:
        """bool (C,), as `all_zero_maps` says."""
        return all_zero_maps(self.values)

    def to_json(self) -> dict[str, Any]:
        """Shape, range, and which maps are zero everywhere."""
        return (
            {"address": self.address, "layer": self.name, "shape": list(self.values.shape)}
            | {"min": float(self.values.min()), "max": float(self.values.max())}
            | {"all_zero": np.flatnonzero(self.all_zero).tolist()}
        )


@dataclass(frozen=True)
class UnitSeen:
    """A chosen unit: its value, and its receptive field, a box of pixels (None: nothing but padding)."""

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
    versus        number of the class that it is held against: they then explain the difference of the two logits
    grad_cam      float32 (H, W) from 0 on, of the maps of layer `grad_cam_layer`, resized bilinearly
    integrated_gradients, occlusion      float32 (C, H, W) and (H, W), in units of the logit, or of the difference
    baseline      in words: what the two compare the picture with
    place         where the network's input lies in `original`, (left, top, right, bottom) in its pixels
    overview_of   the number of layers, where those chosen are one for each resolution; else None
    has_all       whether every layer was asked for: a PDF then has every map of each, on pages
    unfamiliar    whether the picture is unlike the training images, None where the model cannot tell
    mirrored      the answer in words, where the model classifies by more than this view; else empty
    replayed      what was shown of an answer that was given elsewhere, in words; None where none was asked about
    truth         the class that the data has it in, of a picture that was named as the data names it; else None
    grad_cam_size (h, w) of the maps that Grad-CAM has its values of
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
    place: tuple[float, float, float, float] | None = None
    overview_of: int | None = None
    has_all: bool = False
    mirrored: str = ""
    unfamiliar: bool | None = None
    replayed: str | None = None
    versus: int | None = None
    truth: str | None = None
    grad_cam_size: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.class_names[int(self.probabilities.argmax())]

    @property
    def said_explained(self) -> str:
        """Which class is explained, in words."""
        name = shown(self.class_names[self.explained], 40)
        if self.versus is not None:
            both = [probability(float(self.probabilities[k])) for k in (self.explained, self.versus)]
            return f"explained: {name} ({both[0]}) rather than {shown(self.class_names[self.versus], 40)} ({both[1]})"
        if self.class_names[self.explained] == self.label:
            return f"explained: {name}, the answer"
        return f"explained: {name} ({probability(float(self.probabilities[self.explained]))}), which is not the answer"

    @property
    def said_truth(self) -> str:
        """Which class the data has it in, in words; empty where that is not known."""
        if self.truth is None:
            return ""
        return f"in truth {shown(self.truth, 40)}: " + ("right" if self.truth == self.label else "the answer is wrong")

    @property
    def has_evidence(self) -> bool:
        """Whether Grad-CAM found anything that speaks for the class, more than rounding does."""
        return self.grad_cam is not None and float(self.grad_cam.max()) > _LEAST_EVIDENCE

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, under the names that `--arrays` gives them: `layer/ADDRESS` for the layers."""
        found = (
            {"original": self.original, "image": self.image, "input": self.input, "kernels": self.kernels}
            | {"probabilities": self.probabilities, "grad_cam": self.grad_cam}
            | {"integrated_gradients": self.integrated_gradients, "occlusion": self.occlusion}
        )
        arrays: dict[str, NDArray[Any]] = {name: array for name, array in found.items() if array is not None}
        return arrays | {f"layer/{layer.address}": layer.values for layer in self.layers}

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Draw everything into a PNG, SVG or PDF, by the suffix; .npz keeps the arrays instead.

        A file that is there is replaced only if `replace`. Raises UsageError, StorageError.
        """
        path = Path(path)
        files.check_new_file(path, (*SUFFIXES, ".npz"), replace=replace)
        if path.suffix.lower() == ".npz":
            arrays = self.arrays()
            files.write_with(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
        elif self.has_all and path.suffix.lower() == ".pdf":
            save_pages(pages_of(self._content()), path)
        elif self.has_all and len(self.layers) > MOST_ON_A_SHEET:
            raise UsageError(f"{len(self.layers)} layers are too many for one sheet: give a .pdf, which has pages")
        else:
            save_figure(self._figure(), path)

    def _figure(self) -> Figure:
        """The sheet of all layers, or for one layer a resolution the landscape one."""
        content = self._content()
        if self.overview_of is None or self.grad_cam is None:
            return figure_of(content)
        cam = next(panel for panel in content.panels if panel.name.startswith(_GRAD_CAM))
        cam = cam._replace(values=self.grad_cam)
        photograph = content.image if self.original is None else self.original
        place = self.place or (0.0, 0.0, float(photograph.shape[1]), float(photograph.shape[0]))
        others = [one for one in content.panels if one.name != cam.name and one.values is not self.original]
        content = content._replace(panels=[cam, *others])
        return overview_of(content, photograph, place, num_layers=self.overview_of)

    def _content(self) -> Content:
        """Everything as the sheet takes it."""
        image = self.image if self.image is not None else _stretched(self.input)
        explained, unit = shown(self.class_names[self.explained], 14), self.unit
        of = f"for {explained}; "
        if self.versus is not None:
            of = f"for {explained} rather than {shown(self.class_names[self.versus], 14)}; "
        panels = []
        if self.original is not None:
            panels.append(Panel("as it came", f"{by(self.original.shape[:2])} pixels", self.original))
        box, words = None, ""
        if unit is not None:
            box = unit.box
            words = f"unit {unit.text} = {number(unit.value, 3)}"
            words += f",\nreceptive field {by((box[2] - box[0], box[3] - box[1]))} pixels" if box is not None else ""
        panels.append(Panel("as the network sees it", f"{by(image.shape[:2])} pixels", image, False, box, words))
        if self.grad_cam is not None:
            enlarged = "" if self.grad_cam_size is None else f",\n{by(self.grad_cam_size)} values enlarged: coarse"
            layer = f"maps of layer {shown(self.grad_cam_layer, 20)}{enlarged}"
            under = layer if self.has_evidence else f"nothing speaks for it in the {layer}"
            panels.append(Panel(_GRAD_CAM, of + under, self.grad_cam if self.has_evidence else image))
        if self.integrated_gradients is not None:
            summed = self.integrated_gradients.sum(axis=0)
            panels.append(Panel("integrated gradients", f"{of}baseline: {self.baseline}", summed, True))
        if self.occlusion is not None:
            panels.append(Panel("occlusion", f"{of}logit lost where covered", self.occlusion, True))
        rows = [MapRow(f"{one.address}  {one.name}", one.formula, one.values, one.all_zero) for one in self.layers]
        below = "; ".join(filter(None, [self.said_truth, self.mirrored, self.said_explained]))
        return Content(
            (self.title, below), image, panels, self.class_names, self.probabilities, self.explained,
            self.kernels, rows,
        )  # fmt: skip

    def lines(self) -> list[str]:
        """The answer and what is remarkable, as text."""
        lines = [self.title, *filter(None, [self.said_truth, self.mirrored, self.replayed]), self.said_explained]
        if not self.has_evidence and self.grad_cam is not None:
            lines.append(f"Grad-CAM: nothing in the maps of layer {self.grad_cam_layer} speaks for it")
        for layer in self.layers:
            num_all_zero = int(layer.all_zero.sum())
            words = f", {num_all_zero} of {len(layer.values)} maps all zero for this picture" if num_all_zero else ""
            low, high = float(layer.values.min()), float(layer.values.max())
            lines.append(
                f"{layer.address:<6} {by(layer.values.shape):<12} {low:9.3f} to {high:9.3f}{words}  {layer.name}"
            )
        if self.unit is not None:
            box = self.unit.box
            where = "nothing but padding"
            if box is not None:
                where = f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1} of the input"
            lines.append(f"unit {self.unit.text}: value {self.unit.value:.5g}, receptive field: {where}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """For machines; the arrays themselves are `arrays()`."""
        unit = self.unit and {
            "unit": self.unit.text,
            "value": self.unit.value,
            "receptive_field": self.unit.box and list(self.unit.box),
        }
        probabilities = dict(zip(self.class_names, self.probabilities.tolist(), strict=True))
        return (
            {
                "title": self.title,
                "mirrored": self.mirrored,
                "unfamiliar": self.unfamiliar,
                **({} if self.replayed is None else {"replayed": self.replayed}),
                "label": self.label,
                "truth": self.truth,
                "probabilities": probabilities,
            }
            | {"explained": self.class_names[self.explained], "grad_cam_layer": self.grad_cam_layer}
            | {"versus": None if self.versus is None else self.class_names[self.versus]}
            | {"baseline": self.baseline, "unit": unit, "layers": [layer.to_json() for layer in self.layers]}
        )

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__  # a notebook or a terminal is not flooded with arrays

    def _repr_html_(self) -> str:
        written = io.BytesIO()
        self._figure().savefig(written, format="png", dpi=80)
        return notebook(self.title, image=data_url(written.getvalue(), "image/png"))


def _stretched(input_CHW: Values) -> Pixels:
    """A normalised input as a picture: its own range from black to white."""
    low, high = float(input_CHW.min()), float(input_CHW.max())
    scaled = (input_CHW - low) / ((high - low) or 1.0) * 255
    picture: Pixels = scaled.transpose(1, 2, 0)[:, :, : 3 if len(input_CHW) >= 3 else 1].astype(np.uint8)
    return picture
