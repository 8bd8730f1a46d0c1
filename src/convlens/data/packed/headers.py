"""What the pictures of a source look like, from their headers alone: sizes and channels.

Owns the reading of headers and the input that follows from them where no option says one. Decodes nothing.
"""

from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from convlens.data.image.decode import Header, decode, decode_reduced, quiet_pillow, read_header
from convlens.data.image.framing import InputSpec, to_channels
from convlens.data.image.ink import is_framed_ink
from convlens.data.image.values import BYTES, SIGNED, Range, check_range_of_set, limits_of, range_in, to_uint8
from convlens.data.packed.options import PackOptions
from convlens.data.prefetch import is_small, prefetch
from convlens.data.sources.base import ArraySource, Sample, Source, some
from convlens.data.sources.tree import suffix_of
from convlens.errors import DataError, ImageError
from convlens.progress import Progress
from convlens.text import shown

_LOOKED_AT, _INK_SHARE = 500, 0.95  # of arrays, whether they are ink
DEFAULT_SIDE = 32
_OF_BYTES = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")  # nobody keeps masks of 0 and 1 in them
_LOSSY = ("JPEG", "MPO", "WEBP")


@dataclass
class Headers:
    """Counts over the headers that could be read: (height, width) of the upright pictures, and channels 1 or 3; and,
    where that was asked for, the width / height of each by its name."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    aspects: dict[str, float] = field(default_factory=dict)

    @property
    def num_channels(self) -> int:
        """Grey only if all are grey."""
        return 1 if set(self.channels) == {1} else 3

    @property
    def one_size(self) -> tuple[int, int] | None:
        """The size of all of them, or None where they differ."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else None

    def median_longer_side(self) -> int:
        """Half of the pictures have a longer side of at most so many pixels."""
        sides = sorted((max(size), n) for size, n in self.sizes.items())
        half, seen = (sum(n for _, n in sides) + 1) // 2, 0
        for side, n in sides:
            seen += n
            if seen >= half:
                return side
        return DEFAULT_SIDE


