"""What this machine is and which versions run on it; goes into results.json."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from mimctr.evaluate.results import Machine
from mimctr.precision import has_bfloat16

PACKAGES = ("mimctr", "torch", "transformers", "tokenizers", "safetensors", "numpy", "polars", "pyarrow")
PROCESSORS = Path("/proc/cpuinfo")
PHYSICAL_MEMORY = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")


def describe_machine() -> Machine:
    """Return system, processor, usable cores, memory, and whether what computes here multiplies in bfloat16."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(),
        has_bfloat16=has_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    )


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _processor() -> str:
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    known = getattr(os, "sysconf_names", {})
    if not all(name in known for name in PHYSICAL_MEMORY):
        return None
    return os.sysconf(PHYSICAL_MEMORY[0]) * os.sysconf(PHYSICAL_MEMORY[1])
