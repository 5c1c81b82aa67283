"""Around every request: its size is bounded, and it is counted."""

import time
from collections.abc import Callable, Mapping

from fastapi import HTTPException
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mimctr.serve.metrics import Metrics
from mimctr.serve.refusals import refuse

PROTOCOL = "/v2"
"""Routes below it tell what is wrong as the Open Inference Protocol does."""


class Gate:
    """Bounds the bytes of requests, whatever they say of themselves, and counts by route and status.

    Args:
        app: What is behind.
        metrics: Where it is counted.
        max_bytes: Of a request.
        larger: Beginning of a path -> bytes of a request to it.
        is_leaving: Whether connections should be closed after their answers, so that clients go elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_bytes: int,
        larger: Mapping[str, int],
        is_leaving: Callable[[], bool],
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.max_bytes = max_bytes
        self.larger = larger
        self.is_leaving = is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, received = time.perf_counter(), 0, 0
        larger = (size for path, size in self.larger.items() if scope["path"].startswith(path))
        limit = next(larger, self.max_bytes)
        told = f"the request is larger than {limit:,} bytes"
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, told)  # no other error comes through a route's parsing of its body
            return message

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.is_leaving():
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            if length.isdigit() and int(length) > limit:
                key = "error" if scope["path"].startswith(PROTOCOL) else "detail"
                await refuse(413, told, key=key)(scope, receive, seen)
            else:
                await self.app(scope, bounded, seen)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # whatever its parameters
            self.metrics.requests.labels(route, status or 500).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
