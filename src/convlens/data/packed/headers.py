"""What the pictures of a source look like, from their headers alone: sizes and channels.

Owns the reading of headers and the input that follows from them where no option says one. Decodes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from convlens.data.image.decode import Header, read_bytes, read_header
from convlens.data.image.framing import InputSpec
from convlens.data.packed.options import PackOptions
from convlens.data.prefetch import prefetch, are_small
from convlens.data.sources.base import FileSample, FileSource
from convlens.errors import DataError, ImageError
from convlens.progress import Progress
from convlens.text import shown

DEFAULT_SIDE = 32


@dataclass
class Headers:
    """Counts over the headers that could be read: (height, width) of the upright pictures, and channels 1 or 3."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)

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
    source: FileSource, bar: Progress, *, most: int | None = None, until_clear: bool = False, threads: int | None = None
) -> Headers:
    """Read the headers of a source's pictures: of all, or of `most` of them, evenly spread.

    `until_clear` stops as soon as the others can change neither `one_size` nor `num_channels`. Raises DataError where
    none can be read.
    """
    samples = source.samples
    if most is not None and len(samples) > most:
        samples = samples[:: -(-len(samples) // most)]
    found = Headers()
    bar.start(f"reading headers of {source.name}", len(samples), unit="images")
    for group in prefetch(_header, samples, threads=threads):
        bar.advance(len(group))
        for header in group:
            if header is not None:
                found.sizes[header.height, header.width] += 1
                found.channels[header.channels] += 1
        if until_clear and len(found.sizes) > 1 and 3 in found.channels:
            break
    if not found.sizes:
        raise DataError(f"none of the {len(samples):,} pictures of {shown(source.location, 200)} can be read")
    return found


def _header(sample: FileSample) -> Header | None:
    try:
        return read_header(read_bytes(sample.path))
    except ImageError:
        return None  # it is quarantined, with its reason, when it is decoded


def threads_for(source: FileSource) -> int | None:
    """Threads to read a source's files with: none for small files, which are all Python's work."""
    return 0 if are_small([sample.path for sample in source.samples]) else None


def input_of(source: FileSource, options: PackOptions, bar: Progress) -> InputSpec:
    """The input that the options say; where they do not, the pictures' own size if all agree, else 32 pixels, and grey
    only if all are grey."""
    size, channels = options.size, options.channels
    if size is None and options.region is not None:
        size = (options.region[3], options.region[2]) if max(options.region[2:]) <= 2 * DEFAULT_SIDE else None
    if size is None or channels is None:
        found = read_headers(source, bar, until_clear=True, threads=threads_for(source))
        if size is None:
            own = found.one_size if options.region is None else None
            size = own if own is not None else (DEFAULT_SIDE, DEFAULT_SIDE)
        channels = found.num_channels if channels is None else channels
    return InputSpec(size[0], size[1], channels, options.framing or "pad", region=options.region)
