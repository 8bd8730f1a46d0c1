"""Serving on a port under bad clients: deadlines, a limit of connections, one line for what is no request.

Owns the port, the protocol of a connection and the server that runs them, for the microscope's page and whatever else
is served. Knows nothing of what is served; who may ask, the app says by calling the scope's `let_in`.
"""

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from httptools import HttpRequestParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from convlens.errors import UsageError
from convlens.text import shown

HEADERS_S, BODY_PROGRESS_S, BODY_S, IDLE_S = 5.0, 10.0, 30.0, 15.0
MAX_CONNECTIONS = 64
_EVICT_AFTER_S = 0.5  # a connection that has not shown who it is makes room for another one after so long
_LINGER_S = 0.2  # so that an answer is read before the connection is reset
_GRACE_S = 2  # for what is being answered when the server ends
_TRIED_PORTS = 20
_MAX_HEAD_BYTES = 1 << 15  # of a request's address and headers
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass
class Counts:
    """What was turned away, in connections and requests."""

    refused: int = 0
    not_accepted: int = 0
    too_slow: int = 0
    not_http: int = 0

    def __str__(self) -> str:
        words = {"refused": self.refused, "not accepted": self.not_accepted}
        words |= {"too slow": self.too_slow, "no HTTP": self.not_http}
        return ", ".join(f"{number:,} {word}" for word, number in words.items() if number)


