"""A vector record: what the center holds of one item in one generation, and the bytes that it travels and rests in.

The bytes name their generation and item themselves and end with a checksum over all of it, so that a row which was
damaged, misplaced or made by another encoder's generation is seen by whoever reads it.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
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


def unpack_many(
    raws: Sequence[bytes | None], keys: Int[ndarray, "keys"], *, generation: int, dim: int, dtype: DType
) -> Found:
    """Return the vectors in ``raws``, what was found under each of ``keys``; None is a miss.

    All at once: the checksums are the only work of a row's own.
    """
    found = Found.misses(len(keys), dim)
    there = [place for place, raw in enumerate(raws) if raw is not None]
    texts: list[bytes] = [raw for raw in raws if raw is not None]
    if not texts:
        return found
    places = np.array(there)
    found.states[places] = State.DAMAGED
    intact = np.fromiter(map(zlib.crc32, texts), dtype=np.uint32, count=len(texts)) == RESIDUE
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    size = payload_size(dim, dtype)
    for payload_bytes in (size, 0):
        length = _HEAD.size + payload_bytes + _CHECK.size
        chosen = np.flatnonzero(intact & (lengths == length))
        if not len(chosen):
            continue
        some = texts if len(chosen) == len(texts) else [texts[one] for one in chosen.tolist()]
        layout = np.dtype([("head", LAYOUT), ("payload", "u1", (payload_bytes,)), ("crc", "<u4")])
        rows = np.frombuffer(b"".join(some), dtype=layout)
        head, at = rows["head"], places[chosen]
        own = (head["generation"] == generation) & (head["key"] == keys[at]) & (head["schema"] == SCHEMA)
        if payload_bytes == 0:
            dead = head["flags"][own] & Flag.TOMBSTONE != 0
            found.states[at[own]] = np.where(dead, State.DELETED, State.MISS)
            continue
        own &= head["dtype"] == DTYPES[dtype]
        found.states[at[own]] = State.HIT
        payload = rows["payload"]
        found.vectors[at[own]] = decode(payload if own.all() else payload[own], dtype)
    return found


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
    if dtype == "float32":
        return np.ascontiguousarray(payload).view("<f4")
    if dtype == "float16":
        halves = payload.copy().view("<f2")  # a copy: PyTorch warns of what cannot be written
        return torch.from_numpy(halves).float().numpy()
    steps = np.ascontiguousarray(payload[:, :4]).view("<f4")
    return np.ascontiguousarray(payload[:, 4:]).view(np.int8) * steps


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
    with np.errstate(over="ignore"):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(num_partitions)).astype(np.int64)
