"""Image columns of raw tables: read, check and store each different image once."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.data.blobs import MISSING, BlobWriter
from mimctr.data.logs import Table
from mimctr.errors import DataError
from mimctr.images import decode_image
from mimctr.progress import track

UNREADABLE = -2
"""Number of an image that was given but cannot be used."""


class ImageReader:
    """Turns image columns into blob numbers; each different path and image is read and checked once.

    Args:
        tables: Folder of the raw tables; paths are relative to it and must not leave it.
        writer: Where readable images go.
    """

    def __init__(self, tables: Path, writer: BlobWriter) -> None:
        self.root = tables.resolve()
        self.writer = writer
        self._numbers_of_paths: dict[str, int] = {}
        self.first_failure: tuple[int, str] | None = None
        """Row and reason of the first unusable image of the column that was read last."""

    def read(self, table: Table, column: str) -> Int[ndarray, "rows"]:
        """Return the blob number of every row: -1 where it has no image, -2 where its image cannot be used."""
        self.first_failure = None
        numbers = np.full(table.num_rows, MISSING, dtype=np.int32)
        start = 0
        total = -(-table.num_rows // table.chunk_rows(column))
        name = f"{table.name}.{column}"
        for chunk in track(table.chunks(column), total=total, description=name, unit="chunks"):
            part = self._read_chunk(chunk, start)
            numbers[start : start + len(part)] = part
            start += len(part)
        return numbers

    def _read_chunk(self, chunk: pl.Series, start: int) -> Int[ndarray, "rows"]:
        distinct = chunk.drop_nulls().unique(maintain_order=True)
        found = pl.Series([self._number(value) for value in distinct], dtype=pl.Int32)
        known = pl.DataFrame({"value": distinct, "number": found})
        joined = pl.DataFrame({"value": chunk}).join(known, on="value", how="left", maintain_order="left")
        numbers = joined["number"].fill_null(MISSING).to_numpy()
        bad = np.flatnonzero(numbers == UNREADABLE)
        if len(bad) and self.first_failure is None:
            self.first_failure = start + int(bad[0]), self._reason(chunk[int(bad[0])])
        return numbers

    def _number(self, value: bytes | str) -> int:
        if isinstance(value, str) and value in self._numbers_of_paths:
            return self._numbers_of_paths[value]
        try:
            number = self._store(read_inside(self.root, value) if isinstance(value, str) else value)
        except DataError:
            number = UNREADABLE
        if isinstance(value, str):
            self._numbers_of_paths[value] = number
        return number

    def _store(self, data: bytes) -> int:
        number = self.writer.find(data)
        if number is None:
            decode_image(data)
            number = self.writer.add(data)
        return number

    def _reason(self, value: bytes | str) -> str:
        try:
            decode_image(read_inside(self.root, value) if isinstance(value, str) else value)
        except DataError as error:
            reason = str(error)
            return f"{value}: {reason.removeprefix('image: ')}" if isinstance(value, str) else reason
        raise AssertionError("an image was unreadable and now is not")


def read_inside(root: Path, path: str) -> bytes:
    """Return the bytes of the file ``path`` below ``root``.

    Raises:
        DataError: the path leads out of ``root`` (also by a link), or to no readable file.
    """
    try:
        file = (root / path).resolve()
        inside, there = file.is_relative_to(root), file.is_file()
    except (OSError, ValueError) as error:
        raise DataError(f"image: the path is not usable ({error}). Correct it.") from None
    if not inside:
        raise DataError(f"image: the path leads out of {root}. Put the file below the folder of the tables.")
    if not there:
        raise DataError("image: no such file. Paths are relative to the folder of the tables.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"image: cannot be read ({error.strerror}). Allow reading it.") from None
