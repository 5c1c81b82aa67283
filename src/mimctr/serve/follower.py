"""A scorer stays up to date with a center: what is new in its log, and which generation is active."""

import functools
import logging
import threading
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

from mimctr.center.center import Center
from mimctr.center.publish import bring_up_to_date
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.local import LocalStore
from mimctr.errors import MimctrError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 0.1
"""Between two looks at the log."""


class Follower:
    """Keeps a service up to date with a center, in a thread of its own.

    Args:
        folder: Of the center; None where it is on another machine.
        store: An embedded store, kept up to date with the live generations; None: another process does that.
        on_look: Called after each look at the center.
        in_use: Returns the generations that requests are scored with: they stay held where they were dropped.
    """

    def __init__(
        self,
        folder: Path | None,
        store: LocalStore | None = None,
        *,
        on_look: Callable[[Center | None], None] | None = None,
        in_use: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.folder = folder
        self.store = store
        self.error: str | None = None
        """What went wrong at the last look; None: nothing."""
        self._on_look = on_look
        self._in_use = in_use
        self._bases: dict[int, int] = {}
        """Generation -> number of the snapshot under it."""
        self._stop = threading.Event()
        if folder is not None and store is not None:
            center = Center(folder)
            self.look(center, store)
            center.log.close()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join()

    def look(self, center: Center, store: LocalStore) -> None:
        """Apply what is new, put newer snapshots under it, and forget what was dropped and is not in use any more."""
        in_use = self._in_use()
        for one in center.log.generations.all():
            numbers = center.snapshots(one.number)
            if not one.is_live:
                if one.number not in in_use:
                    store.drop(center.log.generations.space(one.number))
            elif numbers:
                open_base = functools.partial(_open_base, center, one.number)
                bring_up_to_date(center.log, store, one.number, open_base)
                if self._bases.setdefault(one.number, numbers[-1]) != numbers[-1]:
                    store.rebase(center.log.generations.space(one.number), open_base())
                    self._bases[one.number] = numbers[-1]

    def _run(self) -> None:
        center = None
        while not self._stop.wait(SECONDS_BETWEEN):
            try:
                if center is None and self.folder is not None:
                    center = Center(self.folder)
                if center is not None and self.store is not None:
                    self.look(center, self.store)
                if self._on_look is not None:
                    self._on_look(center)
                self.error = None
            except Exception as error:  # whatever it is: nobody hears of a thread that ends
                is_bug = not isinstance(error, MimctrError | OSError)
                told = traceback.format_exception_only(error)[-1].strip() if is_bug else str(error)
                if self.error != told:
                    logger.error("follower: %s", told, exc_info=is_bug)
                self.error = told
        if center is not None:
            center.log.close()


def _open_base(center: Center, generation: int) -> Snapshot:
    snapshot = center.open_base(generation)
    snapshot.expect_random_reads()
    return snapshot
