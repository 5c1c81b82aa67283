"""Raw values to indices: 0 = nothing there, 1 = unknown, the first entry 2."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX, PADDING, UNKNOWN
from mimctr.files import write_table

SCHEMA = {"field": pl.String, "index": pl.Int32, "value": pl.String, "count": pl.Int64}
"""Columns of a file of vocabularies."""


class Factorized(NamedTuple):
    """A column as codes: row ``r`` holds ``distinct[codes[r]]``, or nothing where the code is -1."""

    distinct: pl.Series
    """Sorted."""
    codes: Int[ndarray, "rows"]
    """int32."""

    def take(self, rows: Int[ndarray, "rows"] | slice) -> "Factorized":
        """Return some of the rows."""
        return Factorized(self.distinct, self.codes[rows])


def build_vocabulary(values: pl.Series, *, min_count: int = 1) -> pl.DataFrame:
    """Return the vocabulary of a column: ``index``, ``value`` and ``count``, sorted by value.

    Args:
        values: The rows of a categorical column that may be looked at; null is not a value.
        min_count: Rarer values stay unknown.
    """
    counted = (
        pl.DataFrame({"value": values})
        .drop_nulls()
        .group_by("value")
        .agg(pl.len().cast(pl.Int64).alias("count"))
        .filter(pl.col("count") >= min_count)
        .sort("value")
    )
    index = pl.Series("index", np.arange(FIRST_INDEX, FIRST_INDEX + len(counted)), dtype=pl.Int32)
    return counted.insert_column(0, index)


def encode(values: pl.Series, vocabulary: pl.DataFrame) -> Int[ndarray, "rows"]:
    """Return the int32 index of every value: 0 where it is null, 1 where the vocabulary does not have it."""
    joined = pl.DataFrame({"value": values}).join(
        vocabulary.select("value", "index"), on="value", how="left", maintain_order="left"
    )
    missing = pl.when(pl.col("value").is_null()).then(PADDING).otherwise(UNKNOWN)
    return joined.select(pl.coalesce("index", missing).cast(pl.Int32)).to_series().to_numpy()


def factorize(values: pl.Series) -> Factorized:
    """Return a column as its sorted distinct values and the position of each row among them."""
    distinct = values.drop_nulls().unique().sort()
    positions = pl.DataFrame({"value": distinct, "index": np.arange(len(distinct), dtype=np.int32)})
    joined = pl.DataFrame({"value": values}).join(positions, on="value", how="left", maintain_order="left")
    return Factorized(distinct, joined["index"].fill_null(-1).to_numpy())


def count_vocabulary(column: Factorized, *, min_count: int = 1) -> pl.DataFrame:
    """Return the vocabulary of a factorized column, as :func:`build_vocabulary` does; values without a row are out."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.distinct))
    kept = np.flatnonzero(counts >= max(min_count, 1))
    index = np.arange(FIRST_INDEX, FIRST_INDEX + len(kept), dtype=np.int32)
    return pl.DataFrame({"index": index, "value": column.distinct.gather(kept), "count": counts[kept]})


def encode_codes(column: Factorized, vocabulary: pl.DataFrame) -> Int[ndarray, "rows"]:
    """Return the int32 index of every row of a factorized column, as :func:`encode` does."""
    return np.append(encode(column.distinct, vocabulary), np.int32(PADDING))[
        column.codes
    ]  # -1 reads the last


def write_vocabularies(path: Path, vocabularies: dict[str, pl.DataFrame]) -> dict[str, int]:
    """Write the vocabularies of some fields to one file, with a column ``field``; return their sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [
        frame.with_columns(field=pl.lit(name)).select(list(SCHEMA)) for name, frame in vocabularies.items()
    ]
    write_table(path, pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA))
    return {name: len(frame) + FIRST_INDEX for name, frame in vocabularies.items()}
