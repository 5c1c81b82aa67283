"""Shape checks for the tensor packages, one thread, no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(
    ["mimctr.batch", "mimctr.ubm", "mimctr.csft", "mimctr.pretrain", "mimctr.encoders", "mimctr.center"],
    "beartype.beartype",
)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
