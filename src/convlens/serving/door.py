"""A port of this machine with an app behind it: who is let in, the start line, the browser, the clean end.

Owns the token. The port and its clients are `connections.py`'s, what an app answers its own.
"""

import html
import ipaddress
import json
import re
import secrets
import socket
import threading
import webbrowser
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from convlens import files
from convlens.checks import checked, whole
from convlens.connections import MAX_CONNECTIONS, Limits, listen, run_server
from convlens.errors import UsageError
from convlens.progress import Progress
from convlens.serving.access import Access

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8023


@dataclass(frozen=True)
class Door:
    """Where a page of ours is reached, and by whom: as `serve` takes them."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    open: bool = False
    allow_host: tuple[str, ...] = ()
    token: str | None = None
    no_token: bool = False
    max_connections: int = MAX_CONNECTIONS

    def check(self) -> None:
        """Raises UsageError for what cannot be."""
        checked("port", self.port, whole(0, 65_535))
        checked("max_connections", self.max_connections, whole(2, 100_000))
        token = self.token
        if token is not None and not (isinstance(token, str) and re.fullmatch(r"[A-Za-z0-9._~-]{8,200}", token)):
            raise UsageError("a token must have 8 to 200 letters, digits and . _ ~ -")
        if not isinstance(self.host, str) or not all(isinstance(n, str) and n.strip() for n in self.allow_host):
            raise UsageError("a host must have a name")
        if self.no_token and (token is not None or not is_loopback(self.host)):
            raise UsageError("`no_token` is for this machine's own addresses, and goes with no `token`")


def serve_app(app: ASGIApp, door: Door, what: str, bar: Progress) -> None:
    """Serve a page until Ctrl-C, to those who show the token. Raises UsageError where the port is taken."""
    listener = listen(door.host, door.port)
    token = None if door.no_token else door.token or secrets.token_urlsafe(18)
    port = listener.getsockname()[1]
    shown_host = socket.gethostname() if door.host in ("0.0.0.0", "::") else door.host
    allowed = frozenset(name.strip().lower() for name in door.allow_host)
    names = {"localhost", "127.0.0.1", "::1", shown_host.lower()} | allowed
    address = f"[{shown_host}]" if ":" in shown_host else shown_host
    url = f"http://{address}:{port}/" + (f"#token={token}" if token else "")
    limits = Limits(door.max_connections)
    with closing(listener):
        access = Access(app, frozenset(names), allowed, not is_loopback(door.host), token)
        redirect = _redirect_to(url, port) if door.open and token else None

        def started() -> None:
            bar.line(f"{what} is open at {url}   (Ctrl-C ends it)")
            if door.open:
                page = url if redirect is None else redirect.as_uri()
                threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

        try:
            with suppress(KeyboardInterrupt):  # the ordinary end
                run_server(access, listener, limits, started)
        finally:
            if redirect is not None:
                files.remove_file(redirect)
        if str(limits.counts):
            bar.line(f"connections and requests turned away: {limits.counts}")


def _redirect_to(url: str, port: int) -> Path:
    """A page that only this user can read and that leads there: an address with a token must not stand among the
    arguments of the browser's process, which everybody on this machine can list."""
    path = files.state_folder() / "open" / f"{port}.html"
    link = f'<a href="{html.escape(url)}">the microscope</a>'
    script = f"<script>location.replace({json.dumps(url)})</script>"
    files.write_private(path, f'<!doctype html><meta charset="utf-8"><title>convlens</title>{script}{link}\n')
    return path.absolute()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
