"""One SQLite file, told about in one line when something is wrong with it."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mimctr.errors import CenterError

BUSY_SECONDS = 10.0
"""How long a transaction waits for another process's."""
_FOR_THE_SYSTEM = ("full", "disk I/O", "readonly", "locked", "unable to open")
"""What SQLite says when the file is sound and the system is not."""


class DiskFull(OSError):
    """The disk under a database has no room for a change."""


class Database:
    """A connection to one file; not shared between threads.

    What a transaction wrote is on the disk when it ends: a write-ahead log that is synced each time.

    Args:
        path: Of the file; made if missing.

    Raises:
        CenterError: it is no database.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._telling():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
            for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {setting}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement; return its rows.

        Raises:
            CenterError: the file is damaged.
            OSError: the system refuses: a full disk, another process that does not end its transaction.
        """
        with self._telling():
            return self._connection.execute(statement, values).fetchall()

    def stream(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Run a statement; yield its rows as they are read."""
        with self._telling():
            yield from self._connection.execute(statement, values)

    def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        with self._telling():
            return self._connection.execute(statement, values).rowcount

    def change_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each of ``values``."""
        with self._telling():
            self._connection.executemany(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block as one transaction: all of it is on the disk afterwards, or nothing."""
        with self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._telling():
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that is read inside be of one moment."""
        self.ask("BEGIN")
        try:
            yield
        finally:
            self.ask("COMMIT")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:  # a bug here, not the file's fault
            raise
        except sqlite3.DatabaseError as error:
            if any(words in str(error) for words in _FOR_THE_SYSTEM):
                kind = DiskFull if "full" in str(error) else OSError
                raise kind(f"{self.path}: {error}. Nothing of this change was written.") from None
            raise CenterError(f"{self.path}: not a sound database ({error}). Put back a copy.") from None
