"""RIM: a new item is encoded the moment it comes, and is in the log when it is acknowledged (MIM Section 3.5).

The same encoder and the same code as for the whole catalogue; for every generation that is live, so that none misses an
item while another is built. Items that come close together share a forward pass and a transaction.
"""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from mimctr.center.center import ENCODERS, Center
from mimctr.center.generations import Generation
from mimctr.center.incoming import Again, NewItem, Renewed, Task, unreadable, with_content
from mimctr.center.log import Appended, Change, Producer
from mimctr.center.record import content_flags, encode, have_length
from mimctr.center.window import NUM_BYTES, NUM_RECORDS, SECONDS
from mimctr.encoders.architecture import load_transformers
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import CenterError, DataError, Fenced, MimctrError

logger = logging.getLogger(__name__)

BEGAN_MEANWHILE = 3
"""How often a batch is encoded again because a generation began meanwhile."""


class ItemRealtime:
    """Encodes and appends items; one process of a center at a time.

    Args:
        folder: The center's.
        name: Of this producer, for people.
        max_waiting: Items that may wait; more are refused.
    """

    def __init__(self, folder: Path, *, name: str, max_waiting: int = 4096) -> None:
        self.folder = folder
        self.name = name
        self._encoders: dict[str, ItemEncoder] = {}
        self._waiting: queue.Queue[Task | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="realtime", daemon=True)
        self._started: Future[None] = Future()
        self._thread.start()
        load_transformers()
        self._started.result()

    def submit(self, item: NewItem, *, wait: bool = False) -> "Future[Appended]":
        """Take an item in; the result is there when it is on the disk.

        Args:
            item: Any.
            wait: Whether to wait for room.

        Raises:
            queue.Full: too many wait, and this must not.
        """
        task = Task(item, Future(), Future())
        self._waiting.put(task, block=wait)
        return task.appended

    def renew(self, key: int, *, damaged: bool = False) -> "Future[Renewed]":
        """Encode an item again whose vector somebody missed, if its content is in the log.

        What is encoded is what the log says when its turn comes: no newer content is overwritten.

        Args:
            key: Of the item.
            damaged: Whether its vector was found damaged; else nothing is done where the log has it.

        Raises:
            queue.Full: too many wait.
        """
        task = Task(Again(key, damaged), Future(), Future())
        self._waiting.put(task, block=False)
        return task.renewed

    def num_waiting(self) -> int:
        """Return how many items wait."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            center = Center(self.folder)
            producer = center.log.take_over(self.name)
        except Exception as error:  # noqa: BLE001 - told to whoever started this
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        while batch := self._next_batch():
            try:
                self._append(center, producer, batch)
            except Exception as error:
                logger.exception("realtime: a batch of %d items failed", len(batch))
                for task in batch:
                    task.fail(error)
        center.log.close()

    def _next_batch(self) -> list[Task]:
        """Wait for an item, and as long as a window is open for more; nothing when all is done."""
        first = self._waiting.get()
        if first is None:
            return []
        batch, size, end = [first], first.item.num_bytes, time.monotonic() + SECONDS
        while len(batch) < NUM_RECORDS and size < NUM_BYTES:
            try:
                following = self._waiting.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)  # after this batch
                break
            batch.append(following)
            size += following.item.num_bytes
        return batch

    def _append(self, center: Center, producer: Producer, tasks: list[Task]) -> None:
        """Encode and write a batch; an item that cannot be encoded is told so, the others are written."""
        batch = with_content(center.log, tasks)
        for _ in range(BEGAN_MEANWHILE):
            live = [one for one in center.log.generations.all() if one.is_live]
            good, changes = [], []
            try:
                prepared = self._encode([item for item, _ in batch], live)
                for (item, task), change in zip(batch, prepared, strict=True):
                    if isinstance(change, MimctrError):
                        task.fail(change)
                    else:
                        good.append((item, task))
                        changes.append(change)
                batch = good
                if changes:
                    for (_, task), appended in zip(good, center.log.append(producer, changes), strict=True):
                        task.finish(appended)
                return
            except (Fenced, OSError) as error:
                refused: Exception = error
                break
            except CenterError as error:  # a generation began since these were encoded
                refused = error
        for _, task in batch:
            task.fail(refused)

    def _encode(self, items: Sequence[NewItem], live: Sequence[Generation]) -> list[Change | MimctrError]:
        """Return each item's change, or what is wrong with it."""
        found: list[Change | MimctrError] = []
        payloads: list[dict[int, bytes | None]] = [{} for _ in items]
        wrong: list[MimctrError | None] = [None] * len(items)
        if not any(self._encoder(one) for one in live):
            # Nobody else looks at pictures that a later build will read.
            wrong = [unreadable(item) for item in items]
        for one in live:
            for place, payload in enumerate(self._payloads(items, one)):
                if isinstance(payload, MimctrError):
                    wrong[place] = payload
                else:
                    payloads[place][one.number] = payload
        for item, error, own in zip(items, wrong, payloads, strict=True):
            found.append(error or _change(item, own))
        return found

    def _payloads(self, items: Sequence[NewItem], one: Generation) -> list[bytes | MimctrError | None]:
        """Return the encoded vectors of items in one generation, None where an item has no content."""
        encoder = self._encoder(one)
        found: list[bytes | MimctrError | None] = [None] * len(items)
        own = [place for place, item in enumerate(items) if item.vectors.get(one.number) is not None]
        for place in own:
            found[place] = _given(items[place], one)
        rest = [
            place
            for place, item in enumerate(items)
            if place not in own and not item.deleted and (item.title is not None or item.image is not None)
        ]
        if encoder is None:
            for place in rest:
                found[place] = CenterError(
                    f"item {items[place].item_id}: generation {one.number} was imported, the center has no encoder of "
                    "it. Send its vector with the item."
                )
            return found
        for place, payload in zip(rest, _embed(encoder, [items[place] for place in rest], one), strict=True):
            found[place] = payload
        return found

    def _encoder(self, one: Generation) -> ItemEncoder | None:
        folder = self.folder / ENCODERS / one.fingerprint
        if one.fingerprint not in self._encoders:
            if not folder.is_dir():
                return None
            self._encoders[one.fingerprint] = ItemEncoder.load(folder)
        return self._encoders[one.fingerprint]


