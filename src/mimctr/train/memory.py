"""Memory of this process: its peak, whether freed blocks are kept, and what is said where there is none left."""

import contextlib
import ctypes
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from mimctr.errors import RunError

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings (malloc.h)."""
LARGEST_KEPT = 32 * 2**20
"""Bytes; the most that glibc takes as its threshold."""
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of PyTorch's errors where there is no memory: on a GPU, on a CPU; only they tell."""
ASKED = re.compile(r"(?:[Tt]ried to|Unable to) allocate ([\d.]+) (bytes|[KMGTPE]iB)")


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


@contextlib.contextmanager
def explain_out_of_memory(where: str, advice: str) -> Iterator[None]:
    """Say what to do where memory does not suffice, in place of the allocator's own words.

    Args:
        where: What needs the memory.
        advice: What would need less, a sentence.

    Raises:
        RunError: PyTorch, NumPy or Python found no memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        asked = ASKED.search(str(error))
        more = f"; {_in_words(*asked.groups())} more were asked for" if asked else ""
        raise RunError(f"{where}: out of memory{more}. {advice}") from None


def _in_words(amount: str, unit: str) -> str:
    return f"{int(amount) / 2**30:,.2f} GiB" if unit == "bytes" else f"{amount} {unit}"
