"""An application behind a real uvicorn, on loopback."""

import contextlib
import threading
from collections.abc import Iterator

import uvicorn
from center.servers import free_ports, wait_for
from fastapi import FastAPI


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """Serve in a thread; yield the port."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), f"uvicorn on {port}")
        yield port
    finally:
        server.should_exit = True
        thread.join()
