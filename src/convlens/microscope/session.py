"""What is open under the microscope: a classifier, the pictures that were shown to it, and its validation images.

Owns everything that the page asks of a network. All of it runs in one worker thread (`server.py`); nothing here knows
of HTTP.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convlens.architecture.explain import Explanation
from convlens.architecture.rows import rows_json
from convlens.architecture.windows import INPUT, Unit, nodes_by_address, pixels_seen
from convlens.checks import checked, choice
from convlens.classifier import Classifier
from convlens.data.image.decode import Pixels, quiet_pillow, read_header
from convlens.data.image.framing import place_of
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import ImageRows
from convlens.data.packed.pack import reopen
from convlens.errors import ConvlensError, DataError, ModelFileError, RecordError, UsageError
from convlens.evaluation.calibration import held_out
from convlens.lens.arithmetic import SOFTMAX, Working, working
from convlens.lens.attribution import METHODS, attribution
from convlens.lens.features import all_zero_maps
from convlens.lens.hooks import array_of, evaluating, record
from convlens.lens.looking import subject_of
from convlens.lens.recording import Recording, Values
from convlens.metrics import (
    Score,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    score,
    softmax,
    suspect_labels,
    wilson_interval,
)
from convlens.microscope.lab import own_recipe
from convlens.microscope.wire import packed, quantised
from convlens.network.build import arrays_of, tensors_of
from convlens.network.compute import resolve_compute, settled
from convlens.network.forward import channel_statistics
from convlens.network.frozen import folded
from convlens.network.grad_cam import grad_cam, last_with_maps
from convlens.run import Run, runs, runs_elsewhere
from convlens.text import shown

MAX_MAPS, MAX_VECTOR = 64, 4096  # of a layer, that are sent
_SLICE_MULTIPLY_ADDS = 1_000_000_000  # of the network, in one go
_MAX_KEPT, _MAX_KEPT_BYTES = 16, 256 << 20  # recordings


class GoneError(ConvlensError):
    """A picture that was shown a while ago and is no longer kept."""


@dataclass(frozen=True)
class Validation:
    """The model on the validation images: float64 probabilities (N, K), int64 labels and answers (N,)."""

    probabilities_NK: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    answers_N: NDArray[np.int64]
    report: dict[str, Any]
    confusion_KK: NDArray[np.int64]


class Session:
    """One open model. All that are open take the `numbers` of their pictures from one place: those that were shown to
    one stay unknown to the others."""

    def __init__(self, classifier: Classifier, numbers: Iterator[int]) -> None:
        self.classifier = classifier
        self.plan = classifier.network.plan
        origin = classifier.card.origin if classifier.card.is_adopted else None
        self.name = shown(_near(classifier.path) if origin is None else origin.name, 200)
        self.tensors = arrays_of(tensors_of(classifier.network))
        self._kept: OrderedDict[int, Recording] = OrderedDict()
        self._numbers = numbers
        self._dataset: Dataset | None = None
        self._no_dataset: str | None = None
        self._logits: list[NDArray[np.float32]] = []  # of the validation images measured so far
        self._validation: Validation | None = None
        spec = classifier.card.input_spec
        self._record(np.zeros((spec.height, spec.width, spec.channels), np.uint8))  # the first pass is the slowest

    # ------------------------------------------------------------ the model

    def model(self) -> dict[str, Any]:
        """Everything the page shows of the model before a picture is there."""
        card, plan = self.classifier.card, self.plan
        explanation = Explanation(plan)
        run = _run_of(self.classifier.path)
        return (
            {"path": self.name, "architecture": card.architecture, "input": card.input_spec.to_json()}
            | {"class_names": [shown(name, 80) for name in card.class_names], "layers": rows_json(plan)}
            | {"summary": explanation.summary(), "remarks": explanation.remarks, "preset": card.preset}
            | {"recipe": None if card.recipe is None else str(card.recipe), "seed": card.seed}
            | {"recipe_values": own_recipe(card).to_json()}
            | {"dataset": card.dataset and {**card.dataset.to_json(), "name": shown(card.dataset.name, 80)}}
            | {"training": card.training and card.training.to_json(), "origin": card.origin and card.origin.to_json()}
            | {"created": card.created, "versions": dict(card.versions)}
            | {"is_calibrated": card.calibration is not None}
            | {"val": _score(card.metrics.val), "has_validation": self._has_validation()}
            | {"test": _score(run.test if run else card.metrics.test)}
        )

    def _has_validation(self) -> bool:
        try:
            return self.dataset().counts["val"] > 0
        except DataError:
            return False

    def dataset(self) -> Dataset:
        """The data that the model was trained on. Raises DataError, the same each time, where it is not at hand."""
        if self._no_dataset is not None:
            raise DataError(self._no_dataset)
        if self._dataset is None:
            try:
                if (trained_on := self.classifier.card.dataset) is None:
                    raise DataError("these are weights of others")
                self._dataset = reopen(trained_on, progress="none")
                if self._dataset.input_spec.shape != self.classifier.card.input_spec.shape:
                    raise DataError("they are of another size than it takes")
            except ConvlensError as error:
                self._dataset = None
                self._no_dataset = f"the images it was trained on are not at hand: {error}"
                raise DataError(self._no_dataset) from error
        return self._dataset

    # ------------------------------------------------------------ pictures

    def see(self, data: bytes) -> bytes:
        """Show a picture file's bytes to the network. Raises ImageError."""
        with quiet_pillow():
            return self._answer(self.classifier.frame(data))

    def live(self, data: bytes, *, wants_grad_cam: bool) -> bytes:
        """The answer to a picture of a camera, as predict gives it, of which nothing is kept; with Grad-CAM for it, as
        0..255 and of the size of the last maps, where there are any. `place` is what of the picture the network sees:
        left, top, right and bottom in its pixels. Raises ImageError."""
        classifier, arrays = self.classifier, dict[str, NDArray[Any]]()
        with quiet_pillow():
            framed, header = classifier.frame(data), read_header(data)
        network, (chain, layer), known = classifier.network, self._folded, classifier.card.unfamiliarity
        with settled(resolve_compute(classifier.device, "float32")):
            x_1CHW = network.normalise(torch.from_numpy(framed[None].copy()).to(classifier.device))
            with channel_statistics(chain, known.addresses if known else ()) as statistics:
                if wants_grad_cam and layer is not None:
                    maps_1hw, logits_1K = grad_cam(chain, layer, x_1CHW)
                    arrays["map"], logits_K = quantised(maps_1hw[0])[0], logits_1K[0]
                else:
                    with torch.inference_mode():
                        logits_K = array_of(chain(x_1CHW)[0])
            if classifier.views == "mirror":
                with torch.inference_mode():
                    logits_K += array_of(chain(x_1CHW.flip(3))[0])
                logits_K /= 2
        if not np.isfinite(logits_K).all():
            raise ModelFileError("the network gives values that are not finite for this picture")
        arrays["probabilities"] = classifier.probabilities(logits_K[None])[0]
        place = place_of(header.height, header.width, classifier.card.input_spec)
        about = {"label": int(logits_K.argmax()), "model": self.name, "place": place}
        return packed(about | self._judged([array_of(one) for one in statistics], logits_K), arrays)

    def _judged(self, statistics: list[NDArray[np.float32]], logits_K: NDArray[np.float32]) -> dict[str, Any]:
        """Whether one picture is unfamiliar, by the statistics (1, S) of the layers that tell it, None where none do;
        whether it is uncertain, None where nothing is promised; and the answer that predict gives."""
        classifier, known = self.classifier, self.classifier.card.unfamiliarity
        labels_1, uncertain_1 = classifier.labels(classifier.probabilities(logits_K[None]))
        return {
            "unfamiliar": None if known is None else bool(known.are_unfamiliar(statistics, logits_K[None])[0]),
            "uncertain": None if classifier.thresholds is None else bool(uncertain_1[0]),
            "answer": int(labels_1[0]),
        }

    @cached_property
    def _folded(self) -> tuple[nn.Module, nn.Module | None]:
        """From normalised images to logits, with batch norm folded in, and the last layer of it with maps above 1×1."""
        chain = folded(self.classifier.network)
        shapes = {address: node.output_shape for address, node in nodes_by_address(self.plan).items()}
        last = last_with_maps(shapes)
        return chain, None if last is None else chain.get_submodule(last)

    def see_validation(self, position: int) -> bytes:
        """Show one of the validation images to it. Raises UsageError, DataError."""
        dataset = self.dataset()
        images = dataset.images("val")
        if not 0 <= position < len(images):
            raise UsageError(f"there is no validation image {position}: there are {len(images):,}")
        row = int(dataset.rows("val")[position])
        name = shown(dataset.sample_names()[row], 80)
        return self._answer(np.array(images[position]), true=int(dataset.labels("val")[position]), name=name)

    def _answer(self, framed: Pixels, **known_of: Any) -> bytes:
        recording = self._record(framed)
        number = next(self._numbers)
        self._kept[number] = recording
        while len(self._kept) > 1 and (len(self._kept) > _MAX_KEPT or self._kept_bytes() > _MAX_KEPT_BYTES):
            self._kept.popitem(last=False)
        probabilities = recording.probabilities
        about: dict[str, Any] = {"id": number, "label": int(probabilities.argmax()), "model": self.name} | known_of
        logits_K = recording.logits
        if self.classifier.views == "mirror":  # the bars are those of the values that the page opens
            logits_K = self.classifier.logits(framed[None])[0]
            both = self.classifier.probabilities(logits_K[None])[0]
            about["mirrored"] = {"label": int(both.argmax()), "probability": float(both.max())}
        known = self.classifier.card.unfamiliarity
        values = [recording.values[address] for address in (known.addresses if known else ())]
        about |= self._judged([_statistics_of(one)[None] for one in values], logits_K)
        about["blank"] = self.classifier.is_blank(framed)
        return packed(about, {"image": framed, "probabilities": probabilities, "logits": recording.logits})

    def _record(self, framed: Pixels) -> Recording:
        with settled(resolve_compute(self.classifier.device, "float32")):
            found = record(self.classifier.network, framed, self.tensors)
        return replace(found, scaling=self.classifier.scaling)

    def _kept_bytes(self) -> int:
        # At most: of each recording its tensors, and an array of each that was asked for.
        nodes = nodes_by_address(self.plan).values()
        return 8 * len(self._kept) * sum(math.prod(node.output_shape) for node in nodes)

    def recording(self, number: int) -> Recording:
        """The recording of a picture that was shown. Raises GoneError."""
        if number not in self._kept:
            raise GoneError("that picture is no longer kept: show it again")
        return self._kept[number]

    def maps(self, number: int, addresses: list[str]) -> bytes:
        """The maps of some layers, first 64 of each, as 0..255 between two ends. Raises GoneError, UsageError."""
        recording = self.recording(number)
        about: dict[str, Any] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for address in addresses:
            arrays[address], low, high = quantised(_shown_of(recording, address))
            values = recording.values[address]
            all_zero = all_zero_maps(values)
            about[address] = {
                "low": low,
                "high": high,
                "total": len(values),
                "num_all_zero": int(all_zero.sum()),
                "all_zero": np.flatnonzero(all_zero[:MAX_MAPS]).tolist(),
            }
        return packed({"id": number, "maps": about}, arrays)

    def values(self, number: int, address: str) -> bytes:
        """What `maps` shows of a layer, as float32. Raises GoneError, UsageError."""
        return packed({"id": number, "layer": address}, {"values": _shown_of(self.recording(number), address)})

    def thumbnails(self, number: int, addresses: list[str]) -> bytes:
        """Of some layers the map that varies most, as 0..255. Raises GoneError, UsageError."""
        recording, arrays = self.recording(number), dict[str, NDArray[Any]]()
        about: dict[str, Any] = {}
        for address in addresses:
            if address not in recording.values or recording.values[address].ndim != 3:
                raise UsageError(f"layer {shown(address, 40)!r} is not there, or has no maps")
            values = recording.values[address]
            arrays[address], low, _ = quantised(values[int(values.std(axis=(1, 2)).argmax())])
            about[address] = {"low": low}
        return packed({"id": number, "maps": about}, arrays)

    def value(self, number: int, address: str, unit: Unit) -> bytes:
        """The arithmetic of one value. Raises GoneError, UsageError."""
        found = working(self.recording(number), address, unit)
        arrays = {name: array for name, array in found.arrays.items() if name != "window" or found.operation != "add"}
        return packed(_working_json(found, self._seen(address, unit)), arrays)

    def _seen(self, address: str, unit: Unit) -> list[int] | None:
        if address == INPUT:
            return [unit[1], unit[2], unit[1] + 1, unit[2] + 1]
        if address == SOFTMAX:
            return None
        box = pixels_seen(self.plan, address, unit)
        return list(box) if box else None

    def attribution(self, number: int, method: str, label: int, versus: int | None) -> bytes:
        """Where the answer comes from: float32 (H, W). Raises GoneError, UsageError."""
        checked("method", method, choice(METHODS))
        for one in (label,) if versus is None else (label, versus):
            if not 0 <= one < self.plan.num_classes:
                raise UsageError(f"there is no class number {one}: there are {self.plan.num_classes}")
        classifier = self.classifier
        with settled(resolve_compute(classifier.device, "float32")), evaluating(classifier.network):
            subject = subject_of(classifier, self.recording(number).image)
            found = attribution(subject, method, label, versus)
        if found is None:
            raise UsageError("Grad-CAM needs a layer with maps, and this network has none")
        summed = found.sum(axis=0) if found.ndim == 3 else found
        layer = subject.layer_name if method == "grad_cam" else None
        size = None if layer is None else nodes_by_address(self.plan)[layer].output_shape[1:]
        about = {"id": number, "method": method, "label": label, "versus": versus, "layer": layer, "size": size}
        return packed(about, {"map": summed})

    # ------------------------------------------------------------ validation

    def measure_some(self) -> bool:
        """Measure some more of the validation images: a slice of work between which the pen is answered. True when all
        are done. Raises DataError where there are none."""
        if self._validation is not None:
            return True
        images, labels = self._validation_images()
        if len(images) == 0:
            raise DataError("nothing was set aside for validation when this model was trained")
        done = sum(map(len, self._logits))
        slice_ = max(1, min(500, _SLICE_MULTIPLY_ADDS // max(1, self.plan.multiply_adds)))
        images.check(slice(done, done + slice_))
        self._logits.append(self.classifier.logits(images[done : done + slice_]))
        if done + slice_ < len(images):
            return False
        is_unsure = self._measured_rows()[1]
        logits = self.classifier.scaling.of(np.concatenate(self._logits))
        dataset = self.dataset()
        groups = dataset.groups_at(dataset.rows("val")[self._measured_rows()[0]])
        self._validation = _validation_of(logits, labels, groups, is_unsure)
        self._logits.clear()
        return True

    def _measured_rows(self) -> tuple[NDArray[np.bool_], bool]:
        """Which validation images are measured, as training has it, and whether a parent may have seen some."""
        return held_out(self.classifier.card, self.dataset())

    def _validation_images(self) -> tuple[ImageRows, NDArray[np.int64]]:
        measured, _ = self._measured_rows()
        dataset = self.dataset()
        return dataset.images("val").only(measured), dataset.labels("val")[measured]

    def _measured(self) -> Validation:
        assert self._validation is not None, "the server measures before it asks"
        return self._validation

    def report(self) -> bytes:
        """Accuracy with its interval, calibration and confusion on validation; test stays sealed."""
        found = self._measured()
        return packed(found.report, {"confusion": found.confusion_KK})

    def images(self, true: int | None, predicted: int | None, first: int, most: int) -> bytes:
        """Validation images of one cell of the confusion matrix, or all misclassified; the most confident first."""
        found = self._measured()
        if true is None or predicted is None:
            wanted = found.answers_N != found.labels_N
        else:
            wanted = (found.labels_N == true) & (found.answers_N == predicted)
        positions = np.flatnonzero(wanted)
        sure = found.probabilities_NK[positions, found.answers_N[positions]]
        positions = positions[np.argsort(-sure, kind="stable")][first : first + most]
        pixels = self._validation_images()[0][positions]
        dataset, in_val = self.dataset(), np.flatnonzero(self._measured_rows()[0])[positions]
        rows, names = dataset.rows("val")[in_val], dataset.sample_names()
        doubtful_N = suspect_labels(found.probabilities_NK, found.labels_N) & (found.answers_N != found.labels_N)
        return packed(
            {
                "total": int(wanted.sum()),
                "first": first,
                "names": [shown(names[row], 80) for row in rows.tolist()],
                "doubtful": doubtful_N[positions].tolist(),
                "num_doubtful": int(doubtful_N[wanted].sum()),
            },
            {
                "images": pixels,
                "positions": in_val,
                "labels": found.labels_N[positions],
                "answers": found.answers_N[positions],
                "probabilities": found.probabilities_NK[positions, found.answers_N[positions]],
            },
        )


def _shown_of(recording: Recording, address: str) -> Values:
    """The first maps of a layer, or values of a vector, float32. Raises UsageError where there is no such layer."""
    if address not in recording.values:
        raise UsageError(f"there is no layer {shown(address, 40)!r}: there are {', '.join(recording.values)}")
    values = recording.values[address]
    return values[: MAX_MAPS if values.ndim == 3 and values[0].size > 1 else MAX_VECTOR]


def _statistics_of(values: Values) -> Values:
    """What `channel_statistics` gives for one picture, float32 (S,), from a layer's values in a recording."""
    return values if values.ndim == 1 else np.concatenate([values.mean(axis=(1, 2)), values.std(axis=(1, 2))])


def _validation_of(
    logits: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.uint64] | None, may_count_seen: bool
) -> Validation:
    probabilities = softmax(logits)
    answers = probabilities.argmax(axis=1)
    measured = score(logits, labels, groups).replace(may_count_seen=may_count_seen)
    report = {
        "split": "val",
        **measured.to_json(),
        "text": str(measured),
        "expected_calibration_error": calibration_error(probabilities, labels),
        "bins": [one._asdict() for one in calibration_bins(probabilities, labels)],
        "num_wrong": int((answers != labels).sum()),
    }
    return Validation(probabilities, labels, answers, report, confusion_matrix(labels, answers, logits.shape[1]))


def _score(score: Score | None) -> dict[str, Any] | None:
    """A score as the page shows it, its interval computed anew, for a stranger's card may have any; but for one that
    counts groups, which are not at hand."""
    if score is None or score.n == 0:
        return None
    interval = wilson_interval(round(score.accuracy * score.n), score.n) if score.num_groups is None else score.interval
    return {"accuracy": score.accuracy, "n": score.n, "interval": interval}


def _working_json(found: Working, receptive_field: list[int] | None) -> dict[str, Any]:
    return (
        {"address": found.address, "unit": list(found.unit), "operation": found.operation}
        | {"lines": list(found.lines), "value": found.value, "result": found.result}
        | {"magnitude": found.magnitude, "agrees": found.agrees, "source": found.source}
        | {"rows": found.box and list(found.box.rows), "columns": found.box and list(found.box.columns)}
        | {"channels": found.channels and list(found.channels), "winner": found.winner and list(found.winner)}
        | {"receptive_field": receptive_field}
    )


def _near(path: Path) -> Path:
    """A path from the working folder on, where it lies in it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path


def models_here() -> dict[str, Run]:
    """The runs of this folder that have a model, the newest first, by the name that a session of it has."""
    found = sorted([*runs(), *runs_elsewhere()], key=lambda run: run.record.created, reverse=True)
    return {shown(_near(run.model), 200): run for run in found if run.model.is_file()}


def _run_of(model: Path) -> Run | None:
    run = Run(model.parent)
    try:
        return run if run.record and run.model.resolve() == model.resolve() else None
    except (RecordError, OSError):
        return None
