"""Write a snapshot: all at once, or in pieces that the memory holds, in any order."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from mimctr.center.record import DType, VectorRecord, decode, encode, float_type
from mimctr.center.snapshot import (
    MANIFEST,
    ROWS_AT_ONCE,
    SCHEMA,
    VECTORS,
    Manifest,
    Parity,
    Snapshot,
    row_checks,
    tensor_dtypes,
)
from mimctr.errors import CenterError, DataError
from mimctr.files import write_json
from mimctr.weights import load_digest, mapped_tensors


class SnapshotWriter:
    """Writes a snapshot in pieces, in any order: more vectors than the memory holds. See :func:`write_in_pieces`."""

    def __init__(self, arrays: dict[str, ndarray], dtype: DType) -> None:
        self.arrays = arrays
        self.dtype = dtype
        self.written = np.zeros(len(arrays["keys"]), dtype=np.bool_)

    def write(
        self,
        item_keys: Int[ndarray, "rows"],
        vectors: Float[ndarray, "rows content"],
        *,
        versions: Int[ndarray, "rows"] | None = None,
        flags: UInt8[ndarray, "rows"] | None = None,
    ) -> None:
        """Write the vectors of some keys.

        Raises:
            DataError: a vector is not finite, also not as it is kept.
        """
        rows = np.searchsorted(self.arrays["keys"], item_keys).clip(max=len(self.written) - 1)
        foreign = np.flatnonzero(self.arrays["keys"][rows] != item_keys)
        if len(foreign):
            raise DataError(
                f"snapshot: item key {item_keys[foreign[0]]} was not announced, nor {len(foreign) - 1} others."
            )
        floats = float_type(self.dtype)
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
            broken = np.flatnonzero(~np.isfinite(vectors.astype(floats)).all(axis=1))
        if len(broken):
            raise DataError(
                f"snapshot: {len(broken)} of {len(item_keys)} vectors are not finite as {floats.name}, "
                f"the first belongs to item key {item_keys[broken].min()}. The encoder is broken."
            )
        self.write_payload(
            rows,
            encode(vectors, self.dtype),
            np.zeros(len(rows), np.int64) if versions is None else versions,
            np.zeros(len(rows), np.uint8) if flags is None else flags,
        )

    def copy(self, snapshot: Snapshot, rows: Int[ndarray, "rows"]) -> None:
        """Write some rows of another snapshot, each compared with its checksum first.

        Raises:
            DamagedRecord: a row does not match its checksum.
        """
        payload = snapshot.checked_payload(rows)
        if snapshot.manifest.dtype != self.dtype:
            payload = encode(decode(payload, snapshot.manifest.dtype), self.dtype)
        places = np.searchsorted(self.arrays["keys"], snapshot.keys[rows])
        self.write_payload(places, payload, snapshot.versions[rows], snapshot.flags[rows])

    def write_record(self, record: VectorRecord) -> None:
        """Write one record that has a vector."""
        self.write_payload(
            np.searchsorted(self.arrays["keys"], [record.key]),
            np.frombuffer(record.payload, dtype=np.uint8)[None],
            np.array([record.version]),
            np.array([int(record.flags)], dtype=np.uint8),
        )

    def write_payload(
        self,
        rows: Int[ndarray, "rows"],
        payload: UInt8[ndarray, "rows bytes"],
        versions: Int[ndarray, "rows"],
        flags: UInt8[ndarray, "rows"],
    ) -> None:
        """Write encoded vectors to their rows."""
        arrays = self.arrays
        if self.dtype == "int8":
            arrays["steps"][rows] = np.ascontiguousarray(payload[:, :4]).view(np.float32)[:, 0]
            arrays["vectors"][rows] = np.ascontiguousarray(payload[:, 4:]).view(np.int8)
        else:
            arrays["vectors"][rows] = payload.view(float_type(self.dtype))
        arrays["versions"][rows] = versions
        arrays["flags"][rows] = flags
        arrays["checks"][rows] = row_checks(arrays["keys"][rows], versions, flags, payload)
        self.written[rows] = True


@contextlib.contextmanager
def write_in_pieces(
    folder: Path,
    item_keys: Int[ndarray, "rows"],
    *,
    dim: int,
    encoder: str,
    dtype: DType = "float16",
    made_from: Mapping[str, str] | None = None,
    backend: str = "torch",
    parity: Parity | None = None,
    watermarks: Sequence[tuple[int, int]] = (),
) -> Iterator[SnapshotWriter]:
    """Yield a writer; when the block ends without an error, ``folder`` holds the snapshot.

    Args:
        folder: Must not hold a snapshot yet.
        item_keys: int64, each once, any order: all that will be written.
        dim: Content dimension C.
        encoder: Fingerprint of the encoder that made the vectors.
        dtype: How vectors are kept; int8 with a step of its own for each row.
        made_from: Keys or hashes of what they were made from, by name.
        backend: What ran the towers.
        parity: Its distance from PyTorch, where that is another.
        watermarks: Epoch and number of the last window that is in it, by partition of its center.

    Raises:
        DataError: a key stands twice, or was not written.
        CenterError: ``folder`` holds a snapshot already.
    """
    if (folder / MANIFEST).exists():
        raise CenterError(
            f"{folder}: holds a snapshot already, and snapshots are never changed. Choose another."
        )
    keys = np.sort(item_keys)
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        raise DataError(f"snapshot: {len(repeated)} item keys stand twice, the first is {keys[repeated[0]]}.")
    names = tensor_dtypes(dtype)
    shapes = {
        name: (kind, (len(keys), dim) if name == "vectors" else (len(keys),)) for name, kind in names.items()
    }
    with mapped_tensors(folder / VECTORS, shapes) as arrays:
        arrays["keys"][:] = keys
        writer = SnapshotWriter(arrays, dtype)
        yield writer
        if not writer.written.all():
            missing = np.flatnonzero(~writer.written)
            raise DataError(
                f"snapshot: {len(missing)} of {len(keys)} vectors were not written, the first belongs to item key "
                f"{keys[missing[0]]}."
            )
    manifest = Manifest(
        schema_version=SCHEMA,
        fingerprint=encoder,
        num_vectors=len(keys),
        dim=dim,
        dtype=dtype,
        digest=load_digest(folder / VECTORS),
        made_from=dict(made_from or {}),
        backend=backend,
        parity=parity,
        watermarks=tuple(watermarks),
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def write_snapshot(
    folder: Path,
    item_keys: Int[ndarray, "rows"],
    vectors: Float[ndarray, "rows content"],
    *,
    encoder: str,
    dtype: DType = "float16",
    made_from: Mapping[str, str] | None = None,
    backend: str = "torch",
    parity: Parity | None = None,
    watermarks: Sequence[tuple[int, int]] = (),
) -> None:
    """Write a snapshot: keys sorted, each row with its checksum.

    Args:
        folder: Must not hold a snapshot yet.
        item_keys: int64, each once, any order.
        vectors: One row per key.
        encoder: Fingerprint of the encoder that made the vectors.
        dtype: How vectors are kept: float16 with a relative rounding error of at most 2**-11, int8 with a step of its
            own for each row, float32 as they are.
        made_from: Keys or hashes of what they were made from, by name.
        backend: What ran the towers.
        parity: Its distance from PyTorch, where that is another.
        watermarks: Epoch and number of the last window that is in it, by partition.

    Raises:
        DataError: a key stands twice, or a vector is not finite (also not as it is kept).
        CenterError: ``folder`` holds a snapshot already.
    """
    with write_in_pieces(
        folder,
        item_keys,
        dim=vectors.shape[1],
        encoder=encoder,
        dtype=dtype,
        made_from=made_from,
        backend=backend,
        parity=parity,
        watermarks=watermarks,
    ) as writer:
        for first in range(0, len(item_keys), ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            writer.write(item_keys[some].astype(np.int64), vectors[some])
