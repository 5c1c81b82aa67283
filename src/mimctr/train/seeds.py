"""Randomness by name, not by history: what a step draws depends on the seed and the step alone."""

import numpy as np
import torch


def seed_step(seed: int, step: int) -> None:
    """Seed PyTorch for one step, so that a resumed run draws what an undisturbed one draws."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
