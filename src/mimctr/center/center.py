"""A center on disk: the system of record and the snapshots beside it, and what is done with generations.

FOLDER/center.sqlite
FOLDER/snapshots/GENERATION/NUMBER/
FOLDER/encoders/FINGERPRINT/
FOLDER/builds/GENERATION/     while it is built
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from mimctr.center.generations import Generation, GenerationState
from mimctr.center.log import CenterLog
from mimctr.center.publish import behind, bring_up_to_date
from mimctr.center.record import Digest, DType, VectorRecord
from mimctr.center.snapshot import ROWS_AT_ONCE, Snapshot, verify_snapshot
from mimctr.center.snapshot_writer import SnapshotWriter, write_in_pieces
from mimctr.center.stores.interface import ParameterStore, Watermark
from mimctr.center.stores.local import LocalStore
from mimctr.errors import CenterError
from mimctr.files import atomic_folder, write_json

logger = logging.getLogger(__name__)

DATABASE, SNAPSHOTS, ENCODERS, SEAL = "center.sqlite", "snapshots", "encoders", "seal.json"
BUILDS = "builds"
NUM_PARTITIONS = 16
MIN_COVERAGE = 0.99
TRIES = 5
"""How often log and store are compared while new windows arrive between."""


class StoreSeal(BaseModel):
    """What a parameter store holds of a generation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str
    num_vectors: int
    digest: str


class Seal(BaseModel):
    """What was found when a generation was sealed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int
    fingerprint: str
    num_vectors: int
    digest: str
    coverage: float
    """Share of the active generation's items that have a vector here; of all items, where none is active."""
    stores: list[StoreSeal]


