"""A glance at the pictures: whether colour files hold colour, whether grey ones are drawn as MNIST's are, and a sheet
of them as the network will see them.

Owns what is decoded for a choice. Looks at train and val only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from convlens.data.image.decode import decode, quiet_pillow, read_bytes
from convlens.data.image.framing import InputSpec, picture, to_channels
from convlens.data.image.ink import is_framed_ink
from convlens.data.packed.dataset import Dataset
from convlens.data.sources.base import FileSample, FileSource
from convlens.errors import ImageError
from convlens.text import shown

_LOOKED_AT = 64
_COLOURLESS = 10  # levels that the channels of a grey picture may differ by: JPEG's rounding
_INK_SHARE = 0.95
NUM_SHOWN = 12


def _some(source: FileSource, most: int) -> list[FileSample]:
    samples = [sample for sample in source.samples if sample.split != "test"]
    return samples[:: max(1, len(samples) // most)]


def is_grey_inside(source: FileSource) -> bool:
    """Whether pictures stored in colour have none: in each of 64, 99 % of the pixels are grey within JPEG's
    rounding."""
    spec, num_grey, num_seen = InputSpec(32, 32, 3), 0, 0
    with quiet_pillow():
        for sample in _some(source, _LOOKED_AT):
            with suppress(ImageError):
                pixels = picture(read_bytes(sample.path), spec).astype(np.int16)
                num_seen += 1
                num_grey += np.percentile(pixels.max(axis=2) - pixels.min(axis=2), 99) <= _COLOURLESS
    return num_seen > 0 and num_grey == num_seen


def is_mostly_ink(source: FileSource) -> bool:
    """Whether 95 % of 64 pictures already are as MNIST's: bright ink on 0, its box and its middle where they belong."""
    num_ink = num_seen = 0
    with quiet_pillow():
        for sample in _some(source, _LOOKED_AT):
            with suppress(ImageError):
                pixels = to_channels(decode(read_bytes(sample.path)), 1)[:, :, 0]
                num_seen += 1
                num_ink += is_framed_ink(pixels)
    return num_seen > 0 and num_ink >= _INK_SHARE * num_seen


def draw_inputs(datasets: Sequence[Dataset], path: Path) -> None:
    """Draw twelve training pictures as the network sees them, a row for each input size, the chosen one last.

    Raises StorageError.
    """
    from convlens.render.figures import DIM, MARGIN, WIDTH, Sheet, bare, save_figure

    tile = (WIDTH - 2 * MARGIN) / NUM_SHOWN
    sheet = Sheet(height=0.75 + len(datasets) * (tile + 0.55) + 0.1)
    sheet.text(MARGIN, 0.2, "Twelve training pictures as the network sees them. Can you tell them apart?", fontsize=12)
    wanted = _shown_names(datasets[-1])
    for row, dataset in enumerate(datasets):
        top, spec = 0.75 + row * (tile + 0.55), dataset.input_spec
        chosen = ", chosen" if row == len(datasets) - 1 > 0 else ""
        sheet.text(MARGIN, top - 0.02, f"{spec.height}×{spec.width} px{chosen}", color=DIM)
        rows = {name: at for at, name in enumerate(dataset.sample_names())}
        for place, name in enumerate(wanted):
            if name not in rows:
                continue
            at = np.array([rows[name]])
            image, label = dataset.images_at(at)[0], dataset.class_names[int(dataset.labels_at(at)[0])]
            axes = sheet.axes(MARGIN + place * tile, top + 0.18, tile - 0.06, tile - 0.06)
            axes.imshow(
                image[:, :, 0] if spec.channels == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            bare(axes)
            sheet.text(MARGIN + place * tile, top + 0.14 + tile, shown(label, 16), fontsize=7)
    save_figure(sheet.figure, path)


def _shown_names(dataset: Dataset) -> list[str]:
    """Names of twelve training pictures, the classes in turn."""
    rows, labels, names = dataset.rows("train"), dataset.labels("train"), dataset.sample_names()
    queues = [rows[labels == label].tolist() for label in np.unique(labels)]
    chosen: list[int] = []
    while queues and len(chosen) < NUM_SHOWN:
        for queue in list(queues):
            if not queue:
                queues.remove(queue)
            elif len(chosen) < NUM_SHOWN:
                chosen.append(queue.pop(0))
    return [names[row] for row in sorted(chosen, key=lambda row: int(dataset.labels_at(np.array([row]))[0]))]
