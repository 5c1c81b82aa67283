"""Randomness by name, not by history: what a step draws depends on the seed and the step alone."""

import numpy as np
import torch

from mimctr.distributed import rank


def seed_step(seed: int, step: int) -> None:
    """Seed PyTorch for one step, so that a resumed run draws what an undisturbed one draws; each process its own."""
    entropy = [seed, step] if rank() == 0 else [seed, step, rank()]
    number = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(
        number
    )  # torch.manual_seed() without a GPU: traces of the stack, .6 ms
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)
