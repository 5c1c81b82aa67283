"""Do ten million impressions prepare on two cores in minutes, within 8 GB?

    python benchmarks/bench_prepare.py --impressions 10000000

Generates raw tables (text ids, queries, fields, behaviors), prepares them in a process of its own, and reads batches
back. Prints a table, then one line of JSON (the last line of stdout) with the same numbers.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from mimctr.data import CtrDataset, prepare_tables

MEMORY_LIMIT = 8 * 2**30
START = 1_700_000_000
DAYS = 120
CHUNK = 1_000_000


def main() -> None:
    """Generate, prepare, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--impressions", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=2_000, help="different images; items share them")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure(args.worker)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        begun = time.perf_counter()
        generate(folder / "tables", args)
        generated = time.perf_counter() - begun
        command = [sys.executable, __file__, "--worker", str(folder)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        check(folder, args)
        result |= {"batches": read_batches(CtrDataset.open(folder / "dataset"))}
        result["table_bytes"] = sum(
            path.stat().st_size for path in (folder / "tables").rglob("*") if path.is_file()
        )
        result["dataset_bytes"] = sum(
            path.stat().st_size for path in (folder / "dataset").rglob("*") if path.is_file()
        )
    result["rows_per_second"] = round(args.impressions / result["seconds"])
    print(f"generate  {generated:8.1f} s   {result['table_bytes'] / 1e9:6.2f} GB of Parquet")
    print(f"prepare   {result['seconds']:8.1f} s   {result['rows_per_second']:,} impressions/s")
    print(f"          {result['cpu_seconds']:8.1f} s of processor time")
    print(f"memory    {result['peak_bytes'] / 2**30:8.2f} GiB of {MEMORY_LIMIT / 2**30:.0f} GiB")
    print(f"dataset   {result['dataset_bytes'] / 1e9:8.2f} GB")
    batches = result["batches"]
    print(
        f"batches   {batches['samples_per_second']:,} samples/s, {batches['mean_length']:.1f} behaviors each (mean)"
    )
    machine = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "polars": pl.__version__,
        "numpy": np.__version__,
    }
    sizes = {name: getattr(args, name) for name in ("impressions", "items", "users", "images")}
    print(json.dumps({**sizes, **machine, "memory_limit_bytes": MEMORY_LIMIT, "results": result}))
    if result["peak_bytes"] > MEMORY_LIMIT:
        raise SystemExit("bench_prepare: over the memory limit.")


def measure(folder: Path) -> None:
    """Prepare the tables in ``folder``; print seconds and peak memory as JSON."""
    begun, worked = time.perf_counter(), time.process_time()
    summary = prepare_tables(folder / "tables", folder / "dataset")
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - worked
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    result = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "peak_bytes": peak}
    print(json.dumps({**result, "counts": summary.counts}))


def generate(folder: Path, args: argparse.Namespace) -> None:
    """Write items, impressions (in parts) and behaviors; popularity falls off as in real logs."""
    rng = np.random.default_rng(0)
    (folder / "impressions").mkdir(parents=True)
    (folder / "behaviors").mkdir()
    images = [picture(rng) for _ in range(args.images)]
    items = np.arange(args.items)
    pl.DataFrame(
        {
            "item_id": text_ids("item", items),
            "title": text_ids("some title of item", items),
            "image": [images[item % args.images] for item in items],
            "category": text_ids("category", items % 300),
            "price": rng.random(args.items),
        }
    ).write_parquet(folder / "items.parquet")
    for part, first in enumerate(range(0, args.impressions, CHUNK)):
        rows = min(CHUNK, args.impressions - first)
        log = pl.DataFrame(
            {
                "user_id": text_ids("user", popular(rng, args.users, rows)),
                "item_id": text_ids("item", popular(rng, args.items, rows)),
                "time": START + rng.permutation(DAYS * 86_400)[:rows],
                "click": (rng.random(rows) < 0.1).astype(np.int8),
                "query_text": text_ids("query", popular(rng, 100_000, rows)),
                "user_city": text_ids("city", popular(rng, 500, rows)),
                "context_hour": rng.integers(0, 24, rows),
                "true_probability": rng.random(rows),
            }
        )
        log.write_parquet(folder / "impressions" / f"{part:04}.parquet")
        done = log.filter(pl.Series(rng.random(rows) < 0.5)).select("user_id", "item_id", "time")
        bought = pl.Series("kind", rng.random(len(done)) < 0.05).replace_strict(
            {True: "purchase", False: "click"}
        )
        done.with_columns(bought).write_parquet(folder / "behaviors" / f"{part:04}.parquet")


def text_ids(name: str, numbers: np.ndarray) -> pl.Series:
    """Return ``name-number`` for every number."""
    return pl.DataFrame({"number": numbers}).select(pl.format(name + "-{}", "number")).to_series()


def popular(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Return numbers below ``count``, small ones more often."""
    return (count * rng.random(rows) ** 3).astype(np.int64)


def picture(rng: np.random.Generator) -> bytes:
    """Return a small JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def check(folder: Path, args: argparse.Namespace) -> None:
    """A fast wrong dataset is worth nothing: compare sampled histories with a filter over the raw tables."""
    dataset = CtrDataset.open(folder / "dataset")
    assert len(dataset.impressions) == args.impressions
    behaviors = pl.scan_parquet(folder / "tables" / "behaviors" / "*.parquet")
    users = dataset.users["user_id"]
    for row in np.random.default_rng(1).choice(args.impressions, 3):
        user, time_ = int(dataset.impressions.user[row]), int(dataset.impressions.time[row])
        earlier = behaviors.filter(
            (pl.col("user_id") == users[user - 2]) & (pl.col("time") < time_)
        ).collect()
        found = dataset.impressions.end[row] - dataset.behaviors.offsets[user]
        assert found == len(earlier), f"row {row}: {found} behaviors, not {len(earlier)}"


def read_batches(dataset: CtrDataset, *, length: int = 50, batches: int = 100) -> dict[str, float]:
    """Return how many samples one core reads a second (of its own time), in random order, warm; and mean lengths."""
    for seed in (0, 1):
        read = dataset.batches(dataset.rows("train"), batch_size=1024, max_length=length, seed=seed)
        begun = time.process_time()
        lengths = [batch.mask.sum().item() for batch, _ in zip(read, range(batches), strict=False)]
        seconds = time.process_time() - begun
    samples = 1024 * len(lengths)
    return {
        "length": length,
        "mean_length": sum(lengths) / samples,
        "samples_per_second": round(samples / seconds),
    }


if __name__ == "__main__":
    main()
