"""Who may ask: with a token those who bring it, without one only pages of this machine's own address."""

import base64
import binascii
import hmac
import ipaddress
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mimctr.serve.refusals import refuse

OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a browser finds this machine; any other is a page that had its name point here (DNS rebinding)."""
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\[\]:]+)(:[0-9]*)?", re.ASCII | re.IGNORECASE)
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Lets requests pass, and says to the browser that nothing else is to be loaded.

    Args:
        app: What is behind.
        token: As ``Authorization: Bearer``, or as the password that the browser asks for; None: none is needed.
        host: That is listened on; it is a name of this machine too.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, host: str) -> None:
        self.app = app
        self.token = token
        self.host = in_address(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        if self.token is not None and not hmac.compare_digest(given(headers), self.token.encode()):
            asked = {"WWW-Authenticate": 'Basic realm="mimctr, any name, the token as password"'}
            await refuse(401, "a token is missing or wrong", asked)(scope, receive, marked)
        elif self.token is None and name_of(headers.get("host", "")) not in {*OWN_NAMES, self.host}:
            await refuse(403, f"this page is for its own machine: {self.host}")(scope, receive, marked)
        else:
            await self.app(scope, receive, marked)


def given(headers: Headers) -> bytes:
    """Return the token that a request brings; empty where it brings none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return value.encode() if kind.lower() == "bearer" else b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def in_address(host: str) -> str:
    """Return a host as addresses write it: in small letters, one of IPv6 shortened and in brackets."""
    try:
        one = ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
    return f"[{one}]" if one.version == 6 else str(one)


def name_of(host: str) -> str:
    """Return a ``Host`` header without its port, in small letters; nothing where it is not a name and a port."""
    found = HOST.fullmatch(host)
    return found["name"].lower() if found else ""
