import subprocess
import sys

import pytest

BLOCK = 16_000_000
"""Bytes: more than glibc carves from its heap by itself, less than `LARGEST_KEPT`."""
HELD = f"""
import ctypes, sys, torch
from mimctr.train.memory import keep_freed_memory
class Heap(ctypes.Structure):  # mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
heap = ctypes.CDLL(None).mallinfo2
heap.restype = Heap
if sys.argv[1] == "kept":
    keep_freed_memory()
before = heap().fordblks
blocks = [torch.ones({BLOCK} // 4) for _ in range(8)]
del blocks
print(heap().fordblks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_freed_blocks_stay_in_the_heap_for_the_next_step():
    # what the heap holds, not page faults: whether a freed block costs those depends on where the heap ends
    given_back, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", HELD, how], check=True, capture_output=True, text=True
            ).stdout
        )
        for how in ("given back", "kept")
    )
    assert kept > 7 * BLOCK  # not 8: a part of the blocks may lie where the heap had a hole before
    assert given_back < BLOCK
