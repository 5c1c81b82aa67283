"""Where does the time of a DIN step go, and how far is it from what this machine can do?

    python benchmarks/bench_limits.py

DIN, Base, histories of 50, item and category of 16 each, attention of 80 and 40, a deep network of 256, 128 and 64,
batches of 1,024, fp32.

1. The step by phase, in a profile (``torch.profiler``) of some steps: making the batch, looking rows up, attention,
   deep network, the backward pass of all, the optimizer, and the rest; then the operators that take the most time
   themselves.
2. The limits, in the same process: rows a second that are gathered from the item table at random, and products of
   matrices at the shapes of the step, fp32 and bf16.
3. The distance: how long the step's gathers and its products of matrices would take at those limits, one after the
   other, against what the step takes outside the profile.

Prints a table each, then one line of JSON with the same numbers.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ctr import Shop, open_training, training_steps, write_shop
from timing import machine, print_load
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_fitting import Task
from mimctr.train.flops import count_operations
from mimctr.train.memory import keep_freed_memory
from mimctr.ubm.ciubm import CiUBM
from mimctr.ubm.linear import product
from mimctr.ubm.parts import parts

BATCH, LENGTH, DIM = 1024, 50, 16
ATTENTION, NETWORK = (80, 40), (256, 128, 64)
WARMUP = 5
"""Steps that do not count."""
REPEATS = 30
BACKWARD = "autograd::engine::evaluate_function: "
"""How the profiler names what backward calls."""
NUM_OPERATORS = 12


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    load = print_load()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    config = Config(
        ubm="din",
        variant="base",
        max_length=LENGTH,
        batch_size=BATCH,
        embedding_dim=DIM,
        field_dim=DIM,
        hidden_dims=NETWORK,
        device="cpu",
    )
    shop = Shop(
        num_users=args.users,
        num_items=args.items,
        num_impressions=(args.steps + WARMUP) * BATCH,
        length=LENGTH,
        content_dim=None,
    )
    with tempfile.TemporaryDirectory() as name:
        write_shop(Path(name), shop)
        task, model = open_training(Path(name), config)
        steps = list(training_steps(model, task, num_steps=args.steps + WARMUP))
        seconds = statistics.median(step.seconds for step in steps[WARMUP:])
        flops = count_flops(task, model)
        phases, operators = profiled(task, model, num_steps=args.steps)
    limits = measure_limits(model)
    report_phases(phases, operators, seconds)
    bound = report_limits(limits, seconds, phases, flops)
    sizes = {"batch": BATCH, "length": LENGTH, "dim": DIM, **vars(args)}
    results = {
        "step_seconds": seconds,
        "phase_seconds": phases,
        "operator_seconds": operators,
        "step_flops": flops,
        "limits": limits,
        "bound_seconds": bound,
    }
    print(json.dumps({**sizes, "load": load, **machine(), "results": results}))


def count_flops(task: Task, model: CiUBM) -> int:
    """Return the floating-point operations of a step's products of matrices."""
    batch = next(task.batches(task.dataset.rows("train")[:BATCH]))
    with count_operations() as counted:
        model.train()(batch).logit.sum().backward()
    model.zero_grad()
    return counted.products


