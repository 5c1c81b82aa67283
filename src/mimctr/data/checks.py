"""Checks at the door: every column of a raw table is read through here, typed, and its bad rows named and counted."""

from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from mimctr.data.blobs import MISSING
from mimctr.data.contract import FIRST_TIME, LAST_TIME, Holds, TableContract
from mimctr.data.convert import INTEGER_TEXT, is_categorical, to_numbers, to_seconds
from mimctr.data.images import UNREADABLE, ImageReader
from mimctr.data.logs import Table
from mimctr.data.problems import Problems, Severity
from mimctr.data.texts import without_blanks

MOST_COUNTED = 10**6
"""Largest whole number of a column that counts."""
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


class CheckedTable:
    """One raw table under inspection.

    Every method returns a typed column with all rows of the table; rows that break a rule are marked in ``keep`` and
    hold a harmless value, as do columns of the wrong type. An optional column that is not there is None.

    Args:
        table: What to read.
        contract: What it should hold.
        problems: Where objections go.
    """

    def __init__(self, table: Table, contract: TableContract, problems: Problems) -> None:
        self.table = table
        self.contract = contract
        self.problems = problems
        self.keep: Bool[ndarray, rows] = np.ones(table.num_rows, dtype=bool)
        self._holds = {column.name: column.holds for column in contract.columns}
        self._check_columns()

    def __contains__(self, column: str) -> bool:
        return column in self.table.dtypes

    def usable(self, *columns: str) -> bool:
        """Return whether all ``columns`` can be looked at, whatever single rows hold."""
        return all(self.problems.usable(self.table.name, column) for column in columns)

    def fields(self) -> list[str]:
        """Return the names of the categorical fields among the further columns, in the order of the table."""
        further = [name for name in self.table.dtypes if name not in self._holds]
        fields = [name for name in further if self._is_field(name)]
        ignored = [name for name in further if name not in fields]
        if ignored:
            self.report(
                "unexpected-column",
                f"{len(ignored)} columns are no part of the contract and are ignored: {', '.join(ignored[:5])}"
                f"{', ...' if len(ignored) > 5 else ''}. Fields hold {Holds.FIELD.value}"
                f"{self._prefixes()}; remove the columns, or rename them.",
                severity="information",
                count=len(ignored),
                total=len(self.table.dtypes),
            )
        return fields

    def ids(self, column: str, *, like: pl.DataType | None = None) -> pl.Series:
        """Return ids as Int64 or String, null where blank; all null where the column is unusable.

        Args:
            column: Name of the column.
            like: Type of the same ids in another table; the two have to agree.
        """
        values = self._read(column)
        if values is None:
            return self._nothing(pl.Int64)
        if self.table.csv and like != pl.String and values.drop_nulls().str.contains(INTEGER_TEXT).all():
            values = values.cast(pl.Int64)
        if values.dtype.is_integer():
            whole = values.cast(pl.Int64, strict=False)
            if self._overflows(column, values, whole):
                return self._nothing(pl.Int64)
            values = whole
        elif values.dtype == pl.String:
            values = without_blanks(values)
        else:
            self._wrong_type(column, values)
            return self._nothing(pl.Int64)
        self._reject_nulls(column, values)
        if like is not None and values.dtype != like:
            odd = values.filter(~values.str.contains(INTEGER_TEXT)) if self.table.csv else values
            self._wrong_type(column, values, expected=f"{like}, as in the other tables", odd=odd)
            return self._nothing(like)
        return values

    def times(self, column: str) -> Int[ndarray, "rows"]:
        """Return times in seconds UTC, int64; ``FIRST_TIME`` where there is none."""
        values = self._read(column)
        nothing = np.full(self.table.num_rows, FIRST_TIME, dtype=np.int64)
        if values is None:
            return nothing
        seconds = to_seconds(values, csv=self.table.csv)
        if seconds is None:
            self._wrong_type(column, values)
            return nothing
        unreadable = (seconds.is_null() & values.is_not_null()).to_numpy()
        self.reject(
            unreadable, "wrong-type", column, values, f"do not hold {Holds.TIME.value}", "Correct them."
        )
        self._reject_nulls(column, values)
        numbers = seconds.fill_null(FIRST_TIME).to_numpy()
        outside = (numbers < FIRST_TIME) | (numbers >= LAST_TIME)
        if outside.any() and not self._wrong_unit(column, numbers, outside):
            wrong, remedy = (
                "lie outside the years 1990 to 2099",
                f"Give seconds UTC{_unit_of(numbers[outside])}.",
            )
            self.reject(outside, "time-range", column, values, wrong, remedy)
        return np.where(outside, FIRST_TIME, numbers)

    def labels(self, column: str) -> Int[ndarray, "rows"]:
        """Return labels 0 and 1 as uint8."""
        values = self._read(column)
        nothing = np.zeros(self.table.num_rows, dtype=np.uint8)
        if values is None:
            return nothing
        if values.dtype == pl.Boolean:
            values = values.cast(pl.UInt8)
        numbers = to_numbers(values, csv=self.table.csv)
        if numbers is None:
            self._wrong_type(column, values)
            return nothing
        self._reject_nulls(column, values)
        good = numbers.is_in([0.0, 1.0]).fill_null(False) | values.is_null()
        self.reject(
            ~good.to_numpy(), "label", column, values, "are not 0 or 1", "Give 1 for a click, 0 for none."
        )
        return (numbers == 1.0).fill_null(False).cast(pl.UInt8).to_numpy()

    def numbers(
        self, column: str, *, low: float = -np.inf, high: float = np.inf
    ) -> Float[ndarray, "rows"] | None:
        """Return numbers as float64; null and NaN, which some writers have for null, are NaN."""
        values = self._read(column)
        if values is None:
            return None
        numbers = to_numbers(values, csv=self.table.csv)
        if numbers is None:
            self._wrong_type(column, values)
            return None
        absent = values.is_null() | numbers.is_nan().fill_null(False)
        good = numbers.is_between(low, high) & numbers.is_finite() | absent
        limits = f" from {low:g} to {high:g}" if np.isfinite(high) else f" of at least {low:g}"
        limits = limits if np.isfinite(low) else ""
        bad = ~good.fill_null(False).to_numpy()
        self.reject(
            bad, "number", column, values, f"are not finite numbers{limits}", "Correct them, or give null."
        )
        return numbers.fill_null(np.nan).to_numpy()

    def counts(self, column: str) -> Int[ndarray, "rows"] | None:
        """Return whole numbers of at least 0 as int32; null is -1."""
        values = self.numbers(column, low=0.0, high=MOST_COUNTED)
        if values is None:
            return None
        broken = np.floor(values) != values
        self.reject(
            broken & ~np.isnan(values),
            "number",
            column,
            values,
            "are not whole numbers",
            "Correct them, or give null.",
        )
        return np.nan_to_num(np.floor(values), nan=-1).clip(max=MOST_COUNTED).astype(np.int32)

    def texts(self, column: str) -> pl.Series | None:
        """Return text; text of nothing that can be seen is null: space, control and format characters."""
        values = self._read(column)
        if values is None:
            return None
        if values.dtype != pl.String:
            self._wrong_type(column, values)
            return None
        values = without_blanks(values)
        self._reject_nulls(column, values)
        return values

    def images(self, column: str, reader: ImageReader) -> Int[ndarray, "rows"] | None:
        """Return the blob number of each row's image, -1 where it has none or one that cannot be used."""
        if not self._holds_anything(column):
            return None
        if self.table.dtypes[column] not in (pl.String, pl.Binary):
            self._wrong_type(column, self.table.read(column))
            return None
        numbers = reader.read(self.table, column)
        bad = numbers == UNREADABLE
        if bad.any() and reader.first_failure is not None:
            row, reason = reader.first_failure
            self.report(
                "unreadable-image",
                f"{int(bad.sum()):,} of {len(bad):,} rows have an image that cannot be used. First: row {row}, "
                f"{reason} '--lenient' treats these images as missing.",
                column=column,
                severity="dropped",
                count=int(bad.sum()),
                total=len(bad),
            )
        return np.where(bad, MISSING, numbers)

    def field(self, column: str) -> pl.Series:
        """Return a field as text, null where blank: whole numbers in decimal, booleans as true and false."""
        values = self._read(column)
        if values is not None and not is_categorical(values.dtype):
            self._wrong_type(column, values)
            values = None
        return self._nothing(pl.String) if values is None else without_blanks(values.cast(pl.String))

    def reject(
        self,
        bad: Bool[ndarray, "rows"],
        rule: str,
        column: str,
        values: pl.Series | Shaped[ndarray, "rows"],
        wrong: str,
        remedy: str,
    ) -> None:
        """Mark ``bad`` rows; say how many of how many, the first, what is wrong with them and what to do."""
        count = int(bad.sum())
        if not count:
            return
        self.keep &= ~bad
        row = int(bad.argmax())
        self.report(
            rule,
            f"{count:,} of {len(bad):,} rows {wrong}. First: row {row}, {_show(values[row])}. {remedy}",
            column=column,
            severity="dropped",
            count=count,
            total=len(bad),
        )

    def report(
        self,
        rule: str,
        message: str,
        *,
        column: str | None = None,
        severity: Severity = "error",
        count: int = 1,
        total: int = 1,
    ) -> None:
        """Note a problem of this table."""
        self.problems.add(
            rule, message, table=self.table.name, column=column, severity=severity, count=count, total=total
        )

    def _check_columns(self) -> None:
        if not self.table.num_rows:
            remedy = (
                "Export it again." if self.contract.required else "Export it again, or leave the table out."
            )
            self.report("empty-table", f"has no rows ({self.table.where}). {remedy}")
        for column in self.contract.required_columns:
            if column not in self.table.dtypes:
                self.report(
                    "missing-column",
                    f"the column is missing; the table has {', '.join(self.table.dtypes)}. "
                    f"Add it; it holds {self._holds[column].value}.",
                    column=column,
                )

    def _read(self, column: str) -> pl.Series | None:
        if not self._holds_anything(column):
            return None
        values = self.table.read(column)
        if isinstance(values.dtype, pl.Categorical | pl.Enum):
            values = values.cast(pl.String)
        return values

    def _holds_anything(self, column: str) -> bool:
        """Return whether the column is there; an optional one that is all null (and so has no type) is not."""
        empty = column not in self.contract.required_columns and self.table.dtypes.get(column) == pl.Null
        return column in self.table.dtypes and not empty

    def _nothing(self, dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
        return pl.Series([None], dtype=dtype).new_from_index(0, self.table.num_rows)

    def _reject_nulls(self, column: str, values: pl.Series) -> None:
        if column in self.contract.required_columns:
            empty = values.is_null().to_numpy()
            self.reject(
                empty,
                "missing-value",
                column,
                values,
                "have no value",
                "Fill them in, or leave the rows out.",
            )

    def _overflows(self, column: str, values: pl.Series, whole: pl.Series) -> bool:
        """Report ids that were lost when ``values`` became the int64 ``whole``; return whether there are any."""
        lost = (whole.is_null() & values.is_not_null()).to_numpy()
        if lost.any():
            row = int(lost.argmax())
            self.report(
                "wrong-type",
                f"{int(lost.sum()):,} of {len(lost):,} rows hold whole numbers beyond 64 bits with a sign. First: row "
                f"{row}, {values[row]}. Give all ids of this kind as text, in every table.",
                column=column,
                count=int(lost.sum()),
                total=len(lost),
            )
        return bool(lost.any())

    def _wrong_type(
        self, column: str, values: pl.Series, *, expected: str | None = None, odd: pl.Series | None = None
    ) -> None:
        """Report a column of another type than ``expected``; its first value among ``odd`` is the example."""
        example = (values if odd is None else odd).drop_nulls()
        self.report(
            "wrong-type",
            f"holds {values.dtype}, not {expected or self._holds.get(column, Holds.FIELD).value}. "
            f"First: {_show(example[0] if len(example) else None)}. Convert the column.",
            column=column,
            count=len(values),
            total=len(values),
        )

    def _wrong_unit(self, column: str, numbers: Int[ndarray, "rows"], outside: Bool[ndarray, "rows"]) -> bool:
        """Report a whole column in another unit than seconds; return whether it is one."""
        for unit, factor in UNITS.items():
            scaled = numbers // factor
            if 2 * ((scaled >= FIRST_TIME) & (scaled < LAST_TIME)).sum() > len(numbers):
                self.report(
                    "time-unit",
                    f"{int(outside.sum()):,} of {len(numbers):,} times are {unit}, not seconds. First: row "
                    f"{int(outside.argmax())}, {numbers[outside.argmax()]}. Divide the column by {factor:,}.",
                    column=column,
                    count=int(outside.sum()),
                    total=len(numbers),
                )
                return True
        return False

    def _is_field(self, name: str) -> bool:
        named = any(name.startswith(prefix) for prefix in self.contract.field_prefixes)
        return named and name not in self.contract.reserved and is_categorical(self.table.dtypes[name])

    def _prefixes(self) -> str:
        prefixes = [prefix for prefix in self.contract.field_prefixes if prefix]
        return f" and begin with {', '.join(prefixes)}" if prefixes else ""


def _unit_of(times: Int[ndarray, "rows"]) -> str:
    """Return a clause that names the unit in which all of ``times`` would be possible; empty where there is none."""
    for unit, factor in UNITS.items():
        scaled = times // factor
        if ((scaled >= FIRST_TIME) & (scaled < LAST_TIME)).all():
            return f"; these look like {unit}"
    return ""


def _show(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else text[:77] + "..."
