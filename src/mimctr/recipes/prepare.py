"""Check raw tables and make the dataset that every later stage reads (docs/data.md)."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mimctr.data.contract import FIRST_TIME, LAST_TIME
from mimctr.data.pairs import PairRule
from mimctr.data.prepare import prepare_tables
from mimctr.data.problems import Summary
from mimctr.data.split import DAY, SplitRule
from mimctr.files import read_json

LONGEST_DAYS = (LAST_TIME - FIRST_TIME) / DAY
"""More than all times that a table may hold."""


class Config(BaseModel):
    """Settings of ``mimctr prepare``. The paper gives none of them but the kind of the pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_days: float | None = Field(None, gt=0, le=LONGEST_DAYS, description="Length of the test part, days.")
    validation_days: float | None = Field(
        None, gt=0, le=LONGEST_DAYS, description="Length of the validation part, days."
    )
    warmup_days: float = Field(
        0.0, ge=0, le=LONGEST_DAYS, description="First days, whose impressions only fill histories."
    )
    test_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Length of the test part as a fraction of all time, where test_days is not given.",
    )
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="Length of the validation part, where validation_days is not given."
    )
    min_count: int = Field(
        1, ge=1, description="User, query and context values rarer than this in training are unknown."
    )
    lenient: bool = Field(False, description="Drop bad rows, counted, instead of refusing the tables.")
    pair_kinds: tuple[str, ...] = Field(
        ("purchase",), min_length=1, description="Kinds of behavior that are positives. Paper: purchase."
    )
    pair_query_kinds: tuple[str, ...] = Field(
        ("purchase",), min_length=1, description="Kinds of behavior whose image is the query."
    )
    pair_window_days: float = Field(
        30.0, gt=0, le=LONGEST_DAYS, description="Most days from the query's behavior to the positive."
    )
    pair_same_field: str | None = Field(
        None, description="Item field, such as category, in which query and positive agree."
    )
    max_pairs_per_positive: int = Field(
        5, ge=1, description="Most pairs of one positive, the newest queries."
    )


def main(tables: Path, out: Path, config: Config) -> Summary:
    """Write the dataset of ``tables`` to the new folder ``out``.

    The ``pair_*`` settings are for tables without ``searches``.

    Raises:
        DataError: the tables break their contract; one line per problem.
    """
    return prepare_tables(
        tables,
        out,
        split=SplitRule(
            test_days=config.test_days,
            validation_days=config.validation_days,
            warmup_days=config.warmup_days,
            test_fraction=config.test_fraction,
            validation_fraction=config.validation_fraction,
        ),
        pairs=PairRule(
            kinds=config.pair_kinds,
            query_kinds=config.pair_query_kinds,
            window_days=config.pair_window_days,
            same_field=config.pair_same_field,
            max_pairs=config.max_pairs_per_positive,
        ),
        min_count=config.min_count,
        lenient=config.lenient,
    )


def read_summary(out: Path) -> Summary:
    """Return the summary of the dataset in ``out``."""
    return Summary.model_validate(read_json(out / "summary.json"))
