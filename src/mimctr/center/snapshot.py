"""MFM: the immutable, memory-mapped table item key -> ``h^MM`` (MIM Section 3.5, MM features memorization).

A snapshot is a folder: ``vectors.safetensors`` (keys sorted, float16 vectors, and of each row its version, flags and
checksum) and ``manifest.json`` (the encoder's fingerprint, counts, digest, and up to which windows it reaches). It is
written once and never changed; a new catalogue or encoder gets a new folder.
"""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mimctr.center.record import DType, Flag, Found, State, VectorRecord, decode, encode
from mimctr.errors import CenterError, DamagedRecord, DataError, StaleSnapshot
from mimctr.files import read_json, write_json
from mimctr.weights import digest_tensors, load_digest, mapped_tensors

VECTORS = "vectors.safetensors"
MANIFEST = "manifest.json"
SCHEMA = 3
TENSORS = {"keys": "int64", "vectors": "float16", "versions": "int64", "flags": "uint8", "checks": "int32"}
"""What the file holds, a row for each item."""
ROWS_AT_ONCE = 65_536


class Parity(BaseModel):
    """How close another back-end's content vectors are to PyTorch's, measured on items of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_compared: int
    mean_cosine: float
    least_cosine: float


class Manifest(BaseModel):
    """What a snapshot says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    fingerprint: str
    """Of the encoder that made the vectors."""
    num_vectors: int
    dim: int
    dtype: DType
    digest: str
    """SHA-256 over all tensors."""
    made_from: dict[str, str]
    """Keys or hashes of what it was made from, by name."""
    backend: str
    """What ran the towers."""
    parity: Parity | None
    """Null where that was PyTorch."""
    watermarks: tuple[tuple[int, int], ...]
    """Epoch and number of the last window that is in it, by partition of its center; empty outside of one."""


