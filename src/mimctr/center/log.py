"""The system of record: items, generations, and the window log that every parameter store is fed from. SQLite.

A change is written with its windows in one transaction, and is acknowledged when that is on the disk (write-ahead log,
``synchronous=FULL``): a transactional outbox. Whoever follows the log reads it from a watermark of its own.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.center.database import Database
from mimctr.center.generations import Generation, Generations
from mimctr.center.record import NOTHING, Flag, VectorRecord, partition_of, unpack
from mimctr.center.stores.interface import Space, Watermark
from mimctr.center.window import Window, cut, unpack_window
from mimctr.errors import CenterError, Fenced

SCHEMA = 1
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE generations (
    number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, dim INTEGER NOT NULL, dtype TEXT NOT NULL,
    state TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE activations (
    number INTEGER PRIMARY KEY, generation INTEGER NOT NULL REFERENCES generations, time REAL NOT NULL
);
CREATE TABLE producers (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE items (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, deleted INTEGER NOT NULL, item_id TEXT, title TEXT,
    category TEXT, image BLOB
);
CREATE TABLE heads (
    generation INTEGER NOT NULL REFERENCES generations, partition INTEGER NOT NULL, epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (generation, partition)
) WITHOUT ROWID;
CREATE TABLE vectors (
    generation INTEGER NOT NULL REFERENCES generations, key INTEGER NOT NULL, partition INTEGER NOT NULL,
    seq INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (generation, key)
) WITHOUT ROWID;
CREATE TABLE windows (
    generation INTEGER NOT NULL REFERENCES generations, partition INTEGER NOT NULL, seq INTEGER NOT NULL,
    time REAL NOT NULL, window BLOB NOT NULL, PRIMARY KEY (generation, partition, seq)
);
CREATE TABLE snapshots (
    generation INTEGER NOT NULL REFERENCES generations, number INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (generation, number)
) WITHOUT ROWID;
"""


class Producer(NamedTuple):
    """The right to write some partitions, until another takes it."""

    name: str
    epochs: dict[int, int]
    """Partition -> epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A new or changed item, or a deletion.

    Args:
        key: The item's key.
        deleted: Whether the item goes; nothing else is looked at then.
        payloads: Generation -> encoded vector (:func:`~mimctr.center.record.encode`); None: no content.
        flags: What of its content is missing.
        item_id: The raw id.
        title: Text, if it has one.
        category: Name, if it has one.
        image: The picture's file, if it has one.
    """

    key: int
    deleted: bool = False
    payloads: Mapping[int, bytes | None] = field(default_factory=dict)
    flags: Flag = NOTHING
    item_id: str | None = None
    title: str | None = None
    category: str | None = None
    image: bytes | None = None


class Item(NamedTuple):
    """An item as the log has it."""

    key: int
    version: int
    deleted: bool
    item_id: str | None
    title: str | None
    category: str | None
    image: bytes | None


class Appended(NamedTuple):
    """Where a change went."""

    version: int
    """Of the item."""
    seqs: dict[int, int]
    """Generation -> number of the window in the item's partition."""


class Pruned(CenterError):
    """Windows that a reader asks for are gone: what they said is in a snapshot."""


