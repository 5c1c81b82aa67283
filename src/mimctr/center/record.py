"""A vector record: what the center holds of one item in one generation, and the bytes that it travels and rests in.

The bytes name their generation and item themselves and end with a checksum over all of it, so that a row which was
damaged, misplaced or made by another encoder's generation is seen by whoever reads it.
"""

import functools
import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8, UInt32
from numpy import ndarray

from mimctr.errors import CenterError, DamagedRecord

DType = Literal["float16", "int8", "float32"]
SCHEMA = 1
LAYOUT = np.dtype(
    [
        ("schema", "u1"),
        ("flags", "u1"),
        ("dtype", "u1"),
        ("reserved", "u1"),
        ("generation", "<u4"),
        ("key", "<i8"),
        ("version", "<u8"),
    ]
)
"""What stands before the payload; ``stores/apply.lua`` reads the version at its place."""
_HEAD = struct.Struct("<BBBxIqQ")
_CHECK = struct.Struct("<I")
RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes followed by their own CRC-32."""
DTYPES: dict[DType, int] = {"float16": 1, "int8": 2, "float32": 3}
DIGEST_BITS = 128


class Flag(IntFlag):
    """What is to be known of an item beside its vector."""

    TOMBSTONE = 1
    NO_IMAGE = 2
    NO_TITLE = 4


NOTHING = Flag(0)


def content_flags(image: bytes | None, title: str | None) -> Flag:
    """Return what of an item's content is missing."""
    return (Flag.NO_IMAGE if image is None else NOTHING) | (Flag.NO_TITLE if title is None else NOTHING)


class State(IntEnum):
    """What was found under a key."""

    HIT = 0
    MISS = 1
    """Nothing, or an item without content."""
    DELETED = 2
    DAMAGED = 3
    """Bytes that do not match their checksum, or another item's or generation's."""


class Found(NamedTuple):
    """Vectors of some keys."""

    vectors: Float[ndarray, "keys content"]
    """float32; zero where ``states`` is not a hit."""
    states: UInt8[ndarray, "keys"]
    """:class:`State` of each."""

    @classmethod
    def misses(cls, num_keys: int, dim: int) -> "Found":
        """Return what is found where there is nothing."""
        return cls(np.zeros((num_keys, dim), np.float32), np.full(num_keys, int(State.MISS), dtype=np.uint8))

    @property
    def known(self) -> Bool[ndarray, "keys"]:
        """True where there is a vector."""
        return self.states == State.HIT


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """One version of one item.

    Args:
        key: The item's key (:func:`mimctr.data.keys.item_keys`).
        version: A counter of the item's own, from 1; never a clock.
        flags: See :class:`Flag`.
        payload: The vector (:func:`encode`); empty of a tombstone and of an item without content.
        dtype: Of the payload.
    """

    key: int
    version: int
    flags: Flag = NOTHING
    payload: bytes = b""
    dtype: DType = "float16"

    @property
    def has_vector(self) -> bool:
        """Whether a reader finds a vector."""
        return bool(self.payload) and not self.flags & Flag.TOMBSTONE

    def pack(self, generation: int) -> bytes:
        """Return the record's bytes, checksum last."""
        head = _HEAD.pack(SCHEMA, self.flags, DTYPES[self.dtype], generation, self.key, self.version)
        body = head + self.payload
        return body + _CHECK.pack(zlib.crc32(body))


def unpack(raw: bytes, *, generation: int) -> VectorRecord:
    """Return the record in ``raw``.

    Raises:
        DamagedRecord: the bytes do not match their checksum, or are a record of another generation or schema.
    """
    if len(raw) < _HEAD.size + _CHECK.size or zlib.crc32(raw) != RESIDUE:
        raise DamagedRecord(f"a vector record of {len(raw)} bytes does not match its checksum.")
    schema, flags, dtype, found, key, version = _HEAD.unpack_from(raw)
    if schema != SCHEMA:
        raise DamagedRecord(f"item key {key}: its record has schema {schema}, this program reads {SCHEMA}.")
    if found != generation:
        raise DamagedRecord(f"item key {key}: its record is of generation {found}, not of {generation}.")
    names = {code: name for name, code in DTYPES.items()}
    return VectorRecord(
        key, version, Flag(flags), bytes(raw[_HEAD.size : -_CHECK.size]), names.get(dtype, "float16")
    )


def version_of(raw: bytes) -> int:
    """Return the version of packed bytes, unchecked."""
    return _HEAD.unpack_from(raw)[5]


def checksums(raws: Sequence[bytes | None]) -> UInt32[ndarray, "raws"]:
    """Return what :func:`unpack_many` looks at first: the CRC-32 of packed records, checksums and all; 0 of None."""
    if all(raws):
        return np.fromiter(map(zlib.crc32, raws), dtype=np.uint32, count=len(raws))  # type: ignore[arg-type]
    return np.array([0 if raw is None else zlib.crc32(raw) for raw in raws], dtype=np.uint32)


