"""What a parameter store promises, whatever it runs on: the same protocol, the same tests."""

from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Int
from numpy import ndarray

from mimctr.center.record import Digest, DType, Found
from mimctr.center.snapshot import Snapshot
from mimctr.center.window import Window
from mimctr.errors import CenterError


class Space(NamedTuple):
    """A generation as a store sees it: where vectors of one encoder live, apart from all others."""

    generation: int
    fingerprint: str
    dim: int
    dtype: DType
    num_partitions: int


class Watermark(NamedTuple):
    """How far a store has come in a partition."""

    epoch: int
    seq: int
    """The last window whose rows it holds."""


class Outcome(StrEnum):
    """What became of a window."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """The store holds it already."""
    FENCED = "fenced"
    """Its producer was replaced."""
    GAP = "gap"
    """Windows before it are missing; the publisher goes back to the watermark."""
    EMPTY = "empty"
    """The store does not hold this partition at all; it has to be loaded from a snapshot."""


class Applied(NamedTuple):
    """What became of a window, and where the store stands now."""

    outcome: Outcome
    watermark: Watermark | None


@runtime_checkable
class ParameterStore(Protocol):
    """Vectors by generation and item key.

    ``apply`` is one atomic unit: whoever reads sees all of a window's rows and its watermark, or none, also after a
    crash. A row is written only over an older version of it, so that a replay changes nothing and resurrects nothing.
    """

    def load(self, space: Space, snapshot: Snapshot) -> None:
        """Hold a generation's base: the rows of ``snapshot``, and its watermarks. May be repeated after a crash.

        Raises:
            CenterError: the snapshot is damaged, or of another encoder.
            StoreUnavailable: the store cannot be reached; nothing is half-loaded that ``apply`` would build on.
        """
        ...

    def apply(self, space: Space, window: Window) -> Applied:
        """Apply one window, or say why not.

        Raises:
            CenterError: the window is of another generation or encoder.
            StoreUnavailable: the store cannot be reached, or cannot write; the window may be applied again.
        """
        ...

    def watermarks(self, space: Space) -> list[Watermark | None]:
        """Return how far the store has come in each partition; None where it holds nothing.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        ...

    def fetch(self, space: Space, keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``keys``; a key may stand several times.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        ...

    def digests(self, space: Space) -> list[Digest]:
        """Return the digest of what the store holds of each partition, every row read and checked.

        Raises:
            DamagedRecord: a row does not match its checksum.
            StoreUnavailable: the store cannot be reached.
        """
        ...

    def drop(self, space: Space) -> None:
        """Forget a generation."""
        ...


@runtime_checkable
class Pointed(Protocol):
    """A store that says itself which generation is active."""

    def pointed(self) -> Space | None:
        """Return the generation that is active; None where nobody said so yet.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        ...


def refuse_foreign(space: Space, window: Window) -> None:
    """See to it that a window is of ``space``.

    Raises:
        CenterError: it is of another generation or encoder.
    """
    if (window.generation, window.fingerprint) != (space.generation, space.fingerprint):
        raise CenterError(
            f"window {window.seq} of partition {window.partition} is of generation {window.generation} and encoder "
            f"{window.fingerprint[:12]}, not of {space.generation} and {space.fingerprint[:12]}: generations never mix."
        )


def base_watermarks(space: Space, snapshot: Snapshot) -> list[Watermark]:
    """Return up to which window of each partition a snapshot reaches.

    Raises:
        CenterError: it is not a base of ``space``.
    """
    manifest = snapshot.manifest
    found = (manifest.fingerprint, manifest.dim, manifest.dtype, len(manifest.watermarks))
    wanted = (space.fingerprint, space.dim, space.dtype, space.num_partitions)
    if found != wanted:
        raise CenterError(
            f"a snapshot of encoder {found[0][:12]}, {found[1]} dimensions in {found[2]} and {found[3]} partitions is "
            f"no base of generation {space.generation}: encoder {wanted[0][:12]}, {wanted[1]} dimensions in "
            f"{wanted[2]} and {wanted[3]} partitions."
        )
    return [Watermark(*mark) for mark in manifest.watermarks]
