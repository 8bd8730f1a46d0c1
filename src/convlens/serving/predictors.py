"""What answers in the prediction server: a model file through torch, or an exported ONNX file without it.

Owns what is refused of an ONNX file before onnxruntime sees it. Imports torch only where a model file is opened.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from convlens import files
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec
from convlens.errors import ModelFileError, UsageError
from convlens.runtime.onnx_model import OnnxModel
from convlens.runtime.prediction import Asked, Prediction, row_of
from convlens.text import shown

MAX_ONNX_BYTES = 1 << 30
_DOMAINS = ("", "ai.onnx")
_OUTPUTS = ("logits", "probabilities", "label", "unfamiliarity", "unfamiliar", "uncertain")


class Predictor(Protocol):
    """A model as the server asks it: `path` is the file that it was opened from, `model_sha256` that of the model file
    (of which an ONNX file was made), `promise` what it promises, in words."""

    path: Path
    class_names: tuple[str, ...]
    spec: InputSpec
    model_sha256: str
    promise: str | None

    def frame(self, data: bytes) -> Pixels:
        """The bytes of a picture as the network takes it, uint8 (H, W, C). Raises ImageError."""

    def answers(self, framed: list[Pixels], asked: Asked) -> Iterator[Prediction]:
        """The answer to each framed picture, with its row."""

    def logits(self, framed: Pixels) -> list[float]:
        """Those of one framed picture."""


def open_predictor(model: Any, device: str | None = "auto", threads: int = 0) -> Predictor:
    """A predictor for an ONNX file, or for whatever `load` takes. Raises ModelFileError, and as `load` does."""
    if isinstance(model, str | Path) and Path(model).suffix.lower() == ".onnx":
        return OnnxModel(checked_onnx(Path(model)), model, threads)
    from convlens.classifier import load

    return _TorchPredictor(load(model, device))


def checked_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file that takes framed pictures and reaches for nothing outside itself. Raises
    ModelFileError, UsageError where onnx is missing."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"an ONNX file needs {' and '.join(missing)}: pip install 'convlens[serve]'")
    import onnx

    where = shown(path, 200)
    try:
        data = files.read_regular(path, MAX_ONNX_BYTES)
        model = onnx.load_from_string(data)
    except OSError as error:
        raise ModelFileError(f"cannot read {where}: {error.strerror or error}") from error
    except Exception as error:  # whatever protobuf raises
        raise ModelFileError(f"{where} is no ONNX file, or a damaged one") from error
    for graph in _graphs(model.graph):
        if any(one.data_location == onnx.TensorProto.EXTERNAL for one in _tensors(graph)):
            raise ModelFileError(f"{where} keeps tensors in other files, which is refused")
        strange = next((node for node in graph.node if node.domain not in _DOMAINS), None)
        if strange is not None:
            name = f"{shown(strange.domain, 40)}.{shown(strange.op_type, 40)}"
            raise ModelFileError(f"{where} has an operator that is not ONNX's own ({name}), which is refused")
    if model.functions or any(one.domain not in _DOMAINS for one in model.opset_import):
        raise ModelFileError(f"{where} has operators that are not ONNX's own, which is refused")
    _check_shapes(model.graph, where)
    return data


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for one in (*inner, *attribute.graphs):
                yield from _graphs(one)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _check_shapes(graph: Any, where: str) -> None:
    """Raises ModelFileError unless it takes framed pictures, and gives what `export` says."""
    names = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in names]
    sizes = [[side.dim_value for side in one.type.tensor_type.shape.dim] for one in inputs]
    kinds = [one.type.tensor_type.elem_type for one in inputs]
    uint8 = 2  # TensorProto.UINT8
    if [one.name for one in inputs] != ["images"] or kinds != [uint8] or len(sizes[0]) != 4 or 0 in sizes[0][1:]:
        raise ModelFileError(
            f"{where} does not take framed pictures (`images`, uint8 (N, height, width, channels)): "
            "convlens export MODEL --format onnx makes one that does"
        )
    outputs = [one.name for one in graph.output]
    if not {"logits", "probabilities", "label"} <= set(outputs) <= set(_OUTPUTS):
        raise ModelFileError(f"{where} gives other outputs than convlens export MODEL --format onnx writes")


class _TorchPredictor:
    """A classifier as a predictor."""

    def __init__(self, classifier: Any) -> None:
        self._classifier, self.path = classifier, classifier.path
        self.class_names, self.spec = classifier.class_names, classifier.card.input_spec
        self.model_sha256 = files.sha256_of_file(classifier.path)
        self.promise = None if classifier.thresholds is None else str(classifier.thresholds)

    def frame(self, data: bytes) -> Pixels:
        framed: Pixels = self._classifier.frame(data)
        return framed

    def answers(self, framed: list[Pixels], asked: Asked) -> Iterator[Prediction]:
        from convlens.classifier import answers_of

        for one, answer in zip(framed, answers_of(self._classifier, framed, asked), strict=True):
            yield replace(answer, row=row_of(one, self.model_sha256, answer))

    def logits(self, framed: Pixels) -> list[float]:
        found: list[float] = self._classifier.logits(framed[None])[0].tolist()
        return found
