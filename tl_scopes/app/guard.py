"""Who may ask, and what every answer carries.

The server answers its own page alone. Other sites that are open in the same browser cannot reach it: their requests
carry a foreign Origin, and a name of theirs that is made to point at this machine (DNS rebinding) is a foreign Host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 16 * 2**20
"""Largest request: a saved attribution of some ten thousand tokens."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Scripts come from the server's own files only: text that slipped into the page as markup would not run."""


def is_loopback(host: str) -> bool:
    """Does this address reach the own machine only?"""
    return host in LOOPBACK


class Guard:
    """Refuse foreign hosts, foreign origins and requests that are too large; put :data:`HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1") -> None:
        self.app = app
        self.names = {*LOOPBACK, host.strip("[]").lower()}
        self.any_address = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no websockets here

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refusal(headers, scope["method"])
        if refused is not None:
            status, reason = refused
            return await JSONResponse({"error": reason}, status)(scope, receive, with_headers)
        return await self.app(scope, receive, with_headers)

    def _refusal(self, headers: Headers, method: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._own_host(host):
            return 403, f"Host {host!r} is not this server's. Open the address that tl-scopes app printed"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, f"A page of {origin!r} may not use this server"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and method != "GET":
            return 403, "Another site's page may not use this server"
        if method == "POST" and headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return 415, "Expected a JSON request"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, f"A request may have {MOST_BYTES // 2**20} MB at most"
        return None

    def _own_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    """A literal address cannot be rebound; a name can."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