class CenterLog:
    """One process's connection to the system of record; not shared between threads.

    Args:
        path: The file, made by :meth:`create`.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CenterError(f"{path}: no such file. Run 'mimctr center init' first.")
        self.path = path
        self._database = Database(path)
        found = dict(self._database.ask("SELECT name, value FROM settings"))
        if found.get("schema") != SCHEMA:
            raise CenterError(f"{path}: its schema is {found.get('schema')}, this program reads {SCHEMA}.")
        self.num_partitions = int(found["partitions"])
        self.generations = Generations(self._database, num_partitions=self.num_partitions)

    @classmethod
    def create(cls, path: Path, *, num_partitions: int) -> "CenterLog":
        """Make an empty system of record.

        Raises:
            CenterError: there is one already.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        database = Database(path)
        try:
            with database.transaction():
                if database.ask("SELECT 1 FROM sqlite_master"):
                    raise CenterError(f"{path}: holds a center already. Choose another folder.")
                for statement in _TABLES.split(";"):
                    database.ask(statement)
                settings = [("schema", SCHEMA), ("partitions", num_partitions)]
                database.change_many("INSERT INTO settings VALUES (?, ?)", settings)
        finally:
            database.close()
        return cls(path)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    # Writing

    def take_over(self, name: str, partitions: Sequence[int] | None = None) -> Producer:
        """Take the right to write some partitions, or all, from whoever had it."""
        wanted = range(self.num_partitions) if partitions is None else partitions
        with self._database.transaction():
            epochs = {}
            for partition in wanted:
                ((epoch,),) = self._database.ask(
                    "INSERT INTO producers VALUES (?, 1, ?) ON CONFLICT (partition) "
                    "DO UPDATE SET epoch = epoch + 1, name = excluded.name RETURNING epoch",
                    (partition, name),
                )
                epochs[partition] = epoch
        return Producer(name, epochs)

    def append(self, producer: Producer, changes: Sequence[Change]) -> list[Appended]:
        """Write changes and their windows in one transaction; when this returns they are on the disk.

        Args:
            producer: The right to write, from :meth:`take_over`.
            changes: In order; several of one item become several versions.

        Raises:
            Fenced: another producer took a partition over.
            CenterError: a change does not say what it is in a live generation: one began since it was encoded.
            OSError: the disk is full.
        """
        keys = np.array([change.key for change in changes], dtype=np.int64)
        partitions = partition_of(keys, self.num_partitions).tolist()
        appended: list[Appended] = []
        with self._database.transaction():
            self._refuse_fenced(producer, set(partitions))
            live = [one for one in self.generations.all() if one.is_live]
            new: dict[tuple[int, int], list[tuple[VectorRecord, int]]] = {}
            for number, (change, partition) in enumerate(zip(changes, partitions, strict=True)):
                version = self._write_item(change)
                appended.append(Appended(version, {}))
                for one in live:
                    record = _record(change, version, one)
                    new.setdefault((one.number, partition), []).append((record, number))
            for (generation, partition), records in new.items():
                self._write_windows(
                    producer, self.generations.space(generation), partition, records, appended
                )
        return appended

    def _refuse_fenced(self, producer: Producer, partitions: set[int]) -> None:
        for partition in sorted(partitions):
            found = self._database.ask("SELECT epoch, name FROM producers WHERE partition = ?", (partition,))
            if [epoch for epoch, _ in found] != [producer.epochs.get(partition)]:
                by = next((f"'{name}' (epoch {epoch})" for epoch, name in found), "nobody")
                raise Fenced(
                    f"{self.path.parent}: partition {partition} is written by {by}, not by '{producer.name}' "
                    f"(epoch {producer.epochs.get(partition)}). Start this producer again."
                )

    def _write_item(self, change: Change) -> int:
        ((version,),) = self._database.ask(
            "INSERT INTO items VALUES (?, 1, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET version = version + 1, "
            "deleted = excluded.deleted, item_id = excluded.item_id, title = excluded.title, "
            "category = excluded.category, image = excluded.image RETURNING version",
            (change.key, change.deleted, change.item_id, change.title, change.category, change.image),
        )
        return version

    def _write_windows(
        self,
        producer: Producer,
        space: Space,
        partition: int,
        records: list[tuple[VectorRecord, int]],
        appended: list[Appended],
    ) -> None:
        """Write one partition's records of one generation, and its new head."""
        epoch = producer.epochs[partition]
        place = (space.generation, partition)
        ((seq,),) = self._database.ask("SELECT seq FROM heads WHERE generation = ? AND partition = ?", place)
        numbers = iter([number for _, number in records])
        now = time.time()
        for part in cut([record for record, _ in records]):
            seq += 1
            window = Window(space.generation, space.fingerprint, partition, producer.name, epoch, seq, part)
            self._database.change(
                "INSERT INTO windows VALUES (?, ?, ?, ?, ?)", (*place, seq, now, window.pack())
            )
            self._database.change_many(
                "INSERT INTO vectors VALUES (?, ?, ?, ?, ?) ON CONFLICT (generation, key) "
                "DO UPDATE SET seq = excluded.seq, record = excluded.record",
                [
                    (space.generation, record.key, partition, seq, record.pack(space.generation))
                    for record in part
                ],
            )
            for _ in part:
                appended[next(numbers)].seqs[space.generation] = seq
        self._database.change(
            "UPDATE heads SET epoch = ?, seq = ? WHERE generation = ? AND partition = ?", (epoch, seq, *place)
        )

    # Reading

    def head(self, generation: int, partition: int) -> Watermark:
        """Return the last window of a partition."""
        rows = self._database.ask(
            "SELECT epoch, seq FROM heads WHERE generation = ? AND partition = ?", (generation, partition)
        )
        if not rows:
            raise CenterError(f"{self.path.parent}: generation {generation} has no partition {partition}.")
        return Watermark(*rows[0])

    def windows_after(self, generation: int, partition: int, seq: int, *, limit: int = 64) -> list[Window]:
        """Return the next windows, in order.

        Raises:
            Pruned: some of them are not kept any more.
            DamagedWindow: one does not match its checksum.
        """
        rows = self._database.ask(
            "SELECT seq, window FROM windows WHERE generation = ? AND partition = ? AND seq > ? ORDER BY seq LIMIT ?",
            (generation, partition, seq, limit),
        )
        if self.head(generation, partition).seq > seq and (not rows or rows[0][0] != seq + 1):
            raise Pruned(
                f"{self.path.parent}: windows after {seq} of generation {generation}, partition {partition} are not "
                "kept any more; load the newest snapshot."
            )
        return [unpack_window(window) for _, window in rows]

    def epoch_of(self, generation: int, partition: int, seq: int) -> int | None:
        """Return the epoch of a window; None where it is not kept."""
        rows = self._database.ask(
            "SELECT window FROM windows WHERE generation = ? AND partition = ? AND seq = ?",
            (generation, partition, seq),
        )
        return unpack_window(rows[0][0]).epoch if rows else None

    def seconds_waiting(self, generation: int, partition: int, seq: int) -> float:
        """Return how long ago the first window after ``seq`` was written; 0 where there is none."""
        rows = self._database.ask(
            "SELECT time FROM windows WHERE generation = ? AND partition = ? AND seq > ? ORDER BY seq LIMIT 1",
            (generation, partition, seq),
        )
        return max(time.time() - rows[0][0], 0.0) if rows else 0.0

    def records(self, generation: int, partition: int, *, after: int = 0) -> Iterator[VectorRecord]:
        """Return the newest record of every item that changed after a window."""
        rows = self._database.stream(
            "SELECT record FROM vectors WHERE generation = ? AND partition = ? AND seq > ?",
            (generation, partition, after),
        )
        for (raw,) in rows:
            yield unpack(raw, generation=generation)

    def record(self, generation: int, key: int) -> VectorRecord | None:
        """Return an item's newest record; None where there is none that a snapshot does not have.

        Raises:
            DamagedRecord: it does not match its checksum.
        """
        rows = self._database.ask(
            "SELECT record FROM vectors WHERE generation = ? AND key = ?", (generation, key)
        )
        return unpack(rows[0][0], generation=generation) if rows else None

    def item(self, key: int) -> Item | None:
        """Return an item that came in, deleted or not; None where there is none."""
        found = self.items(after=key - 1, limit=1)
        return found[0] if found and found[0].key == key else None

    def items(self, *, after: int = -1, limit: int = 256) -> list[Item]:
        """Return the items of the next keys, deleted ones too."""
        rows = self._database.ask(
            "SELECT key, version, deleted, item_id, title, category, image FROM items WHERE key > ? "
            "ORDER BY key LIMIT ?",
            (after, limit),
        )
        return [Item(key, version, bool(deleted), *rest) for key, version, deleted, *rest in rows]

    def item_keys(self) -> Int[ndarray, "items"]:
        """Return the keys of all items that are not deleted."""
        rows = self._database.ask("SELECT key FROM items WHERE NOT deleted")
        return np.array([key for (key,) in rows], dtype=np.int64)

    def prune(self, generation: int, upto: Sequence[int], *, older_than: float) -> int:
        """Remove windows and vectors that a snapshot has; return how many windows.

        Args:
            generation: Its number.
            upto: Of each partition, the last window that the snapshot has.
            older_than: Seconds since 1970; younger windows stay.
        """
        removed = 0
        with self._database.transaction():
            for partition, seq in enumerate(upto):
                place = (generation, partition, seq)
                removed += self._database.change(
                    "DELETE FROM windows WHERE generation = ? AND partition = ? AND seq <= ? AND time < ?",
                    (*place, older_than),
                )
                self._database.change(
                    "DELETE FROM vectors WHERE generation = ? AND partition = ? AND seq <= ?", place
                )
        return removed

    def verify(self) -> None:
        """Check the database itself and every window in it.

        Raises:
            CenterError: something is damaged.
        """
        ((found,),) = self._database.ask("PRAGMA integrity_check(1)")
        if found != "ok":
            raise CenterError(f"{self.path}: damaged ({found}). Put back a copy.")
        for one in self.generations.all():
            for partition in range(self.num_partitions if one.is_live else 0):
                rows = self._database.stream(
                    "SELECT seq, window FROM windows WHERE generation = ? AND partition = ? ORDER BY seq",
                    (one.number, partition),
                )
                last = None
                for seq, raw in rows:
                    window = unpack_window(raw)
                    if (window.seq, window.generation, window.partition) != (seq, one.number, partition) or (
                        last is not None and seq != last + 1
                    ):
                        raise CenterError(
                            f"{self.path}: window {seq} of generation {one.number}, partition {partition} is not in "
                            "its place. Put back a copy."
                        )
                    last = seq

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Let all that is read inside be of one moment."""
        return self._database.reading()


def _record(change: Change, version: int, generation: Generation) -> VectorRecord:
    """Return what a change is in one generation."""
    if change.deleted:
        return VectorRecord(change.key, version, Flag.TOMBSTONE, b"", generation.dtype)
    if generation.number not in change.payloads:
        raise CenterError(
            f"item key {change.key}: encoded for generations {', '.join(map(str, change.payloads)) or 'none'}, but "
            f"generation {generation.number} is {generation.state} too. Encode it for that one as well."
        )
    payload = change.payloads[generation.number]
    return VectorRecord(change.key, version, change.flags, payload or b"", generation.dtype)
