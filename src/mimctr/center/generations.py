"""Generations: vectors of one encoder each, from building to dropped, and the snapshots that each has.

BUILDING -> SEALED -> ACTIVE -> DROPPED; one is active at a time, and the one before it can be gone back to.
"""

import time
from enum import StrEnum
from typing import NamedTuple

from mimctr.center.database import Database
from mimctr.center.record import DType
from mimctr.center.stores.interface import Space
from mimctr.errors import CenterError


class GenerationState(StrEnum):
    """Where a generation stands."""

    BUILDING = "building"
    SEALED = "sealed"
    ACTIVE = "active"
    DROPPED = "dropped"


class Generation(NamedTuple):
    """Vectors of one encoder, apart from all others."""

    number: int
    fingerprint: str
    dim: int
    dtype: DType
    state: GenerationState

    @property
    def is_live(self) -> bool:
        """Whether new items go to it."""
        return self.state != GenerationState.DROPPED


class Generations:
    """The generations of a center, in its database.

    Args:
        database: Of the center.
        num_partitions: Of every generation.
    """

    def __init__(self, database: Database, *, num_partitions: int) -> None:
        self._database = database
        self.num_partitions = num_partitions

    def begin(self, *, fingerprint: str, dim: int, dtype: DType) -> Generation:
        """Start a generation: from now on every change goes to it too."""
        with self._database.transaction():
            ((number,),) = self._database.ask("SELECT coalesce(max(number), 0) + 1 FROM generations")
            self._database.change(
                "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?)",
                (number, fingerprint, dim, dtype, GenerationState.BUILDING, time.time()),
            )
            self._database.change_many(
                "INSERT INTO heads VALUES (?, ?, 0, 0)",
                [(number, partition) for partition in range(self.num_partitions)],
            )
        return self.get(number)

    def all(self) -> list[Generation]:
        """Return all generations, oldest first."""
        rows = self._database.ask(
            "SELECT number, fingerprint, dim, dtype, state FROM generations ORDER BY number"
        )
        return [
            Generation(number, fingerprint, dim, dtype, GenerationState(state))
            for number, fingerprint, dim, dtype, state in rows
        ]

    def get(self, number: int) -> Generation:
        """Return one generation.

        Raises:
            CenterError: there is none of that number.
        """
        found = {one.number: one for one in self.all()}
        if number not in found:
            named = ", ".join(map(str, found)) or "none yet"
            raise CenterError(
                f"{self._database.path.parent}: has no generation {number}. There are: {named}."
            )
        return found[number]

    def space(self, number: int) -> Space:
        """Return a generation as parameter stores see it."""
        one = self.get(number)
        return Space(one.number, one.fingerprint, one.dim, one.dtype, self.num_partitions)

    def active(self) -> Generation | None:
        """Return the generation that is served, if there is one."""
        return next((one for one in self.all() if one.state == GenerationState.ACTIVE), None)

    def seal(self, number: int) -> None:
        """Let a building generation be activated from now on."""
        self._move(number, {GenerationState.BUILDING}, GenerationState.SEALED)

    def activate(self, number: int) -> None:
        """Serve a sealed generation; the one served until now is sealed, and can be gone back to."""
        self._move(number, {GenerationState.SEALED}, GenerationState.ACTIVE)

    def previous(self) -> Generation:
        """Return the generation that was served before the active one.

        Raises:
            CenterError: there is none, or it was dropped.
        """
        active = self.active()
        rows = self._database.ask("SELECT generation FROM activations ORDER BY number DESC")
        before = next((number for (number,) in rows if active is None or number != active.number), None)
        if before is None:
            raise CenterError(
                f"{self._database.path.parent}: no generation was active before; there is nothing to go back to."
            )
        found = self.get(before)
        if not found.is_live:
            raise CenterError(
                f"{self._database.path.parent}: generation {before}, active before, was dropped."
            )
        return found

    def drop(self, number: int) -> None:
        """Forget a generation that is not served: its windows and vectors go."""
        live = {GenerationState.BUILDING, GenerationState.SEALED}
        self._move(number, live, GenerationState.DROPPED)

    def _move(self, number: int, allowed: set[GenerationState], into: GenerationState) -> None:
        self.get(number)
        with self._database.transaction():
            ((state,),) = self._database.ask("SELECT state FROM generations WHERE number = ?", (number,))
            if state not in allowed:
                raise CenterError(
                    f"{self._database.path.parent}: generation {number} is {state}; only one that is "
                    f"{' or '.join(sorted(allowed))} becomes {into}."
                )
            if into == GenerationState.ACTIVE:
                self._database.change(
                    "UPDATE generations SET state = ? WHERE state = ?",
                    (GenerationState.SEALED, GenerationState.ACTIVE),
                )
                self._database.change("INSERT INTO activations VALUES (NULL, ?, ?)", (number, time.time()))
            if into == GenerationState.DROPPED:
                for table in ("windows", "vectors", "heads", "snapshots"):
                    self._database.change(f"DELETE FROM {table} WHERE generation = ?", (number,))
            self._database.change("UPDATE generations SET state = ? WHERE number = ?", (into, number))

    def snapshots(self, generation: int) -> list[int]:
        """Return the numbers of a generation's snapshots, oldest first."""
        rows = self._database.ask(
            "SELECT number FROM snapshots WHERE generation = ? ORDER BY number", (generation,)
        )
        return [number for (number,) in rows]

    def snapshot_digest(self, generation: int, number: int) -> str:
        """Return the digest that a snapshot was registered with."""
        ((found,),) = self._database.ask(
            "SELECT digest FROM snapshots WHERE generation = ? AND number = ?", (generation, number)
        )
        return found

    def register_snapshot(self, generation: int, number: int, digest: str) -> None:
        """Let readers find a snapshot."""
        with self._database.transaction():
            self._database.change("INSERT INTO snapshots VALUES (?, ?, ?)", (generation, number, digest))

    def forget_snapshot(self, generation: int, number: int) -> None:
        """Let new readers not find a snapshot any more."""
        with self._database.transaction():
            self._database.change(
                "DELETE FROM snapshots WHERE generation = ? AND number = ?", (generation, number)
            )
