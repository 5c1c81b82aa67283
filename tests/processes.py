"""Run a function of a test in several processes that share a gloo group."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from mimctr.distributed import session


def run_in(count: int, work: Callable[..., None], *args: Any) -> None:
    """Call ``work(*args)`` in ``count`` new processes, as torchrun would; fail if one of them does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_one, (count, port, work, args), nprocs=count)


def _one(rank: int, count: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with session():
        work(*args)
