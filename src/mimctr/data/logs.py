"""Find and read raw tables, one column at a time: Parquet, a folder of Parquet parts, or CSV."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimctr.data.contract import CONTRACT
from mimctr.errors import DataError

CHUNK_ROWS = 8_192
"""Rows of an image column that are in memory at a time."""


class Table:
    """A raw table on disk.

    In a CSV file every column is text until something asks for more; an empty cell is null.
    """

    def __init__(self, name: str, parts: list[Path], *, csv: bool) -> None:
        self.name = name
        self.parts = parts
        self.csv = csv
        try:
            self.dtypes = dict(self._scan().collect_schema())
            self.num_rows = int(self._scan().select(pl.len()).collect(engine="streaming").item())
        except pl.exceptions.PolarsError as error:
            raise self._unreadable(error) from None

    @property
    def where(self) -> str:
        """File or folder of the table, for messages."""
        return str(self.parts[0] if len(self.parts) == 1 else self.parts[0].parent)

    def read(self, column: str) -> pl.Series:
        """Return one column, in the order of the table."""
        try:
            frame = self._scan().select(column).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise self._unreadable(error) from None
        return frame.to_series()

    def chunks(self, column: str) -> Iterator[pl.Series]:
        """Yield one column in chunks of ``CHUNK_ROWS``, for columns that are too big for memory."""
        if self.csv:
            values = self.read(column)
            for start in range(0, len(values), CHUNK_ROWS):
                yield values.slice(start, CHUNK_ROWS)
            return
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    for chunk in file.iter_batches(batch_size=CHUNK_ROWS, columns=[column]):
                        yield pl.Series(column, chunk.column(0))
            except (pa.ArrowException, OSError) as error:
                raise self._unreadable(error) from None

    def _scan(self) -> pl.LazyFrame:
        if self.csv:
            return pl.scan_csv(self.parts[0], infer_schema=False)
        return pl.scan_parquet(self.parts, glob=False)

    def _unreadable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())[:200]
        return DataError(
            f"{self.where}: cannot be read as {'CSV' if self.csv else 'Parquet'} ({reason}). Export it again."
        )


def find_tables(folder: Path) -> dict[str, Table]:
    """Return the raw tables in ``folder`` by name; optional ones may be missing.

    Raises:
        DataError: there is no such folder, a table is there twice, or a file cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Give the folder that holds the tables items and impressions."
        )
    found = {contract.name: _find(folder, contract.name) for contract in CONTRACT}
    return {name: table for name, table in found.items() if table is not None}


def _find(folder: Path, name: str) -> Table | None:
    file, parts, csv = folder / f"{name}.parquet", folder / name, folder / f"{name}.csv"
    there = [path for path in (file, parts, csv) if path.exists()]
    if not there:
        return None
    if len(there) > 1:
        names = " and ".join(path.name for path in there)
        raise DataError(f"{folder}: the table {name} is there more than once ({names}). Keep one of them.")
    if there[0] != parts:
        return Table(name, there, csv=there[0] == csv)
    files = sorted(parts.glob("*.parquet"))
    if not files:
        raise DataError(f"{parts}: holds no .parquet file. Put the parts of the table {name} there.")
    return Table(name, files, csv=False)
