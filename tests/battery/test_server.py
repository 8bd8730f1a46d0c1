"""Rows B: the page's server under bad clients."""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.battery.helpers import IS_ROOT, resident_mb, row, start, wait_for


class Served:
    """`convlens serve` with its first line read."""

    def __init__(self, work: Path, *arguments: str, **options: Any) -> None:
        self.process = start(work, "serve", "runs/toy-1", "--port", "0", *arguments, **options)
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline().decode()
        found = re.search(r":(\d+)/#token=(\S+)", self.line)
        assert found, self.line + self.process.stderr.read().decode()
        self.port, self.token = int(found[1]), found[2]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, method: str, path: str, body: bytes | None = None, token: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {token or self.token}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def end(self, number: int = signal.SIGINT) -> str:
        """End it; what it printed after its first line."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=30)
        return err.decode()


@pytest.fixture
def serve(copied: Callable[[], Path]) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*arguments: str, **options: Any) -> Served:
        made.append(Served(copied(), *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()


def digit() -> bytes:
    import io

    from PIL import Image

    page = io.BytesIO()
    Image.new("L", (20, 20), 90).save(page, "PNG")
    return page.getvalue()


UPLOAD = b"POST /api/see HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc"


@row("B2", "twelve unfinished uploads, and forty slow headers, beside good requests")
def test_unfinished_uploads_keep_nobody_waiting(serve: Callable[..., Served]) -> None:
    """Good requests are answered all the while."""
    server = serve()
    with _Kept(server) as good:
        slow = [server.connect() for _ in range(28)]
        for number, client in enumerate(slow):
            client.sendall(UPLOAD if number < 12 else b"GET / HTTP/1.1\r\nX-Slow: ")
        for _ in range(30):
            assert good.ask("POST", "/api/see", digit()) == 200
        for client in slow:
            client.close()
    assert server.end().count("\n") <= 2


class _Kept:
    """A good client on one connection, as a browser keeps it."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def __enter__(self) -> _Kept:
        assert self.ask("GET", "/api/model") == 200
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> int:
        self.connection.request(method, path, body, {"Authorization": f"Bearer {self.server.token}"})
        response = self.connection.getresponse()
        response.read()
        return response.status


