"""Flat arrays on disk: .npy files, memory-mapped, never pickled."""

import errno
import os
from pathlib import Path

import numpy as np
from numpy import ndarray

from mimctr.errors import RunError


def save_array(path: Path, array: ndarray) -> None:
    """Write ``array`` as .npy.

    Raises:
        OSError: it cannot be written whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        np.save(path, array, allow_pickle=False)
    except OSError as error:  # NumPy tells how much of a short write is missing, not why
        number = error.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None


def create_array(path: Path, shape: tuple[int, ...], dtype: type) -> ndarray:
    """Return a new .npy file as a writable array, for data that is made column by column.

    Raises:
        OSError: there is no space for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        save_array(path, np.empty(shape, dtype=dtype))
        return np.empty(shape, dtype=dtype)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open(
        "r+b"
    ) as file:  # a full disk is an error now; found by a write to the map, it would be a crash
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_array(path: Path) -> ndarray:
    """Return a .npy file as a read-only memory-mapped array.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(ndarray)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; the dataset is incomplete. Prepare it again.") from None
    except (ValueError, EOFError) as error:
        raise RunError(f"{path}: damaged ({error}). Prepare the dataset again.") from None