class Status(BaseModel):
    """One generation, for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int
    state: GenerationState
    fingerprint: str
    dim: int
    dtype: DType
    num_snapshots: int
    num_vectors: int
    """Of the newest snapshot."""
    num_windows: int
    """That came after it."""


class Center:
    """A center, opened by one thread of one process.

    Args:
        folder: Made by :meth:`create`.

    Raises:
        CenterError: the folder holds no center.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = CenterLog(folder / DATABASE)

    @classmethod
    def create(cls, folder: Path, *, num_partitions: int = NUM_PARTITIONS) -> "Center":
        """Make an empty center.

        Raises:
            CenterError: there is one already.
        """
        CenterLog.create(folder / DATABASE, num_partitions=num_partitions).close()
        return cls(folder)

    # Snapshots

    def snapshots(self, generation: int) -> list[int]:
        """Return the numbers of a generation's snapshots, oldest first."""
        return self.log.generations.snapshots(generation)

    def snapshot_folder(self, generation: int, number: int) -> Path:
        """Return where a snapshot lies."""
        return self.folder / SNAPSHOTS / str(generation) / str(number)

    def build_folder(self, generation: int) -> Path:
        """Return where a generation is built; gone when that is done."""
        return self.folder / BUILDS / str(generation)

    def open_base(self, generation: int) -> Snapshot:
        """Open the newest snapshot of a generation.

        Raises:
            CenterError: there is none, or it is damaged.
        """
        numbers = self.snapshots(generation)
        if not numbers:
            raise CenterError(
                f"{self.folder}: generation {generation} has no snapshot yet. Run 'mimctr center build' or 'import'."
            )
        folder = self.snapshot_folder(generation, numbers[-1])
        return Snapshot.open(folder, encoder=self.log.generations.get(generation).fingerprint)

    @contextlib.contextmanager
    def write_base(
        self,
        generation: int,
        item_keys: Int[ndarray, "rows"],
        *,
        watermarks: Sequence[Watermark] | None = None,
    ) -> Iterator[SnapshotWriter]:
        """Yield a writer of a generation's next snapshot, which is registered when the block ends.

        Args:
            generation: Its number.
            item_keys: int64, each once: all that will be written.
            watermarks: Up to which window of each partition it reaches; None: from before the first.
        """
        one = self.log.generations.get(generation)
        number = max(self.snapshots(generation), default=0) + 1
        folder = self.snapshot_folder(generation, number)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted writer left
        marks = watermarks or [Watermark(0, 0)] * self.log.num_partitions
        with write_in_pieces(
            folder,
            item_keys,
            dim=one.dim,
            encoder=one.fingerprint,
            dtype=one.dtype,
            watermarks=[(mark.epoch, mark.seq) for mark in marks],
        ) as writer:
            yield writer
        self.log.generations.register_snapshot(generation, number, verify_snapshot(folder).digest)

    def keep_encoder(self, folder: Path, fingerprint: str) -> None:
        """Keep a copy of an item encoder, with which new items are encoded."""
        kept = self.folder / ENCODERS / fingerprint
        if not kept.exists():
            with atomic_folder(kept) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)

    def adopt(self, snapshot: Snapshot, *, dtype: DType | None = None) -> Generation:
        """Begin a generation with the vectors of a snapshot from anywhere, ``mimctr embed``'s for one.

        Args:
            snapshot: Any; it stays as it is.
            dtype: How the center keeps its vectors; None: as the snapshot does.
        """
        kept = dtype or snapshot.manifest.dtype
        one = self.log.generations.begin(fingerprint=snapshot.fingerprint, dim=snapshot.dim, dtype=kept)
        with self.write_base(one.number, snapshot.keys) as writer:
            for first in range(0, len(snapshot), ROWS_AT_ONCE):
                rows = np.arange(first, min(first + ROWS_AT_ONCE, len(snapshot)))
                writer.copy(snapshot, rows)
        return one

    def compact(self, generation: int) -> int:
        """Write the next snapshot of a generation, from its last one and the windows since; return its number.

        Whoever reads the last one keeps it. Without a window since, the last one's number is returned.
        """
        base = self.open_base(generation)
        before = [Watermark(*mark) for mark in base.manifest.watermarks]
        with contextlib.closing(CenterLog(self.folder / DATABASE)) as log, log.reading():
            heads = [log.head(generation, partition) for partition in range(log.num_partitions)]
            if heads == before:
                return self.snapshots(generation)[-1]
            since = [(one.key, one.has_vector) for one in _since(log, generation, before)]
            changed, live = (np.array(part) for part in zip(*since, strict=True))
            kept = np.flatnonzero(~np.isin(base.keys, changed))
            keys = np.concatenate([base.keys[kept], changed[live]])
            with self.write_base(generation, keys, watermarks=heads) as writer:
                for first in range(0, len(kept), ROWS_AT_ONCE):
                    writer.copy(base, kept[first : first + ROWS_AT_ONCE])
                for record in _since(log, generation, before):
                    if record.has_vector:
                        writer.write_record(record)
        return self.snapshots(generation)[-1]

    # Generations

    def number(self, generation: int | None) -> int:
        """Return ``generation``, or the active one's number, or the newest one's that lives.

        Raises:
            CenterError: there is none.
        """
        if generation is not None:
            return self.log.generations.get(generation).number
        live = [one for one in self.log.generations.all() if one.is_live]
        if not live:
            raise CenterError(f"{self.folder}: has no generation yet. Run 'mimctr center build' or 'import'.")
        return (self.log.generations.active() or live[-1]).number

    def seal(
        self, generation: int, stores: Mapping[str, ParameterStore], *, min_coverage: float = MIN_COVERAGE
    ) -> Seal:
        """Let a generation be activated, if log and stores hold the same and enough items have a vector.

        Args:
            generation: One that is building.
            stores: Name -> parameter store that will serve it; brought up to date first.
            min_coverage: Least share of the active generation's items that must have a vector.

        Raises:
            CenterError: something does not hold; the generation stays as it is.
        """
        if self.build_folder(generation).exists():
            raise CenterError(
                f"generation {generation}: its build was interrupted. Run 'mimctr center build' again; it goes on."
            )
        space = self.log.generations.space(generation)
        own = LocalStore()
        found = sum(self._agreed(generation, own, own), Digest(0, 0))
        seals = []
        for name, store in stores.items():
            mine, theirs = self._agreed(generation, own, store), store.digests(space)
            wrong = [
                number for number, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]
            ]
            if wrong:
                counts = ", ".join(
                    f"{theirs[one].num_vectors} for {mine[one].num_vectors}" for one in wrong[:3]
                )
                raise CenterError(
                    f"generation {generation}: {name} does not hold what the log holds in {len(wrong)} of "
                    f"{space.num_partitions} partitions (vectors: {counts}). Drop the generation there, publish again."
                )
            total = sum(theirs, Digest(0, 0))
            seals.append(StoreSeal(store=name, num_vectors=total.num_vectors, digest=f"{total.value:032x}"))
        coverage = self._coverage(generation, own)
        if coverage < min_coverage:
            raise CenterError(
                f"generation {generation}: only {coverage:.1%} of the items that are served now have a vector in it, "
                f"wanted {min_coverage:.1%}. Embed the rest, or lower --min-coverage."
            )
        seal = Seal(
            generation=generation,
            fingerprint=space.fingerprint,
            num_vectors=found.num_vectors,
            digest=f"{found.value:032x}",
            coverage=coverage,
            stores=seals,
        )
        self.log.generations.seal(generation)
        write_json(self.folder / SNAPSHOTS / str(generation) / SEAL, seal.model_dump(mode="json"))
        return seal

    def _agreed(self, generation: int, own: LocalStore, store: ParameterStore) -> list[Digest]:
        """Bring both to the same windows; return the digests of ``own``."""
        space = self.log.generations.space(generation)
        for _ in range(TRIES):
            for one in (own, store):
                bring_up_to_date(self.log, one, generation, lambda: self.open_base(generation))
            if own.watermarks(space) == store.watermarks(space):
                return own.digests(space)
        raise CenterError(f"generation {generation}: windows arrive faster than they are applied. Try again.")

    def _coverage(self, generation: int, own: LocalStore) -> float:
        """Return the share of the items served now that ``own`` has a vector of."""
        active = self.log.generations.active()
        if active is None:
            wanted = self.log.item_keys()
        else:
            served = LocalStore()
            bring_up_to_date(self.log, served, active.number, lambda: self.open_base(active.number))
            wanted = served.keys(self.log.generations.space(active.number))
        if not len(wanted):
            return 1.0
        return float(own.fetch(self.log.generations.space(generation), wanted).known.mean())

    def drop(self, generation: int, stores: Sequence[ParameterStore] = ()) -> None:
        """Forget a generation that is not served, everywhere."""
        space = self.log.generations.space(generation)
        self.log.generations.drop(generation)
        for store in stores:
            store.drop(space)
        for folder in (self.folder / SNAPSHOTS / str(generation), self.build_folder(generation)):
            shutil.rmtree(folder, ignore_errors=True)

    def collect_garbage(self, *, keep_snapshots: int = 2, keep_hours: float = 24.0) -> tuple[int, int]:
        """Remove what nobody needs: old snapshots, and windows that are in the newest one.

        Args:
            keep_snapshots: Of each generation, the newest.
            keep_hours: Windows that are younger stay, for stores that lag behind; an older store is loaded anew.

        Returns:
            Snapshots and windows that were removed.
        """
        snapshots = windows = 0
        for one in self.log.generations.all():
            if not one.is_live or not (numbers := self.snapshots(one.number)):
                continue
            marks = self.open_base(one.number).manifest.watermarks
            windows += self.log.prune(
                one.number, [seq for _, seq in marks], older_than=time.time() - 3600 * keep_hours
            )
            for number in numbers[: -max(keep_snapshots, 1)]:
                self.log.generations.forget_snapshot(one.number, number)
                shutil.rmtree(self.snapshot_folder(one.number, number))
                snapshots += 1
        return snapshots, windows

    # Looking

    def status(self) -> list[Status]:
        """Return all generations, for people."""
        found = []
        for one in self.log.generations.all():
            numbers = self.snapshots(one.number)
            base = self.open_base(one.number) if numbers else None
            marks = [seq for _, seq in base.manifest.watermarks] if base else [0] * self.log.num_partitions
            ahead = (
                sum(self.log.head(one.number, p).seq - seq for p, seq in enumerate(marks))
                if one.is_live
                else 0
            )
            found.append(
                Status(
                    generation=one.number,
                    state=one.state,
                    fingerprint=one.fingerprint,
                    dim=one.dim,
                    dtype=one.dtype,
                    num_snapshots=len(numbers),
                    num_vectors=len(base) if base else 0,
                    num_windows=ahead,
                )
            )
        return found

    def verify(self, stores: Mapping[str, ParameterStore]) -> None:
        """Read and check every byte: the database, all snapshots, all windows, and what the stores hold.

        Raises:
            CenterError: something is damaged, or a store does not hold what the log holds.
        """
        self.log.verify()
        for one in self.log.generations.all():
            if not one.is_live:
                continue
            for number in self.snapshots(one.number):
                found = verify_snapshot(self.snapshot_folder(one.number, number)).digest
                if found != self.log.generations.snapshot_digest(one.number, number):
                    raise CenterError(
                        f"{self.snapshot_folder(one.number, number)}: not the snapshot that was registered."
                    )
            if not self.snapshots(one.number):
                continue
            own = LocalStore()
            for name, store in stores.items():
                late = behind(self.log, store, one.number).num_windows
                mine = self._agreed(one.number, own, store)
                if store.digests(self.log.generations.space(one.number)) != mine:
                    raise CenterError(
                        f"generation {one.number}: {name} does not hold what the log holds (it was {late} windows "
                        "behind). Drop the generation there and publish again."
                    )


def _since(log: CenterLog, generation: int, marks: Sequence[Watermark]) -> Iterator[VectorRecord]:
    """Return the newest record of every item that changed after ``marks``."""
    for partition, mark in enumerate(marks):
        yield from log.records(generation, partition, after=mark.seq)
