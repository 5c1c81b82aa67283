"""Flat arrays on disk: .npy files, memory-mapped, never pickled."""

import contextlib
import errno
import os
from collections.abc import Iterator
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
    with _naming(path):
        np.save(path, array, allow_pickle=False)


def create_array(path: Path, shape: tuple[int, ...], dtype: type) -> ndarray:
    """Return a new .npy file as a writable array, for data that is made column by column.

    Raises:
        OSError: there is no space for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        save_array(path, np.empty(shape, dtype=dtype))
        return np.empty(shape, dtype=dtype)
    with _naming(path):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            # A full disk is an error now. Found by writing to the map, it would be a crash.
            with path.open("r+b") as file:
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


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file that cannot be written; of a short write NumPy tells how short it is, neither where nor why."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None
