"""What `look` is given: pictures, class names, layer names.

Owns how they are read and the errors that say what there is instead.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlens.data.image.decode import Pixels, decode_reduced, pixels_of, read_bytes
from convlens.data.image.framing import to_channels
from convlens.data.image.values import BYTES, Range, to_uint8
from convlens.errors import UsageError
from convlens.lens.features import MOST_ON_A_SHEET
from convlens.text import did_you_mean, shown

ALL, MANY_LAYERS = "all", MOST_ON_A_SHEET
ClassesAsked = tuple[str | int | None, str | int | None]  # to explain, and to hold it against


def listed_names(layers: Any) -> list[str]:
    """`"0,3"` or a list as names. Raises UsageError where there is none."""
    if not isinstance(layers, str | Iterable):
        layers = [layers]
    names = layers.split(",") if isinstance(layers, str) else [str(layer) for layer in layers]
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise UsageError("layers must name at least one: `layers=0,3`")
    return names


def last_of_each_size(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Of layers in order, with the shapes of their outputs: for each size of maps (h, w) above 1×1 the last that has
    it; no size but the first that is larger than one before it."""
    last: dict[tuple[int, ...], str] = {}
    for name, shape in shapes.items():
        smallest = min((size[0] for size in last), default=math.inf)
        if len(shape) == 3 and shape[1] * shape[2] > 1 and shape[1] <= smallest:
            last[tuple(shape[1:])] = name
    return list(last.values())


def class_number(label: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by name (first) or number. Raises UsageError."""
    if isinstance(label, int) and not -1_000_000 < label < 1_000_000:  # too long to be written down
        raise UsageError(f"there is no class of that number: there are {len(class_names)}")
    text = str(label)
    if text in class_names:
        return class_names.index(text)
    numbers = {str(k): k for k in range(len(class_names))}
    if text in numbers:
        return numbers[text]
    near = did_you_mean(str(label), class_names)
    listed = ", ".join(shown(name, 20) for name in class_names[:20])
    raise UsageError(f"there is no class {shown(label, 40)!r}{near}: there are {listed}")


def explained_class(asked: ClassesAsked, class_names: tuple[str, ...], answer: int) -> tuple[int, int | None]:
    """The numbers of the class to explain (the answer, if none is named) and of the one it is held against. Raises
    UsageError."""
    label, versus = asked
    one = answer if label is None else class_number(label, class_names)
    other = None if versus is None else class_number(versus, class_names)
    if one == other:
        raise UsageError(f"`versus` must be another class than the one explained ({shown(class_names[one], 40)})")
    return one, other


def original_of(image: Any, value_range: Range = BYTES) -> Pixels:
    """The picture as it came, upright, uint8 (H, W, C), in a model's range of values."""
    if isinstance(image, str | Path):
        image = read_bytes(Path(image))
    if isinstance(image, bytes | bytearray):
        image = decode_reduced(bytes(image), lambda height, width: 1).pixels
    array = to_uint8(pixels_of(image) if hasattr(image, "getbands") else np.asarray(image), value_range)
    return to_channels(array, 1 if array.ndim < 3 or array.shape[2] == 1 else 3)


def name_of(image: Any) -> str:
    """A picture's file name, where it has one."""
    return shown(Path(image).name, 60) if isinstance(image, str | Path) else "the picture"
