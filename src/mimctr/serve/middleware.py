"""Around every request: its size is bounded, and it is counted."""

import time

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
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, max_bytes: int) -> None:
        self.app = app
        self.metrics = metrics
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, received = time.perf_counter(), 0, 0
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise TooLarge
            return message

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if length.isdigit() and int(length) > self.max_bytes:
                raise TooLarge
            await self.app(scope, bounded, seen)
        except TooLarge:
            told = {"detail": f"the request is larger than {self.max_bytes:,} bytes"}
            await JSONResponse(told, status_code=413)(scope, receive, seen)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # whatever its parameters
            self.metrics.requests.labels(route, status or 500).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
