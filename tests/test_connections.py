"""The server under bad clients: each deadline, the limit of connections, and what is answered to what is no request.

Nothing here sleeps: a client waits for what the server does to it, and the deadlines of these servers are short.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from convlens import connections
from convlens.connections import GuardedProtocol, Limits, listen

OK = b"HTTP/1.1 200"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Lets in whoever shows the word; says how long the body was; answers /early before the body has come."""
    request = Request(scope, receive)
    response: Response
    if request.headers.get("authorization") == "word":
        scope["state"]["let_in"]()
    if request.url.path == "/large":
        response = Response(bytes(50_000_000))
    elif request.url.path == "/early":
        response = JSONResponse({"error": "too much"}, 413)
    else:
        response = JSONResponse({"length": len(await request.body())})
    await response(scope, receive, send)


class Running:
    """A server in a thread, with its limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.listener = limits, listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.started = threading.Event()
        self.server: Any = None

    def __enter__(self) -> Running:
        def keep(server: Any, sockets: Any = None) -> None:
            self.server = server
            original(server, sockets=sockets)

        original = connections._Server.run
        connections._Server.run = keep  # type: ignore[method-assign, assignment]  # to end it from here
        self.thread = threading.Thread(
            target=connections.run_server, args=(app, self.listener, self.limits, self.started.set)
        )
        self.thread.start()
        assert self.started.wait(20)
        connections._Server.run = original  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def said(self, *sent: bytes) -> bytes:
        """All that is answered to some bytes, until the server closes."""
        with closing(self.connect()) as client:
            for part in sent:
                client.sendall(part)
            return everything(client)


def everything(client: socket.socket) -> bytes:
    parts = []
    while part := received(client):
        parts.append(part)
    return b"".join(parts)


def received(client: socket.socket) -> bytes:
    try:
        return client.recv(65_536)
    except ConnectionError:
        return b""


def answer(client: socket.socket) -> bytes:
    """One answer, whole."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += client.recv(65_536)
    head, _, body = said.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += client.recv(65_536)
    return head + body


