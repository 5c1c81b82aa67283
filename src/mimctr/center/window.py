"""A window: what changed in one partition of one generation, in order, ready to be applied once.

It closes after 500 ms, at 256 records or at 128 KiB, whichever is first. It carries everything that a store needs to
refuse it: generation, encoder, epoch of its producer, number in the row of windows, checksum.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mimctr.center.record import VectorRecord, unpack
from mimctr.errors import DamagedRecord, DamagedWindow

SECONDS = 0.5
NUM_RECORDS = 256
NUM_BYTES = 128 * 1024
"""When a window closes."""
SCHEMA = 1
_MAGIC = b"MIMW"
_HEAD = struct.Struct("<4sHHIIQQI")
_SIZE = struct.Struct("<I")
_CHECK_BYTES = 16


@dataclass(frozen=True, slots=True)
class Window:
    """Changes of one partition.

    Args:
        generation: Whose vectors these are.
        fingerprint: Of the encoder that made them.
        partition: Of the catalogue.
        producer: Who wrote it.
        epoch: Of the producer in this partition: one that was replaced has a smaller one.
        seq: 1, 2, 3, ... within generation and partition, without a gap.
        records: In the order of their changes.
    """

    generation: int
    fingerprint: str
    partition: int
    producer: str
    epoch: int
    seq: int
    records: tuple[VectorRecord, ...]

    def pack(self) -> bytes:
        """Return the window's bytes, checksum last."""
        names = self.fingerprint.encode(), self.producer.encode()
        head = _HEAD.pack(
            _MAGIC,
            SCHEMA,
            len(names[1]),
            self.generation,
            self.partition,
            self.epoch,
            self.seq,
            len(self.records),
        )
        parts = [head, _SIZE.pack(len(names[0])), *names]
        for record in self.records:
            raw = record.pack(self.generation)
            parts += [_SIZE.pack(len(raw)), raw]
        body = b"".join(parts)
        return body + _checksum(body)


def unpack_window(raw: bytes) -> Window:
    """Return the window in ``raw``.

    Raises:
        DamagedWindow: the bytes do not match their checksum, or are no window that this program can read.
    """
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body.startswith(_MAGIC) or _checksum(body) != check:
        raise DamagedWindow(f"a window of {len(raw)} bytes does not match its checksum.")
    _, schema, of_producer, generation, partition, epoch, seq, count = _HEAD.unpack_from(body)
    if schema != SCHEMA:
        raise DamagedWindow(f"window {seq} has schema {schema}, this program reads {SCHEMA}. Update it.")
    place = _HEAD.size + _SIZE.size
    (of_fingerprint,) = _SIZE.unpack_from(body, _HEAD.size)
    fingerprint, place = body[place : place + of_fingerprint].decode(), place + of_fingerprint
    producer, place = body[place : place + of_producer].decode(), place + of_producer
    records = []
    for _ in range(count):
        (size,) = _SIZE.unpack_from(body, place)
        place += _SIZE.size
        try:
            records.append(unpack(body[place : place + size], generation=generation))
        except DamagedRecord as error:
            raise DamagedWindow(
                f"window {seq} of generation {generation}, partition {partition}: {error}"
            ) from None
        place += size
    return Window(generation, fingerprint, partition, producer, epoch, seq, tuple(records))


def cut(records: Sequence[VectorRecord]) -> Iterator[tuple[VectorRecord, ...]]:
    """Cut records into windows that are not too long, in order."""
    part: list[VectorRecord] = []
    size = 0
    for record in records:
        own = len(record.payload)
        if part and (len(part) == NUM_RECORDS or size + own > NUM_BYTES):
            yield tuple(part)
            part, size = [], 0
        part.append(record)
        size += own
    if part:
        yield tuple(part)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()
