"""The parameter store on Redis or Valkey, one server or a Cluster: the same guarantees, rows on other machines.

A row's key is ``NAME{PARTITION}GENERATION:v`` and the item key, its value the packed record. The braces put a partition
with its watermark, ``NAME{PARTITION}GENERATION:w``, into one hash slot, so that one script writes both, or neither.
"""

import contextlib
import functools
import itertools
import secrets
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, cast

import numpy as np
from jaxtyping import Int, UInt32
from numpy import ndarray

from mimctr.center.record import Digest, DType, Found, checksums, digest, partition_of, unpack, unpack_many
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.interface import (
    Applied,
    Outcome,
    Space,
    Watermark,
    base_watermarks,
    refuse_foreign,
)
from mimctr.center.stores.mget import mget
from mimctr.center.window import Window
from mimctr.errors import ConfigError, DamagedRecord, StoreUnavailable

ROWS_AT_ONCE = 512
"""Rows that are written, or read, by one command."""
SECONDS = 2.0
"""How long a command waits for its answer."""
SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")


class RedisStore:
    """Vectors on Redis or Valkey.

    Args:
        url: ``redis://HOST:PORT/DB``, or ``redis+cluster://HOST:PORT`` of any node of a cluster.
        name: Of the center: several may share a server.

    Raises:
        ConfigError: the URL is not one, or the package ``redis`` is not installed.
        StoreUnavailable: the server cannot be reached.
    """

    def __init__(self, url: str, *, name: str = "mimctr") -> None:
        self.url = url
        self.name = name
        self._client = connect(url)
        self._apply, self._load = (
            self._client.register_script(resources.files("mimctr.center.stores").joinpath(name).read_text())
            for name in ("apply.lua", "load.lua")
        )

    def load(self, space: Space, snapshot: Snapshot) -> None:
        """Hold a generation's base. Until it is all there, the store says that it holds nothing.

        Of several that load at a time the last one to begin goes on.

        Raises:
            StoreUnavailable: another began to load meanwhile.
        """
        marks = base_watermarks(space, snapshot)
        owners = partition_of(snapshot.keys, space.num_partitions)
        token = secrets.token_hex(8)
        with telling(self.url):
            for partition in range(space.num_partitions):
                self._step("begin", token, space, partition)
            names = self._rows(space)
            while some := list(itertools.islice(names, ROWS_AT_ONCE)):
                keys = _keys(some)
                gone = keys[snapshot.rows(keys) < 0]  # the others are written over
                for partition, own in _by_partition(gone, space):
                    self._step("remove", token, space, partition, keys=gone[own].tolist())
            for partition, mark in enumerate(marks):
                records = snapshot.records(np.flatnonzero(owners == partition))
                while some_records := list(itertools.islice(records, ROWS_AT_ONCE)):
                    packed = [one.pack(space.generation) for one in some_records]
                    own_keys = [one.key for one in some_records]
                    self._step("write", token, space, partition, *packed, keys=own_keys)
                self._step("finish", token, space, partition, *mark)

    def _step(
        self, what: str, token: str, space: Space, partition: int, *args: object, keys: Sequence[int] = ()
    ) -> None:
        prefix = self._prefix(space, partition)
        names = [self._mark_key(space, partition), *(prefix + _name(key) for key in keys)]
        if not self._load(keys=names, args=[what, token, *args]):
            raise StoreUnavailable(
                f"{self.url}: another publisher began to load generation {space.generation}."
            )

    def apply(self, space: Space, window: Window) -> Applied:
        """Apply one window: one script, rows and watermark together."""
        refuse_foreign(space, window)
        prefix = self._prefix(space, window.partition)
        with telling(self.url):
            outcome, *mark = self._apply(
                keys=[
                    self._mark_key(space, window.partition),
                    *(prefix + _name(record.key) for record in window.records),
                ],
                args=[
                    window.epoch,
                    window.seq,
                    *(record.pack(space.generation) for record in window.records),
                ],
            )
        return Applied(Outcome(outcome.decode()), Watermark(*map(int, mark)) if mark else None)

    def watermarks(self, space: Space) -> list[Watermark | None]:
        """Return how far the store has come."""
        with telling(self.url):
            pipeline = self._pipeline()
            for partition in range(space.num_partitions):
                pipeline.hmget(self._mark_key(space, partition), "epoch", "seq")
            return [Watermark(int(epoch), int(seq)) if seq else None for epoch, seq in pipeline.execute()]

    def fetch(self, space: Space, keys: Int[ndarray, "keys"]) -> Found:
        """Return the vectors of ``keys``: one round trip a node."""
        if not len(keys):
            return Found.misses(0, space.dim)
        owners = partition_of(keys, space.num_partitions)
        order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=space.num_partitions).tolist()
        prefixes = _prefixes(self.name, space.generation, space.num_partitions)
        with telling(self.url):
            answers = mget(self._client, prefixes, keys[order], counts, _with_checksums)
        raws = list(itertools.chain.from_iterable(some for some, _ in answers))
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return unpack_many(
            [raws[place] for place in places.tolist()],
            keys,
            generation=space.generation,
            dim=space.dim,
            dtype=space.dtype,
            sums=np.concatenate([some for _, some in answers])[places],
        )

    def digests(self, space: Space) -> list[Digest]:
        """Return the digest of each partition: all rows are fetched."""
        found = [Digest(0, 0)] * space.num_partitions
        with telling(self.url):
            names = self._rows(space)
            while some := list(itertools.islice(names, ROWS_AT_ONCE)):
                keys = _keys(some)
                owners = partition_of(keys, space.num_partitions).tolist()
                pipeline = self._pipeline()
                for name in some:
                    pipeline.get(name)
                for name, key, owner, raw in zip(
                    some, keys.tolist(), owners, pipeline.execute(), strict=True
                ):
                    if raw is None:
                        continue
                    record = unpack(raw, generation=space.generation)
                    if record.key != key or name != self._prefix(space, owner) + _name(key):
                        raise DamagedRecord(f"item key {record.key}: its record stands under {name!r}.")
                    found[owner] += digest([record])
        return found

    def drop(self, space: Space) -> None:
        """Forget a generation: its watermarks first."""
        with telling(self.url):
            for partition in range(space.num_partitions):
                self._client.delete(self._mark_key(space, partition))
            names = self._rows(space)
            while some := list(itertools.islice(names, ROWS_AT_ONCE)):
                pipeline = self._pipeline()
                for name in some:
                    pipeline.unlink(name)
                pipeline.execute()

    def point_at(self, space: Space | None) -> None:
        """Say which generation is active, or none, to scorers that see nothing of the center but its store."""
        with telling(self.url):
            if space is None:
                self._client.delete(self._active_key())
                return
            told = {name: str(value) for name, value in space._asdict().items()}
            self._client.hset(self._active_key(), mapping=told)

    def pointed(self) -> Space | None:
        """Return the generation that is active; None where nobody said so yet."""
        with telling(self.url):
            told = {
                name.decode(): value.decode()
                for name, value in self._client.hgetall(self._active_key()).items()
            }
        if not told:
            return None
        numbers = {name: int(told.pop(name)) for name in ("generation", "dim", "num_partitions")}
        return Space(fingerprint=told["fingerprint"], dtype=cast(DType, told["dtype"]), **numbers)

    def _active_key(self) -> str:
        return f"{self.name}:active"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _rows(self, space: Space) -> Iterator[bytes]:
        """Return the keys of a generation's rows; during writes, possibly one twice, or one that is no more."""
        pattern = _escape(self.name) + b"{*}%d:v*" % space.generation
        return self._client.scan_iter(match=pattern, count=ROWS_AT_ONCE)

    def _prefix(self, space: Space, partition: int) -> bytes:
        return _prefixes(self.name, space.generation, space.num_partitions)[partition]

    def _mark_key(self, space: Space, partition: int) -> bytes:
        return b"%s{%d}%d:w" % (self.name.encode(), partition, space.generation)

    def _pipeline(self) -> Any:
        return self._client.pipeline(transaction=False)