def read_headers(
    source: Source,
    bar: Progress,
    *,
    most: int | None = None,
    until: Callable[[Headers], bool] = lambda found: False,
    by_name: bool = False,
) -> Headers:
    """Read the headers of a source's images: of all, or of `most` of them, evenly spread, or `until` what was found is
    enough; `by_name` keeps what each is. Raises DataError where none can be read."""
    if most is not None and source.num_samples > most:
        source = source.every(-(-source.num_samples // most))
    found, reasons = Headers(), Counter[str]()
    bar.start(f"reading headers of {source.name}", source.num_samples, unit="images")
    for group in prefetch(_header, source.samples(), threads=threads_for(source)):
        bar.advance(len(group))
        for name, header in group:
            if isinstance(header, str):
                reasons[header] += 1
                continue
            found.sizes[header.height, header.width] += 1
            found.channels[header.channels] += 1
            if by_name:
                found.aspects[name] = header.width / header.height
        if until(found):
            break
    if not found.sizes:
        raise DataError(
            f"none of the {source.num_samples:,} pictures of {shown(source.location, 200)} can be read (most often: "
            f"{reasons.most_common(1)[0][0]})"
        )
    return found


def _header(sample: Sample) -> tuple[str, Header | str]:
    """A sample's name and header, or why there is none; it is quarantined for that when it is decoded."""
    try:
        content = sample.read()
        if isinstance(content, bytes):
            return sample.name, read_header(content)
        height, width, channels = content.shape
        return sample.name, Header(height, width, channels, "array")
    except ImageError as error:
        return sample.name, str(error)


def threads_for(source: Source) -> int | None:
    """Threads to read a source's samples with: none for small files, which are all Python's work."""
    return 0 if is_small(source.typical_bytes()) else None


def values_of(source: Source, excluded: Set[str]) -> Range:
    """The range of a source's values: an array's own; of files that of some that are no bytes, none of them test, or
    0..1 where bytes hold nothing else. Raises DataError where it cannot be known."""
    if source.value_range is not None:
        return source.value_range
    found: set[Range] = set()
    is_bytes = is_mask = False
    with quiet_pillow():
        for sample in some(source, _LOOKED_AT):
            if sample.name in excluded:
                continue
            if suffix_of(sample.name) in _OF_BYTES:
                is_bytes = True
                continue
            with suppress(ImageError):
                content = sample.read()
                if not isinstance(content, bytes):
                    if content.dtype != np.uint8:
                        found.add(range_in(content))
                    else:
                        is_bytes = True
                    continue
                header = read_header(content)
                if header.is_wide:
                    found.add(range_in(decode_reduced(content, lambda height, width: 1).pixels))
                elif not is_bytes and header.format not in _LOSSY:
                    _, high = limits_of(decode(content))
                    is_bytes, is_mask = high > 1, is_mask or high == 1
                else:
                    is_bytes = True
    if not found:
        return (0, 1) if is_mask and not is_bytes else BYTES
    top = max(high for _, high in found)
    if SIGNED in found and top > 1:
        raise DataError(
            f"{shown(source.location, 200)}: some pictures have values in -1..1, others up to {top:,}: give all in one "
            "range"
        )
    return SIGNED if SIGNED in found else (0, top)


def is_mostly_ink(source: Source, most: int, value_range: Range = BYTES) -> bool:
    """Whether 95 % of so many images, none of them test, already are as MNIST's are: bright ink on 0, its box and its
    middle where they belong."""
    num_ink = num_seen = 0
    with quiet_pillow():
        for sample in some(source, most):
            with suppress(ImageError):
                content = sample.read()
                pixels = decode(content) if isinstance(content, bytes) else to_uint8(content, value_range)
                num_ink += is_framed_ink(to_channels(pixels, 1)[:, :, 0])
                num_seen += 1
    return num_seen > 0 and num_ink >= _INK_SHARE * num_seen


def input_of(source: Source, options: PackOptions, bar: Progress, *, most: int | None = None) -> tuple[InputSpec, bool]:
    """The input that the options say; where they do not, the images' own size if all agree, else 32 pixels, and grey
    only if all are grey; and whether that is sure, or a guess from `most` of them. Arrays are framed as ink where
    nearly all of them are."""
    size, channels, framing, region = options.size, options.channels, options.framing, options.region
    value_range = options.value_range or values_of(source, set(options.exclude))
    if options.value_range is not None and isinstance(source, ArraySource) and source.value_range is not None:
        images = next(iter(source.splits.values())).images_NHWC
        try:
            check_range_of_set(np.asarray(images).dtype, source.value_range, options.value_range)
        except ImageError as error:
            raise DataError(f"{source.name}: {error}") from error
    if source.shape is not None:
        own = source.shape[:2] if region is None else (region[3], region[2])
        size = own if size is None else size
        channels = source.shape[2] if channels is None else channels
        if framing is None and channels == 1 and is_mostly_ink(source, _LOOKED_AT, value_range):
            framing = "ink"
    elif size is None and region is not None and max(region[2:]) <= 2 * DEFAULT_SIDE:
        size = (region[3], region[2])
    is_sure = True
    if size is None or channels is None:
        asks_size, asks_channels = size is None and region is None, channels is None

        def is_clear(found: Headers) -> bool:
            return (not asks_size or len(found.sizes) > 1) and (not asks_channels or 3 in found.channels)

        found = read_headers(source, bar, most=most, until=is_clear)
        is_sure = most is None or source.num_samples <= most or is_clear(found)
        one_size = found.one_size if region is None else None
        size = size or one_size or (DEFAULT_SIDE, DEFAULT_SIDE)
        channels = found.num_channels if channels is None else channels
    spec = InputSpec(size[0], size[1], channels, framing or "pad", region=region, value_range=value_range)
    return (spec if options.crop_frac is None else spec.replace(crop_frac=options.crop_frac)), is_sure
