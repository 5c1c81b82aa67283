"""How fast are the representation center's stores, beside the limit or the plain client that does the same?

    python benchmarks/bench_center.py

Rows of a snapshot by number against ``index_select`` of a tensor in memory; rows by key against a sorted search and a
gather; rows of Redis, one server and a cluster of three on loopback, against bare clients; rows behind a cache, 90 % of
them hot; a window applied; what a row takes on Redis. What is fetched is compared first. Each measurement is the median
of some rounds, the sides in turn; of the bare clients' shares also the quartiles of some repetitions.

The bare clients are redis-py with the names given, one MGET on a server and a pipeline of one MGET a partition on a
cluster: one returns the bytes and does nothing with them, the other decodes them with NumPy, unchecked.

Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import contextlib
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from timing import machine, print_load

from mimctr.center.record import (
    DTYPES,
    LAYOUT,
    NOTHING,
    DType,
    VectorRecord,
    encode,
    partition_of,
    payload_size,
)
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_in_pieces
from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.interface import ParameterStore, Space
from mimctr.center.stores.redis import RedisStore
from mimctr.center.window import NUM_RECORDS, Window

ENCODER = "bench"
PARTITIONS = 16
REPETITIONS = 7
"""Of the comparison with a bare client."""


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--redis-rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("snapshot", "redis", "cluster"),
        default=["snapshot", "redis", "cluster"],
    )
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = print_load()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "snapshot" in args.parts:
            results |= measure_snapshot(write(folder / "large", args.rows, args.dim), args.rounds)
        if {"redis", "cluster"} & set(args.parts):
            bases = {dtype: write(folder / dtype, args.redis_rows, args.dim, dtype) for dtype in args.dtypes}
            with servers(folder, args.parts) as stores:
                for kind, store in stores.items():
                    for dtype, base in bases.items():
                        results |= measure_store(kind, dtype, store, base, args.rounds)
    for what, value in results.items():
        print(f"{what:<82} {value:>14,.3f}")
    sizes = {name: getattr(args, name) for name in ("rows", "dim", "redis_rows", "rounds")}
    print(json.dumps({**sizes, "load": load, **machine(), "results": results}))


def write(folder: Path, rows: int, dim: int, dtype: DType = "float16") -> Snapshot:
    """Write and open a snapshot of random vectors under random keys."""
    rng = np.random.default_rng(0)
    keys = rng.choice(2**62, rows, replace=False)
    with write_in_pieces(
        folder, keys, dim=dim, encoder=ENCODER, dtype=dtype, watermarks=[(0, 0)] * PARTITIONS
    ) as writer:
        for first in range(0, rows, 65_536):
            some = keys[first : first + 65_536]
            writer.write(some, rng.standard_normal((len(some), dim), dtype=np.float32))
    return Snapshot.open(folder, encoder=ENCODER)


def measure_snapshot(snapshot: Snapshot, rounds: int) -> dict[str, float]:
    """Return rows a second by number and by key, and what share of the plain way's that is."""
    rng = np.random.default_rng(1)
    table = torch.from_numpy(snapshot.vectors)
    memory = table.clone()
    found: dict[str, float] = {}
    index = torch.from_numpy(rng.integers(0, len(snapshot), 51_200))
    assert torch.equal(table.index_select(0, index), memory.index_select(0, index))
    ours, plain = in_turn(lambda: table.index_select(0, index), lambda: memory.index_select(0, index), rounds)
    found["snapshot, 51,200 rows by number, M rows/s"] = 0.0512 / ours
    found["... of index_select from memory"] = plain / ours
    sorted_keys, values = snapshot.keys.copy(), snapshot.vectors.copy()
    for count in (300, 1000):
        keys = rng.choice(sorted_keys, count)
        by_hand = lambda keys=keys: values[np.searchsorted(sorted_keys, keys)].astype(np.float32)  # noqa: E731
        assert np.array_equal(snapshot.fetch(keys).vectors, by_hand())
        ours, plain = in_turn(lambda keys=keys: snapshot.fetch(keys), by_hand, rounds)
        found[f"snapshot, {count} rows by key, checked, ms"] = 1e3 * ours
        found["... sorted search and gather, unchecked, ms" + " " * (count == 1000)] = 1e3 * plain
    return found


def measure_store(
    kind: str, dtype: DType, store: RedisStore, base: Snapshot, rounds: int
) -> dict[str, float]:
    """Return how a store on a server compares with bare clients, and with a cache before it."""
    space = Space(1, ENCODER, base.dim, dtype, PARTITIONS)
    before = used_memory(store)
    start = time.perf_counter()
    store.load(space, base)
    name = f"{kind}, {dtype}"
    found = {f"{name}, base loaded, rows/s": len(base) / (time.perf_counter() - start)}
    found[f"{name}, bytes a row of {payload_size(base.dim, dtype)}"] = (used_memory(store) - before) / len(
        base
    )
    rng = np.random.default_rng(2)
    for count in (300, 1000):
        keys = rng.choice(base.keys, count, replace=False)
        ours = functools.partial(store.fetch, space, keys)
        raw, decoded = bare_clients(store, space, keys)
        assert np.array_equal(ours().vectors, base.fetch(keys).vectors)
        assert np.array_equal(decoded(), base.fetch(keys).vectors)
        for what, plain in (("a decoding", decoded), ("a bare", raw)):
            pairs = [in_turn(ours, plain, rounds) for _ in range(REPETITIONS)]
            shares = np.percentile([other / own for own, other in pairs], (25, 50, 75))
            found[f"{name}, {count} rows, ms"] = 1e3 * statistics.median(own for own, _ in pairs)
            for part, share in zip(("lower quartile", "median", "upper quartile"), shares, strict=True):
                found[f"... {name}, {count} rows, share of {what} client's rate, {part}"] = float(share)
        found |= measure_cache(f"{name}, {count} rows", store, space, base, count, rounds)
    found[f"{name}, a window of {NUM_RECORDS}, ms"] = 1e3 * apply_windows(store, space, base, rounds)
    store.drop(space)
    return found