@dataclass
class Limits:
    """How many connections a server holds, and the deadlines of each: seconds for a request's headers, for its body
    without progress and in all, and of a connection that asks nothing or does not read its answer."""

    connections: int = MAX_CONNECTIONS
    headers_s: float = HEADERS_S
    body_progress_s: float = BODY_PROGRESS_S
    body_s: float = BODY_S
    idle_s: float = IDLE_S
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.connections = max(2, min(self.connections, _most_descriptors() // 2))


def _most_descriptors() -> int:
    most = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else 512  # Windows has no such limit
    return most if most > 0 else 1_000_000  # unlimited


class GuardedProtocol(HttpToolsProtocol):
    """A connection with deadlines. It counts as known once the app has let one of its requests in; those that are not
    known hold at most half of the places."""

    limits: Limits
    _answered: RequestResponseCycle | None = None  # of requests sent together the one under way, `cycle` is the last
    _stage: Literal["between", "headers", "body"] = "between"  # of the request that comes in
    _read = _left = b""  # what is being read, and what is then
    _num_head = _num_unseen = 0  # bytes of its head; bytes of which the parser has made nothing yet

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app_state = {**self.app_state, "let_in": self._let_in}
        self.is_known = self.is_refused = False
        self.opened_s = self.loop.time()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    def _let_in(self) -> None:
        self.is_known = True

    @property
    def is_answering(self) -> bool:
        """Whether a request is there and not answered yet."""
        return self._answered is not None and not self._answered.response_complete

    # ------------------------------------------------------------ deadlines

    def _set(self, name: str, seconds: float | None) -> None:
        """Set a deadline anew, or (None) take it away."""
        if (old := self._deadlines.pop(name, None)) is not None:
            old.cancel()
        if seconds is not None:
            self._deadlines[name] = self.loop.call_later(seconds, self._too_slow, name)

    def _too_slow(self, name: str) -> None:
        self.limits.counts.too_slow += 1
        self.turn_away(408, f"the request took too long ({name}): send it at once")

    def turn_away(self, status: int, message: str, *, is_ending: bool = False) -> None:
        """Answer in one line, unless an answer has begun, and close the connection."""
        for name in list(self._deadlines):
            self._set(name, None)
        self._unset_keepalive_if_required()
        self.is_refused = True
        self.connections.discard(self)
        self.pipeline.clear()
        has_begun = False
        if (one := self._answered) is not None:
            has_begun = one.response_started and (not one.response_complete or self._stage == "body")
            one.disconnected = True
            one.message_event.set()
        if self.transport.is_closing():
            return
        if has_begun:
            self.transport.abort()
            return
        body = json.dumps({"error": message}).encode()
        retry = "retry-after: 1\r\n" if status == 503 else ""
        head = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}\r\ncontent-type: application/json\r\n{retry}"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        if is_ending:
            self.transport.close()
        else:
            self.loop.call_later(_LINGER_S, self.transport.abort)

    # ------------------------------------------------------------ the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # TCP has no other
        self.timeout_keep_alive = self.limits.idle_s  # type: ignore[assignment]  # seconds, whole in its declaration
        if self._is_too_many():
            self.limits.counts.refused += 1
            self.turn_away(503, "too many connections: try again in a moment")
            return
        self._set("headers", self.limits.headers_s)

    def _is_too_many(self) -> bool:
        """Whether there is no place for this one, nor one that can be made."""
        most = self.limits.connections
        others = [one for one in self.connections if one is not self and isinstance(one, GuardedProtocol)]
        unknown = [one for one in others if not one.is_known]
        if len(others) < most and len(unknown) < most // 2:
            return False
        waiting = [one for one in unknown if not one.is_answering]
        oldest = min(waiting, key=lambda one: one.opened_s, default=None)
        if oldest is None or self.loop.time() - oldest.opened_s < _EVICT_AFTER_S:
            return True
        self.limits.counts.refused += 1
        oldest.turn_away(503, "too many connections: try again in a moment")
        return False

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            return
        self._num_unseen += len(data)
        idle, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        self._left = data
        while self._left and not self.is_refused:
            self._read, self._left = self._left, b""
            super().data_received(self._read)
        self._read = b""
        if self._num_unseen > _MAX_HEAD_BYTES and not self.is_refused:
            self.send_400_response("")
        if idle is not None:
            if self._stage == "between" and not self.is_answering and not self.is_refused:
                self.timeout_keep_alive_task = idle  # empty lines are no request
            else:
                idle.cancel()
        self._renew_deadlines()

    def _renew_deadlines(self) -> None:
        """After data has come: the deadline is that of headers, of a body, or none while it is answered."""
        if self.is_refused or self.transport.is_closing():
            return
        # Of a request that was answered early, too: it is read away. One that waits for another's answer is not read.
        is_body = self._stage == "body" and self._answered is self.cycle
        is_first = self._stage == "between" and self.cycle is None
        is_headers = is_first or (self._stage == "headers" and not self.is_answering)
        if not is_headers:
            self._set("headers", None)
        elif "headers" not in self._deadlines:
            self._unset_keepalive_if_required()
            self._set("headers", self.limits.headers_s)
        self._set("body", self.limits.body_progress_s if is_body else None)
        if not is_body:
            self._set("whole body", None)
        elif "whole body" not in self._deadlines:
            self._set("whole body", self.limits.body_s)

    # What the parser reports. An error raised here is answered as one of its own.

    def on_message_begin(self) -> None:
        self._stage, self._num_head, self._num_unseen = "headers", 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._stage == "headers":  # what stands after a body is no header, whatever its name
            super().on_header(name, value)

    def _count_head(self, num: int) -> None:
        self._num_head += num
        self._num_unseen = 0
        if self._num_head > _MAX_HEAD_BYTES:
            raise ValueError("the headers are too long")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._stage = "body"
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle

    def on_body(self, body: bytes) -> None:
        self._num_unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._stage = "between"
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """HTTP/1.1 is spoken all the same. The parser took the body for the other protocol: the request is read anew,
        without the header that asks for one (Java's client sends it with each first request)."""
        error, method = sys.exception(), self.parser.get_method()
        if error is None or method == b"CONNECT":
            self.send_400_response("")
            return
        headers = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        head = b"\r\n".join([method + b" " + self.url + b" HTTP/1.1", *headers, b"", b""])
        self.parser, self._left = HttpRequestParser(self), head + self._read[error.args[0] :]

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answered = self.pipeline[-1][0]
        super().on_response_complete()
        self._renew_deadlines()

    def send_400_response(self, msg: str) -> None:
        self.limits.counts.not_http += 1
        self.turn_away(400, "the request is no HTTP that this server reads")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set("reading the answer", self.limits.idle_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set("reading the answer", None)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._deadlines):
            self._set(name, None)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._answered is not None and self.is_answering and self._answered.more_body:  # it will not come any more
            self.turn_away(503, "the server is ending", is_ending=True)
        elif not self.is_refused:
            super().shutdown()


_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


@dataclass(frozen=True)
class _Ending:
    """Around an app: what is cancelled because the server ends is answered in one line, what the client broke off with
    nothing; neither leaves a traceback."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if not has_begun:
                headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
                await send({"type": "http.response.start", "status": 503, "headers": headers})
                await send({"type": "http.response.body", "body": b'{"error": "the server is ending"}'})


class _Server(uvicorn.Server):
    """Says when it listens, and counts what cannot be accepted."""

    def __init__(self, config: uvicorn.Config, limits: Limits, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._limits, self._say_started = limits, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note)
        await super().startup(sockets)
        self._say_started()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
            self._limits.counts.not_accepted += 1
        elif not isinstance(error, ConnectionError):
            loop.default_exception_handler(context)


def run_server(
    app: ASGIApp, listener: socket.socket, limits: Limits, started: Callable[[], None], grace_s: int = _GRACE_S
) -> None:
    """Serve until the end, in a thread of its own where this one has a loop already (a notebook); `started` is called
    when it listens; what is being answered at the end has `grace_s`. KeyboardInterrupt passes."""
    config = uvicorn.Config(
        _Ending(app),
        http=type("Protocol", (GuardedProtocol,), {"limits": limits}),
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        use_colors=False,
        timeout_graceful_shutdown=grace_s,
        lifespan="off",
        ws="none",
        backlog=limits.connections,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    server = _Server(config, limits, started)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _ended_by_hang_up(server):
            server.run(sockets=[listener])
        return
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join()
        raise


@contextmanager
def _ended_by_hang_up(server: uvicorn.Server) -> Iterator[None]:
    """SIGHUP ends the server as SIGTERM does, which uvicorn sees to: an exception that a handler raises within a
    request would be taken for an error of that request, and nothing would end."""
    number = getattr(signal, "SIGHUP", None)
    is_main = threading.current_thread() is threading.main_thread()
    if number is None or not is_main or signal.getsignal(number) in (signal.SIG_IGN, None):
        yield
        return
    heard = threading.Event()

    def end(number: int, frame: object) -> None:
        heard.set()
        server.should_exit = True

    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)
        if heard.is_set():
            signal.raise_signal(number)


def _is_ours(record: logging.LogRecord) -> bool:
    """Leaves out that tasks were cancelled at the end, which is how it ends."""
    return not record.getMessage().startswith("Cancel ")


# ---------------------------------------------------------------- the port


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError, with the next free port where this one is taken."""
    try:
        return _bound(host, port)
    except UnicodeError:
        raise UsageError(f"cannot listen on {shown(host, 60)!r}: it is no name of a host") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = next(
                (other for other in range(port + 1, min(port + _TRIED_PORTS, 65536)) if _is_free(host, other)), 0
            )
            raise UsageError(f"port {port} is taken: use `port={free}`") from None
        if error.errno == errno.EACCES:
            raise UsageError(f"port {port} is not yours to take: use one from 1024 on") from None
        raise UsageError(f"cannot listen on {shown(host, 60)}: {error.strerror or error}") from None


def _is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    listener = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR would take a port in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener
