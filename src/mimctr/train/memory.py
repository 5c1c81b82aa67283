"""Peak resident memory of this process."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


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
