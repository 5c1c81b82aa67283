"""Where tensors live."""

import torch

from mimctr.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is a GPU (each process its own), else the CPU.

    Raises:
        ConfigError: PyTorch does not know the device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: unknown device '{name}'. Use 'auto', 'cpu' or 'cuda'.") from None
    if device.type in ("meta", "lazy"):  # they hold no numbers
        raise ConfigError(f"device: nothing can be computed on '{name}'. Use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: '{name}' asked for, but PyTorch sees no GPU here. Use 'auto' or 'cpu'.")
    return device
