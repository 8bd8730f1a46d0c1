"""The prediction server's app: routes, errors as one line of JSON, metrics, a line of JSON a request.

Owns HTTP. Batches are `batching.py`'s, the port and its clients `connections.py`'s.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
from prometheus_client.multiprocess import MultiProcessCollector
from python_multipart.exceptions import MultipartParseError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from convlens.errors import ConvlensError, ImageError, UsageError
from convlens.runtime.kept import is_to_keep, keep_picture
from convlens.runtime.prediction import Asked
from convlens.serving.batching import MAX_WAITING, Answered, Batcher, BusyError
from convlens.serving.bodies import parts_of
from convlens.serving.described import openapi, page
from convlens.serving.predictors import Predictor
from convlens.text import shown

MAX_PICTURE_BYTES, MAX_BATCH_BYTES, MAX_PICTURES = 32 << 20, 64 << 20, 64
_MAX_HELD_BYTES = 512 << 20  # of bodies, in memory
_MOST_ENDED = 10_000  # requests whose counts are not handed over yet
_NOTHING_ASKED = Asked()
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Api:
    """A predictor over HTTP; `app` is what a server runs. Pictures that `keep` says are kept in a folder; a line of
    JSON for each request goes to `log`, if there is one."""

    def __init__(
        self,
        predictor: Predictor,
        name: str,
        keep: str | None = None,
        kept: Path = Path("kept"),
        log: Callable[[str], object] | None = None,
    ) -> None:
        self.predictor, self.name, self._log = predictor, name, log
        self._keep, self._kept = keep, kept
        self.batcher = Batcher(predictor)
        self.is_ready, self._num_held = False, 0
        self._metrics = _Metrics(predictor, self.batcher)
        get = ["GET"]
        self._predictions = {"/predict": self._predict, "/predict/batch": self._predict_batch}
        self._others = Starlette(
            routes=[
                Route("/", self._index, methods=get),
                *(Route(path, self._not_post, methods=get) for path in self._predictions),
                Route("/healthz", self._health, methods=get),
                Route("/readyz", self._ready, methods=get),
                Route("/metrics", self._show_metrics, methods=get),
                Route("/openapi.json", self._openapi, methods=get),
            ],
            exception_handlers=dict.fromkeys((HTTPException, Exception), problem),
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a server runs. Predictions go past Starlette's routing, which takes as long as a small network."""
        handler = self._predictions.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None or scope["method"] != "POST":
            await self._others(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response = await self._answered(handler, request)
        await response(scope, receive, send)

    def warm_up(self) -> None:
        """Answer a blank picture, so that the first request does not pay for what is made once."""
        spec = self.predictor.spec
        shape = spec.height, spec.width, spec.channels
        for num in (1, 32):
            list(self.predictor.answers([np.zeros(shape, np.uint8)] * num, Asked()))
        self.is_ready = True

    def close(self) -> None:
        """End the threads."""
        self.batcher.close()

    # ------------------------------------------------------------ answers

    async def _predict(self, request: Request) -> Response:
        asked = _asked(request)
        pictures = [one async for one in self._pictures(request, 1, MAX_PICTURE_BYTES)]
        answered = await self._answer(*pictures[0], asked)
        request.state.row = answered.answer.row
        return JSONResponse(_json(answered))

    async def _predict_batch(self, request: Request) -> Response:
        asked = _asked(request)
        pictures = [one async for one in self._pictures(request, MAX_PICTURES, MAX_BATCH_BYTES)]
        request.state.num = len(pictures)
        if self.batcher.num_waiting + len(pictures) > MAX_WAITING:
            raise BusyError
        found = await asyncio.gather(*(self._answer(*one, asked) for one in pictures), return_exceptions=True)
        rows = []
        for (name, _), one in zip(pictures, found, strict=True):
            if isinstance(one, Answered):
                rows.append({"name": name} | _json(one))
            elif isinstance(one, ImageError):
                rows.append({"name": name, "error": str(one)})
            else:
                raise one
        return JSONResponse({"predictions": rows})

    async def _answer(self, name: str | None, data: bytes, asked: Asked) -> Answered:
        found = await self.batcher.answer(data, asked)
        if is_to_keep(found.answer, self._keep):
            answer = replace(found.answer, path=name)
            logits = await asyncio.to_thread(self.predictor.logits, found.framed)
            await asyncio.to_thread(keep_picture, self._kept, data, answer, logits)
        return found

    # ------------------------------------------------------------ what comes in

    async def _pictures(self, request: Request, most: int, most_bytes: int) -> AsyncIterator[tuple[str | None, bytes]]:
        """The pictures of a request, with their names: the body itself, or the files of a form. Raises HTTPException,
        BusyError."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            yield None, b"".join([part async for part in self._parts(request, most_bytes)])
            return
        num = 0
        async for upload in self._files(request, most, most_bytes):
            data = await upload.read()
            num += 1
            yield upload.filename, data
        if not num:
            raise HTTPException(400, "the form has no file: send the picture as a file, or as the body itself")

    async def _files(self, request: Request, most: int, most_bytes: int) -> AsyncIterator[UploadFile]:
        """The files of a form. Raises HTTPException."""
        parser = MultiPartParser(
            request.headers, self._parts(request, most_bytes), max_files=most, max_fields=16, max_part_size=1 << 16
        )
        try:
            form = await parser.parse()
        except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
            message = getattr(error, "message", None) or str(error) or "it is no form"
            status = 413 if message.startswith("Too many") else 400
            raise HTTPException(status, f"the form cannot be read: {shown(message, 120)}") from None
        try:
            for _, value in form.multi_items():
                if isinstance(value, UploadFile):
                    yield value
        finally:
            await form.close()

    async def _parts(self, request: Request, most: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes, counted among all that is held. Raises HTTPException, BusyError where that is too
        much."""
        async for part in parts_of(request, most):
            request.state.num_held += len(part)
            self._num_held += len(part)
            if self._num_held > _MAX_HELD_BYTES:
                raise BusyError
            yield part

    # ------------------------------------------------------------ about the server

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(page(self.name, self.predictor))

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self.name, self.predictor))

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        return PlainTextResponse("ready\n" if self.is_ready else "not ready\n", 200 if self.is_ready else 503)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def _not_post(self, request: Request) -> Response:
        raise HTTPException(405, f"{request.url.path} takes a picture by POST")

    async def _answered(self, handler: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
        """A request's answer, counted, timed and written down, however it ends."""
        start, path, request.state.num_held = time.perf_counter(), request.scope["path"], 0
        status = 499  # as nginx calls a client that went
        try:
            try:
                response = await handler(request)
            except Exception as error:
                response = await problem(request, error)
            status = response.status_code
            return response
        finally:
            self._num_held -= request.state.num_held
            seconds = time.perf_counter() - start
            self._metrics.count(path, status, seconds)
            if self._log is not None:
                self._log(_line(request, path, status, seconds))


def _line(request: Request, path: str, status: int, seconds: float) -> str:
    """A request as a line of JSON: no picture, no name of one, no token."""
    said: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": request.method,
        "path": path,
    }
    said |= {"status": status, "ms": round(1_000 * seconds, 2)}
    state = request.state
    said |= {name: getattr(state, name) for name in ("row", "num", "error") if getattr(state, name, None) is not None}
    return json.dumps(said)


