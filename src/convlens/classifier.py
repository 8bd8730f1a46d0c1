"""A trained classifier: load it, ask it.

Owns the way from a person's picture to an answer: decode, frame as the training pictures were, forward, softmax.
"""

import glob
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens import files, modelfile
from convlens.architecture.windows import nodes_by_address
from convlens.checks import checked, choice
from convlens.data.image.decode import Pixels, pixels_of, quiet_pillow, read_bytes
from convlens.data.image.framing import InputSpec, fit, picture
from convlens.data.image.values import BYTES, Range, check_range_of_set, range_in
from convlens.data.packed.image_rows import ImageRows, key_of
from convlens.data.prefetch import is_small, prefetch
from convlens.data.sources.listing import list_tree
from convlens.data.sources.tree import DiskTree, suffix_of
from convlens.errors import ConvlensError, ImageError, ModelFileError, UsageError
from convlens.metrics import Scaling, softmax
from convlens.modelfile import ModelCard
from convlens.network.build import Network, build, copy_into
from convlens.network.compute import MEMORY_FORMATS, resolve_compute, resolve_device, settled
from convlens.network.forward import ONE_AT_A_TIME, outputs_of, values_at
from convlens.network.pretrained import model_path
from convlens.progress import Progress, open_progress
from convlens.recipe import VIEWS
from convlens.render.pages import notebook
from convlens.run import Run
from convlens.runtime.prediction import Asked, Outputs, Prediction
from convlens.text import counted, no_attribute, shown, wrapped
from convlens.thresholds import Answers, Thresholds

_BATCH_SIZE = 256
_A_SET = 8  # pictures in one array, from which on its range is theirs together
_ROWS_SHOWN = 100
_CHANNELS = (1, 3, 4)


class Predictions(list[Prediction]):
    """Answers in order; they print a line each, and a notebook shows them as a table."""

    def __str__(self) -> str:
        found = [
            f"{shown(one.path or f'picture {number}', 200)}: {one.answer}  {one.likeliest}".rstrip()
            for number, one in enumerate(self[:_ROWS_SHOWN], 1)
        ]
        return "\n".join([*found, *self._more()])

    def _more(self) -> list[str]:
        return [f"… and {len(self) - _ROWS_SHOWN:,} more"] if len(self) > _ROWS_SHOWN else []

    def _repr_html_(self) -> str:
        rows = [
            [shown(one.path or f"picture {number}", 200), one.answer, one.likeliest]
            for number, one in enumerate(self[:_ROWS_SHOWN], 1)
        ]
        return notebook(lines=self._more(), header=["picture", "answer", "likeliest"], rows=rows)


