"""A classifier as one ONNX file, and the proof that it answers as the classifier does.

Owns what the file holds (opset 18, IR 9) and what it is checked by. The graph itself is written by torch's exporter
from `WholeClassifier`. onnx, onnxscript and onnxruntime come with the extra `onnx`.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens import files
from convlens.classifier import Classifier
from convlens.data.image.decode import Pixels, decode
from convlens.data.image.framing import to_channels
from convlens.data.image.values import to_uint8
from convlens.errors import UsageError
from convlens.exporting.whole import WholeClassifier, facts_of
from convlens.network.compute import resolve_compute, settled, versions
from convlens.runtime.onnx_model import MOST_APART, NEAR
from convlens.text import counted, shown

OPSET, IR_VERSION = 18, 9  # onnxruntime from 1.18 on
_NEAR_SCORE = 1e-2  # the same of the unfamiliarity score, whose unit is a standard deviation
_DOCUMENT, _FORMAT = "convlens-onnx", 1
SAME_LABELS = 0.995  # of the labels, from whole pictures
_SCOPES = "pkg.torch.onnx.name_scopes"  # of a node: the modules that it comes from
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Parity:
    """What came of the comparison on `num_pictures` real ones and `num_drawn` random ones: the largest difference of a
    probability, and how many labels could not be compared, because the two likeliest were as near as that."""

    num_pictures: int
    num_drawn: int
    most_apart: float
    num_near: int

    def __str__(self) -> str:
        near = f", {counted(self.num_near, 'image')} too near to call" if self.num_near else ""
        return (
            f"answers as the model does: {counted(self.num_pictures, 'picture')} and {self.num_drawn:,} random images, "
            f"probabilities at most {self.most_apart:.1g} apart, the same labels{near}"
        )


def check_installed() -> None:
    """Raises UsageError where what ONNX needs is not there."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX needs {', '.join(missing)}: pip install 'convlens[onnx]'")


def onnx_of(classifier: Classifier) -> bytes:
    """The file's bytes: framed uint8 (N, H, W, C) in, the outputs of `WholeClassifier` out, N free; card, class names
    and the model's SHA-256 in the metadata. Raises UsageError where the network cannot be written so."""
    import onnx

    whole, spec = WholeClassifier(classifier).eval(), classifier.card.input_spec
    example = torch.zeros((2, spec.height, spec.width, spec.channels), dtype=torch.uint8)
    with _quiet(), settled(resolve_compute("cpu", "float32")):
        try:
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={"images": {0: "N"}},
                input_names=["images"],
                output_names=list(whole.output_names),
                verbose=False,
            )
            assert program is not None, "so it is with dynamo"
            model = program.model_proto
        except Exception as error:  # whatever the exporter raises
            first = str(error.__cause__ or error).strip().partition("\n")[0]
            raise UsageError(
                f"this network cannot be written as ONNX ({shown(first, 200)}): `explain(model).torch_source()` can"
            ) from error
    _tidied(model, classifier)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _name_layers(graph: Any) -> None:
    """Values that go from one layer to the next are called `layer_5`, as `explain` counts; of some the exporter has
    made one (a batch norm is folded into its convolution)."""
    layer_of: dict[str, int] = {}  # value -> the layer that gives it
    renamed: dict[str, str] = {}
    for node in graph.node:
        scopes = " ".join(one.value for one in node.metadata_props if one.key == _SCOPES)
        found = re.search(r"network\.layers\.(\d+)", scopes)
        if found is not None:
            number = int(found[1])
            for value in node.input:
                if layer_of.get(value, number) < number:
                    renamed.setdefault(value, f"layer_{layer_of[value]}")
            layer_of |= dict.fromkeys(node.output, number)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]


def _tidied(model: Any, classifier: Classifier) -> None:
    """Says what it is, and no longer where it was made."""
    _name_layers(model.graph)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "convlens", versions()["convlens"]
    model.graph.name, model.doc_string = "convlens", ""
    for one in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        one.doc_string = ""
        del one.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    card = {name: value for name, value in classifier.card.to_json().items() if name not in ("seen", "unfamiliarity")}
    about = {"kind": _DOCUMENT, "format_version": _FORMAT, "card": card} | facts_of(classifier)
    about["model_sha256"] = files.sha256_of_file(classifier.path)
    for key, value in (("convlens", about), ("class_names", about["class_names"])):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value, allow_nan=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter says of itself is for those who write exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# ---------------------------------------------------------------- the proof


