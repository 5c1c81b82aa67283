"""How fast are the representation center's stores, beside the limit or the plain client that does the same?

    python benchmarks/bench_center.py

Rows of a snapshot by number against ``index_select`` of a tensor in memory; rows by key against a sorted search and a
gather; rows of Redis, one server and a cluster of three on loopback, against a bare pipelined client that does not look
at what it gets; a window applied; what a row takes on Redis. What is fetched is compared first. Each measurement is the
median of some rounds, the sides in turn.

Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import contextlib
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

from mimctr.center.record import NOTHING, DType, VectorRecord, encode, partition_of, payload_size
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_in_pieces
from mimctr.center.stores.interface import ParameterStore, Space
from mimctr.center.stores.redis import RedisStore
from mimctr.center.window import NUM_RECORDS, Window

ENCODER = "bench"
PARTITIONS = 16


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
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = print_load()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "snapshot" in args.parts:
            results |= measure_snapshot(write(folder / "large", args.rows, args.dim), args.rounds)
        if {"redis", "cluster"} & set(args.parts):
            base = write(folder / "small", args.redis_rows, args.dim)
            with servers(folder, args.parts) as stores:
                for kind, store in stores.items():
                    results |= measure_store(kind, store, base, args.rounds)
    for what, value in results.items():
        print(f"{what:<60} {value:>14,.3f}")
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


def measure_store(kind: str, store: RedisStore, base: Snapshot, rounds: int) -> dict[str, float]:
    """Return how a store on a server compares with a bare client."""
    space = Space(1, ENCODER, base.dim, "float16", PARTITIONS)
    before = used_memory(store)
    start = time.perf_counter()
    store.load(space, base)
    found = {f"{kind}, base loaded, rows/s": len(base) / (time.perf_counter() - start)}
    found[f"{kind}, bytes a row of {payload_size(base.dim, 'float16')}"] = (
        used_memory(store) - before
    ) / len(base)
    rng = np.random.default_rng(2)
    for count in (300, 1000):
        keys = rng.choice(base.keys, count, replace=False)
        assert np.array_equal(store.fetch(space, keys).vectors, base.fetch(keys).vectors)
        names = names_of(store, space, keys)

        flat = [b for a in names for b in a]

        def bare(names: list[list[bytes]] = names) -> list[list[bytes]]:
            if kind == "redis":
                return [store._client.mget(flat)]
            pipeline = store._client.pipeline(transaction=False)
            for some in names:
                pipeline.execute_command("MGET", *some)
            return pipeline.execute()

        layout = np.dtype([("head", "u1", (24,)), ("vector", "<f2", (base.dim,)), ("crc", "<u4")])
        places = np.argsort(partition_of(keys, PARTITIONS), kind="stable")

        def bare_decoded():
            raws = [one for some in bare() for one in some]
            out = np.empty((len(places), base.dim), np.float32)
            out[places] = np.frombuffer(b"".join(raws), layout)["vector"]
            return out

        assert np.array_equal(bare_decoded(), store.fetch(space, keys).vectors)
        ours, plain = in_turn(lambda keys=keys: store.fetch(space, keys), bare_decoded, rounds)
        found[f"... {kind}, share of a DECODING bare client's rate, {count} rows"] = plain / ours
        ours, plain = in_turn(lambda keys=keys: store.fetch(space, keys), bare, rounds)
        found[f"{kind}, {count} rows, ms"] = 1e3 * ours
        found[f"... {kind}, share of a bare client's rate, {count} rows"] = plain / ours
    found[f"{kind}, a window of {NUM_RECORDS}, ms"] = 1e3 * apply_windows(store, space, base, rounds)
    return found


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
    seconds = []
    for seq in range(1, rounds + 1):
        payloads = encode(np.full((len(own), base.dim), seq, np.float32), "float16")
        records = tuple(
            VectorRecord(key, seq, NOTHING, payload.tobytes())
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
