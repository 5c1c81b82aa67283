"""A parameter store behind a bounded cache of the rows that are asked for most.

What is answered may be as old as the cache's seconds: a row that somebody else changed in the store is seen at most
that much later. What is written through the cache is seen at once. Only vectors are kept: what is missing, deleted or
damaged is asked for each time, so that a new item is there as soon as the store has it.
"""

import itertools
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.center.record import Digest, Found, State
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.interface import Applied, ParameterStore, Pointed, Space, Watermark
from mimctr.center.window import Window
from mimctr.errors import ConfigError


class CachedStore:
    """A store whose hot rows are answered from memory. Threads may share it.

    Args:
        store: Where the rows are.
        max_rows: Kept of a generation, those used last; 2 bytes a dimension, 4 of an int8 store. A generation that
            nobody asked for ``seconds`` long is forgotten.
        seconds: That a row is kept after it was asked for; so much later is another's change seen.
        clock: Seconds from any moment.

    Raises:
        ConfigError: the package ``lru-dict`` is not installed.
    """

    def __init__(
        self,
        store: ParameterStore,
        *,
        max_rows: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hits = 0
        """Keys that were answered from memory."""
        self.misses = 0
        """Keys that the store was asked for."""
        self._store = store
        self._max_rows = max_rows
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._tables: dict[Space, _Table] = {}
        self._num_changes = 0
        try:
            import lru  # noqa: F401  # said here, not at the first request
        except ModuleNotFoundError:
            raise ConfigError(
                "a cache of rows needs the package lru-dict. Run: pip install 'mimctr[redis]'"
            ) from None

    def load(self, space: Space, snapshot: Snapshot) -> None:
        """Hold a generation's base."""
        try:
            self._store.load(space, snapshot)
        finally:  # what failed may have been done in part
            self._forget(space)

    def apply(self, space: Space, window: Window) -> Applied:
        """Apply one window; its rows are read again."""
        try:
            return self._store.apply(space, window)
        finally:
            self._forget(space, [record.key for record in window.records])

    def watermarks(self, space: Space) -> list[Watermark | None]:
        """Return how far the store has come."""
        return self._store.watermarks(space)

    def fetch(self, space: Space, keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``keys``: what is in memory from there, the others in one fetch of the store."""
        now = self._clock()
        with self._lock:
            table = self._table(space, now)
            slots = table.find(keys, now)
            there = slots >= 0
            known = table.take(slots[there])
            num_changes = self._num_changes
            self.hits += len(known)
            self.misses += len(keys) - len(known)
        if len(known) == len(keys):
            return Found(known, np.full(len(keys), int(State.HIT), dtype=np.uint8))
        asked = keys[~there]
        late = self._store.fetch(space, asked)
        with self._lock:
            if self._num_changes == num_changes:  # else it may be what stood there before
                table.keep(asked[late.known], late.vectors[late.known], now + self._seconds)
        if not len(known):
            return late
        found = Found(np.empty((len(keys), space.dim), np.float32), np.empty(len(keys), np.uint8))
        found.vectors[there], found.states[there] = known, State.HIT
        found.vectors[~there], found.states[~there] = late
        return found

    def digests(self, space: Space) -> list[Digest]:
        """Return the digest of what the store holds of each partition."""
        return self._store.digests(space)

    def pointed(self) -> Space | None:
        """Return the generation that is active, where the store behind says so."""
        return self._store.pointed() if isinstance(self._store, Pointed) else None

    def drop(self, space: Space) -> None:
        """Forget a generation."""
        try:
            self._store.drop(space)
        finally:
            self._forget(space)

    def _table(self, space: Space, now: float) -> "_Table":
        """Return the rows kept of a generation, and forget the generations that nobody asks for."""
        table = self._tables.get(space)
        if table is None:
            table = self._tables[space] = _Table(space, self._max_rows)
        table.used = now
        if len(self._tables) > 1:
            self._tables = {
                one: rows for one, rows in self._tables.items() if rows.used + self._seconds >= now
            }
        return table

    def _forget(self, space: Space, keys: list[int] | None = None) -> None:
        """Forget rows of a generation, or all of it; nothing that is being fetched now is kept."""
        with self._lock:
            self._num_changes += 1
            if keys is None:
                self._tables.pop(space, None)
            elif space in self._tables:
                self._tables[space].forget(keys)


class _Table:
    """Rows of one generation in one matrix, and which of its slots each key's is in."""

    def __init__(self, space: Space, max_rows: int) -> None:
        from lru import LRU

        self.used = 0.0
        self._slots: LRU[int, int] = LRU(max_rows)
        self._free = list(range(max_rows))
        self._until = np.zeros(max_rows)
        dtype = np.float16 if space.dtype == "float16" else np.float32  # float16 comes back exactly
        self._rows = np.empty((max_rows, space.dim), dtype=dtype)

    def find(self, keys: Int[ndarray, "keys"], now: float) -> Int[ndarray, "keys"]:
        """Return the slot of each key, -1 where its row is not there or too old."""
        found = map(self._slots.get, keys.tolist(), itertools.repeat(-1))
        slots = np.fromiter(found, dtype=np.int64, count=len(keys))
        slots[self._until[slots] <= now] = -1
        return slots

    def take(self, slots: Int[ndarray, "rows"]) -> Float[ndarray, "rows content"]:
        """Return the float32 rows in slots."""
        return torch.from_numpy(self._rows.take(slots, axis=0)).float().numpy()

    def keep(self, keys: Int[ndarray, "rows"], vectors: Float[ndarray, "rows content"], until: float) -> None:
        """Keep rows, in the place of those that were not asked for the longest."""
        slots = []
        for key in keys.tolist():
            slot = self._slots.get(key, -1)
            if slot < 0:
                slot = self._free.pop() if self._free else self._slots.popitem()[1]
                self._slots[key] = slot
            slots.append(slot)
        self._rows[slots] = vectors
        self._until[slots] = until

    def forget(self, keys: list[int]) -> None:
        """Forget rows."""
        for key in keys:
            if key in self._slots:
                self._free.append(self._slots.pop(key))  # type: ignore[arg-type]  # it is there
