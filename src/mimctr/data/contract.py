"""The data contract: which tables, which columns, what each may hold. docs/data.md is this file in words."""

from enum import Enum
from typing import NamedTuple

FIRST_TIME = 631_152_000
"""1990-01-01, seconds UTC; an earlier time is an error."""
LAST_TIME = 4_102_444_800
"""2100-01-01, seconds UTC; this or a later time is an error."""


class Holds(Enum):
    """What the values of a column are; the value is the wording of error messages."""

    ID = "whole numbers or text"
    TIME = "whole seconds UTC, or a date or datetime"
    LABEL = "0 or 1"
    NUMBER = "numbers"
    TEXT = "text"
    FIELD = "text, whole numbers or booleans"
    IMAGE = "image bytes, or the text of a path inside the folder of the tables"


class Column(NamedTuple):
    """One named column of a raw table."""

    name: str
    holds: Holds
    required: bool = False


class TableContract(NamedTuple):
    """One raw table."""

    name: str
    columns: tuple[Column, ...]
    required: bool = False
    field_prefixes: tuple[str, ...] = ()
    """Columns that begin so are categorical fields; the empty prefix takes every further column."""
    reserved: tuple[str, ...] = ()
    """Names that the dataset gives its own columns; a raw column of that name is ignored."""

    @property
    def required_columns(self) -> list[str]:
        """Names of the columns without which the table says nothing."""
        return [column.name for column in self.columns if column.required]


ITEMS = TableContract(
    "items",
    (
        Column("item_id", Holds.ID, required=True),
        Column("title", Holds.TEXT),
        Column("image", Holds.IMAGE),
        Column("category", Holds.FIELD),
        Column("first_seen_time", Holds.TIME),
        Column("price", Holds.NUMBER),
    ),
    required=True,
    field_prefixes=("",),
    reserved=("item_index", "item_key", "has_image"),
)
IMPRESSIONS = TableContract(
    "impressions",
    (
        Column("user_id", Holds.ID, required=True),
        Column("item_id", Holds.ID, required=True),
        Column("time", Holds.TIME, required=True),
        Column("click", Holds.LABEL, required=True),
        Column("query_text", Holds.TEXT),
        Column("query_image", Holds.IMAGE),
        Column("true_probability", Holds.NUMBER),
        Column("bid", Holds.NUMBER),
        Column("position", Holds.NUMBER),
        Column("propensity", Holds.NUMBER),
    ),
    required=True,
    field_prefixes=("user_", "query_", "context_"),
)
BEHAVIORS = TableContract(
    "behaviors",
    (
        Column("user_id", Holds.ID, required=True),
        Column("item_id", Holds.ID, required=True),
        Column("time", Holds.TIME, required=True),
        Column("kind", Holds.TEXT, required=True),
    ),
)
SEARCHES = TableContract(
    "searches",
    (
        Column("user_id", Holds.ID, required=True),
        Column("item_id", Holds.ID, required=True),
        Column("time", Holds.TIME, required=True),
        Column("kind", Holds.TEXT, required=True),
        Column("query_image", Holds.IMAGE),
        Column("query_text", Holds.TEXT),
    ),
)
CONTRACT = (ITEMS, IMPRESSIONS, BEHAVIORS, SEARCHES)
