"""Texts, ids and values of fields: which of them say something."""

import polars as pl

BLANK = r"^[\p{Z}\p{Cc}\p{Cf}]*$"
"""A text of which nothing can be seen: space, control and format characters, or nothing."""


def visible_text(text: str | None) -> str | None:
    """Return a text that comes in alone, None where there is nothing to see, as ``mimctr prepare`` reads a table's."""
    return None if text is None or pl.Series([text]).str.contains(BLANK).item() else text


def without_blanks(values: pl.Series) -> pl.Series:
    """Return texts with null in place of those of which nothing can be seen."""
    return values.set(values.str.contains(BLANK), None)
