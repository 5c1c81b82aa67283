"""How a command that runs for ever ends."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def ends_when_told() -> Iterator[None]:
    """Inside, SIGTERM ends the process with status 0: it was told to, nothing failed.

    Without that the status would be 143, and as the first process of a container, whose signals have no default, a
    command would run on until it is killed.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
