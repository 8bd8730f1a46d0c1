"""`look` for any torch module: its parts as layers, a tensor or a picture as input.

Owns what is known of a module without a sentence. Receptive fields are not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlens.data.image.decode import Pixels
from convlens.data.image.framing import to_channels
from convlens.errors import ConvlensError, ImageError, UsageError
from convlens.lens.attribution import METHODS, Subject, attribution
from convlens.lens.features import Features, LayerValues
from convlens.lens.hooks import array_of, evaluating, outputs_of
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
from convlens.lens.recording import Values
from convlens.metrics import softmax
from convlens.text import by, probability, shown


def look_into_module(module: nn.Module, image: Any, layers: Any, unit: str | None, asked: ClassesAsked) -> Features:
    """As `look` says. Raises UsageError, ImageError."""
    parts = {name: part for name, part in module.named_modules() if name and not any(part.children())}
    modules = parts or {"module": module}
    wanted = list(modules) if layers in (None, ALL) else listed_names(layers)
    for name in wanted:
        if name not in modules:
            raise UsageError(f"there is no layer {shown(name, 40)!r}: there are {shown(', '.join(modules), 400)}")
    if unit is not None:
        raise UsageError("receptive fields are known of sentences alone: leave unit away for a module of your own")
    first = next((part for part in modules.values() if isinstance(part, nn.Conv2d)), None)
    original, x_1CHW = _module_input(module, image, first)
    # The caller may have switched gradients off.
    with evaluating(module), torch.inference_mode(False), torch.enable_grad(), _in_one_line(x_1CHW):
        outputs, logits = _pass(module, modules, x_1CHW)
        arrays = {name: array_of(value[0]) for name, value in outputs.items() if value.ndim in (2, 4)}
        probabilities = softmax(logits[None])[0]
        names = tuple(map(str, range(len(probabilities))))
        explained, versus = explained_class(asked, names, int(probabilities.argmax()))
        shapes = {name: array.shape for name, array in arrays.items() if name in modules}
        subject = Subject.of(module, x_1CHW, torch.zeros_like(x_1CHW), modules, shapes)
        few = last_of_each_size({name: array.shape for name, array in arrays.items() if "#" not in name})
        is_overview = layers is None and len(arrays) > MANY_LAYERS and bool(few)
        methods = [method for method in METHODS if not (is_overview and method == "integrated_gradients")]
        maps: dict[str, Any] = {method: attribution(subject, method, explained, versus) for method in methods}
    wanted = few if is_overview else wanted
    answer = int(probabilities.argmax())
    return Features(
        f"{name_of(image)}: class {answer}, {probability(float(probabilities[answer]))}",
        original,
        None,
        array_of(x_1CHW[0]),
        tuple(
            LayerValues(name, shown(modules[name.partition("#")[0]], 60), "", array)
            for name, array in arrays.items()
            if name.partition("#")[0] in wanted
        ),
        None if first is None else array_of(first.weight.detach()),
        names,
        probabilities,
        explained,
        "zeros, in the module's own units",
        grad_cam_layer=subject.layer_name,
        grad_cam_size=None if subject.layer_name is None else shapes[subject.layer_name][1:],
        overview_of=len(arrays) if is_overview else None,
        has_all=layers == ALL,
        versus=versus,
        **maps,
    )


@contextmanager
def _in_one_line(x_1CHW: Tensor) -> Iterator[None]:
    """Within it, what a module of somebody's own raises becomes a UsageError."""
    try:
        yield
    except ConvlensError:
        raise
    except Exception as error:  # a module of somebody's own raises whatever it likes
        raise UsageError(
            f"the module cannot be looked into with batches of {by(tuple(x_1CHW.shape[1:]))}: {shown(error, 160)}"
        ) from error


def _pass(module: nn.Module, modules: Mapping[str, nn.Module], x_1CHW: Tensor) -> tuple[dict[str, Tensor], Values]:
    """The outputs of the parts, and the logits, float32 (K,). Raises UsageError where there are none."""
    final: list[Any] = []

    def forward(x: Tensor) -> Any:
        final.append(module(x))

    outputs = outputs_of(modules, forward, x_1CHW)
    if not isinstance(final[0], Tensor) or final[0].ndim != 2 or not final[0].is_floating_point():
        what = by(tuple(final[0].shape)) if isinstance(final[0], Tensor) else type(final[0]).__name__
        raise UsageError(f"the module gives {what}, not logits (N, K): wrap it in one that does")
    logits = array_of(final[0].detach()[0])
    if not np.isfinite(logits).all():
        raise UsageError("the module gives values that are not finite for this picture")
    return outputs, logits


def _module_input(module: nn.Module, image: Any, first: nn.Conv2d | None) -> tuple[Pixels | None, Tensor]:
    """The picture as it came (None for a tensor) and what goes in, (1, C, H, W) of the weights' type and device."""
    place = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    if isinstance(image, Tensor) or (isinstance(image, np.ndarray) and image.dtype != np.uint8):
        try:
            x = torch.as_tensor(image).detach().to(place)
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise ImageError(f"not a picture: {shown(error, 160)}") from error
        x = x[None] if x.ndim == 3 else x
        if x.ndim != 4 or len(x) != 1:
            raise ImageError(f"a tensor must be one picture (C, H, W) or (1, C, H, W), not {by(tuple(x.shape))}")
        return None, x.clone()
    original = original_of(image)
    channels = 1 if first is not None and first.in_channels == 1 else 3
    pixels = to_channels(original, channels)
    return original, torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].to(place) / 255
