"""Find and read raw tables, one column at a time: Parquet, a folder of Parquet parts, or CSV."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimctr.data.contract import CONTRACT
from mimctr.errors import DataError

CHUNK_ROWS = 8_192
"""Rows of a column of paths that are in memory at a time."""
CHUNK_IMAGES = 128
"""Rows of a column of images that are."""


class Table:
    """A raw table on disk.

    In a CSV file every column is text until something asks for more; an empty cell is null.
    """

    def __init__(self, name: str, parts: list[Path], *, csv: bool) -> None:
        self.name = name
        self.parts = parts
        self.csv = csv
        self._differ = False
        try:
            self.dtypes = dict(self._scan().collect_schema()) if csv else self._common_schema()
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
        """Yield one column in chunks of :meth:`chunk_rows`, for columns that are too big for memory."""
        rows = self.chunk_rows(column)
        if self.csv:
            values = self.read(column)
            for start in range(0, len(values), rows):
                yield values.slice(start, rows)
            return
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    for chunk in file.iter_batches(batch_size=rows, columns=[column]):
                        yield pl.Series(column, chunk.column(0)).cast(self.dtypes[column])
            except (pa.ArrowException, OSError) as error:
                raise self._unreadable(error) from None

    def chunk_rows(self, column: str) -> int:
        """Return how many rows of a column :meth:`chunks` has in memory at a time."""
        return CHUNK_IMAGES if self.dtypes[column] == pl.Binary else CHUNK_ROWS

    def _scan(self) -> pl.LazyFrame:
        if self.csv:
            return pl.scan_csv(self.parts[0], infer_schema=False)
        if not self._differ:
            return pl.scan_parquet(self.parts, glob=False)
        parts = [pl.scan_parquet(part, glob=False) for part in self.parts]
        return pl.concat(
            [part.select(pl.col(name).cast(dtype) for name, dtype in self.dtypes.items()) for part in parts]
        )

    def _common_schema(self) -> dict[str, pl.DataType]:
        """Return the columns of all parts with a type that holds what each of them has.

        Raises:
            DataError: a part lacks a column, or has one of another type.
        """
        schemas = {part: dict(pl.read_parquet_schema(part)) for part in self.parts}
        (first, schema), *others = schemas.items()
        common = dict(schema)
        for part, other in others:
            lacking = [name for name in common if name not in other] or [
                name for name in other if name not in common
            ]
            if lacking:
                there, not_there = (first, part) if lacking[0] in common else (part, first)
                raise DataError(
                    f"{not_there}: has no column {lacking[0]!r}, which {there.name} has. Write all parts with the same "
                    "columns; a column without values may be null."
                )
            for name, dtype in other.items():
                holds = _common_type(common[name], dtype)
                if holds is None:
                    raise DataError(
                        f"{part}: its column {name!r} holds {dtype}, that of the parts before it {common[name]}. Write "
                        "all parts with the same types."
                    )
                common[name] = holds
        self._differ = any([*schema.items()] != [*common.items()] for schema in schemas.values())
        return common

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
    if not there[0].is_dir():
        return Table(name, there, csv=there[0] == csv)
    files = sorted(there[0].glob("*.parquet"))
    if not files:
        raise DataError(f"{there[0]}: holds no .parquet file. Put the parts of the table {name} there.")
    return Table(name, files, csv=False)


def _common_type(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return a type that holds the values of both, as writers choose them part by part; None where there is none."""
    if one == other:
        return one
    if pl.Null in (one, other):
        return other if one == pl.Null else one
    if one.is_integer() and other.is_integer() and pl.UInt64 not in (one, other):
        return pl.Int64()
    if one.is_numeric() and other.is_numeric():
        return pl.Float64() if one.is_float() or other.is_float() else None
    if all(dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum) for dtype in (one, other)):
        return pl.String()
    if isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime) and one.time_zone == other.time_zone:
        return pl.Datetime("us", one.time_zone)
    return None
