"""Column types: what a Parquet column or the text of a CSV column is worth as times, numbers and categories."""

import polars as pl

INTEGER_TEXT = r"^(0|-?[1-9][0-9]{0,17})$"
"""Text of a CSV cell that is an integer: no leading zero, so that '0101' stays the text it is."""
CSV_TIMES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ")
"""Dates and datetimes that a CSV cell may hold; UTC."""


def is_categorical(dtype: pl.DataType) -> bool:
    """Return whether a column of this type is text, whole numbers or booleans."""
    return dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def to_seconds(values: pl.Series, *, csv: bool) -> pl.Series | None:
    """Return Int64 seconds UTC, null where a CSV cell is no time or a number is too large; None for another type.

    A datetime with a time zone is converted; one without is UTC. Fractions of a second are cut off.
    """
    if values.dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    if values.dtype in (pl.Date, pl.Datetime):
        return values.dt.epoch("s")
    if not csv:
        return None
    whole = values.str.contains(INTEGER_TEXT)
    seconds = [values.set(~whole, None).cast(pl.Int64)]
    text = values.set(whole, None)
    seconds += [text.str.to_datetime(form, strict=False).dt.epoch("s") for form in CSV_TIMES]
    return pl.select(pl.coalesce(seconds)).to_series()


def to_numbers(values: pl.Series, *, csv: bool) -> pl.Series | None:
    """Return Float64, null where a CSV cell is no number; None for a column of another type."""
    if values.dtype.is_numeric():
        return values.cast(pl.Float64)
    return values.cast(pl.Float64, strict=False) if csv else None
