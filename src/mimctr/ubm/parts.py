"""Work on a part of a batch at a time, small enough to stay in a core's cache."""

import torch

IMPRESSIONS = 64
"""Impressions with their behaviors."""
ROWS = 4096
"""Rows of a matrix."""


def impressions_at_once(device: torch.device) -> int | None:
    """Return how many impressions are worked on together: few where caches are small, None = all elsewhere."""
    return IMPRESSIONS if device.type == "cpu" and not torch.compiler.is_compiling() else None