def get(path: str = "/", *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: here", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(**limits: Any) -> Running:
        made.append(Running(Limits(**limits)).__enter__())
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def test_a_request_that_does_not_come_is_ended(running: Callable[..., Running]) -> None:
    """Silence, half a header, no body, half a body: one line of JSON, 408, and the connection is closed."""
    server = running(headers_s=0.2, body_progress_s=0.2, body_s=5)
    half = get("/", "Content-Length: 10", body=b"12345")
    for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow:", get("/", "Content-Length: 10"), half):
        said = server.said(sent)
        assert said.startswith(b"HTTP/1.1 408") and b'{"error": "the request took too long' in said, said
    assert server.limits.counts.too_slow == 5


def test_a_body_that_trickles_is_ended(running: Callable[..., Running]) -> None:
    """Progress alone does not keep a request open: the whole body has its deadline too."""
    server = running(headers_s=5, body_progress_s=0.6, body_s=0.8)
    with closing(server.connect()) as client:
        client.sendall(get("/", "Content-Length: 100000"))
        client.settimeout(0.05)
        said = b""
        for _ in range(200):
            try:
                client.sendall(b"x")
                said += client.recv(65_536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if said:
                break
    assert said.startswith(b"HTTP/1.1 408") and b"whole body" in said


def test_a_connection_that_asks_nothing_is_closed(running: Callable[..., Running]) -> None:
    """After an answer it may stay for a while; a slow second request has the same deadline as the first."""
    server = running(headers_s=0.3, idle_s=0.2)
    with closing(server.connect()) as client:
        client.sendall(get("/", "Authorization: word"))
        assert answer(client).startswith(OK) and everything(client) == b""
    with closing(server.connect()) as client:
        client.sendall(get() + b"GET / HT")
        assert b"408" in everything(client)


def test_empty_lines_and_unread_answers_hold_no_place(running: Callable[..., Running]) -> None:
    """Lines without a request, before the first or after, do not put a deadline off; nor does an answer that is not
    read."""
    server = running(headers_s=0.2, idle_s=0.3)
    for first in (b"", get()):
        with closing(server.connect()) as client:
            client.sendall(first)
            assert not first or answer(client).startswith(OK)
            client.settimeout(0.05)
            for _ in range(400):
                try:
                    client.sendall(b"\r\n")
                    if not client.recv(65_536):
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                pytest.fail("it was never closed")
    with closing(server.connect()) as client:
        client.sendall(get("/large"))
        assert client.recv(1) == b"H"
        while server.server.server_state.connections:
            pass
    assert (server.limits.counts.too_slow, server.limits.counts.not_http) == (2, 0)


def test_more_connections_than_places_are_answered(running: Callable[..., Running]) -> None:
    """The limit holds; those that have not shown who they are get half of it, and make room for a later one."""
    server = running(connections=8, headers_s=20, idle_s=20)
    known = [server.connect() for _ in range(4)]
    for client in known:
        client.sendall(get("/", "Authorization: word"))
        assert answer(client).startswith(OK)
    silent = [server.connect() for _ in range(4)]
    refused = server.said()
    assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in refused and b"too many connections" in refused
    for client in known:
        client.sendall(get("/", "Authorization: word"))
        assert answer(client).startswith(OK), "a known one keeps its place"
    for protocol in list(server.server.server_state.connections):
        assert isinstance(protocol, GuardedProtocol)
        is_first = protocol.client == silent[0].getsockname()
        protocol.opened_s -= 20 if is_first else 10  # the silent ones have been so for a while
    newcomer = server.connect()
    newcomer.sendall(get("/", "Authorization: word"))
    assert answer(newcomer).startswith(OK)
    assert everything(silent[0]).startswith(b"HTTP/1.1 503"), "the oldest has made room"
    for client in (*known, *silent, newcomer):
        client.close()
    assert server.limits.counts.refused == 2


def test_what_is_no_request_is_one_line_of_json(running: Callable[..., Running]) -> None:
    """Another protocol, garbage, headers without end, two lengths, bad chunks: 400 and one line, nothing is printed."""
    server = running(headers_s=5)
    for sent in (
        b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        get("/", "Content-Length: 3", "Content-Length: 4"),
        get("/", "Content-Length: -3"),
        get("/", "Transfer-Encoding: chunked", body=b"zz\r\n"),
        get("/", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 30_000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000,
        b"GET /" + b"y" * 100_000,
        b"\r\n" * 500_000,
        get("/", "Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n" + b"X: y\r\n" * 30_000),
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
    ):
        said = server.said(sent)
        assert b"HTTP/1.1 400" in said and b'{"error": "the request is no HTTP' in said, (sent[:40], said)
    assert server.limits.counts.not_http == 12 and "12 no HTTP" in str(server.limits.counts)


def test_requests_sent_together_are_answered_in_order(running: Callable[..., Running]) -> None:
    """With and without bodies, one unfinished: none has another's answer, and the deadline is the last one's."""
    server = running(headers_s=5, body_progress_s=0.3)
    three = get("/", "Content-Length: 2", body=b"ab") + get() + get("/", "Content-Length: 70000", body=bytes(70_000))
    said = server.said(three + get("/", "Content-Length: 9", body=b"abc"))
    lengths = [int(part.partition(b"}")[0]) for part in said.split(b'{"length":')[1:]]
    assert lengths == [2, 0, 70_000] and said.count(b"HTTP/1.1 200") == 3 and said.count(b"HTTP/1.1 408") == 1


def test_what_stands_after_a_body_is_no_header(running: Callable[..., Running]) -> None:
    """Trailers are not taken for headers, so that nobody is let in by one."""
    server = running(headers_s=5)
    trailing = b"1\r\na\r\n0\r\nAuthorization: word\r\n\r\n"
    with closing(server.connect()) as client:
        client.sendall(get("/", "Transfer-Encoding: chunked", body=trailing))
        assert b'{"length":1}' in answer(client)
        (protocol,) = server.server.server_state.connections
        assert not protocol.is_known


def test_another_protocol_is_not_spoken(running: Callable[..., Running]) -> None:
    """Whoever offers one (Java's client with each first request, curl --http2) is answered in HTTP/1.1, with the body
    that was sent, in one part or several; the connection goes on. A tunnel is refused."""
    server = running(headers_s=5)
    for kind in ("websocket", "h2c"):
        asked = get("/", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {kind}", "Content-Length: 3", body=b"abc")
        for parts in ([asked, asked], [asked[:30], asked[30:-2], asked[-2:]], [asked + get()]):
            with closing(server.connect()) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for part in parts:
                    client.sendall(part)
                assert b'{"length":3}' in answer(client), parts
    said = server.said(b"CONNECT there:443 HTTP/1.1\r\nHost: there:443\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400")


def test_what_is_answered_early_is_read_away(running: Callable[..., Running]) -> None:
    """A large body that is refused at its head can be sent to its end, so that the client reads why."""
    server = running(headers_s=5)
    with closing(server.connect()) as client:
        body = b"x" * 5_000_000
        client.sendall(get("/early", f"Content-Length: {len(body)}", body=body))
        assert answer(client).startswith(b"HTTP/1.1 413")
        client.sendall(get("/", "Content-Length: 4", body=b"four"))
        assert b'{"length":4}' in answer(client)


def test_unfinished_uploads_do_not_hold_the_end_up(
    running: Callable[..., Running], capfd: pytest.CaptureFixture[str]
) -> None:
    """When the server ends, they are answered and closed; nothing is printed."""
    server = Running(Limits(headers_s=20, body_progress_s=20)).__enter__()
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.sendall(get("/", "Content-Length: 10", body=b"123"))
    with closing(server.connect()) as other:
        other.sendall(get())
        assert answer(other).startswith(OK)
    server.__exit__()
    for client in clients:
        with closing(client):
            assert everything(client).startswith(b"HTTP/1.1 503")
    assert capfd.readouterr().err == ""


def test_the_limit_is_at_most_half_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for."""
    monkeypatch.setattr(connections, "_most_descriptors", lambda: 40)
    assert Limits(64).connections == 20 and Limits(8).connections == 8
