"""`review`: labels in doubt, decided on one by one by a person, on a local page.

Owns which pictures come in which order, what is shown of each before it is decided on, and the keeping of decisions:
each is in the file before the next picture comes. Of test neither label nor answer is shown first, and pictures that
nobody doubts come in between: a person who is told what to see sees it.
"""

import asyncio
import io
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from convlens import files
from convlens.connections import MAX_CONNECTIONS
from convlens.data.image.decode import decode, quiet_pillow
from convlens.data.image.values import BYTES, Range, to_uint8
from convlens.data.packed.corrections import (
    Correction,
    check_corrections,
    moved_to,
    read_corrections,
    write_corrections,
)
from convlens.data.packed.pack import is_packed
from convlens.data.sources.base import ReadOptions, Sample
from convlens.data.sources.recognise import open_source
from convlens.errors import ConvlensError, ImageError, UsageError
from convlens.microscope.server import PROBLEMS, body_of, page_file, problem
from convlens.progress import Progress, open_progress
from convlens.records import Record, Text
from convlens.serving.door import DEFAULT_HOST, DEFAULT_PORT, Door, serve_app
from convlens.text import shown

_MOST_PX = 640  # a side of a picture as it is shown
_PAGE = "review.html"


class DecisionRequest(Record, frozen=True):
    """What `/api/review/decide` takes: which row, and `is` with a class, or drop or skip."""

    number: int
    decision: Text
    label: Text = ""


def review(
    labels: str | Path,
    data: Any,
    *,
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    data_root: str | Path | None = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    open: bool = False,
    allow_host: Sequence[str] | None = None,
    token: str | None = None,
    no_token: bool = False,
    max_connections: int = MAX_CONNECTIONS,
    progress: str | Progress = "auto",
) -> None:
    """Decide on labels in doubt on a local page, until Ctrl-C: keep, change, drop, skip, each by a key.

    `labels` is a table that `check` wrote (`write_labels`), of `data`; decisions are written into it as they are made,
    for `labels` of train and evaluate. The pictures are never touched. All others are as `serve` and `train` take
    them. Raises DataError where the table is of other data, UsageError.
    """
    door = Door(host, port, open, tuple(allow_host or ()), token, no_token, max_connections)
    door.check()
    read = ReadOptions(group, layout, label, path_column, label_column)
    with open_progress(progress) as bar:
        found = Review.opened(Path(labels), data, read, data_root)
        serve_app(found.app, door, f"the review ({found.num_decided:,} of {len(found.rows):,} decided)", bar)
        tally = Counter(row.decision for row in found.rows if row.decision)
        said = f" ({', '.join(f'{num:,} {decision}' for decision, num in sorted(tally.items()))})" if tally else ""
        bar.line(f"{shown(labels, 200)}: {found.num_decided:,} of {len(found.rows):,} decided{said}")


