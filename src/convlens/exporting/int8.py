"""An ONNX file with weights and activations of eight bits, and what that costs, measured.

Owns static quantisation by onnxruntime (of convolutions and dense layers, weights by channel, activations by the range
that training pictures have) and the paired comparison on validation.
"""

import json
import logging
import time
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from convlens import files
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import ImageRows, evenly
from convlens.errors import UsageError
from convlens.exporting.onnx_file import session_of
from convlens.paired import Difference, compared
from convlens.records import json_value
from convlens.text import percent

_CALIBRATION, _LEAST, _BATCH, _ROUNDS = 256, 100, 32, 15
_TOLD = 0.01  # of the images: by so much the share that is called unfamiliar may differ


class Quantised(NamedTuple):
    """The file, and in words what it costs."""

    data: bytes
    lines: tuple[str, ...]


def quantised(data: bytes, dataset: Dataset, max_loss: float) -> Quantised:
    """An ONNX file of framed pictures in eight bits; activations by the ranges of 256 training images. Raises
    UsageError where it loses more than `max_loss` points of accuracy on validation, or there are too few images to
    tell."""
    from onnx import load_from_string
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    measured = dataset.images("val")
    if len(measured) < _LEAST:
        raise UsageError(
            f"what eight bits cost cannot be told by {len(measured):,} validation images: {_LEAST} are needed"
        )
    learned = dataset.images("train")
    chosen = learned[evenly(np.arange(len(learned)), _CALIBRATION)]
    with files.temporary_folder() as folder:
        before, after = folder / "float.onnx", folder / "int8.onnx"
        files.write_bytes(before, data)
        logging.disable(logging.WARNING)  # it recommends, on the root logger, what torch's exporter has done
        try:
            quantize_static(
                str(before),
                str(after),
                _Reader(chosen),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=_before_logits(load_from_string(data).graph),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.disable(logging.NOTSET)
        model, original = load_from_string(files.read_regular(after, 1 << 31)), load_from_string(data)
    del model.metadata_props[:], model.graph.value_info[:]
    model.metadata_props.extend(original.metadata_props)
    model.ir_version, model.producer_name = original.ir_version, original.producer_name
    model.producer_version, model.graph.name, model.doc_string = original.producer_version, original.graph.name, ""
    lines, is_told = _cost(data, model.SerializeToString(), measured, dataset.labels("val"), max_loss)
    if not is_told:
        _without_unfamiliar(model)
    return Quantised(model.SerializeToString(), lines)


def _before_logits(graph: Any) -> list[str]:
    """The names of the nodes that the logits come from: what comes after them, and what tells the unfamiliar, stays as
    it is. (Activations are among them: a clip after a convolution says which range the eight bits are for.)"""
    maker = {value: node for node in graph.node for value in node.output}
    found, waiting = dict[str, None](), ["logits"]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found[node.name] = None
            waiting += node.input
    return list(found)


def _without_unfamiliar(model: Any) -> None:
    """Take what is unfamiliar out of the outputs and the metadata."""
    kept = [one for one in model.graph.output if one.name not in ("unfamiliarity", "unfamiliar")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    for entry in model.metadata_props:
        if entry.key == "convlens":
            about = json_value(entry.value.encode(), "the metadata")
            entry.value = json.dumps(about | {"unfamiliar_above": None}, allow_nan=False)


class _Reader:
    """Training pictures as onnxruntime's calibration asks for them."""

    def __init__(self, images: Any) -> None:
        self._batches: Iterator[dict[str, Any]] = ({"images": images[n : n + 8]} for n in range(0, len(images), 8))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def _cost(data: bytes, small: bytes, images: ImageRows, labels_N: Any, max_loss: float) -> tuple[tuple[str, ...], bool]:
    """In words, and whether what is unfamiliar is told as before."""
    sessions = session_of(data), session_of(small)
    outputs = [one.name for one in sessions[0].get_outputs()]
    both = [_answers(session, images, outputs) for session in sessions]
    right = [found["label"] == labels_N for found in both]
    apart: Difference = compared(right[1][None], right[0][None], None)
    points = 100 * apart.estimate
    interval = f"{points:+.2f} points ({100 * apart.low:+.2f} to {100 * apart.high:+.2f})".replace("-", "−")
    int8, float32 = (percent(float(one.mean())) for one in (right[1], right[0]))
    same = percent(float((both[0]["label"] == both[1]["label"]).mean()))
    words = (
        f"int8: accuracy {int8} where float has {float32} on {len(labels_N):,} validation images, {interval}; the same "
        f"label for {same}"
    )
    if points < -max_loss:
        raise UsageError(f"eight bits lose more than {max_loss:g} points (`max_loss`): {words}")
    ms = _milliseconds(sessions, images[:1])
    size = f"{len(small):,} bytes instead of {len(data):,}"
    lines = [words, f"{size}; {ms[1]:.2g} ms a picture instead of {ms[0]:.2g} (one at a time, all cores)"]
    is_told = True
    if "unfamiliar" in outputs:
        shares = [float(found["unfamiliar"].mean()) for found in both]
        is_told = abs(shares[1] - shares[0]) <= _TOLD
        line = f"called unfamiliar: {percent(shares[1])} of them instead of {percent(shares[0])}"
        lines.append(line if is_told else f"{line}: so this file does not tell what is unfamiliar")
    return tuple(lines), is_told


def _answers(session: Any, images: ImageRows, names: list[str]) -> dict[str, Any]:
    wanted = [name for name in names if name in ("label", "unfamiliar")]
    rows = [session.run(wanted, {"images": images[n : n + _BATCH]}) for n in range(0, len(images), _BATCH)]
    return dict(zip(wanted, map(np.concatenate, zip(*rows, strict=True)), strict=True))


def _milliseconds(sessions: tuple[Any, Any], image_1HWC: Any) -> list[float]:
    """Of one picture, by turns; medians."""
    took: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for session, seconds in zip(sessions, took, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": image_1HWC})
            seconds.append(time.perf_counter() - start)
    return [1_000 * median(seconds) for seconds in took]
