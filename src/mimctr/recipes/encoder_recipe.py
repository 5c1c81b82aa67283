"""Settings of the encoder tables, and the rows that they ask for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from mimctr.recipes import csft as csft_recipe
from mimctr.recipes import foundation as foundation_recipe
from mimctr.recipes import prepare as prepare_recipe
from mimctr.recipes import pretrain as pretrain_recipe
from mimctr.recipes import search as search_recipe
from mimctr.recipes import sources
from mimctr.recipes.encoder_rows import AFTER_DMA, CLICK, MIM, ROWS, Row
from mimctr.recipes.grid import grid_points

NAME = re.compile(r"\w[\w .+-]*")
"""Of further foundation models: a part of folder names."""


class Recipe(BaseModel):
    """The encoder tables of one dataset, as read from a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Of the dataset, as shown in the tables.")
    source: sources.Source
    prepare: prepare_recipe.Config = prepare_recipe.Config()
    foundation: foundation_recipe.Config = foundation_recipe.Config()
    others: dict[str, foundation_recipe.Config] = Field(
        {}, description="Further foundation models by name: each three rows more, plain, after DMA and MIM."
    )
    pretrain: pretrain_recipe.Config = pretrain_recipe.Config()
    csft: csft_recipe.Config = Field(
        csft_recipe.Config(), description="Of MIM; its plain geometry is every row's."
    )
    search: search_recipe.Config = search_recipe.Config()
    seeds: list[NonNegativeInt] = Field([0, 1, 2], min_length=1, description="Of everything that is trained.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description="Settings of [csft] with the values to try. Every row with C-SFT takes what is best on validation "
        "with the first seed.",
    )
    num_resamples: int = Field(1000, ge=0, description="Bootstrap resamples of users, of encoders' search.")

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("Input should name each seed once")
        return seeds

    @field_validator("others")
    @classmethod
    def _names_can_be_folders(
        cls, others: dict[str, foundation_recipe.Config]
    ) -> dict[str, foundation_recipe.Config]:
        if wrong := [name for name in others if not NAME.fullmatch(name)]:
            raise ValueError(
                f"the name {wrong[0]!r} is a folder's too. It may hold letters, digits, spaces and . - _ +, and begin "
                "with a letter, a digit or _"
            )
        return others

    @model_validator(mode="after")
    def _rows_of_pretraining_differ(self) -> "Recipe":
        if not (self.pretrain.masked_image or self.pretrain.language):
            raise ValueError(
                "pretrain.masked_image and pretrain.language are false, but Table 3 has a row +DDA. Leave one true"
            )
        if not self.pretrain.alignment:
            raise ValueError("pretrain.alignment is false, but Table 3 has a row +DDA+DMA. Leave it true")
        return self

    @model_validator(mode="after")
    def _purchases_are_no_clicks(self) -> "Recipe":
        kinds = self.csft.pair_kinds
        if CLICK in kinds or not kinds:
            raise ValueError(
                f"csft.pair_kinds = {kinds}, but Table 4 compares purchases with clicks. Name what is a purchase, and "
                "no clicks"
            )
        return self

    @model_validator(mode="after")
    def _rows_suit(self) -> "Recipe":
        for row in ROWS:
            csft_points(self, row)
        return self


class Entry(NamedTuple):
    """A row with the foundation models that it starts from."""

    name: str
    labels: dict[int, str]
    """What it is called in each table of the paper that it stands in."""
    row: Row
    foundation: foundation_recipe.Config
    folder: Path
    """Holds everything made from these foundation models."""

    def encoder(self, seed: int) -> Path:
        """Return the folder of its item encoder."""
        return self.folder / f"seed{seed}" / self.row.name

    def search(self, seed: int) -> Path:
        """Return the folder of the search with it."""
        return self.folder / f"seed{seed}" / "search" / self.row.name


def entries(recipe: Recipe, out: Path) -> Iterator[Entry]:
    """Yield every row, then the rows of the other foundation models."""
    for row in ROWS:
        yield Entry(row.name, row.labels, row, recipe.foundation, out)
    for name, foundation in recipe.others.items():
        for row in ROWS:
            if row.name in ("plain", AFTER_DMA, MIM):
                labels = {3: f"{row.labels[3]}, {name}"}
                yield Entry(f"{row.name}, {name}", labels, row, foundation, out / "others" / name)


def csft_points(recipe: Recipe, row: Row) -> list[csft_recipe.Config]:
    """Return the settings of C-SFT that a row tries; none where it has no C-SFT."""
    if row.csft is None:
        return []
    config = csft_recipe.Config.model_validate(recipe.csft.model_dump() | row.csft)
    decided = {name for other in ROWS for name in other.csft or {}} | {"seed"}
    return grid_points(recipe.grid, config, decided=decided, where="grid")


def made_with(entry: Entry, seed: int, recipe: Recipe) -> int:
    """Return the seed whose encoder stands for that of ``seed``: the first one, where no seed changes the row."""
    return recipe.seeds[0] if entry.row.fixed else seed
