"""What does content interest cost in training? Base against Base+MIM, for each user behavior model.

    python benchmarks/bench_content_cost.py

A generated log, histories of 100, item and category of 16 each, content of 64 (a snapshot in float16), a deep network
of 256, 128 and 64, batches of 1,024. Each side is a process of its own, in turn for some rounds: an epoch with its
loading and without looks at the validation part, the first steps not counted. What content reads is compared first with
a loop over the snapshot's vectors.

Memory is the largest resident set in training, less what was there before the first step (the program, the model, what
opening touches of the dataset's mapped files); and that of the whole process. Floating-point operations are those of
products of matrices (``mimctr.train.flops``): forward in evaluation (inference), forward and
backward in training; a gradient that is multiplied element by element (``ubm/products.py``) is not among them. The
paper's Table 6: training 1.59 times Base's, inference 1.39 times, training memory 1.01 times.

Prints a table, then one line of JSON with the same numbers. Ends with an error if, on an idle machine, content costs
SIM more than wanted.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from ctr import Shop, in_process, memory_now, open_training, training_steps, write_shop
from timing import machine, print_load

from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_fitting import Task
from mimctr.recipes.ctr_model import UBMS
from mimctr.train.flops import count_operations
from mimctr.train.memory import keep_freed_memory, peak_memory, reset_peak_memory
from mimctr.ubm.ciubm import CiUBM

SIDES = ("base", "mim")
WANTED = {"sim": {"seconds": 1.15, "training_bytes": 1.10}}
"""User behavior model -> what is measured -> largest ratio of Base+MIM to Base."""
WARMUP = 3
"""Steps that do not count."""
CHECKED = 16
"""Impressions whose content interest is computed by a loop."""
SHOWN = {
    "seconds": ("epoch", 1.0, "s"),
    "training_bytes": ("memory in training", 1e-6, "MB"),
    "process_bytes": ("memory, whole process", 1e-6, "MB"),
    "training_flops": ("training", 1e-9, "GFLOP a sample"),
    "inference_flops": ("inference", 1e-9, "GFLOP a sample"),
}
"""What is measured -> name, factor, unit."""


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ubms", nargs="+", choices=UBMS, default=list(UBMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of an epoch")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        ubm, side, folder = args.worker
        print(json.dumps(measure(Path(folder), make_config(ubm, side, args), args)))
        return
    load = print_load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = Shop(
            num_users=args.users,
            num_items=args.items,
            num_impressions=(args.steps + WARMUP) * args.batch,
            length=args.length,
        )
        write_shop(folder, shop)
        operations = {
            ubm: {side: count(folder, make_config(ubm, side, args)) for side in SIDES} for ubm in args.ubms
        }
        results = {ubm: in_rounds(ubm, folder, args, operations[ubm]) for ubm in args.ubms}
    failures = [failure for ubm, result in results.items() for failure in report(ubm, result)]
    sizes = {name: getattr(args, name) for name in ("rounds", "steps", "batch", "length", "users", "items")}
    print(json.dumps({**sizes, "load": load, **machine(), "results": results}))
    if failures and load < 0.5:
        raise SystemExit(f"bench_content_cost: {'; '.join(failures)}.")


def make_config(ubm: str, side: str, args: argparse.Namespace) -> Config:
    """Return the settings of one side."""
    return Config(
        ubm=ubm,
        variant=side,
        max_length=args.length,
        batch_size=args.batch,
        embedding_dim=16,
        field_dim=16,
        hidden_dims=(256, 128, 64),
        device="cpu",
    )


def in_rounds(
    ubm: str, folder: Path, args: argparse.Namespace, operations: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the medians over rounds of both sides, and the median of each round's ratio, by what is measured."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for round_ in range(args.rounds):
        for side in SIDES[:: 1 if round_ % 2 else -1]:
            found[side].append(in_process(__file__, "--worker", ubm, side, folder) | operations[side])
    return {
        name: {
            **{side: statistics.median(one[name] for one in found[side]) for side in SIDES},
            "ratio": statistics.median(
                mim[name] / base[name] for base, mim in zip(found["base"], found["mim"], strict=True)
            ),
        }
        for name in SHOWN
    }


def measure(folder: Path, config: Config, args: argparse.Namespace) -> dict[str, float]:
    """Train an epoch; return its seconds and the memory it took."""
    keep_freed_memory()
    task, model = open_training(folder, config)
    opening = peak_memory()
    before, _ = memory_now()
    reset_peak_memory()
    steps = list(training_steps(model, task, num_steps=args.steps + WARMUP))
    return {
        "seconds": sum(step.seconds for step in steps[WARMUP:]),
        "training_bytes": peak_memory() - before,
        "process_bytes": max(opening, peak_memory()),
    }


def count(folder: Path, config: Config) -> dict[str, float]:
    """Check what content reads; return the operations of a sample."""
    task, model = open_training(folder, config)
    if task.content is not None:
        check_content(task, model)
    batch = next(task.batches(task.dataset.rows("train")[: config.batch_size]))
    with count_operations() as inference, torch.no_grad():
        model.eval()(batch)
    with count_operations() as training:
        output = model.train()(batch)
        loss = output.logit.sum()
        if output.auxiliary is not None:
            loss = loss + output.auxiliary.loss_share(batch.clicks)
        loss.backward()
    return {
        "training_flops": training.products / len(batch),
        "inference_flops": inference.products / len(batch),
    }


@torch.no_grad()
def check_content(task: Task, model: CiUBM) -> None:
    """Compare the content interest, Eq. (7), that reaches the deep network with a loop over the snapshot."""
    found: list[torch.Tensor] = []
    hook = model.dense.content.register_forward_hook(lambda *call: found.append(call[-1].interest))
    batch = next(task.batches(task.dataset.rows("train")[:CHECKED]))
    model.eval()(batch)
    hook.remove()
    snapshot = task.content.snapshot
    vectors = dict(zip(snapshot.keys.tolist(), snapshot.vectors.astype(np.float64), strict=True))
    first = model.dense.ubm.width
    interests = found[0][:, first : first + snapshot.dim].double().numpy()
    for row, (target, behaviors, mask) in enumerate(
        zip(batch.target.tolist(), batch.behaviors.tolist(), batch.mask.tolist(), strict=True)
    ):
        one = vectors.get(int(task.dataset.item_keys[target]))
        if one is None:
            continue  # the learned vector stands there
        expected = np.zeros(snapshot.dim)
        for item, real in zip(behaviors, mask, strict=True):
            other = vectors.get(int(task.dataset.item_keys[item])) if real else None
            if other is not None:
                expected += one @ other / np.linalg.norm(one) / np.linalg.norm(other) * other
        np.testing.assert_allclose(interests[row], expected, rtol=1e-3, atol=1e-4)


def report(ubm: str, result: dict[str, dict[str, float]]) -> list[str]:
    """Print a user behavior model's table; return what costs more than wanted."""
    failures = []
    print(f"\n{ubm}: Base, Base+MIM, ratio")
    for name, (what, factor, unit) in SHOWN.items():
        base, mim, ratio = (result[name][column] for column in (*SIDES, "ratio"))
        wanted = WANTED.get(ubm, {}).get(name)
        line = f"  {what:22} {base * factor:9.4g} {mim * factor:9.4g} {ratio:6.3f}   {unit}"
        if wanted is not None:
            line += f"; wanted at most {wanted}"
            if ratio > wanted:
                failures.append(f"{ubm}: {what} {ratio:.3f} x Base's, wanted at most {wanted}")
        print(line)
    return failures


if __name__ == "__main__":
    main()