def unpack_many(
    raws: Sequence[bytes | None],
    keys: Int[ndarray, "keys"],
    *,
    generation: int,
    dim: int,
    dtype: DType,
    sums: UInt32[ndarray, "keys"] | None = None,
) -> Found:
    """Return the vectors in ``raws``, what was found under each of ``keys``; None is a miss.

    All at once: the checksums are the only work of a row's own, and may be brought along (:func:`checksums`).
    """
    if all(raws):
        texts = list[bytes](raws)  # type: ignore[arg-type]  # none is None
        states = np.full(len(keys), int(State.DAMAGED), dtype=np.uint8)
    else:
        texts = [raw or b"" for raw in raws]
        there = np.array([raw is not None for raw in raws], dtype=bool)
        states = np.where(there, int(State.DAMAGED), int(State.MISS)).astype(np.uint8)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    intact = (checksums(raws) if sums is None else sums) == RESIDUE
    vectors: Float[ndarray, "keys content"] | None = None
    for payload_bytes in (payload_size(dim, dtype), 0):
        layout = _whole(payload_bytes)
        chosen = np.flatnonzero(intact & (lengths == layout.itemsize))
        if not len(chosen):
            continue
        some = texts if len(chosen) == len(texts) else [texts[one] for one in chosen.tolist()]
        rows = np.frombuffer(
            bytearray().join(some), dtype=layout
        )  # may be written, so that it need not be copied
        head = rows["head"]
        own = (head["generation"] == generation) & (head["key"] == keys[chosen]) & (head["schema"] == SCHEMA)
        if payload_bytes == 0:
            dead = head["flags"][own] & Flag.TOMBSTONE != 0
            states[chosen[own]] = np.where(dead, State.DELETED, State.MISS)
            continue
        own &= head["dtype"] == DTYPES[dtype]
        hits = chosen[own]
        states[hits] = State.HIT
        if len(hits) == len(keys):
            return Found(decode(rows["payload"], dtype), states)
        vectors = np.zeros((len(keys), dim), np.float32)
        vectors[hits] = decode(rows["payload"][own], dtype)
    return Found(np.zeros((len(keys), dim), np.float32) if vectors is None else vectors, states)


@functools.cache
def _whole(payload_bytes: int) -> np.dtype[np.void]:
    """Return the layout of a record and its checksum."""
    return np.dtype([("head", LAYOUT), ("payload", "u1", (payload_bytes,)), ("crc", "<u4")])


def have_length(vectors: Float[ndarray, "rows content"]) -> Bool[ndarray, "rows"]:
    """Return which vectors have a length in float32 that is neither zero nor infinite: the others have no cosine."""
    with np.errstate(over="ignore"):
        squares = np.square(vectors.astype(np.float32)).sum(axis=1)
    return (squares > 0) & np.isfinite(squares)


def encode(vectors: Float[ndarray, "rows content"], dtype: DType) -> UInt8[ndarray, "rows bytes"]:
    """Return the payloads of vectors: float16, float32, or int8 behind the float32 step that one of its units is.

    Raises:
        CenterError: a vector is not finite, or is too large for float16 where it is to be float16 or int8.
    """
    floats = float_type(dtype)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(vectors, dtype=floats)
    broken = np.flatnonzero(~np.isfinite(rounded).all(axis=1))
    if len(broken):
        raise CenterError(
            f"{len(broken)} of {len(vectors)} vectors are not finite as {floats.name}, the first stands at "
            f"{broken[0]}. The encoder is broken, or the vectors are not what they should be."
        )
    if dtype != "int8":
        return rounded.view(np.uint8)
    steps, units = quantize(vectors.astype(np.float32))
    return np.concatenate([steps.astype("<f4")[:, None].view(np.uint8), units.view(np.uint8)], axis=1)


def decode(payload: UInt8[ndarray, "rows bytes"], dtype: DType) -> Float[ndarray, "rows content"]:
    """Return the float32 vectors of payloads."""
    if not payload.flags.writeable:
        payload = payload.copy()  # PyTorch warns of what cannot be written
    if dtype == "float32":
        return np.ascontiguousarray(payload).view("<f4")
    if dtype == "float16":
        return torch.from_numpy(payload.view("<f2")).float().numpy()
    steps = payload[:, :4].copy().view("<f4")  # one row counts as contiguous at any stride
    units = torch.from_numpy(payload[:, 4:].view(np.int8))
    return units.float().mul_(torch.from_numpy(steps)).numpy()


def quantize(
    vectors: Float[ndarray, "rows content"],
) -> tuple[Float[ndarray, "rows"], Int[ndarray, "rows content"]]:
    """Return the step and the int8 units of each vector: ``v ~ step * units``, off by half a step at most."""
    steps = np.abs(vectors).max(axis=1, initial=0.0) / 127
    safe = np.where(steps > 0, steps, 1.0)
    return steps.astype(np.float32), np.rint(vectors / safe[:, None]).astype(np.int8)


def payload_size(dim: int, dtype: DType) -> int:
    """Return the bytes of a payload."""
    return 4 + dim if dtype == "int8" else dim * float_type(dtype).itemsize


def float_type(dtype: DType) -> np.dtype:
    """Return the type as which vectors must be finite: what they are kept as; float16 for int8."""
    return np.dtype("<f4" if dtype == "float32" else "<f2")


class Digest(NamedTuple):
    """What a set of records comes to: the same for the same vectors, in whatever order and wherever they are kept."""

    num_vectors: int
    value: int
    """128 bits."""

    def __add__(self, other: "Digest") -> "Digest":  # type: ignore[override]
        return Digest(self.num_vectors + other.num_vectors, (self.value + other.value) % (1 << DIGEST_BITS))


def digest(records: Iterable[VectorRecord]) -> Digest:
    """Return the digest of the records that have a vector: the sum of the hashes of key, version, flags and payload."""
    count = total = 0
    for record in records:
        if record.has_vector:
            count += 1
            total += int.from_bytes(
                hashlib.blake2b(record.pack(0), digest_size=DIGEST_BITS // 8).digest(), "little"
            )
    return Digest(count, total % (1 << DIGEST_BITS))


def partition_of(keys: Int[ndarray, "keys"], num_partitions: int) -> Int[ndarray, "keys"]:
    """Return the partition of each item: its mixed key (SplitMix64's finalizer) modulo the number of partitions."""
    mixed = keys.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(num_partitions)).astype(np.int64)