class Snapshot:
    """A memory-mapped table of content embeddings. Opening it reads the keys, not the vectors.

    Args:
        tensors: As the file holds them, memory-mapped; see :data:`TENSORS`.
        manifest: As read from the folder.
    """

    def __init__(self, tensors: Mapping[str, ndarray], manifest: Manifest) -> None:
        self.keys: Int[ndarray, rows] = tensors["keys"]
        """Strictly increasing."""
        self.vectors = tensors["vectors"]
        """float16; int8 where ``steps`` are the unit of each row."""
        self.steps: Float[ndarray, rows] | None = tensors.get("steps")
        self.versions: Int[ndarray, rows] = tensors["versions"]
        self.flags: UInt8[ndarray, rows] = tensors["flags"]
        self.checks: Int[ndarray, rows] = tensors["checks"]
        self.manifest = manifest

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """Content dimension C."""
        return self.manifest.dim

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder that made the vectors."""
        return self.manifest.fingerprint

    @classmethod
    def open(cls, folder: Path, *, encoder: str) -> "Snapshot":
        """Open the snapshot in ``folder``.

        Args:
            folder: Written by :func:`write_snapshot`.
            encoder: Fingerprint of the encoder whose vectors the caller means to use.

        Raises:
            CenterError: the folder holds no readable snapshot.
            StaleSnapshot: the vectors came from another encoder.
        """
        manifest = read_manifest(folder)
        if manifest.fingerprint != encoder:
            raise StaleSnapshot(
                f"{folder}: its vectors came from encoder {manifest.fingerprint[:12]}, not from {encoder[:12]}. "
                "Vectors of two encoders must not be mixed; run 'mimctr embed' with this encoder."
            )
        tensors = _map_tensors(folder, manifest.dtype)
        vectors, keys = tensors["vectors"], tensors["keys"]
        if vectors.shape != (manifest.num_vectors, manifest.dim) or any(
            len(tensor) != len(vectors) for tensor in tensors.values()
        ):
            raise CenterError(
                f"{folder}: the manifest promises {manifest.num_vectors} x {manifest.dim} vectors, "
                f"the file holds {' x '.join(map(str, vectors.shape))} and {len(keys)} keys. Run 'mimctr embed' again."
            )
        _refuse_unsorted(folder, keys.numpy())
        return cls({name: tensor.numpy() for name, tensor in tensors.items()}, manifest)

    def rows(self, item_keys: Int[ndarray, "*shape"]) -> Int[ndarray, "*shape"]:
        """Return the row of each key, -1 where the snapshot does not hold it.

        An unknown key is an answer, not an error: new items arrive before their vectors do.

        Cost: one binary search per key. Resolve keys once per dataset, then gather by row.
        """
        if not len(self.keys):
            return np.full(item_keys.shape, -1)
        row = np.searchsorted(self.keys, item_keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[row] == item_keys, row, -1)

    def fetch(self, item_keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``item_keys``, each compared with its checksum."""
        rows = self.rows(item_keys)
        found = Found.misses(len(rows), self.dim)
        there = np.flatnonzero(rows >= 0)
        rows = rows[there]
        payload = self.payload(rows)
        intact = self._check(rows, payload) == self.checks[rows]
        found.states[there] = np.where(intact, State.HIT, State.DAMAGED)
        found.vectors[there[intact]] = decode(payload[intact], self.manifest.dtype)
        return found

    def payload(self, rows: Int[ndarray, "rows"]) -> UInt8[ndarray, "rows bytes"]:
        """Return the bytes of some rows' vectors (:func:`~mimctr.center.record.encode`)."""
        units = self.vectors[rows].view(np.uint8)
        if self.steps is None:
            return units
        return np.concatenate([self.steps[rows][:, None].view(np.uint8), units], axis=1)

    def checked_payload(self, rows: Int[ndarray, "rows"]) -> UInt8[ndarray, "rows bytes"]:
        """Return the same, each row compared with its checksum.

        Raises:
            DamagedRecord: a row does not match it.
        """
        payload = self.payload(rows)
        wrong = np.flatnonzero(self._check(rows, payload) != self.checks[rows])
        if len(wrong):
            raise DamagedRecord(
                f"{len(wrong)} of {len(rows)} rows of a snapshot do not match their checksums, the first is of item "
                f"key {self.keys[rows[wrong[0]]]}. Write the snapshot again."
            )
        return payload

    def records(self, rows: Int[ndarray, "rows"]) -> Iterator[VectorRecord]:
        """Return some rows as records.

        Raises:
            DamagedRecord: a row does not match its checksum.
        """
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            payload = self.checked_payload(some)
            columns = (column[some].tolist() for column in (self.keys, self.versions, self.flags))
            for key, version, flags, vector in zip(*columns, payload, strict=True):
                yield VectorRecord(key, version, Flag(flags), vector.tobytes(), self.manifest.dtype)

    def _check(
        self, rows: Int[ndarray, "rows"], payload: UInt8[ndarray, "rows bytes"]
    ) -> Int[ndarray, "rows"]:
        return _checks(self.keys[rows], self.versions[rows], self.flags[rows], payload)


