"""bfloat16 matrix products, where the processor has them.

A CPU without instructions for them computes them all the same, 8 to 60 times slower than in float32; an older GPU too
is no faster for them.
"""

import logging
from functools import cache

import torch

logger = logging.getLogger(__name__)

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
"""Of x86 and ARM, as PyTorch names them: any of them multiplies in bfloat16."""


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Return the context in which matrix products are in bfloat16, if asked for and if the device has them.

    Where it has none they are in float32, which a warning says once for each kind of device.

    Args:
        device: Where the products are.
        bf16: Whether bfloat16 is asked for.
    """
    enabled = bf16 and has_bfloat16(device)
    if bf16 and not enabled:
        _warn(device.type)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_has_bfloat16()


@cache
def _cpu_has_bfloat16() -> bool:
    has_kernels = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # they are in oneDNN
    if has_kernels is None or not has_kernels():  # PyTorch for macOS is built without oneDNN
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # an older PyTorch; oneDNN's answer is wrong for AVX-512 without bfloat16 only
        return True
    found = capabilities()
    return any(found.get(name, False) for name in INSTRUCTIONS)


@cache
def _warn(kind: str) -> None:
    logger.warning(
        "bf16: this %s has no products in bfloat16; they are in float32.", "GPU" if kind == "cuda" else "CPU"
    )