def bare_clients(
    store: RedisStore, space: Space, keys: ndarray
) -> tuple[Callable[[], list[bytes]], Callable[[], ndarray]]:
    """Return the plain ways to the same rows: their bytes, and their vectors, unchecked."""
    by_partition = names_of(store, space, keys)
    order = np.argsort(partition_of(keys, PARTITIONS), kind="stable")
    places = np.argsort(order)
    flat = [name for names in by_partition for name in names]
    in_order = [flat[place] for place in places.tolist()]
    payload = [("vector", {"float16": "<f2", "float32": "<f4", "int8": "i1"}[space.dtype], (space.dim,))]
    if space.dtype == "int8":
        payload.insert(0, ("step", "<f4"))
    layout = np.dtype([("head", LAYOUT), *payload, ("crc", "<u4")])

    def raw() -> list[bytes]:
        if "+cluster" not in store.url:
            return store._client.mget(in_order)
        pipeline = store._client.pipeline(transaction=False)
        for names in by_partition:
            pipeline.execute_command("MGET", *names)
        return [one for some in pipeline.execute() for one in some]

    def decoded() -> ndarray:
        rows = np.frombuffer(b"".join(raw()), dtype=layout)
        vectors = rows["vector"].astype(np.float32)
        if space.dtype == "int8":
            vectors *= rows["step"][:, None]
        return vectors if "+cluster" not in store.url else vectors[places]

    return raw, decoded


def measure_cache(
    name: str, store: RedisStore, space: Space, base: Snapshot, count: int, rounds: int
) -> dict[str, float]:
    """Return the milliseconds of requests of which nine in ten rows are hot, through a cache and without."""
    rng = np.random.default_rng(3)
    hot = base.keys[: len(base) // 20]
    cached = CachedStore(store, max_rows=2 * len(hot), seconds=3600.0)
    for first in range(0, len(hot), 1000):
        cached.fetch(space, hot[first : first + 1000])

    def requests() -> Iterator[ndarray]:
        while True:
            num_cold = count // 10
            yield rng.permutation(
                np.concatenate(
                    [rng.choice(hot, count - num_cold), rng.choice(base.keys[len(hot) :], num_cold)]
                )
            )

    both = requests()
    some = next(both)
    assert np.array_equal(cached.fetch(space, some).vectors, store.fetch(space, some).vectors)
    cached.hits = cached.misses = 0
    batches = [next(both) for _ in range(2 * rounds + 4)]
    ahead = iter(batches)
    seconds = in_turn(
        lambda: cached.fetch(space, next(ahead)), lambda: store.fetch(space, next(ahead)), rounds
    )
    return {
        f"... {name} through a cache, share of hits": cached.hits / (cached.hits + cached.misses),
        f"... {name} through a cache, ms": 1e3 * seconds[0],
        f"... {name} without, ms": 1e3 * seconds[1],
    }


def names_of(store: RedisStore, space: Space, keys: ndarray) -> list[list[bytes]]:
    """Return the keys' names on the server, a list for each partition."""
    owners = partition_of(keys, PARTITIONS)
    return [
        [store._prefix(space, owner) + int(key).to_bytes(8, "big") for key in keys[owners == owner]]
        for owner in np.unique(owners).tolist()
    ]


def apply_windows(store: ParameterStore, space: Space, base: Snapshot, rounds: int) -> float:
    """Return the median seconds of applying a full window."""
    own = base.keys[partition_of(base.keys, PARTITIONS) == 0][:NUM_RECORDS]
    dtype = space.dtype
    seconds = []
    for seq in range(1, rounds + 1):
        payloads = encode(np.full((len(own), base.dim), seq, np.float32), dtype)
        records = tuple(
            VectorRecord(key, seq, NOTHING, payload.tobytes(), dtype)
            for key, payload in zip(own.tolist(), payloads, strict=True)
        )
        window = Window(1, ENCODER, 0, "bench", 1, seq, records)
        start = time.perf_counter()
        assert store.apply(space, window).outcome == "applied"
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def used_memory(store: RedisStore) -> int:
    """Return what the primaries use."""
    if "+cluster" not in store.url:
        return store._client.info("memory")["used_memory"]
    primaries = store._client.info("memory", target_nodes=store._client.get_primaries())
    return sum(node["used_memory"] for node in primaries.values())


def in_turn(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median seconds of both, called in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for side, work in zip(seconds, (one, other), strict=True):
            start = time.perf_counter()
            work()
            if number >= 2:
                side.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


@contextlib.contextmanager
def servers(folder: Path, parts: list[str]) -> Iterator[dict[str, RedisStore]]:
    """Run the servers that the tests run; yield a store on each."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from center.servers import cluster_of_six, one_server

    with contextlib.ExitStack() as running:
        found = {}
        if "redis" in parts:
            found["redis"] = RedisStore(running.enter_context(one_server(folder / "redis")).url)
        if "cluster" in parts:
            found["cluster"] = RedisStore(running.enter_context(cluster_of_six(folder / "cluster")).url)
        yield found


if __name__ == "__main__":
    main()