@dataclass(frozen=True)
class Classifier:
    """A network with its card, in memory. `path` is the file it came from; `views` is what of a picture is classified,
    as in the recipe; `scaling` is what is done to logits before they become probabilities; `thresholds` what it
    promises, None where that is nothing, or was set for other views or probabilities."""

    path: Path
    card: ModelCard
    network: Network
    device: str
    views: str = "none"
    scaling: Scaling = Scaling()
    thresholds: Thresholds | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.card.class_names

    @property
    def is_as_trained(self) -> bool:
        """Whether views and scaling are those of the model file, so that its answers are the model's own."""
        return (self.scaling, self.views) == (_scaling(self.card, raw=False), self.card.views)

    def predict(self, images: Any, **options: Any) -> Predictions:
        """`convlens.predict` with this model; `options` are its."""
        return predict(self, images, **options)

    def frame(self, image: Any) -> Pixels:
        """What the network sees of a picture: uint8 (H, W, C). Takes a path, bytes, an open file, an array, a PIL
        image.

        Raises ImageError where it cannot be read.
        """
        spec = self.card.input_spec
        if image is None or isinstance(image, bool | int | float):
            raise ImageError(f"a picture is a path, bytes, an array or a PIL image, not {type(image).__name__}")
        try:
            if isinstance(image, str | Path):
                return picture(read_bytes(Path(image)), spec)
            if hasattr(image, "read"):
                image = image.read()
            if isinstance(image, bytes | bytearray):
                return picture(bytes(image), spec)
            return fit(pixels_of(image) if hasattr(image, "getbands") else np.asarray(image), spec)
        except ImageError as error:
            if isinstance(image, str | Path):
                raise ImageError(f"{shown(image, 200)}: {error}") from error
            raise
        except MemoryError:
            raise
        except Exception as error:  # ragged lists, tensors that are no arrays, whatever a stranger's object raises
            raise ImageError(f"not a picture: {shown(error)}") from error

    def is_blank(self, framed_HWC: Pixels) -> bool:
        """Whether a drawing was looked for in a picture and no ink was found: the network then sees a blank one."""
        return self.card.input_spec.framing == "ink" and not framed_HWC.any()

    def logits(self, images_NHWC: Pixels | ImageRows) -> NDArray[np.float32]:
        """float32 (N, K) for framed images, uint8 (N, H, W, C), as `frame` gives them. Raises UsageError for others,
        ModelFileError where a logit is not finite."""
        return self.outputs(images_NHWC, ())[0]

    def outputs(
        self, images_NHWC: Pixels | ImageRows, addresses: Sequence[str]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """The logits, and of the layers with these addresses the statistics of their channels, float32 (N, S): the
        means of its maps and then their standard deviations, or its values where it has no maps. For the values
        themselves there is `features`. Raises UsageError, ModelFileError."""
        if isinstance(images_NHWC, np.ndarray) and not self._is_framed(images_NHWC):
            spec = self.card.input_spec
            size = f"(N, {spec.height}, {spec.width}, {spec.channels})"
            raise UsageError(
                f"framed images are uint8 {size}, as `frame` gives each, not {images_NHWC.dtype} {images_NHWC.shape}: "
                "`predict` takes pictures as they are"
            )
        with ONE_AT_A_TIME, settled(resolve_compute(self.device, "float32")):
            logits, statistics = outputs_of(self.network, images_NHWC, views=self.views, addresses=addresses)
        if not np.isfinite(logits).all():
            raise ModelFileError(f"{shown(self.path, 200)} gives values that are not finite: it cannot be used")
        return logits, statistics

    def features(self, images: Any, address: str | None = None) -> NDArray[np.float32]:
        """The values of one layer for each picture (not its mirror image), float32 (N, C, H, W) or (N, F). `images` is
        what `predict` takes, or framed images, uint8 (N, H, W, C), as `frame` gives each; `address` is one that
        `explain` prints; None: the layer before the last linear one, whose output is the embedding of a picture. Raises
        UsageError, ImageError where a picture cannot be read, SentenceError without a linear layer."""
        if address is None:
            chain = self.network.plan
            address = chain.nodes[max(0, chain.index_of("head") - 1)].address
        spec, nodes = self.card.input_spec, nodes_by_address(self.network.plan)
        if str(address) not in nodes:
            raise UsageError(f"there is no layer {shown(address, 40)!r}: there are {shown(', '.join(nodes), 400)}")
        if not isinstance(images, np.ndarray) or not self._is_framed(images):
            images = _as_pictures(images, spec)[0]
            _check_values(images, spec.value_range)
            images = np.stack([self.frame(one) for one in _listed(images, recursive=False)[0]])
        with ONE_AT_A_TIME, settled(resolve_compute(self.device, "float32")):
            return values_at(self.network, images, str(address))

    def _is_framed(self, images: NDArray[Any]) -> bool:
        spec = self.card.input_spec
        return images.shape[1:] == (spec.height, spec.width, spec.channels) and images.dtype == np.uint8

    def probabilities(self, logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
        """What the logits come to, float64 (N, K), each row summing to 1."""
        return softmax(self.scaling.of(logits_NK))

    def labels(self, p_NK: NDArray[np.float64]) -> Answers:
        """The answers to pictures with these probabilities (N, K), as its promise has it, if there is one."""
        if self.thresholds is None:
            return Answers(p_NK.argmax(axis=1), np.zeros(len(p_NK), bool))
        return self.thresholds.answers(p_NK, self.class_names)

    def are_unfamiliar(self, images_NHWC: Pixels | ImageRows) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """The logits (N, K), and which images are unlike those of the training, bool (N,); None where the model cannot
        tell."""
        known = self.card.unfamiliarity
        logits_NK, found = self.outputs(images_NHWC, () if known is None else known.addresses)
        return logits_NK, None if known is None else known.are_unfamiliar(found, logits_NK)

    def __str__(self) -> str:
        card = self.card
        score = card.metrics.test or card.metrics.val
        which = "test" if card.metrics.test else "validation"
        measured = f", {which} {score}" if score else ""
        return (
            f"{self.path}: {self.network.plan.num_parameters:,} parameters, {len(card.class_names)} classes{measured}"
        )

    def __repr__(self) -> str:
        return f"<Classifier {self}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            raise no_attribute("'Classifier' object", name)

    def _repr_html_(self) -> str:
        return notebook("Classifier", lines=[str(self)], source=wrapped(self.card.architecture, 110))


def load(
    model: str | Path | Run | Classifier = "last",
    device: str | None = "auto",
    views: str | None = None,
    *,
    raw: bool | None = None,
) -> Classifier:
    """Load a model file, the model of a run, or that of the `last` run.

    `views` is what of each picture it classifies: "none": the picture alone, "mirror": the mean of the logits for it
    and for its mirror image; by default as it was trained to. `raw` leaves its probabilities uncalibrated. Raises
    ModelFileError, RunError, DeviceError, UsageError.
    """
    device = "auto" if device is None else device
    if views is not None:
        checked("views", views, choice(VIEWS))
    model = getattr(model, "classifier_", model)  # of a fitted scikit-learn estimator
    if isinstance(model, Classifier):
        same = model if device in ("auto", model.device) else load(model.path, device)
        scaling = model.scaling if raw is None else _scaling(model.card, raw=raw)
        return _with_thresholds(replace(same, views=model.views if views is None else views, scaling=scaling))
    file = modelfile.read_model(model_path(model))
    found = resolve_device(device)
    # Weights made in a caller's inference mode could never be explained by gradients.
    with settled(resolve_compute(found, "float32")), torch.inference_mode(False):
        training = file.card.training
        memory_format = (training and training.memory_format) or MEMORY_FORMATS[0]  # as validation had it
        network = build(file.plan, file.card.input_spec, device=found, memory_format=memory_format)
        copy_into(network, file.tensors)
    network.eval()
    scaling = _scaling(file.card, raw=bool(raw))
    views = file.card.views if views is None else views
    return _with_thresholds(Classifier(file.path, file.card, network, found, views, scaling))


def _scaling(card: ModelCard, *, raw: bool) -> Scaling:
    return Scaling() if raw or card.calibration is None else card.calibration.scaling


def _with_thresholds(classifier: Classifier) -> Classifier:
    """Thresholds are for the probabilities and views that they were set for."""
    return replace(classifier, thresholds=classifier.card.thresholds if classifier.is_as_trained else None)


def predict(
    model: Any,
    images: Any,
    *,
    top: int = 3,
    device: str | None = "auto",
    views: str | None = None,
    raw: bool = False,
    recursive: bool = False,
    min_probability: float = 0.0,
    progress: str | Progress = "auto",
) -> Predictions:
    """Classify pictures, in order.

    `model`, `views` and `raw` are what `load` takes. `images` is one picture or several: paths, patterns with `*`,
    folders (of the pictures in them; with `recursive` also of those in folders below), bytes, open files, arrays (H, W)
    or (H, W, C), several as (N, H, W) or (N, H, W, C), of numbers in the range that the model was trained in or in that
    of their own kind, PIL images. Answers less probable than `min_probability` (0..1) are `uncertain`. One that cannot
    be read has an `error` in the answer's place. Raises ImageError where all cannot, UsageError, and as `load` does.
    """
    asked = Asked(top, min_probability)
    found = Predictions(predictions(load(model, device, views, raw=raw or None), images, asked, recursive, progress))
    if all(one.error is not None for one in found):
        raise unreadable(found[0], len(found))
    return found


def unreadable(first: Prediction, num: int) -> ImageError:
    """The error for `num` pictures of which none can be read, by the first of them."""
    many = f"none of the {num:,} pictures can be read: " if num > 1 else ""
    path = "" if first.path is None else f"{shown(first.path, 200)}: "
    return ImageError(f"{many}{path}{first.error}")


def predictions(
    classifier: Classifier, images: Any, asked: Asked, recursive: bool, progress: str | Progress
) -> Iterator[Prediction]:
    """The answers of `predict` one after the other, as soon as they are there. Pictures that cannot be read raise
    nothing; else raises as `predict` does."""
    with quiet_pillow(), open_progress(progress) as bar:
        try:
            images, rows = _as_pictures(images, classifier.card.input_spec)
            _check_values(images, classifier.card.input_spec.value_range)
            listed, notes = _listed(images, recursive)
        except (ConvlensError, MemoryError):
            raise
        except Exception as error:  # whatever a stranger's object raises
            raise ImageError(f"not pictures: {shown(error)}") from error
        for note in rows + notes:
            bar.line(f"note: {note}")
        if len(listed) > _BATCH_SIZE:
            bar.start("predicting", len(listed), unit="images")
        waiting = iter(listed)
        for framed in _framed(classifier, listed):
            pixels = [one for one in framed if not isinstance(one, str)]
            answers = answers_of(classifier, pixels, asked) if pixels else iter(())
            for one in framed:
                image = next(waiting)
                path = str(image) if isinstance(image, str | Path) else None
                if isinstance(one, str):
                    yield Prediction(path, "", math.nan, (), one)
                    continue
                yield replace(next(answers), path=path)
            bar.advance(len(framed))


def answers_of(classifier: Classifier, framed: list[Pixels], asked: Asked) -> Iterator[Prediction]:
    """The answer to each framed picture, uint8 (H, W, C)."""
    logits_NK, unfamiliar_N = classifier.are_unfamiliar(np.stack(framed))
    p_NK = classifier.probabilities(logits_NK)
    labels_N, uncertain_N = classifier.labels(p_NK)
    blank_N = np.array([classifier.is_blank(one) for one in framed])
    said = Outputs(p_NK, labels_N, blank_N, unfamiliar_N, None if classifier.thresholds is None else uncertain_N)
    record = classifier.card.seen
    seen_N = None if record is None else record.has(np.array([key_of(one) for one in framed], np.uint64))
    for n, one in enumerate(said.predictions(classifier.class_names, asked)):
        yield one if seen_N is None else replace(one, seen=bool(seen_N[n]))


def _framed(classifier: Classifier, images: list[Any]) -> Iterator[list[Pixels | str]]:
    """All images framed, or why they cannot be, in order, a batch at a time; files are decoded ahead in threads."""

    def frame(image: Any) -> Pixels | str:
        try:
            return classifier.frame(image)
        except ImageError as error:
            return str(error).removeprefix(f"{shown(image, 200)}: ")

    if all(isinstance(image, str | Path | bytes | bytearray) for image in images):
        groups = prefetch(frame, images, threads=0 if is_small(_typical_bytes(images)) else None)
    else:  # a PIL image, which may be there twice, is no thing for two threads
        groups = ([frame(image)] for image in images)
    batch: list[Pixels | str] = []
    for group in groups:
        batch += group
        if len(batch) >= _BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _typical_bytes(images: list[Any]) -> float:
    """The median size of up to 33 files or byte strings, evenly spread."""
    sizes = []
    for image in images[:: max(1, len(images) // 32)]:
        with suppress(OSError, ValueError):
            sizes.append(len(image) if isinstance(image, bytes | bytearray) else Path(image).stat().st_size)
    return median(sizes) if sizes else 0


def pictures_of(images: Any) -> list[Any]:
    """The pictures that a path, a pattern or a folder names, with those in folders below it. Raises ImageError."""
    return _listed(images, recursive=True)[0]


def _check_values(images: Any, known: Range) -> None:
    """Raises ImageError where many pictures in one array are scaled otherwise than those of the training."""
    if not isinstance(images, np.ndarray) or images.ndim < 3 or len(images) < _A_SET:
        return
    if known == BYTES and images.dtype != np.uint16:
        return
    try:
        own = range_in(images)
    except ImageError:  # not even a range: each picture says so
        return
    check_range_of_set(images.dtype, own, known)


def _as_pictures(images: Any, spec: InputSpec) -> tuple[Any, list[str]]:
    """Rows of grey values (N, height · width) as pictures (N, height, width), channels that stand first moved last, as
    `train` reads them, and a note."""
    shape: tuple[int, ...] = () if isinstance(images, memoryview) else getattr(images, "shape", ())
    if len(shape) == 4 and shape[3] not in _CHANNELS and shape[1] in _CHANNELS:
        return np.asarray(images).transpose(0, 2, 3, 1), ["the channels stand first, and were moved last"]
    if len(shape) != 2 or spec.channels != 1 or spec.height != spec.width or shape[1] != spec.height * spec.width:
        return images, []
    note = f"rows of {shape[1]:,} values are read as pictures of {spec.height}×{spec.width}"
    return np.asarray(images).reshape(-1, spec.height, spec.width), [note]


def _listed(images: Any, recursive: bool) -> tuple[list[Any], list[str]]:
    """One picture or several as a list, folders and patterns replaced by the pictures in them, and notes on what is
    passed over. Raises ImageError, UsageError."""
    shape: Any = () if isinstance(images, memoryview) else getattr(images, "shape", None)
    if shape is not None and len(shape) == 3 and shape[2] > max(_CHANNELS):
        images, shape = list(images), None  # several grey ones
    is_one_array = shape is not None and len(shape) < 4
    is_one_file = isinstance(images, str | Path | bytes | bytearray) or hasattr(images, "read")
    is_pil_image = hasattr(images, "getbands")
    if is_one_array or is_one_file or is_pil_image or not isinstance(images, Iterable):
        images = [images]
    listed: list[Any] = []
    notes: list[str] = []
    for image in images:
        if not isinstance(image, str | Path) or not str(image):
            listed.append(image)
        elif files.is_folder(image):
            listed += _in_folder(Path(image), recursive, notes)
        elif glob.has_magic(str(image)) and not os.path.lexists(image):
            matches = glob.glob(str(image), recursive=True)  # noqa: PTH207 - it may be absolute
            found = sorted(path for path in matches if not files.is_folder(path))
            if not found:
                raise ImageError(f"no file matches {shown(image, 200)}")
            listed += found
        else:
            listed.append(image)
    if not listed or any(isinstance(image, str) and not image for image in listed):
        raise UsageError("no pictures to predict, or one without a name")
    return listed, notes


def _in_folder(folder: Path, recursive: bool, notes: list[str]) -> list[Path]:
    """The pictures in a folder, and a note on what else is there. Raises ImageError where there are none."""
    here = list_tree(DiskTree(folder))
    parts = list(here.every()) if recursive else [here]
    found = [folder / path for part in parts if not part.is_own for path in part.loose]
    where, below = shown(folder, 200), here.num_pictures - len(found)
    if not found and below:
        raise ImageError(f"{where} holds no pictures itself, but {below:,} in folders below: say `recursive`")
    if not found:
        raise ImageError(f"folder {where} holds no pictures")
    if below:
        notes.append(f"{below:,} pictures in folders below {where} are not looked at: `recursive` takes them too")
    others = Counter(suffix_of(path) or "without suffix" for part in parts for path in part.others)
    if others:
        kinds = ", ".join(f"{num:,} {suffix}" for suffix, num in others.most_common(5))
        notes.append(f"{counted(others.total(), 'file')} in {where}, no pictures, passed over ({kinds})")
    return sorted(found) if recursive else found