def session_of(data: bytes) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def drawn(classifier: Classifier, num: int) -> Pixels:
    """Random images (num, H, W, C): noise of every contrast, blank ones, and steps."""
    spec, rng = classifier.card.input_spec, np.random.default_rng(0)
    shape = (num, spec.height, spec.width, spec.channels)
    contrast_N = rng.uniform(0, 1, (num, 1, 1, 1))
    images = np.rint(255 * (rng.uniform(0, 1, (num, 1, 1, 1)) * (1 - contrast_N) + contrast_N * rng.random(shape)))
    images[0], images[1], images[2, : spec.height // 2] = 0, 255, 0
    return images.astype(np.uint8)


def compared(data: bytes, classifier: Classifier, pictures_NHWC: Pixels, drawn_NHWC: Pixels) -> Parity:
    """Hold the file against the classifier. Raises UsageError where they differ: then there is no file."""
    session, images = session_of(data), np.concatenate([pictures_NHWC, drawn_NHWC])
    names = [one.name for one in session.get_outputs()]
    rows = [session.run(None, {"images": images[at : at + size]}) for at, size in _batches(len(images))]
    found = dict(zip(names, map(np.concatenate, zip(*rows, strict=True)), strict=True))
    logits_NK, unfamiliar_N, score_N = _ours(classifier, images)
    p_NK = classifier.probabilities(logits_NK)
    labels_N, uncertain_N = classifier.labels(p_NK)
    apart = float(np.abs(found["probabilities"] - p_NK).max())
    if not apart <= MOST_APART:  # not a number is none either
        raise UsageError(
            f"the ONNX file answers otherwise: a probability is {apart:.2g} off, {MOST_APART:g} is the limit"
        )
    near_N = _is_near(classifier, p_NK)
    if (found["label"] != labels_N)[~near_N].any():
        raise UsageError("the ONNX file answers otherwise: a label is another")
    if "uncertain" in found and (found["uncertain"] != uncertain_N)[~near_N].any():
        raise UsageError("the ONNX file keeps another promise: an answer is certain here and uncertain there")
    if score_N is not None and classifier.card.unfamiliarity is not None:
        threshold = classifier.card.unfamiliarity.record.threshold
        far_N = np.abs(score_N - threshold) > _NEAR_SCORE * (1 + np.abs(score_N))
        if (found["unfamiliar"] != unfamiliar_N)[far_N].any():
            raise UsageError("the ONNX file calls other pictures unfamiliar")
    elif unfamiliar_N is not None and (found["unfamiliar"] != unfamiliar_N).any():
        raise UsageError("the ONNX file finds ink elsewhere")
    return Parity(len(pictures_NHWC), len(drawn_NHWC), apart, int(near_N.sum()))


@dataclass(frozen=True)
class WholeParity:
    """The same of whole pictures: how many of `num_pictures` have the label that the model gives, and how far apart the
    probabilities are, on average."""

    num_pictures: int
    num_same: int
    mean_apart: float

    def __str__(self) -> str:
        return (
            f"from whole pictures the same label for {self.num_same:,} of {self.num_pictures:,}, probabilities "
            f"{self.mean_apart:.1g} apart on average (CPU provider; others may resize otherwise)"
        )


def compared_whole(
    data: bytes, classifier: Classifier, pictures: Sequence[Any], least: float | None = None
) -> WholeParity:
    """Hold a file that frames by itself against the classifier, on whole pictures as bytes or arrays. Raises UsageError
    where labels differ for more than one in two hundred (or are the same for less than a share of `least`),
    ImageError."""
    session, num_same, apart = session_of(data), 0, list[float]()
    for one in pictures:
        pixels = decode(one) if isinstance(one, bytes) else np.asarray(one)
        given = {"image": to_channels(to_uint8(pixels, classifier.card.input_spec.value_range), 3)}
        p_K, label = (found[0] for found in session.run(["probabilities", "label"], given))
        framed_1HWC = classifier.frame(one)[None]
        ours_NK = classifier.probabilities(classifier.logits(framed_1HWC))
        num_same += int(label == classifier.labels(ours_NK).labels_N[0])
        apart.append(float(np.abs(p_K - ours_NK[0]).max()))
    found = WholeParity(len(pictures), num_same, float(np.mean(apart)))
    if num_same < (SAME_LABELS if least is None else least) * len(pictures):
        raise UsageError(f"the ONNX file would answer otherwise: {found}; with `input=framed` it does not")
    return found


def _batches(num: int) -> Iterator[tuple[int, int]]:
    """(start, size) of batches, the first of one image, so that each number of images is shown to do."""
    yield 0, 1
    for at in range(1, num, 64):
        yield at, 64


def _ours(
    classifier: Classifier, images: Pixels
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None, NDArray[np.float64] | None]:
    """Logits, and which images are unfamiliar or without ink, as `predict` says it, with the score."""
    known = classifier.card.unfamiliarity
    logits_NK, statistics = classifier.outputs(images, () if known is None else known.addresses)
    score_N = None if known is None else known.scores(statistics, logits_NK)
    blank_N = np.array([classifier.is_blank(one) for one in images])
    if known is None:
        return logits_NK, blank_N if classifier.card.input_spec.framing == "ink" else None, None
    return logits_NK, known.are_unfamiliar(statistics, logits_NK) | blank_N, score_N


def _is_near(classifier: Classifier, p_NK: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which images have their two likeliest classes, or one and its threshold, so near that either may win."""
    ordered = np.sort(p_NK, axis=1)
    near_N = (ordered[:, -1] - ordered[:, -2]) <= NEAR if p_NK.shape[1] > 1 else np.zeros(len(p_NK), bool)
    made = classifier.thresholds
    if made is None:
        return near_N
    if made.reject is not None:
        return near_N | (np.abs(ordered[:, -1] - made.reject.threshold) <= NEAR)
    for one in made.require:
        k = classifier.class_names.index(one.class_name)
        near_N = near_N | (np.abs(p_NK[:, k] - one.threshold) <= NEAR)
    return near_N
