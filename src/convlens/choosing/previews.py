"""Previews: whether colour files hold colour, and a sheet of training images as the network will see them.

Owns what is decoded for a choice. Looks at train and val only.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from convlens.data.image.decode import quiet_pillow
from convlens.data.image.framing import InputSpec, fit, picture
from convlens.data.packed.dataset import Dataset
from convlens.data.sources.base import Source, some
from convlens.errors import ImageError
from convlens.text import shown

_LOOKED_AT = 64
_COLOURLESS = 10  # levels that the channels of a grey picture may differ by: JPEG's rounding
NUM_SHOWN = 12


def is_grey_inside(source: Source) -> bool:
    """Whether pictures stored in colour have none: in each of 64, 99 % of the pixels are grey within JPEG's
    rounding."""
    spec, num_grey, num_seen = InputSpec(32, 32, 3), 0, 0
    with quiet_pillow():
        for sample in some(source, _LOOKED_AT):
            with suppress(ImageError):
                content = sample.read()
                framed = picture(content, spec) if isinstance(content, bytes) else fit(content, spec)
                pixels = framed.astype(np.int16)
                num_seen += 1
                num_grey += np.percentile(pixels.max(axis=2) - pixels.min(axis=2), 99) <= _COLOURLESS
    return num_seen > 0 and num_grey == num_seen


def draw_previews(datasets: Sequence[Dataset], path: Path) -> None:
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
