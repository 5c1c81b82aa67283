"""Ten million items in 1 GB of memory: imported, sealed, opened and served, beside 100,000 items in the same run.

    python benchmarks/bench_large_center.py --shop /tmp/shop --large /tmp/large

Every process under test runs in a memory cgroup of its own (root is needed): what it maps counts, as what it allocates.
A vector of 128 x float16 and a row of the model's tables for each item; SIM with content, one user, 200 candidates, a
history of 100, drawn evenly from all items. Cold: each request for the first time, its rows still on the disk; then the
same 64 requests again and again. Memory that is the process's own (RssAnon) should not grow with the catalogue; what is
mapped is the system's to take back.

Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_serve import NUM_BODIES, ask, free_port, measure
from serve_shop import ENCODER, draw_requests, write_model, write_shop
from timing import machine, print_load

from mimctr.center.snapshot import MANIFEST as SNAPSHOT
from mimctr.center.snapshot import ROWS_AT_ONCE, Snapshot
from mimctr.center.snapshot_writer import write_in_pieces
from mimctr.files import hash_path, read_json, write_json
from mimctr.serve.bundle import MANIFEST, TABLES, Bundle, Table

CGROUPS = Path("/sys/fs/cgroup")
DIM, SMALL, HISTORY, CANDIDATES = 128, 100_000, 100, 200


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shop", type=Path, required=True, help="of bench_serve.py; written where it is not there"
    )
    parser.add_argument("--large", type=Path, required=True, help="folder; written where it is not there")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--cap", type=int, default=1_000_000_000, help="bytes of memory of each process")
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    load = print_load()
    if not args.shop.is_dir():
        write_shop(args.shop, num_items=SMALL, content_dim=DIM)
    if not (args.shop / "bundles" / "sim-mim").is_dir():
        write_model(args.shop, "sim", "mim", max_length=HISTORY)
    results: dict[str, Any] = {}
    if not (args.large / "bundle").is_dir():
        write_vectors(args.large, args.items)
        results |= build(args.large, args.cap)
        widen(args.shop / "bundles" / "sim-mim", args.large / "bundle", args.items)
    for name, folder, bundle, items in (
        (f"{SMALL:,} items", args.shop, args.shop / "bundles" / "sim-mim", SMALL),
        (f"{args.items:,} items", args.large, args.large / "bundle", args.items),
    ):
        results[name] = opened(folder) | serve(folder, bundle, items, args.cap, args.seconds)
    for name, found in results.items():
        print(f"{name}: {json.dumps(found)}")
    print(json.dumps({"items": args.items, "cap": args.cap, "load": load, **machine(), "results": results}))


def write_vectors(folder: Path, items: int) -> None:
    """Write what an import reads: vectors as .npy, and their ids."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    vectors = np.lib.format.open_memmap(folder / "v.npy", mode="w+", dtype=np.float16, shape=(items, DIM))
    rng = np.random.default_rng(0)
    for first in range(0, items, ROWS_AT_ONCE):
        some = rng.standard_normal((len(vectors[first : first + ROWS_AT_ONCE]), DIM), dtype=np.float32)
        vectors[first : first + ROWS_AT_ONCE] = some / np.linalg.norm(some, axis=1, keepdims=True)
    vectors.flush()
    np.save(folder / "ids.npy", np.arange(items))


def build(folder: Path, cap: int) -> dict[str, Any]:
    """Import, seal and activate by the command line, each under the cap; return seconds and the peak of memory."""
    center, found = folder / "center", {}
    steps = {
        "init": ["init", center],
        "import": ["import", center, folder / "v.npy", "--ids", folder / "ids.npy", "--encoder", ENCODER],
        "seal": ["seal", center, 1],
        "activate": ["activate", center, 1],
    }
    for name, words in steps.items():
        start = time.perf_counter()
        with capped(f"bench-{name}", cap) as (join, peak):
            command = [sys.executable, "-m", "mimctr", "--quiet", "center", *map(str, words)]
            subprocess.run(command, check=True, preexec_fn=join, stdout=subprocess.DEVNULL)
            found[name] = {
                "seconds": round(time.perf_counter() - start, 1),
                "peak_mb": round(peak() / 1e6),
            }
    return found


