"""The page's server for five minutes: eight good requests in flight throughout, fifty bad clients beside them.

    python -m tests.battery.soak [--seconds 300]

Good: no request is lost (a 503 is asked again, and the time counts), the 99th percentile is within three times of that
alone, memory stays flat, standard error gets the counts and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from tests.battery.helpers import TRAIN, done, resident_mb, start, write_toy

NUM_GOOD, NUM_BAD, ALONE_S, SOAK_S = 8, 50, 30.0, 300.0
_PAUSE_S = 0.25  # of a bad client whose connection was closed, before it comes again


@dataclass
class Soak:
    """What was measured."""

    seconds: float = 0.0
    alone_ms: float = 0.0
    beside_ms: float = 0.0
    num_good: int = 0
    num_lost: int = 0
    num_again: int = 0
    before_mb: float = 0.0
    after_mb: float = 0.0
    err: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all that is promised was so."""
        quiet = len(self.err.splitlines()) <= 1 and "Traceback" not in self.err
        is_flat = self.after_mb - self.before_mb < 30
        return self.num_lost == 0 and self.beside_ms <= 3 * self.alone_ms and is_flat and quiet

    def text(self) -> str:
        """As it stands on the page."""
        counts = self.err.strip().rpartition(": ")[2] or "none"
        lines = [
            f"**Soak of the page's server**, {self.seconds:.0f} s, {NUM_GOOD} good requests in flight throughout, "
            f"{NUM_BAD} bad clients beside them (silent, slow headers, unfinished uploads, garbage, oversize, broken "
            f"off): {self.num_good:,} good requests, {self.num_lost} lost, {self.num_again:,} asked again after a 503; "
            f"99th percentile {self.beside_ms:.0f} ms, alone {self.alone_ms:.0f} ms; memory {self.before_mb:.0f} MB "
            f"before, {self.after_mb:.0f} MB after; turned away: {counts}. {'Holds.' if self.holds else 'FAILS.'}"
        ]
        return "\n".join([*lines, *(f"- {line}" for line in self.errors[:10])])


# ---------------------------------------------------------------- bad clients, in a process of their own


async def _bad(port: int, seed: int) -> None:
    rng = random.Random(seed)
    upload = b"POST /api/see HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            kind = rng.randrange(6)
            if kind == 0:
                await reader.read()  # silent
            elif kind == 1:
                for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: y\r\n" * 50:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)
            elif kind == 2:
                writer.write(upload + b"abc")
                await reader.read()
            elif kind == 3:
                writer.write(rng.randbytes(200) + b"\r\n\r\n")
                await reader.read()
            elif kind == 4:
                writer.write(upload.replace(b"9000", b"900000000"))
                await reader.read(1000)
            else:
                writer.write(b"GET /page/main.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await reader.read(10)
            writer.transport.abort()
        await asyncio.sleep(_PAUSE_S)


async def _all_bad(port: int) -> None:
    await asyncio.gather(*(_bad(port, seed) for seed in range(NUM_BAD)))


# ---------------------------------------------------------------- good ones


class _Good(threading.Thread):
    """One good client, as a browser is: a connection that is kept, and made anew where the server closed it."""

    def __init__(self, port: int, token: str, picture: bytes, until: float) -> None:
        super().__init__()
        self.port, self.headers, self.picture, self.until = port, {"Authorization": f"Bearer {token}"}, picture, until
        self.ms: list[float] = []
        self.num_lost = self.num_again = 0
        self.errors: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while time.monotonic() < self.until:
            started = time.monotonic()
            for _ in range(50):
                try:
                    connection.request("POST", "/api/see", self.picture, self.headers)
                    response = connection.getresponse()
                    status, body = response.status, response.read()
                except (OSError, http.client.HTTPException) as error:
                    status, body = 503, repr(error).encode()
                    connection.close()
                if status != 503:
                    break
                self.num_again += 1
                time.sleep(0.02)
            if status != 200:
                self.num_lost += 1
                self.errors.append(f"{status} {body[:100]!r}")
            self.ms.append(1000 * (time.monotonic() - started))
        connection.close()


def _good_for(seconds: float, port: int, token: str, picture: bytes) -> list[_Good]:
    clients = [_Good(port, token, picture, time.monotonic() + seconds) for _ in range(NUM_GOOD)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return clients


def _p99(clients: list[_Good]) -> float:
    return quantiles([ms for client in clients for ms in client.ms], n=100)[98]


def report(seconds: float = SOAK_S) -> Soak:
    """Serve, measure alone, then beside the bad clients."""
    import io

    from PIL import Image

    root, found = Path(tempfile.mkdtemp(prefix="soak-")), Soak(seconds)
    page = io.BytesIO()
    Image.new("L", (20, 20), 90).save(page, "PNG")
    env = {**os.environ, "CONVLENS_CACHE": str(root / "cache"), "CONVLENS_STATE": str(root / "state")}
    env["OMP_NUM_THREADS"] = "1"
    try:
        write_toy(root)
        assert done(root, *TRAIN, env=env)[0] == 0
        server = start(root, "serve", "runs/toy-1", "--port", "0", env=env)
        assert server.stderr is not None
        match = re.search(r":(\d+)/#token=(\S+)", server.stderr.readline().decode())
        assert match
        port, token = int(match[1]), match[2]
        _good_for(2, port, token, page.getvalue())
        found.alone_ms = _p99(_good_for(min(ALONE_S, seconds), port, token, page.getvalue()))
        bad = subprocess.Popen([sys.executable, "-m", "tests.battery.soak", "--bad", str(port)])
        try:
            _good_for(min(20.0, seconds), port, token, page.getvalue())
            found.before_mb = resident_mb(server.pid, "VmRSS")
            clients = _good_for(seconds, port, token, page.getvalue())
            found.after_mb = resident_mb(server.pid, "VmRSS")
        finally:
            bad.kill()
            bad.wait()
        found.beside_ms, found.num_good = _p99(clients), sum(len(client.ms) for client in clients)
        found.num_lost = sum(client.num_lost for client in clients)
        found.num_again = sum(client.num_again for client in clients)
        found.errors = [line for client in clients for line in client.errors]
        server.send_signal(signal.SIGINT)
        found.err = server.communicate(timeout=30)[1].decode()
        return found
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SOAK_S)
    parser.add_argument("--bad", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bad:
        asyncio.run(_all_bad(asked.bad))
    soak = report(asked.seconds)
    print(soak.text())
    print(json.dumps({"err": soak.err[:2_000]}))
    sys.exit(0 if soak.holds else 1)
