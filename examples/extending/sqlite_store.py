"""A parameter store of one's own: a SQLite file that a machine's processes share (docs/how-to/add-a-store.md)."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.center.record import Digest, Found, digest, partition_of, unpack, unpack_many, version_of
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
from mimctr.errors import DamagedRecord, StoreUnavailable

TABLES = """
CREATE TABLE IF NOT EXISTS vectors
    (generation INTEGER, key INTEGER, raw BLOB, PRIMARY KEY (generation, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks
    (generation INTEGER, part INTEGER, epoch INTEGER, seq INTEGER, PRIMARY KEY (generation, part));
"""
ROWS_AT_ONCE = 500


class SqliteStore:
    """Vectors in a SQLite file. One transaction is the atomic unit that the protocol asks for.

    Args:
        path: Of the file; made where it is not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as connection:
            connection.executescript(TABLES)

    def load(self, space: Space, snapshot: Snapshot) -> None:
        """Hold a generation's base: all of it, or what was there before."""
        marks = base_watermarks(space, snapshot)
        with self._transaction() as connection:
            self._forget(connection, space)
            records = snapshot.records(np.arange(len(snapshot)))
            rows = ((space.generation, one.key, one.pack(space.generation)) for one in records)
            connection.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
            numbered = ((space.generation, part, *mark) for part, mark in enumerate(marks))
            connection.executemany("INSERT INTO marks VALUES (?, ?, ?, ?)", numbered)

    def apply(self, space: Space, window: Window) -> Applied:
        """Apply one window: rows and watermark together."""
        refuse_foreign(space, window)
        with self._transaction() as connection:
            mark = self._marks(connection, space)[window.partition]
            if mark is None:
                return Applied(Outcome.EMPTY, None)
            if window.epoch < mark.epoch:
                return Applied(Outcome.FENCED, mark)
            if window.seq <= mark.seq:
                return Applied(Outcome.DUPLICATE, mark)
            if window.seq != mark.seq + 1:
                return Applied(Outcome.GAP, mark)
            for record in window.records:
                held = self._raws(connection, space, [record.key]).get(record.key)
                if held is None or record.version > version_of(held):
                    row = (space.generation, record.key, record.pack(space.generation))
                    connection.execute("REPLACE INTO vectors VALUES (?, ?, ?)", row)
            moved = Watermark(window.epoch, window.seq)
            connection.execute(
                "REPLACE INTO marks VALUES (?, ?, ?, ?)", (space.generation, window.partition, *moved)
            )
            return Applied(Outcome.APPLIED, moved)

    def watermarks(self, space: Space) -> list[Watermark | None]:
        """Return how far the store has come."""
        with self._transaction("DEFERRED") as connection:
            return self._marks(connection, space)

    def fetch(self, space: Space, keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``keys``; every row's checksum is compared."""
        names = keys.tolist()
        with self._transaction("DEFERRED") as connection:
            raws = self._raws(connection, space, names)
        return unpack_many(
            [raws.get(name) for name in names],
            keys,
            generation=space.generation,
            dim=space.dim,
            dtype=space.dtype,
        )

    def digests(self, space: Space) -> list[Digest]:
        """Return the digest of each partition, every row of it read and checked."""
        found = [Digest(0, 0)] * space.num_partitions
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute(
                "SELECT key, raw FROM vectors WHERE generation = ?", (space.generation,)
            ).fetchall()
        for key, raw in rows:
            record = unpack(raw, generation=space.generation)
            if record.key != key:
                raise DamagedRecord(f"item key {record.key}: its record stands under {key}.")
            found[int(partition_of(np.array([key]), space.num_partitions)[0])] += digest([record])
        return found

    def drop(self, space: Space) -> None:
        """Forget a generation."""
        with self._transaction() as connection:
            self._forget(connection, space)

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Open the file for one unit of work; what fails leaves nothing behind. Readers (DEFERRED) wait for no writer's
        start, and see one state of the file.

        Raises:
            StoreUnavailable: the file cannot be opened, is locked, or the disk is full.
        """
        try:
            with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
                connection.execute(f"BEGIN {kind}")
                yield connection
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: {error}.") from None

    def _marks(self, connection: sqlite3.Connection, space: Space) -> list[Watermark | None]:
        rows = connection.execute(
            "SELECT part, epoch, seq FROM marks WHERE generation = ?", (space.generation,)
        )
        held = {part: Watermark(epoch, seq) for part, epoch, seq in rows}
        return [held.get(part) for part in range(space.num_partitions)]

    def _raws(self, connection: sqlite3.Connection, space: Space, keys: list[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for start in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[start : start + ROWS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            query = f"SELECT key, raw FROM vectors WHERE generation = ? AND key IN ({marks})"
            found |= dict(connection.execute(query, (space.generation, *some)))
        return found

    def _forget(self, connection: sqlite3.Connection, space: Space) -> None:
        for table in ("marks", "vectors"):
            connection.execute(f"DELETE FROM {table} WHERE generation = ?", (space.generation,))
