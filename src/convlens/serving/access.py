"""Who may ask: the check of hosts, origins and the token, and the headers that every answer carries.

Owns what keeps other web pages, other names for this machine (DNS rebinding) and other people out. Plain ASGI.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_RAW_HEADERS = {name.encode(): value.encode() for name, value in _HEADERS.items()}
_PLAIN_HEADERS = {b"x-content-type-options": b"nosniff", b"cache-control": b"no-store"}  # of what no browser shows


@dataclass(frozen=True)
class Access:
    """Around an app: refuses what is not meant for it. `hosts` are names that a browser may call this server by,
    `proxies` those of them whose pages are ours under another address; `any_address` also takes IP addresses, which
    cannot be rebound, `any_host` any name (behind a balancer, with a token: a rebound page has none). `token`, if any,
    must come with each request to paths that begin as `guarded` does, in its Authorization header: the page itself
    holds no secret, and a cookie would go to every port of the host. `is_page` adds what browsers must know of one."""

    app: ASGIApp
    hosts: frozenset[str]
    proxies: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None
    guarded: tuple[str, ...] = ("/api/",)
    any_host: bool = False
    is_page: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal, always = self._refusal(scope), _RAW_HEADERS if self.is_page else _PLAIN_HEADERS

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(k, v) for k, v in message["headers"] if k.lower() not in always] + [
                    *always.items()
                ]
            await send(message)

        if refusal is None and (self.token is None or scope["path"].startswith(self.guarded)):
            scope.get("state", {}).get("let_in", lambda: None)()
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self.any_host and not self._knows(headers.get("host", "")):
            return _refused(403, "this server does not answer to that name; start it with --allow-host NAME")
        if "content-length" in headers and "transfer-encoding" in headers:
            return _refused(400, "a request has one length: content-length or transfer-encoding")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        is_foreign = site not in ("none", "same-origin") if origin is None else not self._is_ours(origin, headers)
        if scope["method"] not in ("GET", "HEAD") and is_foreign:
            return _refused(403, "requests from other pages are refused")
        if self.token is None or not scope["path"].startswith(self.guarded) or _same(_token_in(headers), self.token):
            return None
        return _refused(
            401,
            "a token is needed: open the whole address that the start line shows, or send it as Authorization: Bearer",
        )

    def _is_ours(self, origin: str, headers: Headers) -> bool:
        """Whether a page is this server's: of the very host and port that the request goes to, or of a name that was
        allowed and stands for it (a proxy, which gives the request another Host)."""
        try:
            scheme, netloc = urlsplit(origin)[:2]
        except ValueError:
            return False
        netloc = netloc.lower()
        if scheme not in ("http", "https"):  # an extension's page
            return False
        return netloc == headers.get("host", "").lower() or netloc.partition(":")[0] in self.proxies

    def _knows(self, netloc: str) -> bool:
        try:
            name = (urlsplit(f"//{netloc}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.hosts:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _token_in(headers: Headers) -> str:
    """The bearer token that a request shows, or nothing."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
