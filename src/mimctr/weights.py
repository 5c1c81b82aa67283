"""Tensors on disk: safetensors with a checksum, because safetensors loads flipped bytes silently."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
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


_FORMAT = {"int64": "I64", "float32": "F32", "int32": "I32", "float16": "F16", "int8": "I8", "uint8": "U8"}
"""NumPy's name of a dtype -> that of the safetensors format."""


@contextlib.contextmanager
def mapped_tensors(
    path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[dict[str, ndarray]]:
    """Yield arrays, zero at first, that become one safetensors file, atomically: tables larger than the memory.

    Args:
        path: Of the file; it is there when the block ends without an error, with its digest
            (:func:`load_tensors` reads it back).
        shapes: Name -> dtype, as NumPy names it, and shape.

    Raises:
        OSError: the file cannot be written.
    """
    names = sorted(
        shapes, key=lambda name: (-np.dtype(shapes[name][0]).itemsize, name)
    )  # so that all are aligned
    offsets, end = {}, 0
    for name in names:
        size = np.dtype(shapes[name][0]).itemsize * math.prod(shapes[name][1])
        offsets[name], end = (end, end + size), end + size
    with atomic_path(path) as temporary:
        head = _header("0" * 64, shapes, offsets)
        with temporary.open("wb") as file:
            file.write(head)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, len(head) + end)  # a full disk under a mapped file kills
        arrays = {
            name: np.memmap(temporary, dtype, "r+", len(head) + offsets[name][0], shape)
            if math.prod(shape)
            else np.zeros(shape, dtype)
            for name, (dtype, shape) in shapes.items()
        }
        yield arrays
        digest = digest_tensors({name: torch.from_numpy(array) for name, array in arrays.items()})
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        with temporary.open("r+b") as file:
            file.write(_header(digest, shapes, offsets))


def _header(
    digest: str, shapes: Mapping[str, tuple[str, tuple[int, ...]]], offsets: Mapping[str, tuple[int, int]]
) -> bytes:
    """Return the beginning of a safetensors file: the header's length, the header, spaces up to a multiple of 8."""
    entries: dict[str, Any] = {"__metadata__": {"digest": digest, "meta": "{}"}}
    for name, (dtype, shape) in shapes.items():
        entries[name] = {"dtype": _FORMAT[dtype], "shape": list(shape), "data_offsets": list(offsets[name])}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def load_digest(path: Path) -> str:
    """Read the digest that stands in a file written here, and no tensor."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()["digest"]


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
