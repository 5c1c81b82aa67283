"""Around every request: its size is bounded, and it is counted."""

import time
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mimctr.serve.metrics import Metrics


class TooLarge(Exception):
    """More came than may."""


class Gate:
    """Bounds the bytes of requests, whatever they say of themselves, and counts by route and status.

    Args:
        app: What is behind.
        metrics: Where it is counted.
        max_bytes: Of a request.
        larger: Beginning of a path -> bytes of a request to it.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_bytes: int, larger: Mapping[str, int] | None = None
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.max_bytes = max_bytes
        self.larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, received = time.perf_counter(), 0, 0
        path, larger = scope["path"], self.larger
        limit = next((larger[one] for one in larger if path.startswith(one)), self.max_bytes)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise TooLarge
            return message

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if length.isdigit() and int(length) > limit:
                raise TooLarge
            await self.app(scope, bounded, seen)
        except TooLarge:
            told = {"detail": f"the request is larger than {limit:,} bytes"}
            await JSONResponse(told, status_code=413)(scope, receive, seen)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # whatever its parameters
            self.metrics.requests.labels(route, status or 500).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