@pytest.mark.slow
@row("B3", "400 idle connections to a server that may have 128 descriptors")
def test_more_connections_than_descriptors(serve: Callable[..., Served]) -> None:
    """A known client is answered all the while, a new one once the silent have had their half second; standard error
    gets the counts and nothing else."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    server = serve(preexec_fn=few)
    with _Kept(server) as good:
        idle = []
        for _ in range(400):
            client = socket.socket()
            client.settimeout(30)
            client.connect(("127.0.0.1", server.port))
            idle.append(client)
            assert len(idle) % 50 or good.ask("GET", "/api/model") == 200
        wait_for(lambda: _status(server) == 200, 30)
        for client in idle:
            client.close()
        assert good.ask("GET", "/api/model") == 200
    err = server.end()
    assert len(err.splitlines()) <= 1 and "Traceback" not in err, err[:2_000]
    assert re.fullmatch(r"(connections and requests turned away: .*\n)?", err)


def _status(server: Served) -> int:
    try:
        return server.ask("GET", "/api/model")[0]
    except (OSError, http.client.HTTPException):
        return 0


@row("B4", "oversize, lying and doubled lengths, garbage, 10,000 headers, chunks without end")
def test_requests_that_cannot_be(serve: Callable[..., Served]) -> None:
    """4xx in one line of JSON, at once; memory stays where it was."""
    server = serve()
    server.ask("GET", "/api/model")
    before = resident_mb(server.process.pid, "VmRSS")
    token = f"Authorization: Bearer {server.token}\r\n"
    head = f"POST /api/see HTTP/1.1\r\nHost: localhost\r\n{token}"
    for sent, statuses in (
        (f"{head}Content-Length: 1000000000000000000\r\n\r\n", {400, 413}),
        (f"{head}Content-Length: 40000000\r\n\r\n", {413}),
        (f"{head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
        (f"{head}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", {400}),
        (f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
        ("GET / HTTP/1.1\r\n" + "X: y\r\n" * 10_000 + "\r\n", {400, 431}),
        ("\x16\x03\x01 garbage\r\n\r\n", {400}),
    ):
        with server.connect() as client:
            client.sendall(sent.encode("latin-1"))
            said = client.recv(65_536)
            while b"}" not in said and (more := client.recv(65_536)):
                said += more
        assert int(said.split()[1]) in statuses, (sent[:80], said)
        assert b'{"error":' in said and said.count(b"\n") < 20, said
    assert resident_mb(server.process.pid, "VmRSS") < before + 40
    assert server.ask("GET", "/api/model")[0] == 200
    assert "Traceback" not in server.end()


@row("B5", "200 requests at once, 60 broken off in the middle")
def test_many_at_once(serve: Callable[..., Served]) -> None:
    """Each is 200 with its own picture, or 503; then all goes on."""
    server = serve()
    found: list[int] = []

    def one() -> None:
        try:
            found.append(server.ask("POST", "/api/see", digit())[0])
        except (OSError, http.client.HTTPException):
            found.append(503)  # turned away before it was read

    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {200, 503} and found.count(200) >= 8
    for _ in range(60):
        with server.connect() as client:
            client.sendall(UPLOAD)
    wait_for(lambda: _status(server) == 200, 30)
    assert "Traceback" not in server.end()


@pytest.mark.skipif(not IS_ROOT, reason="another user is needed, and only root can become one")
@row("B13", "another user of the machine asks, without the token and with a list of processes")
def test_another_user_of_the_machine(serve: Callable[..., Served]) -> None:
    """401 for each question; no process shows the token."""
    server = serve()
    script = (
        "import http.client, sys, pathlib\n"
        f"c = http.client.HTTPConnection('127.0.0.1', {server.port})\n"
        "c.request('POST', '/api/lab/train', b'{}'); print(c.getresponse().status)\n"
        f"print(any({server.token!r}.encode() in p.read_bytes() for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')"
        " if p.parent.name != str(__import__('os').getpid())))\n"
    )
    found = subprocess.run(
        ["/usr/bin/python3", "-c", script] if Path("/usr/bin/python3").exists() else [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, user=65534, group=65534, cwd="/",
    )  # fmt: skip
    assert found.stdout.split() == ["401", "False"], found


@row("B15", "Ctrl-C and SIGTERM with unfinished uploads and work under way")
def test_the_end_is_quiet(serve: Callable[..., Served]) -> None:
    """Ended within the grace, at most the line of counts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        server = serve()
        clients = [server.connect() for _ in range(6)]
        for client in clients:
            client.sendall(UPLOAD)
        assert server.ask("GET", "/api/model")[0] == 200
        err = server.end(number)
        assert len(err.splitlines()) <= 1 and "Traceback" not in err, err
        for client in clients:
            client.close()


@pytest.mark.slow
@row("B19", "the server is killed, its terminal closed, while the lab trains")
def test_what_was_started_ends(serve: Callable[..., Served]) -> None:
    """The training is saved and ends."""
    for number in (signal.SIGKILL, signal.SIGHUP):
        server = serve()
        body = {"sentence": "conv(8, 3) relu flatten linear(classes)", "epochs": 50, "batch_size": 1, "lr": 0.001}
        status, data = server.ask("POST", "/api/lab/train", json.dumps(body).encode())
        assert status == 200, data
        while json.loads(server.ask("GET", "/api/lab")[1])["step"] == 0:
            pass
        children = _children(server.process.pid)
        assert children
        server.process.send_signal(number)
        server.process.communicate()
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            pass


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(path.parent.name))
    return found
