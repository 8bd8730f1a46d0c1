"""The film of the first layer's filters over a training, from a run made with `--keep-filters`.

Owns reading the kept filters and drawing them: an animation (GIF, WebP) or a sheet with a row a moment (PNG, SVG, PDF).
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convlens import files
from convlens.data.image.decode import SOFTWARE, Pixels
from convlens.errors import RunError
from convlens.lens.recording import Values
from convlens.render.feature_sheet import MAX_SHOWN, Grid, draw_grid, grid_height
from convlens.render.figures import DIM, MARGIN, SUFFIXES, Sheet, save_figure
from convlens.run import Run, find_run
from convlens.text import MAKER, shown

FILM_SUFFIXES = (".gif", ".webp", *SUFFIXES)
_FRAME_MS, _LAST_MS, _COLUMNS, _SIDE, _GAP, _FOOT = 90, 2500, 8, 72, 10, 34  # times in ms, places in pixels
_MOMENTS = 9  # rows of a sheet


@dataclass(frozen=True)
class Film:
    """The filters of the first convolution after some steps: `kernels` float32 (T, O, I, kh, kw), `steps` (T,).

    `num_steps` and `epochs` are those of the whole training.
    """

    kernels: Values
    steps: tuple[int, ...]
    num_steps: int
    epochs: float

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write a .gif or .webp that moves, or a .png, .svg or .pdf with a row a moment. A file that
        is there is replaced only if `replace`. Raises UsageError, StorageError."""
        path = Path(path)
        files.check_new_file(path, FILM_SUFFIXES, replace=replace)
        if path.suffix.lower() in SUFFIXES:
            save_figure(_sheet(self).figure, path)
            return
        # Flat colours: without dithering a frame is a tenth of the size.
        frames = [Image.fromarray(f).quantize(128, dither=Image.Dither.NONE) for f in frames_of(self)]
        page, exif = io.BytesIO(), Image.Exif()
        exif[SOFTWARE] = MAKER
        frames[0].save(
            page,
            path.suffix[1:].upper(),
            save_all=True,
            append_images=frames[1:],
            loop=0,
            lossless=True,
            comment=MAKER.encode(),
            exif=exif,
            duration=[_FRAME_MS] * (len(frames) - 1) + [_LAST_MS],
        )
        files.write_bytes(path, page.getvalue())


def film(run: str | Path | Run = "last") -> Film:
    """The film of a run. Raises RunError for what is no run, or one that kept no filters."""
    found = find_run(run)
    record, kept = found.record, found.filters()
    if len(kept) < 2:
        raise RunError(f"{shown(found.path, 200)} kept no filters: train with `keep_filters` to see them change")
    try:
        kernels = [np.load(path, allow_pickle=False) for _, path in kept]
        stacked = np.stack(kernels)
        if stacked.dtype != np.float32 or stacked.ndim != 5 or not stacked.size or not np.isfinite(stacked).all():
            raise ValueError("not filters")
        epochs = float(record.recipe["epochs"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile) as error:
        raise RunError(f"{shown(found.path, 200)} has damaged filters ({shown(error)})") from error
    return Film(stacked, tuple(step for step, _ in kept), record.num_steps, epochs)


def frames_of(film: Film) -> list[Pixels]:
    """The moving picture, uint8 (H, W, 3) a frame, all on one colour scale."""
    num = min(film.kernels.shape[1], MAX_SHOWN)
    reach = float(np.abs(film.kernels).max()) or 1.0
    columns = min(num, _COLUMNS)
    rows = math.ceil(num / columns)
    width = max(columns * (_SIDE + _GAP) + _GAP, 420)
    height = rows * (_SIDE + _GAP) + _GAP + _FOOT
    frames = []
    for kernels, step in zip(film.kernels, film.steps, strict=True):
        page = Image.new("RGB", (width, height), "white")
        for i in range(num):
            row, column = divmod(i, columns)
            tile = Image.fromarray(_coloured(kernels[i], reach)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            page.paste(tile, (_GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _GAP)))
        draw = ImageDraw.Draw(page)
        done = step / max(1, film.num_steps)
        text = (
            f"step {step:,} of {film.num_steps:,}, epoch {done * film.epochs:.2f}; blue -{reach:.2g}, red +{reach:.2g}"
        )
        draw.text((_GAP, height - _FOOT), text, fill="#1b1f24", font=ImageFont.load_default(13))
        draw.rectangle((_GAP, height - 10, width - _GAP, height - 6), fill="#e6e9ed")
        draw.rectangle((_GAP, height - 10, _GAP + done * (width - 2 * _GAP), height - 6), fill="#e08214")
        frames.append(np.asarray(page))
    return frames


def _coloured(kernel: Values, reach: float) -> Pixels:
    """One filter as colours: of RGB its own, else its first channel from blue over white to red."""
    if len(kernel) == 3:
        mixed = 0.5 + kernel.transpose(1, 2, 0) / (2 * reach)
    else:
        v = kernel[0][:, :, None] / reach
        blue, white, red = (np.array(c) / 255 for c in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))
        mixed = np.where(v < 0, white + (white - blue) * v, white + (red - white) * v)
    return (mixed.clip(0, 1) * 255).round().astype(np.uint8)


def _sheet(film: Film) -> Sheet:
    """A row of filters for each of some moments."""
    picked = sorted({round(i * (len(film.steps) - 1) / (_MOMENTS - 1)) for i in range(_MOMENTS)})
    num = min(film.kernels.shape[1], MAX_SHOWN)
    row_height = grid_height(num) + 0.25
    sheet = Sheet(0.75 + row_height * len(picked) + 0.2)
    sheet.text(MARGIN, 0.22, "the filters of the first convolution while they are learned", fontsize=14, weight="bold")
    sheet.y = 0.6
    reach = float(np.abs(film.kernels).max()) or 1.0
    is_rgb = film.kernels.shape[2] == 3
    for i in picked:
        kernels, step = film.kernels[i][:num], film.steps[i]
        epoch = step / max(1, film.num_steps) * film.epochs
        sheet.text(MARGIN, sheet.y + 0.3, f"step {step:,}", weight="bold")
        sheet.text(MARGIN, sheet.y + 0.52, f"epoch {epoch:.2f}", fontsize=7.5, color=DIM)
        maps = [_coloured(kernel, reach) if is_rgb else kernel[0] for kernel in kernels]
        draw_grid(sheet, Grid(maps, (-reach, reach), np.zeros(num, bool), range(num)), scale=not is_rgb)
        sheet.y += row_height
    return sheet
