"""What has been packed so far, on disk: a packing that was broken off goes on where it was.

Owns the files of a folder on its way (docs/formats.md): images in parts, an entry for each sample of the source, the
lines of samples.jsonl without the splits, which are drawn at the end; and the commits, each of which says how much of
them is whole. What stands behind the last commit is cut off when the work goes on. No picture stays in memory.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import ImagesPart, part_name
from convlens.errors import RecordError
from convlens.records import Count, Name, Record, Text, read_document, write_sealed

ENTRY_DTYPE = np.dtype(
    [("status", "u1"), ("split", "u1"), ("flags", "u1"), ("label", "<u2"), ("now", "<u2"), ("height", "<u4"),
     ("width", "<u4"), ("pixels", "<u8"), ("content", "<u8"), ("group", "<u8")]
)  # fmt: skip
OK, QUARANTINED, EXCLUDED = 0, 1, 2
STATUSES = {"ok": OK, "quarantined": QUARANTINED, "excluded": EXCLUDED}
WIDE, LARGE, REDUCED, FIRST, GROUPED = 1, 2, 4, 8, 16
COMMIT_FILE = "packing.json"
_DOCUMENT, _VERSION = "convlens-packing", 1
_ENTRIES_FILE, _LINES_FILE = "entries.part", "lines.part"
_MOST_PART_BYTES = 4_000_000_000
_EVERY_S = 30.0  # between two commits; what comes out does not depend on it
_OFTEN = 64  # samples after which the clock is looked at: photographs take a tenth of a second each
_BLOCK, _MOST_REASONS = 4_096, 1_000


class _Commit(Record, frozen=True):
    """packing.json: of which packing (`key`) the folder is, for which input, whether that is sure, and how much of its
    files is whole: samples of the source, images, bytes of lines."""

    kind: Name
    format_version: Count
    key: Name
    input: InputSpec
    is_sure: bool
    num_samples: Count
    num_images: Count
    num_line_bytes: Count
    reasons: dict[Text, Count]


class Journal:
    """A folder that is being filled. `num_samples` of the source are in it (`num_committed` durably), `num_images` of
    them as images; `reasons` counts why others are not."""

    def __init__(self, folder: Path, key: str, spec: InputSpec, *, is_sure: bool) -> None:
        """Goes on after the last commit of the same packing for the same input, or begins anew."""
        self.folder, self.key, self.spec, self.is_sure = folder, key, spec, is_sure
        self._shape = (spec.height, spec.width, spec.channels)
        self._most = max(1, _MOST_PART_BYTES // math.prod(self._shape))  # images a part
        said = last_commit(folder, key)
        if said is None or said.input != spec:
            said = None
            files.empty_folder(folder)
        self.num_samples = 0 if said is None else said.num_samples
        self.num_images = 0 if said is None else said.num_images
        self.reasons = Counter[str]({} if said is None else said.reasons)
        self._waiting: list[tuple[int, ...]] = []
        self._entries = files.opened_to_write_on(folder / _ENTRIES_FILE, self.num_samples * ENTRY_DTYPE.itemsize)
        self._lines = files.opened_to_write_on(folder / _LINES_FILE, 0 if said is None else said.num_line_bytes)
        self._part: BinaryIO | None = None
        self.num_committed, self._committed_at = self.num_samples, time.monotonic()

    # ------------------------------------------------------------ while samples come

    def add(self, entry: tuple[int, ...], image: Pixels | None, line: dict[str, Any] | None, reason: str = "") -> None:
        """A sample: its fields in the order of ENTRY_DTYPE, its image, or the reason why there is none, and its line,
        without the split where there is one."""
        if image is not None:
            if self._part is None or self.num_images % self._most == 0:
                self._begin_part()
            assert self._part is not None
            self._part.write(np.ascontiguousarray(image).data)
            self.num_images += 1
        if line is not None:
            text = json.dumps(line)
            self._lines.write(f"{text if image is None else text[:-1]}\n".encode("ascii"))
        if image is None and (reason in self.reasons or len(self.reasons) < _MOST_REASONS):
            self.reasons[reason] += 1
        self.num_samples += 1
        self._waiting.append(entry)
        if len(self._waiting) >= _BLOCK:
            self._write_entries()
        if self.num_samples % _OFTEN == 0 and time.monotonic() - self._committed_at >= _EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Make all that was added so far durable, and say so. Raises OSError, StorageError."""
        self._write_entries()
        for file in filter(None, (self._part, self._lines, self._entries)):
            _make_durable(file)
        commit = _Commit(
            _DOCUMENT, _VERSION, self.key, self.spec, self.is_sure, self.num_samples, self.num_images,
            self._lines.tell(), dict(self.reasons),
        )  # fmt: skip
        write_sealed(self.folder / COMMIT_FILE, commit.to_json())
        self.num_committed, self._committed_at = self.num_samples, time.monotonic()

    def _write_entries(self) -> None:
        self._entries.write(np.array(self._waiting, ENTRY_DTYPE).tobytes())
        self._waiting.clear()

    def _begin_part(self) -> None:
        number, within = divmod(self.num_images, self._most)
        self._end_part()
        self._part = files.opened_to_write_on(self.folder / part_name(number), None if within else 0)
        self._write_header(self._most)
        self._part.truncate(self._part.tell() + within * math.prod(self._shape))
        self._part.seek(0, os.SEEK_END)

    def _write_header(self, num: int) -> None:
        """NumPy's header, which has the number of images and leaves room for it to grow."""
        assert self._part is not None
        self._part.seek(0)
        fields = {"descr": "|u1", "fortran_order": False, "shape": (num, *self._shape)}
        np.lib.format.write_array_header_1_0(self._part, fields)

    def _end_part(self) -> None:
        if self._part is not None:
            _make_durable(self._part)
            self._part.close()
            self._part = None

    # ------------------------------------------------------------ when all have come

    def parts(self) -> list[ImagesPart]:
        """End the images: what each of their files has."""
        if self.num_images % self._most and self._part is None:
            self._begin_part()  # it was all there when the work was broken off
        if self._part is not None:
            length = self._part.tell()
            self._write_header(self.num_images % self._most or self._most)
            self._part.seek(length)
            self._end_part()
        starts = range(0, self.num_images, self._most)
        return [ImagesPart(part_name(n), min(self._most, self.num_images - at)) for n, at in enumerate(starts)]

    def entries(self) -> NDArray[Any]:
        """The entries of all samples, (N,) of ENTRY_DTYPE, mapped."""
        self._write_entries()
        self._entries.flush()
        path = self.folder / _ENTRIES_FILE
        return np.memmap(path, ENTRY_DTYPE, "r") if self.num_samples else np.zeros(0, ENTRY_DTYPE)

    def lines(self, statuses: NDArray[Any], splits: Iterator[str]) -> Iterator[str]:
        """The lines of samples.jsonl, each packed one with its split, which come in the order of the images."""
        self._lines.flush()
        with files.open_regular(self.folder / _LINES_FILE) as file:
            for status, line in zip(statuses, map(bytes.decode, file), strict=True):
                yield f'{line[:-1]}, "split": "{next(splits)}"}}\n' if status == OK else line

    def end(self) -> None:
        """Remove what was needed on the way."""
        self.close()
        for name in (_ENTRIES_FILE, _LINES_FILE, COMMIT_FILE):
            files.remove_file(self.folder / name)

    def close(self) -> None:
        """Close its files, whatever is in them."""
        self._end_part()
        self._entries.close()
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def last_commit(folder: Path, key: str) -> _Commit | None:
    """The last commit of a folder, if it is of this packing and nothing in it is shorter than it says."""
    try:
        said = read_document(folder / COMMIT_FILE, _DOCUMENT, {_VERSION: _Commit}, sealed_from=_VERSION)
    except RecordError:
        return None
    image_bytes = said.input.height * said.input.width * said.input.channels
    most = max(1, _MOST_PART_BYTES // image_bytes)
    least = {_ENTRIES_FILE: said.num_samples * ENTRY_DTYPE.itemsize, _LINES_FILE: said.num_line_bytes}
    for number, start in enumerate(range(0, said.num_images, most)):
        least[part_name(number)] = min(most, said.num_images - start) * image_bytes
    there = all(files.is_file(folder / name) and (folder / name).stat().st_size >= num for name, num in least.items())
    return said if there and said.key == key else None


def _make_durable(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
