"""MFM: the immutable, memory-mapped table item key -> ``h^MM`` (MIM Section 3.5, MM features memorization).

A snapshot is a folder: ``vectors.safetensors`` (keys sorted, float16 vectors, and of each row its version, flags and
checksum) and ``manifest.json`` (the encoder's fingerprint, counts, digest, and up to which windows it reaches). It is
written once and never changed; a new catalogue or encoder gets a new folder.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mimctr.center.record import DType, Flag, Found, State, VectorRecord, decode
from mimctr.errors import CenterError, DamagedRecord, StaleSnapshot
from mimctr.files import advise_random, read_json
from mimctr.weights import digest_tensors

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
        """float16 or float32; int8 where ``steps`` are the unit of each row."""
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
            folder: Written by :func:`~mimctr.center.snapshot_writer.write_snapshot`.
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

    def expect_random_reads(self) -> None:
        """Tell the system that rows will be read here and there, from a table that may be larger than the memory.

        It then reads no neighbors of a row that is not in memory yet, which would push out others.
        """
        for array in (self.vectors, self.versions, self.flags, self.checks, self.steps):
            if array is not None:
                advise_random(array)

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
        return row_checks(self.keys[rows], self.versions[rows], self.flags[rows], payload)


def tensor_dtypes(dtype: DType) -> dict[str, str]:
    """Return what a snapshot's file holds: name -> dtype."""
    return {**TENSORS, "vectors": dtype} | ({"steps": "float32"} if dtype == "int8" else {})


def row_checks(
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
    wanted = tensor_dtypes(dtype)
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
    if (keys[1:] <= keys[:-1]).any():
        raise CenterError(f"{folder}: its keys are not sorted. Run 'mimctr embed' again.")
