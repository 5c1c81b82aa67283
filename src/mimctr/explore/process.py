"""The explorer's process: it says where it listens once it does."""

import logging
import math
import socket

import uvicorn
from fastapi import FastAPI

from mimctr.explore.guard import in_address
from mimctr.serve.process import Server

logger = logging.getLogger(__name__)


class Telling(Server):
    """A server that tells its address: of port 0, the one that it was given."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        logger.info("explore: http://%s:%d", in_address(self.config.host), port)


def make_server(app: FastAPI, *, host: str, port: int, shutdown_seconds: float) -> Telling:
    """Return the server of an application.

    Args:
        app: With its ``Admission`` as ``state.admission``.
        host: Address to listen on.
        port: To listen on; 0: any that is free.
        shutdown_seconds: That requests have to end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(shutdown_seconds),
    )
    return Telling(config, leave=app.state.admission.leave)
