"""What users did lately, kept fresh by events: in a file, or on Redis. One protocol, the same answers.

An event is its user, item, second, kind and the caller's own event id, if there is one; the same event again changes
nothing, so that a caller may repeat what was not acknowledged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mimctr.center.database import Database
from mimctr.center.stores.redis import connect, telling
from mimctr.serve.scorer import Behaviors

MAX_KEPT = 10_000
"""Newest behaviors of a user that are kept."""
_COLUMNS = "user, time, item, kind, event_id"
_NEWEST_FIRST = "time DESC, item DESC, kind DESC, event_id DESC"


class Event(NamedTuple):
    """One behavior of one user."""

    user: int
    """Key (as an item's: :func:`mimctr.data.keys.item_keys`)."""
    item: int
    """Key."""
    time: int
    """Seconds UTC."""
    kind: str
    event_id: str = ""


@runtime_checkable
class HistoryStore(Protocol):
    """Behaviors by user."""

    def append(self, events: Sequence[Event]) -> None:
        """Keep events, each once; they are kept when this returns.

        Raises:
            OSError: the disk is full.
            StoreUnavailable: the server cannot be reached.
        """
        ...

    def newest(self, user: int, count: int, *, before: int) -> Behaviors:
        """Return a user's newest behaviors before a second, oldest first; of one second in the order of their items.

        Raises:
            StoreUnavailable: the server cannot be reached.
        """
        ...


class LocalHistories:
    """Behaviors in one SQLite file; not shared between threads.

    Args:
        path: Of the file; made if missing.
        max_kept: Of each user, the newest.
    """

    def __init__(self, path: Path, *, max_kept: int = MAX_KEPT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.max_kept = max_kept
        self._database = Database(path)
        with self._database.transaction():
            self._database.change(
                "CREATE TABLE IF NOT EXISTS behaviors (user INTEGER NOT NULL, time INTEGER NOT NULL, "
                "item INTEGER NOT NULL, kind TEXT NOT NULL, event_id TEXT NOT NULL, "
                "PRIMARY KEY (user, time, item, kind, event_id)) WITHOUT ROWID"
            )

    def append(self, events: Sequence[Event]) -> None:
        """Keep events, in one transaction."""
        with self._database.transaction():
            self._database.change_many(
                "INSERT OR IGNORE INTO behaviors VALUES (?, ?, ?, ?, ?)",
                [(one.user, one.time, one.item, one.kind, one.event_id) for one in events],
            )
            for user in {one.user for one in events}:
                self._database.change(
                    f"DELETE FROM behaviors WHERE ({_COLUMNS}) IN (SELECT {_COLUMNS} FROM behaviors "
                    f"WHERE user = ? ORDER BY {_NEWEST_FIRST} LIMIT -1 OFFSET ?)",
                    (user, self.max_kept),
                )

    def newest(self, user: int, count: int, *, before: int) -> Behaviors:
        """Return a user's newest behaviors before a second."""
        rows = self._database.ask(
            f"SELECT time, item, kind FROM behaviors WHERE user = ? AND time < ? ORDER BY {_NEWEST_FIRST} "
            "LIMIT ?",
            (user, before, count),
        )
        return _behaviors(rows[::-1])


class RedisHistories:
    """Behaviors on Redis or Valkey: a sorted set for each user.

    Args:
        url: As :class:`~mimctr.center.stores.redis.RedisStore` takes it.
        name: Of the center.
        max_kept: Of each user, the newest.
    """

    def __init__(self, url: str, *, name: str = "mimctr", max_kept: int = MAX_KEPT) -> None:
        self.url = url
        self.name = name
        self.max_kept = max_kept
        self._client = connect(url)

    def append(self, events: Sequence[Event]) -> None:
        """Keep events; the sets of several users are written one after another."""
        by_user: dict[int, dict[bytes, int]] = {}
        for one in events:
            by_user.setdefault(one.user, {})[_member(one)] = one.time
        with telling(self.url):
            pipeline = self._client.pipeline(transaction=False)
            for user, members in by_user.items():
                pipeline.zadd(self._key(user), members)
                pipeline.zremrangebyrank(self._key(user), 0, -self.max_kept - 1)
            pipeline.execute()

    def newest(self, user: int, count: int, *, before: int) -> Behaviors:
        """Return a user's newest behaviors before a second."""
        with telling(self.url):
            found = self._client.zrange(
                self._key(user),
                f"({before}",
                "-inf",
                desc=True,
                withscores=True,
                byscore=True,
                offset=0,
                num=count,
            )
        return _behaviors([(int(time), *_of_member(member)) for member, time in reversed(found)])

    def _key(self, user: int) -> bytes:
        return b"%s{h%d}" % (self.name.encode(), user)


def _member(event: Event) -> bytes:
    """Return an event as bytes whose order is that of items, kinds and event ids."""
    texts = f"{event.kind}\0{event.event_id}".encode()
    return event.item.to_bytes(8, "big") + texts


def _of_member(member: bytes) -> tuple[int, str]:
    return int.from_bytes(member[:8], "big"), member[8:].split(b"\0", 1)[0].decode()


def _behaviors(rows: Sequence[tuple[Any, ...]]) -> Behaviors:
    return Behaviors(
        np.array([item for _, item, _ in rows], dtype=np.int64),
        np.array([time for time, _, _ in rows], dtype=np.int64),
        [kind for _, _, kind in rows],
    )
