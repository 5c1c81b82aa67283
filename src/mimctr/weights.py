"""Tensors on disk: safetensors with a checksum, because safetensors loads flipped bytes silently."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mimctr.errors import RunError
from mimctr.files import atomic_path


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of all names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():  # an empty tensor has no bytes, and cannot be viewed as any
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, meta: Mapping[str, Any] | None = None) -> str:
    """Write ``tensors`` and JSON ``meta`` to one safetensors file, atomically; return the tensors' digest.

    Raises:
        OSError: the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = digest_tensors(plain)
    metadata = {"digest": digest, "meta": json.dumps(dict(meta or {}), allow_nan=False)}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # the system's own words: a full disk, say
            raise OSError(f"{path}: {error}") from None
    return digest


def load_meta(path: Path) -> dict[str, Any]:
    """Read the JSON that :func:`save_tensors` wrote, and no tensor.

    Raises:
        RunError: the file is missing, or not safetensors.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["meta"])
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error}). Make it again.") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Returns:
        tensors: By name, on the CPU.
        meta: The JSON that was saved with them.

    Raises:
        RunError: the file is missing, not safetensors, or its bytes do not match its digest.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise RunError(f"{path}: not a readable safetensors file ({error}). Make it again.") from None
    if metadata.get("digest") != digest_tensors(tensors):
        raise RunError(f"{path}: its bytes do not match its checksum; the file is damaged. Make it again.")
    return tensors, json.loads(metadata["meta"])