@contextlib.contextmanager
def telling(url: str) -> Iterator[None]:
    """Say what is wrong with a server in one line.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(f"{url}: {error or type(error).__name__}") from error


def connect(url: str) -> Any:
    """Return a client of the server, or cluster, at ``url``.

    Raises:
        ConfigError: the URL is not one, or the package ``redis`` is not installed.
        StoreUnavailable: it cannot be reached.
    """
    try:
        import redis
    except ModuleNotFoundError:
        raise ConfigError(f"{url}: needs the package redis. Run: pip install 'mimctr[redis]'") from None
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise ConfigError(
            f"{url}: not the URL of a parameter store. Known: {', '.join(f'{s}://' for s in SCHEMES)}."
        )
    named: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    try:
        if scheme.endswith("+cluster"):
            return redis.RedisCluster.from_url(f"{scheme.removesuffix('+cluster')}://{rest}", **named)
        client = redis.Redis.from_url(url, **named)
        client.ping()
    except redis.exceptions.RedisError as error:
        raise StoreUnavailable(f"{url}: {error or type(error).__name__}") from error
    return client


def _name(key: int) -> bytes:
    return key.to_bytes(8, "big", signed=True)


def _by_partition(keys: Int[ndarray, "keys"], space: Space) -> Iterator[tuple[int, Int[ndarray, "places"]]]:
    """Return where the keys of each partition stand, for the partitions that have some."""
    owners = partition_of(keys, space.num_partitions)
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=space.num_partitions)
    for partition, places in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        if len(places):
            yield partition, places


@functools.lru_cache(maxsize=64)
def _prefixes(name: str, generation: int, num_partitions: int) -> tuple[bytes, ...]:
    """Return what the names of each partition's rows begin with."""
    return tuple(
        b"%s{%d}%d:v" % (name.encode(), partition, generation) for partition in range(num_partitions)
    )


def _with_checksums(raws: list[bytes | None]) -> tuple[list[bytes | None], UInt32[ndarray, "rows"]]:
    return raws, checksums(raws)


def _keys(names: list[bytes]) -> Int[ndarray, "rows"]:
    """Return the item keys in the names of rows."""
    return np.array([int.from_bytes(name[-8:], "big", signed=True) for name in names], dtype=np.int64)


def _escape(name: str) -> bytes:
    """Return a name as a pattern that matches itself."""
    return b"".join(
        b"\\" + bytes([one]) if bytes([one]) in b"[]*?\\^" else bytes([one]) for one in name.encode()
    )
