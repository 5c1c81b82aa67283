"""Where a run's raw tables come from: the bazaar, the fashion data, or the user's own folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from mimctr.errors import ConfigError
from mimctr.files import read_json
from mimctr.sources.bazaar import write_bazaar
from mimctr.sources.fashion import write_fashion
from mimctr.train.stage import Stage, fill_folder


class Bazaar(BaseModel):
    """A generated marketplace whose right answer is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["bazaar"]
    size: Literal["tiny", "small", "medium", "large"] = Field(
        "small", description="How big; small is the demo."
    )
    seed: int = Field(0, ge=0, description="The same seed gives the same bytes.")
    random_pages: bool = Field(
        False,
        description="Every page stands in random order, with position and propensity: for estimates from a log.",
    )

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out ``random_pages`` where it is off: what was made before there was such a setting stays."""
        values: dict[str, Any] = dump(self)
        if not self.random_pages:
            values.pop("random_pages", None)
        return values


class Fashion(BaseModel):
    """The H&M fashion purchases, from the folder where the user keeps them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["fashion"]
    path: Path = Field(description="Folder of the original data.")
    negatives: Literal["popularity", "category"] = Field("popularity", description="How negatives are drawn.")
    attributes: bool = Field(
        False, description="Add the merchandiser's attributes (color, pattern ...) as item fields."
    )
    seed: int = Field(0, ge=0, description="Of the sampled negatives.")


class Tables(BaseModel):
    """The user's own raw tables (docs/data.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tables"]
    path: Path = Field(
        description="Folder with items, impressions and, where there are any, behaviors and searches."
    )


Source = Annotated[Bazaar | Fashion | Tables, Field(discriminator="kind")]


def make(config: Bazaar | Fashion, out: Path) -> dict[str, Any]:
    """Fill ``out`` with the raw tables of ``config``, unless it holds them already; return what they are."""
    stage(config, out).run()
    return read_json(out / ("bazaar.json" if isinstance(config, Bazaar) else "summary.json"))


def stage(config: Bazaar | Fashion, out: Path) -> Stage:
    """Nothing, or the original data -> raw tables."""
    if isinstance(config, Bazaar):
        return Stage(
            "bazaar",
            out,
            config=config,
            inputs={},
            work=lambda: fill_folder(
                out, lambda folder: write_bazaar(folder, **config.model_dump(exclude={"kind"}))
            ),
        )
    return Stage(
        "fashion",
        out,
        config=config,
        inputs={"data": config.path},
        work=lambda: fill_folder(
            out,
            lambda folder: write_fashion(
                config.path,
                folder,
                negatives=config.negatives,
                attributes=config.attributes,
                seed=config.seed,
            ),
        ),
    )


def tables_folder(config: Bazaar | Fashion | Tables, out: Path) -> Path:
    """Return the folder of a run's raw tables; ``out`` where they are not the user's own, for :func:`stage` to fill.

    Raises:
        ConfigError: the user's own folder is not there.
    """
    if not isinstance(config, Tables):
        return out
    if not config.path.is_dir():
        raise ConfigError(
            f"source.path: {config.path} is no folder. Give the folder that holds the raw tables."
        )
    return config.path


def make_tables(config: Bazaar | Fashion | Tables, out: Path) -> Path:
    """Return the folder of a run's raw tables; made in ``out`` where they are not the user's own."""
    folder = tables_folder(config, out)
    if not isinstance(config, Tables):
        make(config, out)
    return folder
