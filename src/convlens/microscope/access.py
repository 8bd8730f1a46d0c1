"""Who may ask: the check of hosts, origins and the token, and the headers that every answer carries.

Owns what keeps other web pages, other names for this machine (DNS rebinding) and other people out. Plain ASGI.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
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


@dataclass(frozen=True)
class Access:
    """Around an app: refuses what is not meant for it. `hosts` are names that a browser may call this server by,
    `proxies` those of them whose pages are ours under another address;
    `any_address` also takes IP addresses, which cannot be rebound; `token`, if any, must come with each request.
    `cookie` is the name it is kept under, one for each port: cookies don't tell ports apart."""

    app: ASGIApp
    hosts: frozenset[str]
    proxies: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None
    cookie: str = "convlens_token"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(k, v) for k, v in message["headers"] if k.decode("latin-1").lower() not in _HEADERS]
                message["headers"] = headers + [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
            await send(message)

        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._knows(headers.get("host", "")):
            return _refused(403, "this server does not answer to that name; start it with --allow-host NAME")
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and not self._is_ours(origin, headers):
            return _refused(403, "requests from other pages are refused")
        if self.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _same(given, self.token) and scope["method"] == "GET" and scope["path"] == "/":
            entered = RedirectResponse("./", 303)  # without the token in the address bar
            # Lax: strict would withhold it right after a link in a mail or chat was followed.
            entered.set_cookie(self.cookie, self.token, httponly=True, samesite="lax", path="/")
            return entered
        if any(_same(given, self.token) for given in _tokens_in(headers, self.cookie)):
            return None
        return _refused(401, "a token is needed: open the whole address that the start line shows")

    def _is_ours(self, origin: str, headers: Headers) -> bool:
        """Whether a page is this server's: of the very host and port that the request goes to, or of a name that was
        allowed and stands for it (a proxy, which gives the request another Host)."""
        try:
            netloc = urlsplit(origin).netloc.lower()
        except ValueError:
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


def _tokens_in(headers: Headers, cookie: str) -> list[str]:
    """What a request shows: its bearer token, and our cookie among those of whatever else runs on this host. Split by
    hand: one that is no proper cookie makes Python's parser drop all of them."""
    found = []
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(value.strip())
    for line in headers.getlist("cookie"):
        for part in line.split(";"):
            name, _, value = part.strip().partition("=")
            if name == cookie:
                found.append(value.strip('"'))
    return found


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
