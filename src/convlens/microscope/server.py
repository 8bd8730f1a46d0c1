"""The microscope's server: routes, one worker for inference behind a short queue, errors as one line of JSON.

Owns HTTP. What the answers are is `session.py`'s and `lab.py`'s business.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.resources import files as package_files
from itertools import count
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from convlens.classifier import Classifier, load
from convlens.errors import ConvlensError, RecordError, SentenceError, UsageError
from convlens.evaluation.compare import compare
from convlens.metrics import Score
from convlens.microscope.lab import Lab, LabRequest, explained
from convlens.microscope.session import GoneError, Session, models_here
from convlens.microscope.teaching import DEFAULT_FOLDER, Teaching
from convlens.records import Record, Text, parsed
from convlens.serving.bodies import parts_of
from convlens.text import shown

MAX_UPLOAD_BYTES, MAX_JSON_BYTES = 32 << 20, 1 << 20
_MAX_WAITING, _MAX_HELD_BYTES = 8, 8 * MAX_UPLOAD_BYTES
_MAX_OPEN = 4  # models
_MODEL_HEADER = "Convlens-Model"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class SentenceRequest(Record, frozen=True):
    """What `/api/explain` takes."""

    sentence: Text


class ClassRequest(Record, frozen=True):
    """What `/api/teach/remove` takes."""

    name: Text


class CompareRequest(Record, frozen=True):
    """What `/api/compare` takes: two models, by the names that `/api/models` has."""

    one: Text
    other: Text


class BurstRequest(Record, frozen=True):
    """What `/api/teach/discard` takes: a class, and one of its bursts."""

    name: Text
    burst: Text


class _BusyError(Exception):
    """The queue of the worker is full."""


class Microscope:
    """The open models, the lab, the folder that is collected into, and the one worker; `app` is what a server runs. A
    tab says in a header which model it looks into."""

    def __init__(self, classifier: Classifier, collect: Path = DEFAULT_FOLDER) -> None:
        self._numbers = count(1)
        self._device = classifier.device
        first = Session(classifier, self._numbers)
        self._first = first.name
        self._sessions = OrderedDict({first.name: first})  # those that were asked for last, and the first one
        self.lab, self.teaching = Lab(), Teaching(collect)
        self._worker = ThreadPoolExecutor(1, "convlens")
        self._num_waiting = self._num_held = 0
        self._measuring, self._training = asyncio.Lock(), asyncio.Lock()
        get, post = ["GET"], ["POST"]
        self.app = Starlette(
            routes=[
                Route("/", self._index, methods=get),
                Route("/page/{name}", self._file, methods=get),
                Route("/api/model", self._model, methods=get),
                Route("/api/models", self._models, methods=get),
                Route("/api/see", self._see, methods=post),
                Route("/api/live", self._live, methods=post),
                Route("/api/maps", self._maps, methods=get),
                Route("/api/values", self._values, methods=get),
                Route("/api/thumbnails", self._thumbnails, methods=get),
                Route("/api/value", self._value, methods=get),
                Route("/api/attribution", self._attribution, methods=get),
                Route("/api/report", self._report, methods=get),
                Route("/api/images", self._images, methods=get),
                Route("/api/explain", self._explain, methods=post),
                Route("/api/lab", self._lab_status, methods=get),
                Route("/api/lab/train", self._lab_train, methods=post),
                Route("/api/lab/stop", self._lab_stop, methods=post),
                Route("/api/lab/open", self._lab_open, methods=post),
                Route("/api/compare", self._compare, methods=post),
                Route("/api/teach", self._teach_status, methods=get),
                Route("/api/teach/picture", self._teach_picture, methods=post),
                Route("/api/teach/discard", self._teach_discard, methods=post),
                Route("/api/teach/remove", self._teach_remove, methods=post),
                Route("/api/teach/prepare", self._teach_prepare, methods=post),
                Route("/api/teach/train", self._teach_train, methods=post),
            ],
            exception_handlers=dict.fromkeys((*PROBLEMS, ConvlensError, HTTPException, Exception), problem),
        )

    def close(self) -> None:
        """End the lab's training and the worker."""
        self.lab.close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """A picture's bytes, of which only so many are held at once. A place in the queue is for requests that are
        complete: whoever sends slowly keeps nobody waiting. Raises _BusyError, HTTPException."""
        parts: list[bytes] = []
        try:
            async for part in parts_of(request, MAX_UPLOAD_BYTES):
                parts.append(part)
                self._num_held += len(part)
                if self._num_held > _MAX_HELD_BYTES:
                    raise _BusyError
            yield b"".join(parts)
        finally:
            self._num_held -= sum(map(len, parts))

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the few requests that are worked on or wait. Raises _BusyError where there is none."""
        if self._num_waiting >= _MAX_WAITING:
            raise _BusyError
        self._num_waiting += 1
        try:
            yield
        finally:
            self._num_waiting -= 1

    async def _in_worker(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    async def _work(self, job: Callable[[], T]) -> T:
        """Run a job in the worker. Raises _BusyError where too many wait already."""
        async with self._place():
            return await self._in_worker(job)

    # ------------------------------------------------------------ models

    async def _session(self, request: Request) -> Session:
        """The model that a tab looks into, opened if need be: the one that was named at the start, or a run that is
        listed. Raises HTTPException where there is no such run."""
        name = unquote(request.headers.get(_MODEL_HEADER, "")) or self._first
        if name not in self._sessions:
            place = (await asyncio.to_thread(models_here)).get(name)
            if place is None:
                raise HTTPException(404, f"there is no model {shown(name, 200)} here any more")
            return await self._opened(place.model)
        self._sessions.move_to_end(name)
        return self._sessions[name]

    async def _opened(self, place: Path) -> Session:
        """A model more; of many the one that nobody has asked for for longest is closed."""
        session = await self._work(lambda: Session(load(place, self._device), self._numbers))
        self._sessions[session.name] = session
        while len(self._sessions) > _MAX_OPEN:
            del self._sessions[next(name for name in self._sessions if name != self._first)]
        return session

    async def _model(self, request: Request) -> Response:
        return JSONResponse(await self._work((await self._session(request)).model))

    async def _models(self, request: Request) -> Response:
        """What a tab can look into, the newest first."""
        here = await asyncio.to_thread(models_here)
        about = {name: run.status if run.status != "complete" else _in_short(run.val) for name, run in here.items()}
        first = {self._first: _in_short(self._sessions[self._first].classifier.card.metrics.val)}
        return JSONResponse([{"name": name, "val": val} for name, val in (first | about).items()])

    # ------------------------------------------------------------ the page

    async def _index(self, request: Request) -> Response:
        return page_file("index.html")

    async def _file(self, request: Request) -> Response:
        return page_file(request.path_params["name"])

    # ------------------------------------------------------------ looking

    async def _see(self, request: Request) -> Response:
        session = await self._session(request)
        if "val" in request.query_params:
            async with self._measuring:
                await asyncio.to_thread(session.dataset)
            return _binary(await self._work(partial(session.see_validation, _number(request, "val"))))
        async with self._body(request) as data:
            return _binary(await self._work(partial(session.see, data)))

    async def _live(self, request: Request) -> Response:
        session, wish = await self._session(request), "grad_cam" in request.query_params
        async with self._body(request) as data:
            return _binary(await self._work(partial(session.live, data, wants_grad_cam=wish)))

    async def _maps(self, request: Request) -> Response:
        layers = [a for a in request.query_params.get("layers", "").split(",") if a]
        session = await self._session(request)
        return _binary(await self._work(partial(session.maps, _number(request, "id"), layers[:1000])))

    async def _values(self, request: Request) -> Response:
        session, address = await self._session(request), request.query_params.get("layer", "")
        return _binary(await self._work(partial(session.values, _number(request, "id"), address)))

    async def _thumbnails(self, request: Request) -> Response:
        layers = [a for a in request.query_params.get("layers", "").split(",") if a]
        session = await self._session(request)
        return _binary(await self._work(partial(session.thumbnails, _number(request, "id"), layers[:100])))

    async def _value(self, request: Request) -> Response:
        address = request.query_params.get("layer", "")
        unit = tuple(_whole(part, "unit") for part in request.query_params.get("unit", "").split(","))
        session = await self._session(request)
        return _binary(await self._work(partial(session.value, _number(request, "id"), address, unit)))

    async def _attribution(self, request: Request) -> Response:
        method = request.query_params.get("method", "")
        session = await self._session(request)
        versus = _number(request, "versus") if request.query_params.get("versus") else None
        ask = partial(session.attribution, _number(request, "id"), method, _number(request, "label"), versus)
        return _binary(await self._work(ask))

    # ------------------------------------------------------------ measuring

    async def _measured(self, request: Request) -> Session:
        """A tab's model, its validation images measured slice by slice, so that the pen is answered in between.
        Opening the data set may mean to pack it anew: that is no work for the one worker."""
        session = await self._session(request)
        async with self._measuring:
            await asyncio.to_thread(session.dataset)
            while not await self._in_worker(session.measure_some):
                pass
        return session

    async def _report(self, request: Request) -> Response:
        return _binary(await self._work((await self._measured(request)).report))

    async def _images(self, request: Request) -> Response:
        cell = [_number(request, name) if name in request.query_params else None for name in ("true", "predicted")]
        first, most = _number(request, "first", 0), min(200, _number(request, "most", 60))
        return _binary(await self._work(partial((await self._measured(request)).images, cell[0], cell[1], first, most)))

    # ------------------------------------------------------------ the lab

    async def _explain(self, request: Request) -> Response:
        sentence = (await body_of(request, SentenceRequest)).sentence
        card = (await self._session(request)).classifier.card
        return JSONResponse(await asyncio.to_thread(explained, card, sentence))

    async def _lab_status(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.lab.status))

    async def _lab_train(self, request: Request) -> Response:
        asked, session = await body_of(request, LabRequest), await self._session(request)
        async with self._measuring:
            dataset = await asyncio.to_thread(session.dataset)
        async with self._training:
            await asyncio.to_thread(self.lab.train, session.classifier.card, dataset, self._device, asked)
        return JSONResponse(await asyncio.to_thread(self.lab.status))

    async def _lab_stop(self, request: Request) -> Response:
        self.lab.stop()
        return JSONResponse(await asyncio.to_thread(self.lab.status))

    async def _lab_open(self, request: Request) -> Response:
        if self.lab.place is None or self.lab.is_busy:
            raise UsageError("there is no trained network to open yet")
        return JSONResponse(await self._work((await self._opened(self.lab.place)).model))

    async def _compare(self, request: Request) -> Response:
        """Two models on the validation images, in words."""
        asked, here = await body_of(request, CompareRequest), await asyncio.to_thread(models_here)
        both = [here.get(name, Path(name)) for name in (asked.one, asked.other) if name in here or name == self._first]
        if len(both) < 2:
            raise HTTPException(404, "there is no such model here any more")
        found = await self._work(partial(compare, both, split="val", device=self._device, progress="none"))
        _, _, rows = found.tables()[0]
        return JSONResponse({"lines": found.lines(), "rows": [row[:2] for row in rows]})

    # ------------------------------------------------------------ teaching

    async def _teach_status(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.teaching.status))

    async def _teach_picture(self, request: Request) -> Response:
        name, burst, suffix = (request.query_params.get(key) for key in ("name", "burst", "suffix"))
        async with self._body(request) as data, self._place():
            burst = await asyncio.to_thread(self.teaching.add, name or "", burst, suffix or "", data)
        return JSONResponse({**await asyncio.to_thread(self.teaching.status), "burst": burst})

    async def _teach_discard(self, request: Request) -> Response:
        asked = await body_of(request, BurstRequest)
        await asyncio.to_thread(self.teaching.discard, asked.name, asked.burst)
        return await self._teach_status(request)

    async def _teach_remove(self, request: Request) -> Response:
        await asyncio.to_thread(self.teaching.remove, (await body_of(request, ClassRequest)).name)
        return await self._teach_status(request)

    async def _teach_prepare(self, request: Request) -> Response:
        await self._work(partial(self.teaching.prepare, self._device))
        return await self._teach_status(request)

    async def _teach_train(self, request: Request) -> Response:
        # In the one worker: two threads cannot each have torch settled as they need it.
        result = await self._work(partial(self.teaching.teach, self._device))
        return JSONResponse(await self._work((await self._opened(result.run.path)).model))


# ---------------------------------------------------------------- requests


async def body_of(request: Request, kind: type[R]) -> R:
    """What a request says, as JSON of this kind. Raises HTTPException."""
    try:
        return parsed(b"".join([part async for part in parts_of(request, MAX_JSON_BYTES)]), kind, "the request")
    except RecordError as error:
        raise HTTPException(400, str(error)) from None


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    return _whole(text or "", name)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise HTTPException(400, f"{name} must be a whole number, not {shown(text, 40)!r}")
    return int(text)


# ---------------------------------------------------------------- answers


@cache
def _page() -> dict[str, bytes]:
    page = package_files("convlens.microscope").joinpath("page")
    return {file.name: file.read_bytes() for file in page.iterdir() if file.is_file()}


def page_file(name: str) -> Response:
    """A file of the page. Raises HTTPException where there is none."""
    if name not in _page():
        raise HTTPException(404, f"there is no page file {shown(name, 60)}")
    suffix = name[name.rfind(".") :]
    return Response(_page()[name], media_type=_TYPES.get(suffix, "application/octet-stream"))


def _in_short(val: Score | None) -> str:
    """A validation score as its interval, so that nobody takes the better of two that chance may have put so."""
    if val is None:
        return ""
    low, high = val.interval
    return f"validation {100 * low:.1f} to {100 * high:.1f} %"


def _binary(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")


PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    _BusyError: (503, "too many pictures at once: try again in a moment"),
    ClientDisconnect: (400, "the request broke off"),
    MemoryError: (400, "out of memory: choose a smaller picture"),
}


async def problem(request: Request, error: Exception) -> Response:
    """What went wrong, as one line of JSON. After a mistake of ours the server itself writes the traceback to its
    terminal."""
    if isinstance(error, SentenceError):
        return JSONResponse({"error": error.reason, "column": error.column}, 400)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, ConvlensError):
        return JSONResponse({"error": str(error)}, 410 if isinstance(error, GoneError) else 400)
    status, line = PROBLEMS.get(type(error), (500, "a mistake of convlens: its terminal shows more"))
    return JSONResponse({"error": line}, status, headers={"Retry-After": "1"} if status == 503 else None)
