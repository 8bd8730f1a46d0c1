"""A model as `export` writes it, run by onnxruntime: from the bytes of pictures to answers.

Owns what is read from the file's metadata, and the order of its outputs. Knows nothing of torch.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec, picture
from convlens.errors import ModelFileError
from convlens.records import json_value
from convlens.runtime.prediction import Asked, Outputs, Prediction, row_of
from convlens.text import shown

_KIND = "convlens-onnx"
MOST_APART = 1e-4  # of a probability, between machines and runtimes
NEAR = 2 * MOST_APART  # of two probabilities, or of one and its threshold, which may then fall either way
_VALUES = 300_000  # of a batch's input (two pictures of 224 pixels): more takes more memory and is no faster on CPUs


class OnnxModel:
    """An ONNX file of framed pictures (`images`), as `export` writes it: its bytes, and where it lies. `threads` is how
    many cores a batch is worked on with (0: all). Raises ModelFileError."""

    def __init__(self, data: bytes, path: str | Path, threads: int = 0) -> None:
        import onnxruntime

        self.path, name, options = Path(path), shown(path, 200), onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, threads
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            about = json_value(self.session.get_modelmeta().custom_metadata_map["convlens"].encode(), name)
            assert about["kind"] == _KIND and self.session.get_inputs()[0].name == "images"
            given, self.class_names = about["input"], tuple(map(str, about["class_names"]))
            height, width, channels = (given[side] for side in ("height", "width", "channels"))
            region, low_high = given.get("region"), given.get("value_range", (0, 255))
            self.spec = InputSpec(
                height,
                width,
                channels,
                given["framing"],
                region=None if region is None else tuple(region),
                value_range=tuple(low_high),
                crop_frac=given.get("crop_frac", 1.0),
            )
            self.tells_unfamiliar = about["unfamiliar_above"] is not None
            self.promise, self.model_sha256 = about["promise"], str(about["model_sha256"])
        except Exception as error:  # whatever onnxruntime and a stranger's metadata run into
            why = str(error).strip().partition("\n")[0]
            raise ModelFileError(
                f"{name} is no ONNX file of framed pictures that convlens wrote ({shown(why, 200)})"
            ) from error
        self.output_names = [one.name for one in self.session.get_outputs()]
        self.batch_size = max(1, min(256, _VALUES // (self.spec.height * self.spec.width * self.spec.channels)))

    def frame(self, data: bytes) -> Pixels:
        """The bytes of a picture as the network takes it, uint8 (H, W, C). Raises ImageError."""
        return picture(data, self.spec)

    def run(self, images_NHWC: Pixels) -> dict[str, Any]:
        """All outputs of framed images, by name. Raises ModelFileError where a value is not finite."""
        found = dict(zip(self.output_names, self.session.run(None, {"images": images_NHWC}), strict=True))
        if not np.isfinite(found["logits"]).all():
            raise ModelFileError("the model gives values that are not finite: it cannot be used")
        return found

    def logits(self, framed: Pixels) -> list[float]:
        """Those of one framed picture. Raises ModelFileError."""
        found: list[float] = self.run(framed[None])["logits"][0].tolist()
        return found

    def answers(self, framed: list[Pixels], asked: Asked) -> Iterator[Prediction]:
        """The answer to each framed picture, with its row. Raises ModelFileError."""
        for start in range(0, len(framed), self.batch_size):
            part = framed[start : start + self.batch_size]
            found = self.run(np.stack(part))
            finds_ink = self.spec.framing == "ink"
            said = Outputs(
                found["probabilities"],
                found["label"],
                np.array([finds_ink and not one.any() for one in part]),
                found["unfamiliar"] if self.tells_unfamiliar else None,
                found.get("uncertain"),
            )
            for one, answer in zip(part, said.predictions(self.class_names, asked), strict=True):
                yield replace(answer, row=row_of(one, self.model_sha256, answer))
