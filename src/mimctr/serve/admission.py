"""Which requests are worked on, and until when.

Every request is counted in before any work is done: beyond what may wait it is told to come again (429). What takes
longer than its deadline is told so (504), and a process that is not ready, or is on its way out, says that (503).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import Header, HTTPException
from prometheus_client import Gauge

Answer = TypeVar("Answer")
AGAIN = {"Retry-After": "1"}
MAX_DEADLINE_MS = 86_400_000


class Admission:
    """Runs work in threads, if there is room and while there is time.

    Args:
        not_ready: Returns why requests cannot be answered, or None.
        in_flight: Shows how many wait or are worked on.
        num_threads: Requests that are worked on at a time.
        max_waiting: Requests that may wait or be worked on.
        deadline: Seconds that a request may take, unless it says less.
    """

    def __init__(
        self,
        not_ready: Callable[[], str | None],
        in_flight: Gauge,
        *,
        num_threads: int,
        max_waiting: int,
        deadline: float,
    ) -> None:
        self._not_ready = not_ready
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="score")
        self.is_leaving = False
        """Whether nothing more should be sent here; what comes is still answered, until :meth:`close`."""
        self._is_closed = False
        self._waiting = 0

    def leave(self) -> None:
        """Say that nothing more should be sent here."""
        self.is_leaving = True

    def close(self) -> None:
        """Take nothing more in, finish what is begun, and drop what nobody waits for any more."""
        self.is_leaving = self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def must_be_ready(self) -> None:
        """Pass if requests should be sent here.

        Raises:
            HTTPException: 503 with the reason.
        """
        self._refuse("on its way out" if self.is_leaving else self._not_ready())

    def refuse_unready(self) -> None:
        """Pass if a request that came may be worked on.

        Raises:
            HTTPException: 503 with the reason.
        """
        self._refuse("on its way out" if self._is_closed else self._not_ready())

    async def run(self, work: Callable[[], Answer], seconds: float) -> Answer:
        """Return what ``work`` returns.

        Raises:
            HTTPException: 503 not ready, 429 too many wait, 504 not done within ``seconds``.
        """
        self.refuse_unready()
        if self._waiting >= self._max_waiting:
            raise HTTPException(429, f"{self._max_waiting} requests wait already", headers=AGAIN)
        self._count(1)
        running = self._pool.submit(work)
        future = asyncio.wrap_future(running)
        # Counted until the thread is done with it, however long the caller waits.
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            running.cancel()  # if nobody has begun with it
            raise HTTPException(504, f"not done within {seconds:g} s") from None

    @staticmethod
    def _refuse(why: str | None) -> None:
        if why is not None:
            raise HTTPException(503, f"not ready: {why}", headers=AGAIN)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._count(-1)
        if not future.cancelled():
            future.exception()  # it is nobody's any more where its caller went

    def _count(self, more: int) -> None:
        self._waiting += more
        self._in_flight.set(self._waiting)

    async def seconds_left(
        self, x_deadline_ms: Annotated[int | None, Header(ge=1, le=MAX_DEADLINE_MS)] = None
    ) -> float:
        """Return how long a request may take: what it says itself, at most what all may."""
        return self._deadline if x_deadline_ms is None else min(self._deadline, x_deadline_ms / 1000)
