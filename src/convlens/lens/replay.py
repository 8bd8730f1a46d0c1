"""An answer that was given elsewhere, looked at here: the same input, model and values, or where they part.

Owns what a row of a kit or of the prediction server proves, and how pictures that were kept are found.
"""

import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta

from convlens import files
from convlens.classifier import Classifier, predict
from convlens.data.image.decode import Pixels, read_bytes
from convlens.errors import UsageError
from convlens.exporting.onnx_file import check_installed, onnx_of, session_of
from convlens.lens.hooks import record
from convlens.records import Name, Number, Record, Share, read_document
from convlens.runtime.prediction import row_of
from convlens.text import number, shown

_ROW = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}-[0-9a-f]{12}")
_SAME = 1e-4  # of the largest value
_DOCUMENT = "convlens-row"


class TopRecord(Record, frozen=True):
    """A class and its probability."""

    label: Name
    probability: Share


class RowRecord(Record, frozen=True, kw_only=True):
    """What is kept beside a picture: the answer, as `predict --json` has it, and the logits."""

    kind: Name
    format_version: int
    picture: Name
    path: Name | None
    label: Name | None
    probability: Share | None
    top: Annotated[tuple[TopRecord, ...], Meta(max_length=100_000)]
    row: Name | None = None
    unfamiliar: bool | None = None
    uncertain: bool | None = None
    seen: bool | None = None
    remark: Name | None = None
    error: Name | None = None
    logits: Annotated[tuple[Number, ...], Meta(max_length=100_000)] | None = None


class Replay(NamedTuple):
    """A row, the picture that it is about, and what was answered then, where that was kept."""

    row: str
    image: Any
    data: bytes
    kept: RowRecord | None


def open_replay(replay: str | Path, image: Any) -> Replay:
    """The row as it is typed, with its picture as `image`, or the `.json` file that was kept beside a picture. Raises
    UsageError, RecordError, ImageError."""
    if _ROW.fullmatch(str(replay)):
        if image is None:
            raise UsageError("name the picture of that row too: look MODEL IMAGE, with `replay`")
        return Replay(str(replay), image, _bytes_of(image), None)
    path = Path(replay)
    if not files.is_file(path):
        raise UsageError(
            f"{shown(replay, 200)} is neither a row (three short hashes, as a kit or a server gives them) nor a file "
            "that was kept beside a picture"
        )
    kept = read_document(path, _DOCUMENT, {1: RowRecord}, sealed_from=2)
    if kept.row is not None and not _ROW.fullmatch(kept.row):
        raise UsageError(f"{shown(path, 200)} is damaged: {shown(kept.row, 60)!r} is no row")
    if kept.row is None or kept.error is not None:
        raise UsageError(f"{shown(path, 200)} is of a picture that could not be read: there is no answer to look at")
    image = path.with_name(Path(kept.picture).name) if image is None else image
    return Replay(kept.row, image, _bytes_of(image), kept)


def _bytes_of(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, str | Path):
        return read_bytes(Path(image))
    raise UsageError("a replay needs the picture's file, as it was sent: a path or bytes")


def replayed(classifier: Classifier, replay: Replay) -> str:
    """What the row proves here, in a line. Raises UsageError where it is of another model or picture, or was answered
    otherwise, with the layer from which on values differ where that can be found."""
    tensor, model, answer = replay.row.split("-")
    own = files.sha256_of_file(classifier.path)
    if own[:12] != model:
        raise UsageError(
            f"that row is of another model: of {model}, and {shown(classifier.path, 200)} is {own[:12]} (SHA-256)"
        )
    framed = classifier.frame(replay.data)
    here = predict(classifier, replay.data, progress="none", min_probability=0.0)[0]
    found = row_of(framed, own, here)
    if found.split("-")[0] != tensor:
        raise UsageError(
            "that row is of another picture, or it was decoded and framed otherwise there (other versions of Pillow or "
            f"of convlens): the input is {tensor} there and {found[:12]} here"
        )
    kept = replay.kept
    if kept is None or kept.logits is None:  # a probability that was asked for makes another answer, too
        other = "another answer here, or a probability was asked for there"
        answered = "the same answer" if found.split("-")[2] == answer else other
        return f"replay: the same input and model, {answered}; values cannot be compared, for no logits were kept"
    logits = classifier.logits(framed[None])[0]
    if len(kept.logits) != len(logits):
        raise UsageError(f"that row has {len(kept.logits):,} logits, the model gives {len(logits):,}: it is damaged")
    apart = float(np.abs(np.array(kept.logits) - logits).max())
    if apart <= _SAME * max(1.0, float(np.abs(logits).max())):
        other = "" if found.split("-")[2] == answer else ", another answer here, or a probability was asked for there"
        return f"replay: the same input, model and values: logits at most {number(apart, 2)} apart{other}"
    raise UsageError(
        f"the same input and model gave other values there: logits up to {number(apart, 2)} apart; "
        + _where_they_part(classifier, framed)
    )


def _where_they_part(classifier: Classifier, framed: Pixels) -> str:
    try:
        check_installed()
        address, before = parting_layer(classifier, framed)
    except UsageError as error:
        return f"at which layer cannot be found here ({shown(error, 120)})"
    if address is not None:
        return f"torch and onnxruntime part at layer {address} on this machine (before it by {before:.1g} at most)"
    return (
        f"torch and onnxruntime agree at every layer on this machine (by {before:.1g}): another file or runtime "
        "answered there"
    )


def parting_layer(classifier: Classifier, framed_HWC: Pixels) -> tuple[str | None, float]:
    """The first layer whose values differ between torch and onnxruntime on this machine, by its address, None where
    none does, and the largest difference before it, as a share of the layer's largest value."""
    import onnx

    model = onnx.load_from_string(onnx_of(classifier))
    names = [name for node in model.graph.node for name in node.output if name.startswith("layer_")]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    found = session_of(model.SerializeToString()).run([*names, "logits"], {"images": framed_HWC[None]})
    recording, most = record(classifier.network, framed_HWC), 0.0
    for name, value in zip(names, found, strict=False):
        there, here = value[0], recording.values[name.removeprefix("layer_")]
        apart = float(np.abs(there.reshape(here.shape) - here).max() / max(1e-6, np.abs(here).max()))
        if not apart <= _SAME:
            return name.removeprefix("layer_"), most
        most = max(most, apart)
    return None, most
