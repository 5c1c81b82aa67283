"""Raw queries to vectors, beside the scores: known from offline, kept from before, or encoded while there is time.

A query's vector is what ``mimctr embed`` would have made of it, float16 as its snapshots are.
"""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float
from numpy import ndarray

from mimctr.center.center import SNAPSHOTS
from mimctr.center.known_queries import QUERIES, KnownQueries, content_key
from mimctr.center.query_encoder import QueryEncoder
from mimctr.center.record import have_length
from mimctr.center.stores.interface import Space
from mimctr.data.texts import visible_text
from mimctr.errors import DataError

MAX_KEPT, MAX_WAITING = 10_000, 64
"""Queries whose vectors are kept, and that may wait to be encoded."""
SHARE_OF_TIME = 0.5
"""Of a request's time, that its query may take."""
MAX_OFF_UNIT = 0.01
"""How far the norm of a caller's vector may be from 1, where the generation's vectors have that norm."""


class QueryState(StrEnum):
    """Where a request's query vector came from."""

    GIVEN = "given"
    """The caller sent it."""
    HIT = "hit"
    """Embedded offline, with the generation."""
    CACHED = "cached"
    ENCODED = "encoded"
    LATE = "late"
    """There was no time: scored as without a query. It is kept when it is done."""
    NONE = "none"
    """No query, a model that reads none, or no encoder that reads such a query."""


class RawQuery(NamedTuple):
    """What a caller asked with; the first of vector, picture and text that is there counts."""

    text: str | None = None
    image: bytes | None = None
    vector: Float[ndarray, "content"] | None = None


Vector = Float[ndarray, "content"] | None
Key = tuple[str, int]


class Queries:
    """Query vectors of one center's generations.

    Args:
        center: Folder of the center.
    """

    def __init__(self, center: Path) -> None:
        self.center = center
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="queries")
        self._lock = threading.Lock()
        self._kept: LRUCache[Key, Vector] = LRUCache(MAX_KEPT)
        self._running: dict[Key, Future[Vector]] = {}
        self._known: dict[int, KnownQueries | None] = {}
        self._encoder = QueryEncoder(center)

    def close(self) -> None:
        """Stop encoding."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def bind(self, space: Space) -> None:
        """Open what was embedded offline with a generation.

        Raises:
            MimctrError: it is there, and damaged or another encoder's.
        """
        folder = self.center / SNAPSHOTS / str(space.generation) / QUERIES
        known = KnownQueries(folder, encoder=space.fingerprint) if KnownQueries.are_there(folder) else None
        self._known[space.generation] = known

    async def find(self, space: Space, query: RawQuery, seconds: float) -> tuple[Vector, QueryState]:
        """Return a query's vector in a generation, and where it came from; none after a share of ``seconds``.

        Args:
            space: The generation.
            query: What was asked with.
            seconds: That the whole request may take.

        Raises:
            DataError: the picture cannot be decoded, or the vector is none of this generation.
        """
        if query.vector is not None:
            return self._checked(space, query.vector), QueryState.GIVEN
        text = visible_text(query.text)
        if text is None and query.image is None:
            return None, QueryState.NONE
        content = content_key(text, query.image)
        known = self._known.get(space.generation)
        vector = None if known is None else known.find(content)
        if vector is not None:
            return vector, QueryState.HIT
        key = (space.fingerprint, content)
        with self._lock:
            if key in self._kept:
                vector = self._kept[key]
                return vector, QueryState.NONE if vector is None else QueryState.CACHED
        if not self._encoder.has(space.fingerprint):
            return None, QueryState.NONE
        running = self._start(key, text, query.image)
        if running is None:
            return None, QueryState.LATE
        try:
            waited = asyncio.shield(asyncio.wrap_future(running))
            vector = await asyncio.wait_for(waited, seconds * SHARE_OF_TIME)
        except TimeoutError:
            return None, QueryState.LATE
        return vector, QueryState.NONE if vector is None else QueryState.ENCODED

    def _checked(self, space: Space, vector: Float[ndarray, "content"]) -> Float[ndarray, "content"]:
        if vector.shape != (space.dim,):
            raise DataError(
                f"query_vector: has {len(vector)} numbers, generation {space.generation} has {space.dim}."
            )
        if not have_length(vector[None])[0]:
            raise DataError("query_vector: its length in float32 is zero or not finite.")
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if self._encoder.has(space.fingerprint) and abs(norm - 1) > MAX_OFF_UNIT:
            raise DataError(
                f"query_vector: its norm is {norm:.4g}, the generation's vectors have 1. Scale it."
            )
        return vector.astype(np.float32)

    def _start(self, key: Key, text: str | None, image: bytes | None) -> "Future[Vector] | None":
        """Encode a query, once however many ask; None where too many wait."""
        with self._lock:
            if key in self._running:
                return self._running[key]
            if len(self._running) >= MAX_WAITING:
                return None
            running = self._running[key] = self._pool.submit(
                self._encoder.encode, key[0], text=text, image=image
            )
        running.add_done_callback(lambda done: self._keep(key, done))
        return running

    def _keep(self, key: Key, done: "Future[Vector]") -> None:
        with self._lock:
            del self._running[key]
            if not done.cancelled() and done.exception() is None:
                self._kept[key] = done.result()
