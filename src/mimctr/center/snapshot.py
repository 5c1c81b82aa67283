"""MFM: the immutable, memory-mapped table item key -> ``h^MM`` (MIM Section 3.5, MM features memorization).

A snapshot is a folder: ``vectors.safetensors`` (keys sorted, float16 vectors) and ``manifest.json`` (the encoder's
fingerprint, counts, digest). It is written once and never changed; a new catalogue or encoder gets a new folder.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mimctr.errors import CenterError, DataError, StaleSnapshot
from mimctr.files import read_json, write_json
from mimctr.weights import digest_tensors, save_tensors

VECTORS = "vectors.safetensors"
MANIFEST = "manifest.json"
SCHEMA = 2


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
    dtype: str
    digest: str
    """SHA-256 over keys and vectors."""
    made_from: dict[str, str]
    """Keys or hashes of what it was made from, by name."""
    backend: str
    """What ran the towers."""
    parity: Parity | None
    """Null where that was PyTorch."""


class Snapshot:
    """A memory-mapped table of content embeddings. Opening it reads the keys, not the vectors.

    Args:
        keys: int64, strictly increasing.
        vectors: float16, one row per key.
        manifest: As read from the folder.
    """

    def __init__(
        self, keys: Int[ndarray, "rows"], vectors: Float[ndarray, "rows content"], manifest: Manifest
    ) -> None:
        self.keys = keys
        self.vectors = vectors
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
        tensors = _map_tensors(folder)
        keys, vectors = tensors["keys"], tensors["vectors"]
        dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in (keys, vectors)]
        if dtypes != ["int64", manifest.dtype]:
            raise CenterError(
                f"{folder}: the manifest promises int64 keys and {manifest.dtype} vectors, the file holds {dtypes[0]} "
                f"and {dtypes[1]}. Run 'mimctr embed' again."
            )
        if vectors.shape != (manifest.num_vectors, manifest.dim) or keys.shape != vectors.shape[:1]:
            raise CenterError(
                f"{folder}: the manifest promises {manifest.num_vectors} x {manifest.dim} vectors, "
                f"the file holds {' x '.join(map(str, vectors.shape))} and {len(keys)} keys. Run 'mimctr embed' again."
            )
        _refuse_unsorted(folder, keys.numpy())
        return cls(keys.numpy(), vectors.numpy(), manifest)

    def rows(self, item_keys: Int[ndarray, "*shape"]) -> Int[ndarray, "*shape"]:
        """Return the row of each key, -1 where the snapshot does not hold it.

        An unknown key is an answer, not an error: new items arrive before their vectors do.

        Cost: one binary search per key. Resolve keys once per dataset, then gather by row.
        """
        if not len(self.keys):
            return np.full(item_keys.shape, -1)
        row = np.searchsorted(self.keys, item_keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[row] == item_keys, row, -1)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the snapshot in ``folder``.

    Raises:
        CenterError: there is none, or it is not a manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise CenterError(f"{folder}: holds no snapshot ({MANIFEST} is missing). Run 'mimctr embed' first.")
    try:
        return Manifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError as error:
        first = error.errors()[0]
        raise CenterError(
            f"{folder / MANIFEST}: not a snapshot manifest ({'.'.join(map(str, first['loc']))}: {first['msg']}). "
            "Run 'mimctr embed' again."
        ) from None


def write_snapshot(
    folder: Path,
    item_keys: Int[ndarray, "rows"],
    vectors: Float[ndarray, "rows content"],
    *,
    encoder: str,
    made_from: Mapping[str, str] | None = None,
    backend: str = "torch",
    parity: Parity | None = None,
) -> Manifest:
    """Write a snapshot: keys sorted, vectors as float16 (a relative rounding error of at most 2**-11).

    Args:
        folder: Must not hold a snapshot yet.
        item_keys: int64, each once, any order.
        vectors: One row per key.
        encoder: Fingerprint of the encoder that made the vectors.
        made_from: Keys or hashes of what they were made from, by name.
        backend: What ran the towers.
        parity: Its distance from PyTorch, where that is another.

    Raises:
        DataError: a key stands twice, or a vector is not finite (also not as float16).
        CenterError: ``folder`` holds a snapshot already.
    """
    if (folder / MANIFEST).exists():
        raise CenterError(
            f"{folder}: holds a snapshot already, and snapshots are never changed. Choose another."
        )
    order = np.argsort(item_keys, kind="stable")
    keys = np.ascontiguousarray(item_keys[order], dtype=np.int64)
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        raise DataError(f"snapshot: {len(repeated)} item keys stand twice, the first is {keys[repeated[0]]}.")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused below
        halves = vectors[order].astype(np.float16)
    broken = np.flatnonzero(~np.isfinite(halves).all(axis=1))
    if len(broken):
        raise DataError(
            f"snapshot: {len(broken)} of {len(keys)} vectors are not finite as float16, "
            f"the first belongs to item key {keys[broken[0]]}. The encoder is broken."
        )
    tensors = {"keys": torch.from_numpy(keys), "vectors": torch.from_numpy(halves)}
    digest = save_tensors(folder / VECTORS, tensors)
    manifest = Manifest(
        schema_version=SCHEMA,
        fingerprint=encoder,
        num_vectors=len(keys),
        dim=vectors.shape[1],
        dtype="float16",
        digest=digest,
        made_from=dict(made_from or {}),
        backend=backend,
        parity=parity,
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def verify_snapshot(folder: Path) -> Manifest:
    """Read every byte of the snapshot and compare with the digest in its manifest.

    Raises:
        CenterError: the folder holds no readable snapshot, the bytes are not those that were written, or the keys are
            not sorted.
    """
    manifest = read_manifest(folder)
    tensors = _map_tensors(folder)
    if digest_tensors(tensors) != manifest.digest:
        raise CenterError(
            f"{folder / VECTORS}: its bytes do not match the checksum in {MANIFEST}; it is damaged, or another "
            "snapshot's. Run 'mimctr embed' again."
        )
    _refuse_unsorted(folder, tensors["keys"].numpy())
    return manifest


def _map_tensors(folder: Path) -> dict[str, Tensor]:
    """Return ``keys`` and ``vectors`` of the snapshot in ``folder``, memory-mapped.

    Raises:
        CenterError: the file is missing, torn, or holds something else.
    """
    try:
        with safe_open(folder / VECTORS, framework="pt") as file:  # maps the file, copies nothing
            return {name: file.get_tensor(name) for name in ("keys", "vectors")}
    except (FileNotFoundError, SafetensorError) as error:
        raise CenterError(f"{folder / VECTORS}: not readable ({error}). Run 'mimctr embed' again.") from None


def _refuse_unsorted(folder: Path, keys: Int[ndarray, "rows"]) -> None:
    """See to it that every key can be found by a binary search."""
    if (np.diff(keys) <= 0).any():
        raise CenterError(f"{folder}: its keys are not sorted. Run 'mimctr embed' again.")
