"""Candidates without a vector ask RIM, behind the scores: what the log has the content of is encoded again."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from cachetools import TTLCache
from jaxtyping import Int, UInt8
from numpy import ndarray

from mimctr.center.incoming import Renewed
from mimctr.center.record import State

logger = logging.getLogger(__name__)

MAX_WAITING = 256
"""Requests whose misses may wait."""
MAX_REMEMBERED, SECONDS_REMEMBERED = 100_000, 60.0
"""Items that are not asked for again so soon."""
DROPPED, FAILED = "dropped", "failed"
"""What may become of an item beside :class:`~mimctr.center.incoming.Renewed`: nobody asked; it could not be encoded."""
Missed = tuple[Int[ndarray, "items"], UInt8[ndarray, "items"]]


class Missing:
    """Asks for missed items in a thread of its own, each once in a while.

    Args:
        renew: Asks for an item by its key: :meth:`mimctr.serve.items.Items.renew`.
        count: Is told what became of an item, and of how many.
    """

    def __init__(
        self, renew: "Callable[[int, bool], Future[Renewed]]", count: Callable[[str, int], None]
    ) -> None:
        self._renew = renew
        self._count = count
        self._waiting: queue.Queue[Missed | None] = queue.Queue(MAX_WAITING)
        self._remembered: TTLCache[int, None] = TTLCache(MAX_REMEMBERED, SECONDS_REMEMBERED)
        self._thread = threading.Thread(target=self._run, name="missing", daemon=True)
        self._thread.start()

    def ask(self, keys: Int[ndarray, "items"], states: UInt8[ndarray, "items"]) -> None:
        """Take in what a request missed; never waits.

        Args:
            keys: Of the items.
            states: What was found of each: a miss, or damaged bytes.
        """
        try:
            self._waiting.put_nowait((keys, states))
        except queue.Full:
            self._count(DROPPED, len(keys))

    def close(self) -> None:
        """Ask for what waits, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (missed := self._waiting.get()) is not None:
            for key, state in zip(*(column.tolist() for column in missed), strict=True):
                if key not in self._remembered:
                    self._remembered[key] = None
                    self._ask_for(key, damaged=state == State.DAMAGED)

    def _ask_for(self, key: int, *, damaged: bool) -> None:
        try:
            self._renew(key, damaged).add_done_callback(self._settled)
        except queue.Full:
            self._remembered.pop(key, None)
            self._count(DROPPED, 1)

    def _settled(self, renewed: "Future[Renewed]") -> None:
        error = renewed.exception()
        if error is not None:
            logger.warning("missing: %s", error)
        self._count(FAILED if error is not None else renewed.result(), 1)


def missed(keys: Int[ndarray, "candidates"], states: UInt8[ndarray, "candidates"]) -> Missed | None:
    """Return the candidates whose vector should be there, if there is one."""
    lost = (states == State.MISS) | (states == State.DAMAGED)
    return (keys[lost], states[lost]) if np.any(lost) else None
