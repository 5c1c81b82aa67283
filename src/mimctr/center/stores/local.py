"""The embedded parameter store: the snapshot, memory-mapped, and what changed since in memory. It needs no server."""

import itertools
import threading

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.center.record import (
    Digest,
    Found,
    digest,
    partition_of,
    unpack,
    unpack_many,
    version_of,
)
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.interface import (
    Applied,
    Outcome,
    Space,
    Watermark,
    base_watermarks,
    refuse_foreign,
)
from mimctr.center.window import Window
from mimctr.errors import CenterError


class _Held:
    """One generation: its base, and the packed records that came after it."""

    def __init__(self, snapshot: Snapshot, watermarks: list[Watermark]) -> None:
        self.snapshot = snapshot
        self.watermarks = watermarks
        self.tail: dict[int, bytes] = {}


class LocalStore:
    """Vectors of one process; safe to read and write from several threads.

    What came after the snapshot is lost with the process and applied again from the log: the snapshot says from where.
    """

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()

    def load(self, space: Space, snapshot: Snapshot) -> None:
        """Hold a generation's base; what was held of it before goes. Reads no vector."""
        held = _Held(snapshot, base_watermarks(space, snapshot))
        with self._lock:
            self._held[space.generation] = held

    def rebase(self, space: Space, snapshot: Snapshot) -> None:
        """Put a later snapshot of a generation under what is held: answers stay, and what it has leaves the memory.

        Raises:
            CenterError: the snapshot reaches further than this store, or is none of this generation.
        """
        marks = base_watermarks(space, snapshot)
        with self._lock:
            held = self._held[space.generation]
            if any(own.seq < mark.seq for own, mark in zip(held.watermarks, marks, strict=True)):
                raise CenterError(
                    f"generation {space.generation}: the snapshot reaches further than this store."
                )
            keys = np.fromiter(held.tail, dtype=np.int64, count=len(held.tail))
            rows = snapshot.rows(keys)
            versions = np.where(rows >= 0, snapshot.versions[rows.clip(min=0)] if len(snapshot) else -1, -1)
            records = [unpack(raw, generation=space.generation) for raw in held.tail.values()]
            later = {
                record.key: held.tail[record.key]
                for record, version in zip(records, versions.tolist(), strict=True)
                if record.version > version and (record.has_vector or version >= 0)
            }
            self._held[space.generation] = _Held(snapshot, held.watermarks)
            self._held[space.generation].tail = later

    def apply(self, space: Space, window: Window) -> Applied:
        """Apply one window: its rows and its watermark appear at once."""
        refuse_foreign(space, window)
        with self._lock:
            held = self._held.get(space.generation)
            if held is None:
                return Applied(Outcome.EMPTY, None)
            mark = held.watermarks[window.partition]
            if window.epoch < mark.epoch:
                return Applied(Outcome.FENCED, mark)
            if window.seq <= mark.seq:
                return Applied(Outcome.DUPLICATE, mark)
            if window.seq != mark.seq + 1:
                return Applied(Outcome.GAP, mark)
            for record in window.records:
                if record.version > self._version(held, record.key):
                    held.tail[record.key] = record.pack(space.generation)
            mark = held.watermarks[window.partition] = Watermark(window.epoch, window.seq)
            return Applied(Outcome.APPLIED, mark)

    def watermarks(self, space: Space) -> list[Watermark | None]:
        """Return how far this process has come."""
        with self._lock:
            held = self._held.get(space.generation)
            return [None] * space.num_partitions if held is None else list(held.watermarks)

    def fetch(self, space: Space, keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``keys``; misses where nothing was loaded."""
        with self._lock:
            held = self._held.get(space.generation)
            if held is None:
                return Found.misses(len(keys), space.dim)
            changed = [held.tail.get(key) for key in keys.tolist()] if held.tail else []
        found = held.snapshot.fetch(keys)
        newer = np.flatnonzero([raw is not None for raw in changed])
        if len(newer):
            late = unpack_many(
                [changed[place] for place in newer.tolist()],
                keys[newer],
                generation=space.generation,
                dim=space.dim,
                dtype=space.dtype,
            )
            found.vectors[newer], found.states[newer] = late
        return found

    def digests(self, space: Space) -> list[Digest]:
        """Return the digest of each partition, every row of it read and checked."""
        with self._lock:
            held = self._held.get(space.generation)
            tail = {} if held is None else dict(held.tail)
        if held is None:
            return [Digest(0, 0)] * space.num_partitions
        snapshot = held.snapshot
        late = [unpack(raw, generation=space.generation) for raw in tail.values()]
        changed = np.array(list(tail), dtype=np.int64)
        base = np.flatnonzero(~np.isin(snapshot.keys, changed))
        of_base = partition_of(snapshot.keys[base], space.num_partitions)
        of_late = partition_of(changed, space.num_partitions).tolist()
        return [
            digest(
                itertools.chain(
                    snapshot.records(base[of_base == partition]),
                    (record for record, own in zip(late, of_late, strict=True) if own == partition),
                )
            )
            for partition in range(space.num_partitions)
        ]

    def keys(self, space: Space) -> Int[ndarray, "keys"]:
        """Return the keys that have a vector."""
        with self._lock:
            held = self._held.get(space.generation)
            tail = {} if held is None else dict(held.tail)
        if held is None:
            return np.zeros(0, np.int64)
        late = [unpack(raw, generation=space.generation) for raw in tail.values()]
        base = held.snapshot.keys
        return np.concatenate(
            [
                base[~np.isin(base, np.array(list(tail), dtype=np.int64))],
                np.array([record.key for record in late if record.has_vector], dtype=np.int64),
            ]
        )

    def drop(self, space: Space) -> None:
        """Forget a generation."""
        with self._lock:
            self._held.pop(space.generation, None)

    def _version(self, held: _Held, key: int) -> int:
        raw = held.tail.get(key)
        if raw is not None:
            return version_of(raw)
        row = held.snapshot.rows(np.array(key)).item()
        return -1 if row < 0 else int(held.snapshot.versions[row])
