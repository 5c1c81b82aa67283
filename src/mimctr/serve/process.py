"""The process around the application: how it goes when it is told to (SIGTERM, SIGINT).

First it says that it is not ready, so that load balancers send nothing more, and still answers what comes; after
``drain_seconds`` it stops listening, answers what it took in, and ends with status 0.
"""

import math
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A server that drains before it stops.

    Args:
        config: Of uvicorn.
        leave: Called at the first signal: says that the process is not ready any more.
        drain_seconds: Between that and the end of listening; a second signal ends it.
        listens: Called with the port once it listens there.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        leave: Callable[[], None],
        drain_seconds: float = 0.0,
        listens: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._leave = leave
        self._drain_seconds = drain_seconds
        self._listens = listens
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self._listens is not None:
            self._listens(self.servers[0].sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to go; uvicorn's own handler would raise the signal again at the end."""
        if self._stop_at is None:
            self._leave()
            self._stop_at = time.monotonic() + self._drain_seconds
        elif self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self._stop_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to stop listening; asked ten times a second."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run_until_told(
    app: FastAPI,
    *,
    host: str,
    port: int,
    shutdown_seconds: float,
    drain_seconds: float = 0.0,
    listens: Callable[[int], None] | None = None,
) -> None:
    """Answer requests until the process is told to go.

    Args:
        app: With its ``Admission`` as ``state.admission``.
        host: Address to listen on.
        port: To listen on; 0: any that is free.
        shutdown_seconds: That requests have to end.
        drain_seconds: Between not being ready and the end of listening.
        listens: Called with the port once it listens there.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(shutdown_seconds),
    )
    leave = app.state.admission.leave
    Server(config, leave=leave, drain_seconds=drain_seconds, listens=listens).run()
