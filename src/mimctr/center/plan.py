"""How large a center becomes: bytes of snapshots and servers, from what was measured and what is assumed.

Every assumption is printed beside the result.
"""

import math
from typing import NamedTuple

from mimctr.center.record import DType, payload_size

RECORD_BYTES = 28
"""Of a record beside its vector (:mod:`mimctr.center.record`)."""
SNAPSHOT_BYTES = 8 + 8 + 1 + 4
"""Of a snapshot's row beside its vector: key, version, flags, checksum."""
REDIS_BYTES = 166.3
"""Of a row in a Redis 7.0 cluster beside its record and vector: its key, and what Redis and its allocator add. Measured
by ``benchmarks/bench_center.py`` with records of 284 bytes (docs/results.md); 127.6 in a server without a cluster."""


class Plan(NamedTuple):
    """What a catalogue takes."""

    items: int
    dim: int
    dtype: DType
    snapshot_bytes: int
    """One generation's newest snapshot on each machine that trains or scores with the embedded store."""
    snapshot_peak_bytes: int
    """Two generations while one replaces the other, and the next snapshot of one while it is compacted."""
    store_bytes: int
    """One generation on Redis, primaries only."""
    store_peak_bytes: int
    """Two generations, with replicas."""
    shards: int
    """Primaries."""
    bytes_per_shard: int
    """At the peak, without replicas."""
    log_bytes_a_day: int
    """Windows and vectors of a day's new items, for each live generation."""

    def assumptions(self) -> list[str]:
        """Return what the numbers rest on, for people."""
        return [
            f"a snapshot's row is {SNAPSHOT_BYTES} bytes and the vector's {payload_size(self.dim, self.dtype)}: exact",
            f"a row on Redis is {REDIS_BYTES:.0f} bytes, {RECORD_BYTES} of the record and the vector's: measured on "
            "a cluster of Redis 7.0, one string a row",
            "blue/green: two whole generations at a time, on disk and on Redis",
            "each primary is filled to its share of --memory at that peak; replicas are as large again",
        ]


def plan(
    items: int,
    *,
    dim: int,
    dtype: DType,
    memory: float = 64e9,
    fill: float = 0.7,
    replicas: int = 1,
    new_a_day: int = 0,
) -> Plan:
    """Return what a catalogue takes.

    Args:
        items: In the catalogue.
        dim: Of the vectors.
        dtype: How they are kept.
        memory: Bytes of a machine that runs one primary.
        fill: Share of it that Redis may fill: the rest is for a rewrite of its log, and for fragmentation.
        replicas: Of each primary.
        new_a_day: Items that come in, or change, a day.
    """
    payload = payload_size(dim, dtype)
    snapshot = items * (SNAPSHOT_BYTES + payload)
    store = round(items * (REDIS_BYTES + RECORD_BYTES + payload))
    shards = max(math.ceil(2 * store / (memory * fill)), 1)
    return Plan(
        items=items,
        dim=dim,
        dtype=dtype,
        snapshot_bytes=snapshot,
        snapshot_peak_bytes=3 * snapshot,
        store_bytes=store,
        store_peak_bytes=2 * store * (1 + replicas),
        shards=shards,
        bytes_per_shard=math.ceil(2 * store / shards),
        log_bytes_a_day=2 * new_a_day * (RECORD_BYTES + payload),
    )
