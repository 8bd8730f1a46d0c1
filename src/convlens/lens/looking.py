"""`look`: what a network makes of one picture, layer by layer, and where its answer comes from.

Owns the way from a model and a picture to `Features`.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convlens.architecture.layers import Conv, Dropout, Flatten, ZeroPad
from convlens.architecture.plan import Plan
from convlens.architecture.rows import title_of
from convlens.architecture.windows import INPUT, check_address, nodes_by_address, parse_unit, pixels_seen
from convlens.classifier import Classifier, load
from convlens.data.image.decode import Pixels, quiet_pillow
from convlens.data.image.framing import InputSpec, place_of
from convlens.data.packed.pack import reopen
from convlens.errors import ConvlensError, UsageError
from convlens.evaluation.evaluate import opened
from convlens.lens.any_module import look_into_module
from convlens.lens.attribution import METHODS, Subject, attribution
from convlens.lens.features import Features, LayerValues, UnitSeen
from convlens.lens.hooks import evaluating, modules_of, record
from convlens.lens.inputs import (
    ALL,
    MANY_LAYERS,
    ClassesAsked,
    explained_class,
    last_of_each_size,
    listed_names,
    name_of,
    original_of,
)
from convlens.lens.replay import open_replay, replayed
from convlens.network.compute import resolve_compute, settled
from convlens.network.forward import ONE_AT_A_TIME
from convlens.network.frozen import folded
from convlens.text import probability, shown


def look(
    model: Any = "last",
    image: Any = None,
    *,
    layers: str | Iterable[str] | None = None,
    unit: str | None = None,
    label: str | int | None = None,
    versus: str | int | None = None,
    replay: str | Path | None = None,
    device: str | None = "auto",
) -> Features:
    """See what a network makes of one picture.

    `model` is whatever `load` takes, or any `nn.Module` that gives logits (N, K). `image` is a path, bytes, a uint8
    array or a PIL image, or the name of one of the pictures that the model was made with, as reports list them
    (`"train/34750"`); for a module of your own also a float tensor (C, H, W) or (1, C, H, W), which goes in as it
    is (pictures become RGB or grey as its first convolution wants, in 0..1, at their own size).

    `layers` picks by address (`"0,3"` or a list; `"all"`: all but flatten and dropout, which change no value, or of a
    module its parts without parts of their own). By default it is all of them, or of a network with more than forty one
    for each resolution: the last; integrated gradients are then left out. `unit` is one like `"5:12,3,4"`, whose
    receptive field is drawn.
    `label` is the class to explain instead of the likeliest, `versus` one that it is held against: what speaks for the
    first rather than for the second. `replay` is an answer that a kit or the prediction server
    gave: its row (of `image`, the file that was sent), or the `.json` file that was kept beside the picture; it is then
    shown that the same input gives the same values here, or said what differs. Raises ConvlensError: UsageError for
    what is not there, with what is; ImageError; and as `load` does.
    """
    if image is None and replay is None:
        raise UsageError("name a picture to look at: look MODEL IMAGE")
    if isinstance(model, nn.Module) and not isinstance(model, Classifier):
        if replay is not None:
            raise UsageError("`replay` is for models of convlens")
        return look_into_module(model, image, layers, unit, (label, versus))
    classifier = load(model, device)
    with (
        ONE_AT_A_TIME,
        settled(resolve_compute(classifier.device, "float32")),
        quiet_pillow(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        told = None
        if replay is not None:
            found = open_replay(replay, image)
            told = replayed(classifier, found)
            image = found.image
        features = _look_into_classifier(classifier, image, layers, unit, (label, versus))
        return features if told is None else replace(features, replayed=told)


def _look_into_classifier(
    classifier: Classifier, image: Any, layers: Any, unit: str | None, asked: ClassesAsked
) -> Features:
    network, plan, spec = classifier.network, classifier.network.plan, classifier.card.input_spec
    chosen, is_overview = _chosen(plan, layers)
    seen = None if unit is None else parse_unit(str(unit), plan)
    stored, truth = _stored(classifier, image)
    framed = classifier.frame(image) if stored is None else stored
    recording = replace(record(network, framed), scaling=classifier.scaling)
    probabilities = recording.probabilities
    explained, versus = explained_class(asked, classifier.class_names, int(probabilities.argmax()))
    nodes = nodes_by_address(plan)
    subject = subject_of(classifier, framed)
    with evaluating(network):
        # Integrated gradients take 256 passes back and forth: seconds, in a network that needs an overview.
        methods = [method for method in METHODS if not (is_overview and method == "integrated_gradients")]
        maps: dict[str, Any] = {method: attribution(subject, method, explained, versus) for method in methods}
    names = classifier.class_names
    unfamiliar_1 = classifier.are_unfamiliar(framed[None])[1]
    is_unfamiliar = None if unfamiliar_1 is None else bool(unfamiliar_1[0])
    title = f"{name_of(image)}: {_in_words(names, probabilities)}"
    if classifier.is_blank(framed):
        is_unfamiliar = True
        title += ", but no ink found: the network saw a blank picture"
    elif is_unfamiliar:
        title += ", but unfamiliar: the answer may mean nothing"
    first = next((node for node in nodes.values() if isinstance(node.layer, Conv)), None)
    kernels = None if first is None else recording.tensors[f"{first.address}.weight"]
    rows = tuple(LayerValues(a, title_of(nodes[a]), nodes[a].formula, recording.values[a]) for a in chosen)
    if seen is not None:
        maps["unit"] = UnitSeen(str(unit), float(recording.values[seen[0]][seen[1]]), pixels_seen(plan, *seen))
    original = original_of(image, spec.value_range) if stored is None else stored
    pictures, answers = (original, framed, recording.values[INPUT]), (names, probabilities, explained)
    baseline, place = baseline_of(spec)[1], place_of(original.shape[0], original.shape[1], spec)
    num_layers = len(nodes) if is_overview else None
    if classifier.views == "mirror":
        both = _in_words(names, classifier.probabilities(classifier.logits(framed[None]))[0])
        maps["mirrored"] = f"averaged with its mirror image, as predict answers: {both}"
    maps |= {
        "unfamiliar": is_unfamiliar,
        "grad_cam_layer": subject.layer_name,
        "place": place,
        "overview_of": num_layers,
        "has_all": layers == ALL,
        "versus": versus,
        "truth": truth,
        "grad_cam_size": None if subject.layer_name is None else nodes[subject.layer_name].output_shape[1:],
    }
    return Features(title, *pictures, rows, kernels, *answers, baseline, **maps)


def _stored(classifier: Classifier, image: Any) -> tuple[Pixels | None, str | None]:
    """One of the pictures that the model was made with, framed, by its name in the data, and its class; None where
    there is none."""
    identity = classifier.card.dataset
    if identity is None or not isinstance(image, str | Path) or os.path.lexists(image):
        return None, None
    with suppress(ConvlensError, ValueError):
        dataset = reopen(identity, progress="none")
        row = np.array([dataset.sample_names().index(str(image))])
        if row[0] in dataset.rows("test"):  # a report of this model names it: the opening stands there already
            dataset, _ = opened(dataset, classifier, again=True)
        return np.array(dataset.images_at(row)[0]), dataset.class_names[int(dataset.labels_at(row)[0])]
    return None, None


def _in_words(names: Sequence[str], probabilities_K: NDArray[np.float64]) -> str:
    return f"{shown(names[int(probabilities_K.argmax())], 40)}, {probability(float(probabilities_K.max()))}"


def subject_of(classifier: Classifier, image_HWC: Pixels) -> Subject:
    """A framed picture, uint8 (H, W, C), as something that `attribution` explains."""
    network = classifier.network
    baseline_HWC, _ = baseline_of(classifier.card.input_spec)
    batches = (torch.from_numpy(np.array(a)[None]).to(classifier.device) for a in (image_HWC, baseline_HWC))
    x_1CHW, baseline_1CHW = map(network.normalise, batches)
    shapes = {address: node.output_shape for address, node in nodes_by_address(network.plan).items()}
    # Batch norm is folded away for the methods that ask hundreds of times; the layer of Grad-CAM stays what it is.
    often = cache(lambda: folded(network))
    modules = modules_of(network)
    return Subject.of(network.forward_normalised, x_1CHW, baseline_1CHW, modules, shapes, lambda x: often()(x))


def baseline_of(spec: InputSpec) -> tuple[Pixels, str]:
    """The picture without evidence, uint8 (H, W, C), and what it is in words: black where black is the paper, else the
    mean colour of the training images."""
    colour = [0] * spec.channels if spec.framing == "ink" else [round(value) for value in spec.mean]
    words = "black, the background" if spec.framing == "ink" else "the training images' mean colour"
    return np.full((spec.height, spec.width, spec.channels), colour, np.uint8), words


def _chosen(plan: Plan, layers: Any) -> tuple[list[str], bool]:
    """Addresses, checked, in the order of the network, and whether they are one for each resolution. Raises UsageError
    with those that are there."""
    nodes = nodes_by_address(plan)
    every = [a for a, node in nodes.items() if not isinstance(node.layer, Flatten | Dropout)]
    if layers is None or layers == ALL:
        shapes = {a: nodes[a].output_shape for a in every if not isinstance(nodes[a].layer, ZeroPad)}
        few = last_of_each_size(shapes) if layers is None and len(every) > MANY_LAYERS else []
        return (few, True) if few else (every, False)
    wanted = listed_names(layers)
    for address in wanted:
        check_address(plan, address)
    return [a for a in nodes if a in wanted], False