def profiled(task: Task, model: CiUBM, *, num_steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds a step by phase, and those of the operators that take the most time themselves."""
    made = task.dataset.batch

    def recorded(*arguments: object, **named: object) -> object:
        with record_function("batch"):
            return made(*arguments, **named)

    task.dataset.batch = recorded
    parts = {"lookup": model.embedding, "attention": model.dense.ubm, "deep network": model.dense.mlp}
    hooks = [hook for name, part in parts.items() for hook in record(part, name)]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        whole = sum(step.seconds for step in training_steps(model, task, num_steps=num_steps))
    for hook in hooks:
        hook.remove()
    task.dataset.batch = made
    events = profiler.key_averages()
    phases = {name: of_events(events, name) for name in ("batch", *parts)}
    phases["backward"] = of_events(events, BACKWARD)
    phases["optimizer"] = of_events(events, "Optimizer.")
    phases["the rest"] = whole * 1e6 - sum(phases.values())
    own = sorted(events, key=lambda event: -event.self_cpu_time_total)
    operators = {event.key: event.self_cpu_time_total for event in own if event.key not in phases}
    most = dict(list(operators.items())[:NUM_OPERATORS])
    return tuple({name: took / num_steps / 1e6 for name, took in found.items()} for found in (phases, most))


def record(part: nn.Module, name: str) -> list[torch.utils.hooks.RemovableHandle]:
    """Let the profiler see each forward pass of ``part`` as ``name``; return the hooks."""
    open_ranges: list[record_function] = []

    def begin(*_: object) -> None:
        open_ranges.append(record_function(name))
        open_ranges[-1].__enter__()

    def end(*_: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    return [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]


def of_events(events: list, prefix: str) -> float:
    """Return the microseconds of the events whose names begin with ``prefix``."""
    return sum(event.cpu_time_total for event in events if event.key.startswith(prefix))


def measure_limits(model: CiUBM) -> dict[str, float]:
    """Return rows gathered a second, and floating-point operations a second by shape and precision."""
    table = model.embedding.tables["item"].weight.detach()
    index = torch.randint(len(table), (BATCH * LENGTH,))
    limits = {"gather": rate(lambda: table.index_select(0, index), len(index))}
    width, side = model.embedding.item_dim, model.dense.mlp.layers[0].in_features
    part = parts(BATCH, LENGTH, table.device)[0].stop  # impressions
    shapes = {
        "attention, first": ((part, LENGTH, width), (part, width, ATTENTION[0])),
        "attention, second": ((part * LENGTH, ATTENTION[0]), (ATTENTION[0], ATTENTION[1])),
        "deep network, first": ((BATCH, side), (side, NETWORK[0])),
        "deep network, second": ((BATCH, NETWORK[0]), (NETWORK[0], NETWORK[1])),
    }
    for name, (left, right) in shapes.items():
        for dtype in (torch.float32, torch.bfloat16):
            one, other = torch.randn(left).to(dtype), torch.randn(right).to(dtype)
            flops = 2 * one.numel() * other.shape[-1]
            limits[f"{name}, {str(dtype).removeprefix('torch.')}"] = rate(multiply(one, other), flops)
    return limits


def multiply(one: Tensor, other: Tensor) -> Callable[[], Tensor]:
    """Return what multiplies two matrices as models do, or two batches of them."""
    return (lambda: product(one, other.T)) if one.dim() == 2 else (lambda: one @ other)


def rate(work: Callable[[], object], amount: float) -> float:
    """Return how much of ``amount`` is done in a second: the fastest of some runs, as it is a limit."""
    fastest = float("inf")
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begun)
    return amount / fastest


def report_phases(phases: dict[str, float], operators: dict[str, float], seconds: float) -> None:
    """Print where the time goes."""
    whole = sum(phases.values())
    print(
        f"\na step: {seconds * 1e3:.1f} ms, {BATCH / seconds:,.0f} samples/s; in the profile {whole * 1e3:.1f} ms"
    )
    for name, took in phases.items():
        print(f"  {name:14} {took * 1e3:8.2f} ms {took / whole:6.1%}")
    print("operators, without what they call")
    for name, took in operators.items():
        print(f"  {took * 1e3:8.2f} ms  {name}")


def report_limits(
    limits: dict[str, float], seconds: float, phases: dict[str, float], flops: int
) -> dict[str, float]:
    """Print the limits and how far the step is from them; return the seconds that it would take at them."""
    rows = 2 * BATCH * (LENGTH + 1)  # item and category
    gathered = limits["gather"]
    print(f"\nlimits: gather {gathered / 1e6:.0f} M rows/s, {gathered * DIM * 4 / 1e9:.1f} GB/s", end="; ")
    print(f"the step's lookup {rows / phases['lookup'] / 1e6:.0f} M rows/s")
    bound = {"gather": rows / gathered}
    for dtype in ("float32", "bfloat16"):
        rates = {name: value for name, value in limits.items() if name.endswith(dtype)}
        for name, value in rates.items():
            print(f"  {name:30} {value / 1e9:8.0f} GFLOP/s")
        bound[dtype] = flops / max(rates.values())
        least = bound["gather"] + bound[dtype]
        print(
            f"  {dtype}: {rows:,} rows and {flops / 1e9:.2f} GFLOP take {least * 1e3:.1f} ms at the limits; "
            f"the step takes {seconds / least:.1f} times as long"
        )
    return bound


if __name__ == "__main__":
    main()
