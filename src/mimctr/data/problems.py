"""What is wrong with the raw tables: one rule, one line a problem, all of them together."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mimctr.errors import DataError

Severity = Literal["error", "dropped", "warning", "information"]


class Problem(BaseModel):
    """One rule that one column of a raw table breaks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(description="Short name of the rule, such as 'unknown-item'.")
    severity: Severity = Field(
        description="error: nothing is written; dropped: bad rows or values were left out (lenient); else: kept."
    )
    table: str = Field(description="Name of the raw table.")
    column: str | None = Field(description="Name of its column; null where the problem is the table's.")
    count: int = Field(description="How many rows (or columns) break the rule.")
    total: int = Field(description="Out of how many.")
    message: str = Field(description="One line: where, what is wrong, the first example, what to do.")


class Problems:
    """Collects problems while the tables are checked.

    Args:
        lenient: Bad rows become ``dropped`` instead of ``error``; a broken table stays an error.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.lenient = lenient
        self.found: list[Problem] = []

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)

    def add(
        self,
        rule: str,
        message: str,
        *,
        table: str,
        column: str | None = None,
        severity: Severity = "error",
        count: int = 1,
        total: int = 1,
    ) -> None:
        """Note a problem.

        Args:
            rule: Short name of the rule.
            message: ``<what is wrong, with the first example>. <what to do>.`` The place is put before it.
            table: Name of the raw table.
            column: Name of its column, if the problem has one.
            severity: ``dropped`` where the offending rows can be left out: an error unless lenient.
            count: How many rows break the rule.
            total: Out of how many.
        """
        if severity == "dropped" and not self.lenient:
            severity = "error"
        where = table if column is None else f"{table}.{column}"
        line = " ".join(f"{where}: {message}".split())
        self.found.append(
            Problem(
                rule=rule,
                severity=severity,
                table=table,
                column=column,
                count=count,
                total=total,
                message=line,
            )
        )

    def usable(self, table: str, column: str) -> bool:
        """Return whether ``column`` can be looked at: it is there, not empty, and of the right type and unit."""
        fatal = ("missing-table", "missing-column", "empty-table", "wrong-type", "time-unit")
        return not any(
            p.rule in fatal and p.table == table and p.column in (column, None) for p in self.found
        )

    def counts(self) -> dict[str, int]:
        """Return how many rows (or values) break each rule."""
        counts: dict[str, int] = {}
        for problem in self.found:
            counts[problem.rule] = counts.get(problem.rule, 0) + problem.count
        return counts

    def raise_errors(self, source: str) -> None:
        """Raise one DataError that lists every error, a line each."""
        lines = [problem.message for problem in self.found if problem.severity == "error"]
        if lines:
            noun = "problem" if len(lines) == 1 else "problems"
            raise DataError("\n".join([f"{source}: {len(lines)} {noun}; nothing was written.", *lines]))


class Summary(BaseModel):
    """What ``prepare`` read, wrote and objected to; ``summary.json`` in the dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: str = Field(description="Folder of the raw tables.")
    counts: dict[str, int] = Field(
        description="Items, users, behaviors, pairs ...; impressions in all and by part."
    )
    problems: list[Problem] = Field(
        description="Everything that was noticed, errors excepted: they end the run."
    )
    seconds: float = Field(description="Duration, in seconds.")
