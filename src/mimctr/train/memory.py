"""Memory of this process: its peak, and whether freed blocks are kept."""

import ctypes
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings (malloc.h)."""
LARGEST_KEPT = 32 * 2**20
"""Bytes; the most that glibc takes as its threshold."""


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next step, up to 32 MiB each; nothing where it is not glibc.

    A training step on a CPU frees what the next one needs again. Given back to the system and taken anew, every page
    of it is cleared by a page fault: a third of the time of a step of DIN (benchmarks/bench_kept_memory.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def reset_peak_memory() -> None:
    """Start a new measurement where the system can (Linux); elsewhere the peak is that of the whole process."""
    if CLEAR.exists():
        try:
            CLEAR.write_text("5")
        except PermissionError:  # some containers forbid it; the peak is then that of the whole process
            return


def peak_memory() -> int:
    """Return the largest resident set since the last reset, in bytes."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
