"""Flat arrays on disk: .npy files, memory-mapped, never pickled."""

from pathlib import Path

import numpy as np
from numpy import ndarray

from mimctr.errors import RunError


def save_array(path: Path, array: ndarray) -> None:
    """Write ``array`` as .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)


def create_array(path: Path, shape: tuple[int, ...], dtype: type) -> ndarray:
    """Return a new .npy file as a writable array, for data that is made column by column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        save_array(path, np.empty(shape, dtype=dtype))
        return np.empty(shape, dtype=dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


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
