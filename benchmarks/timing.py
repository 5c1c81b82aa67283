"""What the benchmarks share: interleaved timing, a load check, and facts about the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(steps: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every step in every round, after one round that does not count.

    A round runs each step once, in an order that alternates, so that whatever else the machine does hits all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name in list(steps)[:: 1 if round_ % 2 else -1]:
            begun = time.perf_counter()
            steps[name]()
            if round_:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return the median over rounds of the ratio of two steps of one round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def print_load() -> float:
    """Say whether the machine is busy; return its load."""
    load = os.getloadavg()[0]
    idle = load < 0.5
    print(f"load      {load:.2f}: {'idle' if idle else 'BUSY, look at the ratios and not at the times'}")
    return load


def machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