def widen(bundle: Path, out: Path, items: int) -> None:
    """Write a bundle with a row for each of ``items``: those of ``bundle`` again and again."""
    shutil.copytree(bundle, out, ignore=shutil.ignore_patterns("items"))
    rows, manifest = Bundle(bundle).open_table(Table.ITEMS), read_json(bundle / MANIFEST)
    folder = out / TABLES / Table.ITEMS
    with write_in_pieces(
        folder,
        np.arange(items),
        dim=rows.dim,
        encoder=rows.fingerprint,
        dtype="float32",
        watermarks=rows.manifest.watermarks,
    ) as writer:
        for first in range(0, items, ROWS_AT_ONCE):
            keys = np.arange(first, min(first + ROWS_AT_ONCE, items))
            writer.write(keys, rows.vectors[keys % len(rows)])
    manifest["files"][f"{TABLES}/{Table.ITEMS}/{SNAPSHOT}"] = hash_path(folder / SNAPSHOT)
    write_json(out / MANIFEST, manifest)


def opened(folder: Path) -> dict[str, Any]:
    """Return how long it takes to open the vectors."""
    path = folder / "center" / "snapshots" / "1" / "1"
    start = time.perf_counter()
    snapshot = Snapshot.open(path, encoder=ENCODER)
    return {"vectors": len(snapshot), "open_ms": round(1e3 * (time.perf_counter() - start), 1)}


def serve(folder: Path, bundle: Path, items: int, cap: int, seconds: float) -> dict[str, Any]:
    """Serve under the cap; return what a load generator says, and the memory after it."""
    bodies = draw_requests(NUM_BODIES, num_items=items, candidates=CANDIDATES, history=HISTORY)
    (folder / "bodies.json").write_text(json.dumps(bodies))
    port = free_port()
    words = [sys.executable, "-m", "mimctr", "serve", str(bundle), "--center", str(folder / "center")]
    with capped("bench-serve", cap) as (join, peak):
        start = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "-c", "0", *words, "--set", f"port={port}", "--set", "deadline=30"], preexec_fn=join
        )
        try:
            ask(port, bodies[0])
            ready = time.perf_counter() - start
            cold = []
            for body in bodies[1:]:
                start = time.perf_counter()
                ask(port, body)
                cold.append(1e3 * (time.perf_counter() - start))
            found = measure(port, folder, seconds)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            process.wait(30)
        memory = {
            name: round(int(line.split()[1]) * 1024 / 1e6)
            for line in status.splitlines()
            for name in ("RssAnon", "RssFile")
            if line.startswith(name)
        }
        return {
            "first_answer_s": round(ready, 1),
            "cold_p50_ms": round(statistics.median(cold), 1),
            "cold_max_ms": round(max(cold), 1),
            "peak_per_second": round(found["peak"]["per_second"], 1),
            "even_p50_ms": round(found["even"]["p50_ms"], 2),
            "even_p99_ms": round(found["even"]["p99_ms"], 2),
            "wrong": found["peak"]["wrong"] + found["even"]["wrong"],
            "RssAnon_mb": memory["RssAnon"],
            "RssFile_mb": memory["RssFile"],
            "cgroup_peak_mb": round(peak() / 1e6),
        }


@contextlib.contextmanager
def capped(name: str, cap: int) -> Iterator[tuple[Callable[[], None], Callable[[], int]]]:
    """Yield how a child joins a memory cgroup, and how much its processes held at most."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / name if unified else CGROUPS / "memory" / name
    limit, peak = (
        ("memory.max", "memory.peak") if unified else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
    )
    try:
        group.mkdir()
        (group / limit).write_text(str(cap))
    except OSError as error:
        raise SystemExit(f"{group}: {error.strerror}. Run this as root, with a memory cgroup.") from None
    try:
        yield (
            lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None,
            lambda: int((group / peak).read_text()),
        )
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main()
