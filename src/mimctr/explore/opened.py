"""A finished run, opened for reading; what it lacks is said, not an error."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.cohorts import Slices
from mimctr.evaluate.results import Results
from mimctr.explore.generation import STAGES, Generation, of_stage, preferred_of
from mimctr.explore.scores import Scores
from mimctr.report.summary import MIM, Summary
from mimctr.report.wording import variant_name

FEW = 3
"""Encoders of which none is left out at first sight."""


class Asked(NamedTuple):
    """What an encoder makes of a text or a picture."""

    vector: Float[ndarray, "content"]
    category: str | None
    """The one that it was taken for, in which it is searched; None: in all."""
    as_title: bool = False
    """Whether it is a text that was taken for the title of an item without a picture."""


class Asks(NamedTuple):
    """How texts and pictures are put to an encoder."""

    text: Callable[[str], Asked]
    picture: Callable[[bytes], Asked]


class Groups:
    """Positions by value: those of value ``v``, ascending.

    Args:
        values: From 0.
        size: Above every value.
    """

    def __init__(self, values: Int[ndarray, "rows"], size: int) -> None:
        self._order = np.argsort(values, kind="stable")
        self._offsets = np.r_[0, np.cumsum(np.bincount(values, minlength=size))]

    def of(self, value: int) -> Int[ndarray, "positions"]:
        """Return the positions of ``value``."""
        return self._order[self._offsets[value] : self._offsets[value + 1]]


def searchable(texts: pl.Series) -> pl.Series:
    """Return texts in small letters, each with its marks in one character (NFC), as words are compared."""
    return texts.str.to_lowercase().str.normalize("NFC")


@dataclass(kw_only=True)
class OpenedRun:
    """What of a run the explorer shows."""

    name: str
    data: CtrDataset
    generations: Mapping[str, Generation] = field(default_factory=dict)
    asks: Mapping[str, Asks] = field(default_factory=dict)
    results: Results | None = None
    evaluation: str | None = None
    """Where the results are, below the run."""
    scores: Scores = field(default_factory=Scores)
    slices: Slices = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def preferred(self) -> str | None:
        """The encoder whose vectors are meant where none is named; None where the run has none."""
        return preferred_of(list(self.generations))

    @property
    def preferred_to_ask(self) -> str | None:
        """The encoder that a text or a picture is put to where none is named; None where there is none."""
        return self.preferred if self.preferred in self.asks else preferred_of(list(self.asks))

    @cached_property
    def principal(self) -> list[str]:
        """Encoders to compare at first sight: one for each stage of training, and the preferred one; all of a few."""
        names = list(self.generations)
        chosen = {of_stage(names, stage) for stage in STAGES} | {self.preferred}
        return names if len(names) <= FEW else [name for name in names if name in chosen]

    @cached_property
    def test(self) -> range:
        """Rows of the test part."""
        return self.data.rows("test")

    @cached_property
    def rows_of_item(self) -> Groups:
        """Impressions by ``item_index``."""
        return Groups(np.asarray(self.data.impressions.target), self.data.num_items + FIRST_INDEX)

    @cached_property
    def rows_of_user(self) -> Groups:
        """Impressions by user index."""
        return Groups(np.asarray(self.data.impressions.user), self.data.num_users + FIRST_INDEX)

    @cached_property
    def categories(self) -> tuple[Mapping[str, int], Int[ndarray, "items"]]:
        """The number of each category, and that of each item by ``item_index``; -1 where it has none."""
        names = self.data.items["category"].cast(pl.String)
        known = names.drop_nulls().unique().sort()
        numbers = names.cast(pl.Enum(known)).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        return {name: number for number, name in enumerate(known)}, np.r_[[-1] * FIRST_INDEX, numbers]

    def of_category(self, name: str | None) -> Bool[ndarray, "items"] | None:
        """Return the items of a category, by ``item_index``; None where there is no such."""
        numbers, own = self.categories
        number = None if name is None else numbers.get(name)
        return None if number is None else np.equal(own, number)

    def outside(self, names: Collection[str]) -> Bool[ndarray, "items"]:
        """Return the items of no category among ``names``, by ``item_index``."""
        numbers, own = self.categories
        return ~np.isin(own, [numbers[name] for name in names if name in numbers])

    @cached_property
    def named(self) -> Bool[ndarray, "items"]:
        """Whether the log names an item, by ``item_index``."""
        pairs = pl.scan_parquet(self.data.folder / "pairs.parquet").select("item").collect()["item"]
        named = np.zeros(self.data.num_items + FIRST_INDEX, dtype=bool)
        for items in (self.data.impressions.target, self.data.behaviors.item, pairs.to_numpy()):
            named[items] = True
        return named

    @cached_property
    def words(self) -> pl.Series:
        """Id and title of each item, a line each, as words are looked for in them (:func:`searchable`)."""
        lines = pl.concat_str(
            pl.col("item_id").cast(pl.String), pl.col("title").fill_null(""), separator="\n"
        )
        return searchable(self.data.items.select(words=lines)["words"])

    @cached_property
    def summary(self) -> Summary | None:
        """What the results say; None without results."""
        return None if self.results is None else Summary(self.results)

    @cached_property
    def compared(self) -> tuple[Float[ndarray, "rows"], Float[ndarray, "rows"]] | None:
        """The mean probability of Base and of the contender with content; None where they share no model."""
        return self.scores.compared(self.summary.content if self.summary else None)

    @property
    def content_name(self) -> str:
        """The name of the contender with content that is set against Base."""
        content = self.summary.content if self.summary else None
        return self.summary.label(content) if self.summary and content else variant_name(MIM)

    def prepare(self) -> None:
        """Do now what the first request would wait for."""
        _ = (
            self.rows_of_item,
            self.rows_of_user,
            self.categories,
            self.named,
            self.words,
            self.data.items,
            self.data.users,
        )
