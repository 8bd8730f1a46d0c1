"""`serve`: the microscope's page on a port of this machine.

Owns the port, the token, the start line, the browser and the clean end.
"""

import asyncio
import errno
import ipaddress
import re
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import uvicorn

from convlens.checks import checked, whole
from convlens.classifier import load
from convlens.errors import UsageError
from convlens.microscope.access import Access
from convlens.microscope.server import Microscope
from convlens.progress import Progress, open_progress
from convlens.text import shown

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8023
_TRIED_PORTS = 20


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()


def serve(
    model: Any = "last",
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    open: bool = False,
    allow_host: Sequence[str] | None = None,
    token: str | None = None,
    device: str | None = "auto",
    progress: str | Progress = "auto",
) -> None:
    """Open a model in the microscope, a web page on this machine, until Ctrl-C.

    `model` is whatever `load` takes. On an address that other machines reach, a token is required: `token`, or one
    that is made. `allow_host` are more names that a browser may reach it by (those of a notebook's proxy). `open`
    starts the browser. The start line, with the address, goes to `progress`. Raises UsageError where the port is
    taken, with one that is free; and as `load` does.
    """
    checked("port", port, whole(0, 65_535))
    if token is not None and not (isinstance(token, str) and re.fullmatch(r"[A-Za-z0-9._~-]{8,200}", token)):
        raise UsageError("a token must have 8 to 200 letters, digits and . _ ~ -")
    names_given = list(allow_host or ())
    if not isinstance(host, str) or not all(isinstance(name, str) and name.strip() for name in names_given):
        raise UsageError("a host must have a name")
    classifier = load(model, device)
    listener = _listener(host, port)
    is_local = _is_loopback(host)
    token = token if is_local or token is not None else secrets.token_urlsafe(18)
    port = listener.getsockname()[1]
    shown_host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    allowed = frozenset(name.strip().lower() for name in names_given)
    names = {"localhost", "127.0.0.1", "::1", shown_host.lower()} | allowed
    address = f"[{shown_host}]" if ":" in shown_host else shown_host
    url = f"http://{address}:{port}/" + (f"?token={token}" if token else "")
    with open_progress(progress) as bar, closing(listener), closing(Microscope(classifier)) as microscope:
        access = Access(microscope.app, frozenset(names), allowed, not is_local, token, f"convlens_token_{port}")

        def started() -> None:
            bar.line(f"the microscope is open at {url}   (Ctrl-C ends it)")
            if open:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        config = uvicorn.Config(
            access,
            log_level="warning",
            access_log=False,
            server_header=False,
            use_colors=False,
            timeout_graceful_shutdown=2,
            lifespan="off",
        )
        with suppress(KeyboardInterrupt):  # the ordinary end
            _run(_Server(config, started), listener)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until the end, in a thread of its own where this one has a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
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
