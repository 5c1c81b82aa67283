"""What does a training step cost as the item table grows?

    python benchmarks/bench_tables.py

SIM, Base, histories of 50, item and category of 16 each, batches of 1,024: a step, from the batch's making to the
optimizer's step, against the rows of the item table, for every way to update the tables. Items are drawn evenly, so a
step touches some fifty thousand different rows of a large table. Each side is a process of its own, in turn for some
rounds. All ways must say the same loss at the first step.

Prints the medians over rounds of the median step, then one line of JSON with the same numbers.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from ctr import Shop, in_process, open_training, training_steps, write_shop
from timing import machine, print_load

from mimctr.recipes.ctr_config import Config
from mimctr.train.memory import keep_freed_memory, peak_memory

MODES: dict[str, dict[str, object]] = {"dense": {"lazy_rows_above": 10**9}, "lazy": {"lazy_rows_above": 0}}
"""Way to update the tables -> settings of ``mimctr train``."""
BATCH, LENGTH, USERS = 1024, 50, 20_000
WARMUP = 3
"""Steps that do not count."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[50_000, 200_000, 1_000_000, 2_000_000, 10_000_000]
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the logs go; a temporary folder by default")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        mode, folder = args.worker
        print(json.dumps(measure(mode, Path(folder), args)))
        return
    load = print_load()
    print(f"{'rows':>12}" + "".join(f"{mode:>24}" for mode in args.modes))
    results = {rows: in_rounds(rows, args) for rows in args.rows}
    sizes = {"rounds": args.rounds, "steps": args.steps, "batch": BATCH, "length": LENGTH, "users": USERS}
    print(json.dumps({**sizes, "load": load, **machine(), "results": results}))


def in_rounds(rows: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train with a table of ``rows`` items in every way; print and return the medians over rounds."""
    shop = Shop(
        num_users=USERS,
        num_items=rows,
        num_impressions=(args.steps + WARMUP) * BATCH,
        length=LENGTH,
        content_dim=None,
    )
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in args.modes}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_shop(Path(folder), shop)
        for round_ in range(args.rounds):
            for mode in args.modes[:: 1 if round_ % 2 else -1]:
                found[mode].append(in_process(__file__, "--worker", mode, folder))
    losses = {one["loss"] for of_mode in found.values() for one in of_mode}
    assert max(losses) - min(losses) < 1e-5, f"the ways do not agree at the first step: {losses}"
    result = {
        mode: {name: statistics.median(one[name] for one in of_mode) for name in ("seconds", "peak")}
        for mode, of_mode in found.items()
    }
    shown = [f"{one['seconds'] * 1e3:11.1f} ms {one['peak'] / 1e9:6.2f} GB" for one in result.values()]
    print(f"{rows:12,}" + "".join(f"{text:>24}" for text in shown))
    return result


def measure(mode: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Train; return the median seconds of a step, the process's largest memory and the first loss."""
    keep_freed_memory()
    config = Config(
        ubm="sim",
        variant="base",
        max_length=LENGTH,
        batch_size=BATCH,
        embedding_dim=16,
        field_dim=16,
        device="cpu",
        **MODES[mode],
    )
    task, model = open_training(folder, config)
    steps = list(training_steps(model, task, num_steps=args.steps + WARMUP))
    return {
        "seconds": statistics.median(step.seconds for step in steps[WARMUP:]),
        "peak": peak_memory(),
        "loss": steps[0].loss,
    }


if __name__ == "__main__":
    main()
