"""Work on a part of a batch at a time, small enough to stay in a core's cache."""

import torch

ROWS = 4096
"""Rows of a matrix that are worked on together."""


def parts(size: int, length: int, device: torch.device, *, rows: int = ROWS) -> list[slice]:
    """Return the impressions that are worked on together: on a CPU, such that they have some ``rows`` behaviors.

    Args:
        size: Impressions of the batch.
        length: Behaviors of an impression.
        device: Of what is worked on; no other than a CPU has a cache to keep to.
        rows: Behaviors of a part.
    """
    count = max(rows // max(length, 1), 1) if device.type == "cpu" else max(size, 1)
    return [slice(first, first + count) for first in range(0, max(size, 1), count)]
