import subprocess
import sys

import pytest

COUNT = """
import ctypes, resource, sys, torch
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a huge page is one fault, and whether there is one is chance
from mimctr.train.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    blocks = [torch.ones(4_000_000) for _ in range(8)]  # 16 MB each
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    work()
before = faults()
for _ in range(5):
    work()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_a_freed_block_is_used_again_with_fewer_page_faults():
    given_back, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True
            ).stdout
        )
        for how in ("given back", "kept")
    )
    assert kept < given_back  # by how much depends on where the heap has to stop growing