def _embed(
    encoder: ItemEncoder, items: Sequence[NewItem], one: Generation
) -> list[bytes | MimctrError | None]:
    """Encode together; where one of them cannot be, each alone."""
    if not items:
        return []
    try:
        vectors, known = encoder.embed_items(
            [item.image for item in items],
            [item.title for item in items],
            [item.category for item in items],
        )
        payloads = encode(vectors.numpy(), one.dtype)
    except (DataError, CenterError) as error:
        if len(items) == 1:
            return [type(error)(f"item {items[0].item_id}: {error}")]
        return [found for item in items for found in _embed(encoder, [item], one)]
    return [payload.tobytes() if has else None for payload, has in zip(payloads, known.tolist(), strict=True)]


def _given(item: NewItem, one: Generation) -> bytes | MimctrError:
    """Return the payload of a vector that came with its item."""
    vector = np.asarray(item.vectors[one.number], dtype=np.float32)
    if vector.shape != (one.dim,):
        return DataError(
            f"item {item.item_id}: its vector has shape {vector.shape}, generation {one.number} has ({one.dim},)."
        )
    if not have_length(vector[None])[0]:
        return DataError(f"item {item.item_id}: the length of its vector in float32 is zero or not finite.")
    try:
        return encode(vector[None], one.dtype)[0].tobytes()
    except CenterError as error:
        return DataError(f"item {item.item_id}: {error}")


def _change(item: NewItem, payloads: Mapping[int, bytes | None]) -> Change:
    """Return what an item is in the log."""
    return Change(
        key=item.key,
        deleted=item.deleted,
        payloads=payloads,
        flags=content_flags(item.image, item.title),
        item_id=item.item_id,
        title=item.title,
        category=item.category,
        image=item.image,
    )