class Review:
    """The rows of a table, in the order in which they are shown, and the pictures that they are about."""

    def __init__(
        self,
        path: Path,
        rows: Sequence[Correction],
        classes: Sequence[str],
        read: dict[str, Callable[[], Any]],
        value_range: Range = BYTES,
    ) -> None:
        self.path, self.classes, self._read, self._range = path, tuple(classes), read, value_range
        self.rows, self._written = [*rows], files.sha256_of_file(path)
        tests = [n for n, row in enumerate(rows) if row.split == "test"]
        rest = [n for n, row in enumerate(rows) if row.split != "test"]
        self.order = [*rest, *sorted(tests, key=lambda n: _mixed(rows[n].path))]
        get, post = ["GET"], ["POST"]
        self._writing = asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/", lambda request: page_file(_PAGE), methods=get),
                Route("/page/{name}", lambda request: page_file(request.path_params["name"]), methods=get),
                Route("/api/review", self._status, methods=get),
                Route("/api/review/picture", self._picture, methods=get),
                Route("/api/review/decide", self._decide, methods=post),
            ],
            exception_handlers=dict.fromkeys((*PROBLEMS, ConvlensError, HTTPException, Exception), problem),
        )

    @classmethod
    def opened(cls, path: Path, data: Any, read: ReadOptions, data_root: str | Path | None) -> "Review":
        """Raises DataError, UsageError."""
        if is_packed(data):
            raise UsageError("review shows the pictures of a source: name the folder or table, not the packed set")
        rows = read_corrections(path)
        if not rows:
            raise UsageError(f"{shown(path, 200)} lists no sample: there is nothing to decide on")
        source = open_source(data, read, data_root=data_root)
        rows = moved_to(rows, (sample.name for sample in source.samples()))
        wanted = {row.path for row in rows}
        samples: dict[str, Sample] = {}
        label_of: dict[str, str] = {}
        for sample in source.samples():
            label_of[sample.name] = sample.label
            if sample.name in wanted:
                samples[sample.name] = sample
        hashes = dict.fromkeys(wanted, next(iter((source.hashes or {}).values()), ""))
        if source.hashes is None:
            hashes = {name: _hash(sample) for name, sample in samples.items()}
        check_corrections(rows, label_of, hashes, source.class_names, shown(source.location, 200))
        read_of = {name: sample.read for name, sample in samples.items()}
        return cls(path, rows, source.class_names, read_of, source.value_range or BYTES)

    @property
    def num_decided(self) -> int:
        """Rows with a decision; what was skipped is one too."""
        return sum(bool(row.decision) for row in self.rows)

    def _is_test(self, number: int) -> bool:
        return self.rows[number].split == "test"

    def told(self, number: int) -> dict[str, Any]:
        """What the page is told of a row: of test, before it is decided on, neither name, label nor suggestion."""
        row = self.rows[number]
        about: dict[str, Any] = {"number": number, "split": row.split, "decision": row.decision}
        if self._is_test(number) and row.decision in ("", "skip"):
            return about | {"blind": True}
        rest = {"path": row.path, "label": row.label, "suggested": row.suggested, "new_label": row.new_label}
        return about | rest | {"blind": False, "is_suspect": row.is_suspect}

    def decide(self, number: int, decision: str, label: str) -> None:
        """Keep a decision, in the file. Raises UsageError, StorageError."""
        if not 0 <= number < len(self.rows):
            raise UsageError(f"there is no row {number:,}")
        row = self.rows[number]
        if decision == "is":
            if label not in self.classes:
                raise UsageError(f"there is no class {shown(label)!r}")
            is_same = label == row.label
            row = row.replace(decision="keep" if is_same else "change", new_label="" if is_same else label)
        elif decision in ("drop", "skip"):
            row = row.replace(decision=decision, new_label="")
        else:
            raise UsageError(f"unknown decision {shown(decision)!r}: there are is, drop and skip")
        rows = [*self.rows[:number], row, *self.rows[number + 1 :]]
        if files.is_file(self.path) and files.sha256_of_file(self.path) != self._written:
            raise UsageError(f"{shown(self.path, 200)} was changed by somebody else: end this review and begin it anew")
        write_corrections(self.path, rows)
        self.rows, self._written = rows, files.sha256_of_file(self.path)

    async def _status(self, request: Request) -> Response:
        rows = [self.told(number) for number in self.order]
        return JSONResponse(
            {"rows": rows, "classes": self.classes, "file": str(self.path), "decided": self.num_decided}
        )

    async def _picture(self, request: Request) -> Response:
        text = request.query_params.get("number", "")
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < len(self.rows)):
            raise HTTPException(404, "there is no such picture")
        data = await asyncio.to_thread(partial(_png, self._read[self.rows[int(text)].path], self._range))
        return Response(data, media_type="image/png")

    async def _decide(self, request: Request) -> Response:
        asked = await body_of(request, DecisionRequest)
        async with self._writing:
            await asyncio.to_thread(self.decide, asked.number, asked.decision, asked.label)
        return JSONResponse({"row": self.told(asked.number), "decided": self.num_decided})


def _mixed(name: str) -> int:
    """An order that says nothing of what is suspected."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _hash(sample: Sample) -> str:
    try:
        content = sample.read()
    except ImageError:
        return ""
    return files.sha256_of(content) if isinstance(content, bytes) else ""


def _png(read: Callable[[], Any], value_range: Range) -> bytes:
    """A picture as it is, at most 640 px a side; small ones are enlarged in whole steps. Raises ImageError."""
    with quiet_pillow():
        content = read()
        pixels = decode(content) if isinstance(content, bytes) else to_uint8(np.asarray(content), value_range)
        flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        image = Image.fromarray(np.ascontiguousarray(flat))
        if max(image.size) > _MOST_PX:
            image.thumbnail((_MOST_PX, _MOST_PX))
        elif (times := 320 // max(image.size)) > 1:
            image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        written = io.BytesIO()
        image.save(written, "PNG")
        return written.getvalue()
