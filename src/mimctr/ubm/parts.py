"""Work on a part of a batch at a time, small enough to stay in a core's cache."""

import torch

IMPRESSIONS = 64
"""Impressions with their behaviors."""
ROWS = 4096
"""Rows of a matrix."""


def impressions_at_once(size: int, device: torch.device) -> int:
    """Return how many of ``size`` impressions are worked on together: a CPU's caches are small."""
    return IMPRESSIONS if device.type == "cpu" and not torch.compiler.is_compiling() else max(size, 1)
