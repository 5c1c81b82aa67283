"""Do long histories fit into memory, and what do they cost?

    python benchmarks/bench_long.py

1. Memory: the first 500 steps of a training over ten million impressions with histories of 1,000 (SIM, soft search of
   20, with content of 64), in a process of its own. A dataset's files are mapped: those pages of them that were read
   count as resident, and are given back when others need them. So two peaks: all that is resident (VmHWM), which must
   stay under 6 GB, and what is not a file's (RssAnon, looked at every 20 ms).
2. Speed: samples per second of training against the length of the histories, SIM and TWIN, Base and Base+MIM, from the
   batch's making to the optimizer's step; each in a process of its own, in turn for some rounds, medians of the steps.
   Batches are of 1,024, or as many as hold a million behaviors. Content is that of all behaviors up to a length of 100,
   and beyond of those that the search found (``content_scope = "auto"``).

Prints a table each, then one line of JSON with the same numbers. Ends with an error if memory is above the limit.
"""

import argparse
import json
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ctr import Shop, in_process, memory_now, open_training, training_steps, write_shop
from timing import machine, print_load

from mimctr.recipes.ctr_config import Config
from mimctr.train.memory import keep_freed_memory, peak_memory

LIMIT = 6e9
"""Bytes."""
UBMS = ("sim", "twin")
SIDES = ("base", "mim")
MOST_BEHAVIORS = 2**20
"""In a batch, where speed is measured."""
WARMUP = 2
"""Steps that do not count."""
SECONDS_BETWEEN_LOOKS = 0.02


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=("memory", "speed"), default=["memory", "speed"])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--impressions", type=int, default=10_000_000, help="1.")
    parser.add_argument("--users", type=int, default=20_000, help="1.")
    parser.add_argument("--history", type=int, default=1000, help="1.")
    parser.add_argument("--steps", type=int, default=500, help="1.")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000, 5000, 10_000], help="2.")
    parser.add_argument("--speed-users", type=int, default=2000, help="2.")
    parser.add_argument("--speed-steps", type=int, default=5, help="2.")
    parser.add_argument("--rounds", type=int, default=3, help="2.")
    parser.add_argument("--folder", type=Path, help="where the logs go; a temporary folder by default")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        ubm, side, length, folder = args.worker
        print(json.dumps(work(ubm, side, int(length), Path(folder), args)))
        return
    load = print_load()
    results: dict[str, dict] = {}
    if "memory" in args.parts:
        results["memory"] = memory(args)
    if "speed" in args.parts:
        results["speed"] = speed(args)
    sizes = {name: value for name, value in vars(args).items() if name not in ("worker", "folder", "parts")}
    print(json.dumps({**sizes, "load": load, **machine(), "results": results}))
    peak = results.get("memory", {}).get("peak", 0)
    if peak > LIMIT:
        raise SystemExit(f"bench_long: {peak / 1e9:.2f} GB resident at the peak, at most {LIMIT / 1e9:.0f}.")


def memory(args: argparse.Namespace) -> dict[str, float]:
    """Train over the large log in a process of its own; print and return the memory that it took."""
    shop = Shop(
        num_users=args.users, num_items=args.items, num_impressions=args.impressions, length=args.history
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_shop(Path(folder), shop)
        found = in_process(__file__, "--worker", "sim", "mim", 0, folder)
    size = f"{args.impressions:,} impressions, histories of {args.history:,}, {args.steps} steps"
    print(f"\nmemory: {size}")
    for name, what in (
        ("opened", "before the first step"),
        ("peak", "peak"),
        ("anonymous", "peak, no file's"),
    ):
        print(f"  {what:22} {found[name] / 1e9:6.2f} GB")
    print(f"  wanted: a peak of at most {LIMIT / 1e9:.0f} GB; {found['seconds']:.3f} s a step")
    return found


def speed(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train on histories of each length; print and return samples per second, by side and length."""
    most = args.batch * (WARMUP + args.speed_steps)
    shop = Shop(
        num_users=args.speed_users, num_items=args.items, num_impressions=most, length=max(args.lengths)
    )
    seconds: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_shop(Path(folder), shop)
        for round_ in range(args.rounds):
            for length in args.lengths:
                for ubm in UBMS:
                    for side in SIDES[:: 1 if round_ % 2 else -1]:
                        found = in_process(__file__, "--worker", ubm, side, length, folder)
                        seconds.setdefault((ubm, side, length), []).append(found["seconds"])
    print("\nsamples/s by length" + "".join(f"{length:10,}" for length in args.lengths))
    results: dict[str, dict[str, float]] = {}
    for ubm in UBMS:
        for side in SIDES:
            results[f"{ubm} {side}"] = {
                str(length): batch_size(length, args) / statistics.median(seconds[ubm, side, length])
                for length in args.lengths
            }
            speeds = results[f"{ubm} {side}"].values()
            print(f"  {ubm + ' ' + side:17}" + "".join(f"{value:10,.0f}" for value in speeds))
    return results


def batch_size(length: int, args: argparse.Namespace) -> int:
    """Return the impressions of a batch where speed is measured."""
    return max(min(args.batch, MOST_BEHAVIORS // length), 1)


def work(ubm: str, side: str, length: int, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Train; return the median seconds of a step and the memory that it took.

    Args:
        ubm: User behavior model.
        side: Variant.
        length: Of the histories where speed is measured; 0 = memory is.
        folder: Holds the log.
        args: Sizes.
    """
    keep_freed_memory()
    config = Config(
        ubm=ubm,
        variant=side,
        max_length=length or args.history,
        batch_size=batch_size(length, args) if length else args.batch,
        embedding_dim=16,
        field_dim=16,
        device="cpu",
    )
    task, model = open_training(folder, config)
    opened, _ = memory_now()
    num_steps = WARMUP + args.speed_steps if length else args.steps
    with anonymous_peak() as looks:
        steps = list(training_steps(model, task, num_steps=num_steps))
    return {
        "seconds": statistics.median(step.seconds for step in steps[WARMUP:]),
        "opened": opened,
        "peak": peak_memory(),
        "anonymous": max(looks),
    }


@contextmanager
def anonymous_peak() -> Iterator[list[int]]:
    """Look at the memory that is no file's from time to time; the bytes of every look are in the list."""
    looks: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            looks.append(memory_now()[1])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()
        looks.append(memory_now()[1])


if __name__ == "__main__":
    main()
