"""What do page faults cost a training step on a CPU? DIN with freed memory kept, against the C library's own way.

    python benchmarks/bench_kept_memory.py

DIN alone, batch 1,024, L = 50, D = 32, forward and backward, one thread. The setting cannot be taken back, so each side
is a process of its own, in turn for some rounds. Prints the medians over rounds of processor time and page faults a
step, then one line of JSON with the same numbers.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from timing import machine, print_load

from mimctr.train.memory import keep_freed_memory
from mimctr.ubm.din import DIN
from mimctr.ubm.interface import History

BATCH, LENGTH, DIM = 1024, 50, 32
SIDES = ("given back", "kept")
STEPS = 15


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(kept=args.worker == "kept")))
        return
    load = print_load()
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for round_ in range(args.rounds):
        for side in SIDES[:: 1 if round_ % 2 else -1]:
            command = [sys.executable, __file__, "--worker", side]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[side].append(json.loads(output))
    loss = {one["loss"] for side in SIDES for one in found[side]}
    assert len(loss) == 1, f"the sides do not agree: {loss}"
    result = {
        side: {name: statistics.median(one[name] for one in found[side]) for name in ("seconds", "faults")}
        for side in SIDES
    }
    for side, values in result.items():
        took, faults = values["seconds"] * 1000, values["faults"]
        print(f"{side:10} {took:6.1f} ms of processor time, {faults:8,.0f} page faults a step")
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(*found.values(), strict=True)]
    print(f"kept : given back {statistics.median(ratios):.2f}, median of rounds")
    print(json.dumps({"load": load, **machine(), "results": result, "ratio": statistics.median(ratios)}))


def measure(*, kept: bool) -> dict[str, float]:
    """Return processor seconds and page faults of a step, medians, and the loss of the last one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if kept:
        keep_freed_memory()
    din, target, mask = DIN(DIM), torch.randn(BATCH, DIM), torch.rand(BATCH, LENGTH) < 0.7
    behaviors = torch.randn(BATCH, LENGTH, DIM)
    nothing = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
    seconds, faults = [], []
    for _ in range(STEPS):
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        rows = behaviors.clone().requires_grad_()
        loss = din(target, History(rows, mask, nothing, mask, nothing)).vector.square().mean()
        loss.backward()
        seconds.append(time.process_time() - began)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return {
        "seconds": statistics.median(seconds),
        "faults": statistics.median(faults),
        "loss": loss.item(),
    }


if __name__ == "__main__":
    main()
