"""Many small files in one: bytes by row, equal bytes stored once, memory-mapped."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.data.arrays import open_array, save_array
from mimctr.errors import RunError

MISSING = -1
"""Blob number of a row that has no bytes."""


class BlobStore:
    """Bytes by row.

    ``numbers`` says which blob each row holds (-1: none); rows with equal bytes share a number, so it also tells what
    has to be encoded only once.
    """

    def __init__(
        self, numbers: Int[ndarray, "rows"], offsets: Int[ndarray, "blobs_plus_1"], data: ndarray
    ) -> None:
        self.numbers = numbers
        self.offsets = offsets
        self._data = data

    @classmethod
    def open(cls, folder: Path) -> "BlobStore":
        """Open what a :class:`BlobWriter` wrote. Nothing is read before it is asked for.

        Raises:
            RunError: a file is missing or damaged.
        """
        arrays = [open_array(folder / f"{name}.npy") for name in ("rows", "offsets")]
        blobs = folder / "blobs.bin"
        size, wanted = blobs.stat().st_size if blobs.exists() else 0, int(arrays[1][-1])
        if size != wanted:
            raise RunError(
                f"{blobs}: {size:,} bytes, not {wanted:,}; it was cut off. Prepare the dataset again."
            )
        data = np.memmap(blobs, dtype=np.uint8, mode="r") if size else np.empty(0, dtype=np.uint8)
        return cls(arrays[0], arrays[1], data)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_blobs(self) -> int:
        """How many different blobs there are."""
        return len(self.offsets) - 1

    def get(self, row: int) -> bytes | None:
        """Return the bytes of ``row``; None where there are none."""
        number = int(self.numbers[row])
        return None if number == MISSING else self.blob(number)

    def blob(self, number: int) -> bytes:
        """Return the bytes of blob ``number``, 0 to ``num_blobs`` - 1."""
        return self._data[self.offsets[number] : self.offsets[number + 1]].tobytes()


class BlobWriter:
    """Write blobs to a new folder; :meth:`finish` says which rows hold them.

    Memory: some 150 bytes for every different blob (its 16-byte BLAKE2b digest, by which equal ones are found).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._numbers: dict[bytes, int] = {}
        self._offsets = [0]
        self._file: IO[bytes] = (folder / "blobs.bin").open("wb")

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_blobs(self) -> int:
        """How many different blobs there are so far."""
        return len(self._numbers)

    def find(self, data: bytes) -> int | None:
        """Return the number of a blob that was added before; None if there is none."""
        return self._numbers.get(_digest(data))

    def add(self, data: bytes) -> int:
        """Store ``data``, unless it is there already; return its number."""
        digest = _digest(data)
        number = self._numbers.setdefault(digest, len(self._numbers))
        if number == len(self._offsets) - 1:
            self._file.write(data)
            self._offsets.append(self._offsets[-1] + len(data))
        return number

    def finish(self, numbers: Int[ndarray, "rows"]) -> None:
        """Write which blob each row holds (-1: none)."""
        save_array(self.folder / "rows.npy", numbers.astype(np.int32))
        save_array(self.folder / "offsets.npy", np.array(self._offsets, dtype=np.int64))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
