"""Items on their way into the center: what comes in, and what is encoded again because somebody missed its vector."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray

from mimctr.center.log import Appended, CenterLog
from mimctr.errors import DamagedRecord, DataError
from mimctr.images import decode_image


@dataclass(frozen=True, kw_only=True, slots=True)
class NewItem:
    """An item as it comes in.

    Args:
        key: Of the item (:func:`mimctr.data.keys.item_keys`).
        item_id: As in the catalogue.
        title: Text, if it has one.
        image: The picture's file, if it has one.
        category: Name, if it has one.
        deleted: The item goes.
        vectors: Generation -> its vector, for generations whose encoder the center does not have.
    """

    key: int
    item_id: str
    title: str | None = None
    image: bytes | None = None
    category: str | None = None
    deleted: bool = False
    vectors: Mapping[int, Float[ndarray, "content"]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """About what it takes in the log."""
        return len(self.image or b"") + len((self.title or "").encode())


class Again(NamedTuple):
    """An item whose vector somebody missed."""

    key: int
    damaged: bool
    """Whether there are bytes that do not match their checksum, in place of nothing."""

    @property
    def num_bytes(self) -> int:
        """Its content is in the log already."""
        return 0


class Renewed(StrEnum):
    """What became of an item whose vector somebody missed."""

    ASKED = "asked"
    """Its content was in the log: it was encoded again."""
    HELD = "held"
    """The log has its vectors, or its newer content just came; the store has them soon."""
    UNKNOWN = "unknown"
    """Its content is not in the log."""


class Task(NamedTuple):
    """An item that waits."""

    item: NewItem | Again
    appended: Future[Appended]
    """Of an item that comes in."""
    renewed: Future[Renewed]
    """Of one that somebody missed."""

    def fail(self, error: Exception) -> None:
        """Tell whoever waits."""
        for one in (self.appended, self.renewed):
            if not one.done():
                one.set_exception(error)

    def finish(self, appended: Appended) -> None:
        """Tell whoever waits that it is on the disk."""
        self.appended.set_result(appended)
        self.renewed.set_result(Renewed.ASKED)


def with_content(log: CenterLog, tasks: Sequence[Task]) -> list[tuple[NewItem, Task]]:
    """Return the items to be written; whoever missed one that cannot or need not be is told so."""
    coming = {task.item.key for task in tasks if isinstance(task.item, NewItem)}
    found: list[tuple[NewItem, Task]] = []
    for task in tasks:
        if isinstance(task.item, NewItem):
            found.append((task.item, task))
            continue
        item = _kept(log, task.item.key)
        if task.item.key in coming or (item is not None and not task.item.damaged and _is_held(log, item)):
            task.renewed.set_result(Renewed.HELD)
        elif item is None:
            task.renewed.set_result(Renewed.UNKNOWN)
        else:
            coming.add(item.key)
            found.append((item, task))
    return found


def _kept(log: CenterLog, key: int) -> NewItem | None:
    """Return an item as the log has it; None where its content is not there."""
    item = log.item(key)
    if item is None or item.deleted or (item.title is None and item.image is None):
        return None
    return NewItem(
        key=key, item_id=item.item_id or str(key), title=item.title, image=item.image, category=item.category
    )


def _is_held(log: CenterLog, item: NewItem) -> bool:
    """Return whether the log has an intact vector of an item in every live generation."""
    try:
        records = [log.record(one.number, item.key) for one in log.generations.all() if one.is_live]
    except DamagedRecord:
        return False
    return all(record is not None and record.has_vector for record in records)


def unreadable(item: NewItem) -> DataError | None:
    """Return what is wrong with an item's picture."""
    if item.image is None or item.deleted:
        return None
    try:
        decode_image(item.image)
    except DataError as error:
        return DataError(f"item {item.item_id}: {error}")
    return None