def _asked(request: Request) -> Asked:
    """`top` and `min_probability` of the address. Raises UsageError."""
    if not request.scope["query_string"]:
        return _NOTHING_ASKED
    known = {"top": 3, "min_probability": 0.0}
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        raise UsageError(f"unknown parameter {shown(unknown, 40)!r}: there are {', '.join(known)}")
    values: dict[str, Any] = dict(known)
    for name, text in request.query_params.items():
        try:
            values[name] = int(text) if name == "top" else float(text)
        except ValueError:
            values[name] = text
    return Asked(**values)


def _json(found: Answered) -> dict[str, Any]:
    said = found.answer.to_json()
    del said["path"]
    return said


async def problem(request: Request, error: Exception) -> Response:
    """What went wrong, as one line of JSON. After a mistake of ours its traceback goes to standard error."""
    status, line = 500, "a mistake of convlens: its terminal shows more"
    if isinstance(error, HTTPException):
        status, line = error.status_code, str(error.detail)
    elif isinstance(error, ImageError):
        status, line = 422, str(error)
    elif isinstance(error, UsageError):
        status, line = 400, str(error)
    elif isinstance(error, BusyError):
        status, line = 503, "too many pictures at once: try again in a moment"
    elif isinstance(error, ClientDisconnect):
        status, line = 400, "the request broke off"
    elif isinstance(error, MemoryError):
        status, line = 422, "out of memory: send a smaller picture"
    elif isinstance(error, ConvlensError):
        line = str(error)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    request.state.error = line
    return JSONResponse({"error": line}, status, headers={"Retry-After": "1"} if status == 503 else None)


class _Metrics:
    """What Prometheus asks for: requests, their seconds, pictures and batches; of all workers together, where there are
    several (they share files in PROMETHEUS_MULTIPROC_DIR). What is counted is handed over when somebody asks, and at
    times: for each request that would take longer than a small network."""

    def __init__(self, predictor: Predictor, batcher: Batcher) -> None:
        own: dict[str, Any] = {"registry": prometheus_client.CollectorRegistry()}
        self._registry, self._batcher = own["registry"], batcher
        counter, gauge = prometheus_client.Counter, prometheus_client.Gauge
        self._requests = counter("convlens_requests", "Requests, by path and status.", ["path", "status"], **own)
        self._seconds = prometheus_client.Histogram(
            "convlens_request_seconds", "Seconds to the answer.", ["path"], buckets=_SECONDS, **own
        )
        self._pictures = counter("convlens_pictures", "Pictures answered.", **own)
        self._batches = counter("convlens_batches", "Batches that they were put together into.", **own)
        words = "Pictures that are worked on or wait."
        self._waiting = gauge("convlens_waiting", words, multiprocess_mode="livesum", **own)
        info = gauge("convlens_model", "The model.", ["sha256"], multiprocess_mode="max", **own)
        info.labels(predictor.model_sha256).set(1)
        self._ended: list[tuple[str, int, float]] = []
        self._counted = 0, 0
        self._are_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ

    def count(self, path: str, status: int, seconds: float) -> None:
        """A request that has ended."""
        self._ended.append((path, status, seconds))
        if self._are_shared or len(self._ended) >= _MOST_ENDED:
            self._hand_over()

    def _hand_over(self) -> None:
        ended, self._ended = self._ended, []
        for path, status, seconds in ended:
            self._requests.labels(path, status).inc()
            self._seconds.labels(path).observe(seconds)
        batcher = self._batcher
        self._waiting.set(batcher.num_waiting)
        self._pictures.inc(batcher.num_answered - self._counted[0])
        self._batches.inc(batcher.num_batches - self._counted[1])
        self._counted = batcher.num_answered, batcher.num_batches

    def text(self) -> bytes:
        """In Prometheus's text format."""
        self._hand_over()
        registry = self._registry
        if self._are_shared:
            registry = prometheus_client.CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        found: bytes = prometheus_client.generate_latest(registry)
        return found
