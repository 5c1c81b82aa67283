"""New items: one process of a center takes them in, next to scoring or alone. No HTTP."""

import os
import shutil
from concurrent.futures import Future
from pathlib import Path

from mimctr.center.database import DiskFull
from mimctr.center.incoming import NewItem, Renewed
from mimctr.center.log import Appended
from mimctr.center.realtime import ItemRealtime


class Items:
    """RIM in this process, which is the center's producer from now on.

    Args:
        center: Folder of the center.
        max_waiting: Items that may wait; more are refused.
        disk_floor: Bytes that must be free on the center's disk for an item to be taken in.

    Raises:
        CenterError: there is no center.
        OSError: it cannot be written.
    """

    def __init__(self, center: Path, *, max_waiting: int, disk_floor: int) -> None:
        self.center = center
        self.disk_floor = disk_floor
        self._realtime = ItemRealtime(
            center, name=f"serve {os.uname().nodename} {os.getpid()}", max_waiting=max_waiting
        )

    def close(self) -> None:
        """Finish what waits, then stop."""
        self._realtime.close()

    def submit(self, item: NewItem) -> "Future[Appended]":
        """Take an item in; the result is there when it is on the disk.

        Raises:
            queue.Full: too many wait.
            DiskFull: less is free than must be.
        """
        free = self.free_bytes()
        if free < self.disk_floor:
            raise DiskFull(
                f"{self.center}: {free:,} bytes are free on its disk, items are taken in from {self.disk_floor:,} on. "
                "Free some; scores are given as before."
            )
        return self._realtime.submit(item)

    def renew(self, key: int, *, damaged: bool) -> "Future[Renewed]":
        """Encode an item again whose vector somebody missed, if its content is in the log.

        Raises:
            queue.Full: too many wait.
        """
        return self._realtime.renew(key, damaged=damaged)

    def free_bytes(self) -> int:
        """Return what is free on the center's disk."""
        return shutil.disk_usage(self.center).free

    def num_waiting(self) -> int:
        """Return how many items wait."""
        return self._realtime.num_waiting()