def _checks(
    keys: Int[ndarray, "rows"],
    versions: Int[ndarray, "rows"],
    flags: UInt8[ndarray, "rows"],
    payload: UInt8[ndarray, "rows bytes"],
) -> Int[ndarray, "rows"]:
    """Return the CRC-32 of each row: of its key, version, flags and vector. The bits of it, as int32."""
    columns = (keys[:, None].view(np.uint8), versions[:, None].view(np.uint8), flags[:, None], payload)
    whole = np.concatenate(columns, axis=1)
    width, data = whole.shape[1], whole.tobytes()
    crc = [zlib.crc32(data[start : start + width]) for start in range(0, len(data), width)]
    return np.array(crc, dtype=np.uint32).view(np.int32)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the snapshot in ``folder``.

    Raises:
        CenterError: there is none, or it is not a manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise CenterError(f"{folder}: holds no snapshot ({MANIFEST} is missing). Run 'mimctr embed' first.")
    raw = read_json(folder / MANIFEST)
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found is not None and found != SCHEMA:
        raise CenterError(
            f"{folder}: a snapshot of schema {found}, this program reads {SCHEMA}. Run 'mimctr embed' again."
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise CenterError(
            f"{folder / MANIFEST}: not a snapshot manifest ({'.'.join(map(str, first['loc']))}: {first['msg']}). "
            "Run 'mimctr embed' again."
        ) from None


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
            DataError: a vector is not finite, also not as float16.
        """
        rows = np.searchsorted(self.arrays["keys"], item_keys).clip(max=len(self.written) - 1)
        foreign = np.flatnonzero(self.arrays["keys"][rows] != item_keys)
        if len(foreign):
            raise DataError(
                f"snapshot: item key {item_keys[foreign[0]]} was not announced, nor {len(foreign) - 1} others."
            )
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
            broken = np.flatnonzero(~np.isfinite(vectors.astype(np.float16)).all(axis=1))
        if len(broken):
            raise DataError(
                f"snapshot: {len(broken)} of {len(item_keys)} vectors are not finite as float16, "
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
            arrays["vectors"][rows] = payload.view(np.float16)
        arrays["versions"][rows] = versions
        arrays["flags"][rows] = flags
        arrays["checks"][rows] = _checks(arrays["keys"][rows], versions, flags, payload)
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
    names = {**TENSORS, "vectors": dtype} | ({"steps": "float32"} if dtype == "int8" else {})
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
) -> None:
    """Write a snapshot: keys sorted, vectors as float16 (a relative rounding error of at most 2**-11).

    Args:
        folder: Must not hold a snapshot yet.
        item_keys: int64, each once, any order.
        vectors: One row per key.
        encoder: Fingerprint of the encoder that made the vectors.
        dtype: How vectors are kept; int8 with a step of its own for each row.
        made_from: Keys or hashes of what they were made from, by name.
        backend: What ran the towers.
        parity: Its distance from PyTorch, where that is another.

    Raises:
        DataError: a key stands twice, or a vector is not finite (also not as float16).
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
    ) as writer:
        for first in range(0, len(item_keys), ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            writer.write(item_keys[some].astype(np.int64), vectors[some])


def verify_snapshot(folder: Path) -> Manifest:
    """Read every byte of the snapshot and compare with the digest in its manifest.

    Raises:
        CenterError: the folder holds no readable snapshot, the bytes are not those that were written, or the keys are
            not sorted.
    """
    manifest = read_manifest(folder)
    tensors = _map_tensors(folder, manifest.dtype)
    if digest_tensors(tensors) != manifest.digest:
        raise CenterError(
            f"{folder / VECTORS}: its bytes do not match the checksum in {MANIFEST}; it is damaged, or another "
            "snapshot's. Run 'mimctr embed' again."
        )
    _refuse_unsorted(folder, tensors["keys"].numpy())
    return manifest


def _map_tensors(folder: Path, dtype: DType) -> dict[str, Tensor]:
    """Return the tensors of the snapshot in ``folder``, memory-mapped.

    Raises:
        CenterError: the file is missing, torn, or holds something else.
    """
    wanted = {**TENSORS, "vectors": dtype} | ({"steps": "float32"} if dtype == "int8" else {})
    try:
        with safe_open(folder / VECTORS, framework="pt") as file:  # maps the file, copies nothing
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (FileNotFoundError, SafetensorError) as error:
        raise CenterError(f"{folder / VECTORS}: not readable ({error}). Run 'mimctr embed' again.") from None
    found = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    wrong = [name for name in wanted if found[name] != wanted[name]]
    if wrong:
        raise CenterError(
            f"{folder}: the manifest promises {', '.join(f'{wanted[name]} {name}' for name in wrong)}, "
            f"the file holds {', '.join(f'{found[name]} {name}' for name in wrong)}. Run 'mimctr embed' again."
        )
    return tensors


def _refuse_unsorted(folder: Path, keys: Int[ndarray, "rows"]) -> None:
    """See to it that every key can be found by a binary search."""
    if (np.diff(keys) <= 0).any():
        raise CenterError(f"{folder}: its keys are not sorted. Run 'mimctr embed' again.")
