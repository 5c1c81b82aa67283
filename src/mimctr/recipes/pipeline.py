"""The whole road of a recipe: tables, dataset, encoders, representation table, CTR models, report."""

import logging
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mimctr.evaluate.results import read_results
from mimctr.recipes import csft as csft_recipe
from mimctr.recipes import embed as embed_recipe
from mimctr.recipes import evaluate as evaluate_recipe
from mimctr.recipes import foundation as foundation_recipe
from mimctr.recipes import plain as plain_recipe
from mimctr.recipes import prepare as prepare_recipe
from mimctr.recipes import pretrain as pretrain_recipe
from mimctr.recipes import sources, stages
from mimctr.recipes import train as train_recipe
from mimctr.recipes.models import Models, check_models, train_models
from mimctr.report.table import results_table

logger = logging.getLogger(__name__)


class Recipe(BaseModel):
    """A whole run, as read from a TOML file: one section a stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Of the dataset, as shown in the report.")
    source: sources.Source
    prepare: prepare_recipe.Config = prepare_recipe.Config()
    foundation: foundation_recipe.Config = foundation_recipe.Config()
    pretrain: pretrain_recipe.Config | None = Field(None, description="Without it, no DDA and no DMA.")
    plain: plain_recipe.Config = plain_recipe.Config()
    csft: csft_recipe.Config = csft_recipe.Config()
    embed: embed_recipe.Config = embed_recipe.Config()
    models: Models = Models()
    train: train_recipe.Config = train_recipe.Config()
    evaluate: evaluate_recipe.Config = evaluate_recipe.Config()

    @model_validator(mode="after")
    def _settings_suit_the_models(self) -> "Recipe":
        check_models(self.models, self.train)
        return self

    @model_validator(mode="after")
    def _encoders_are_made(self) -> "Recipe":
        if "pretrained" in self.models.encoders and self.pretrain is None:
            raise ValueError(
                "models.encoders asks for 'pretrained', but there is no [pretrain] section. Add one"
            )
        return self


class Finished(NamedTuple):
    """Where a finished run's results are."""

    table: str
    results: Path
    report: Path


def main(recipe: Recipe, out: Path) -> Finished:
    """Run every stage of ``recipe`` in ``out``; skip what is unchanged, resume what was interrupted."""
    dataset = out / "dataset"
    tables = sources.make_tables(recipe.source, out / "tables")
    stages.prepare(tables, dataset, recipe.prepare).run()
    encoders = make_encoders(recipe, tables, dataset, out)
    for label, encoder in encoders.items():
        stages.embed(dataset, encoder, out / "embed" / label, recipe.embed).run()
    trained = train_models(recipe.models, recipe.train, dataset=dataset, embed=out / "embed", out=out)
    named = recipe.evaluate.model_copy(update={"dataset_name": recipe.name, "models": trained})
    stages.evaluate(out, out / "evaluate", named).run()
    stages.report(out, out / "report").run()
    results = out / "evaluate" / "results.json"
    return Finished(results_table(read_results(results)), results, out / "report" / "report.html")


def make_encoders(recipe: Recipe, tables: Path, dataset: Path, out: Path) -> dict[str, Path]:
    """Make the item encoders of a run; return their folders by label.

    *plain* and *csft* are always made: the report shows the neighbors of both.
    """
    trained_here = None in (recipe.foundation.image_weights, recipe.foundation.text_weights)
    corpus = tables / "corpus" if trained_here else None
    stages.foundation(corpus, out / "foundation", recipe.foundation).run()
    towers = out / "foundation"
    stages.plain(dataset, towers, out / "plain", recipe.plain).run()
    made = {"plain": out / "plain"}
    if recipe.pretrain is not None:
        stages.pretrain(dataset, towers, out / "pretrain", recipe.pretrain).run()
        towers = out / "pretrain"
        if "pretrained" in recipe.models.encoders:
            stages.plain(dataset, towers, out / "pretrained", recipe.plain).run()
            made["pretrained"] = out / "pretrained"
    stages.csft(dataset, towers, out / "csft", recipe.csft).run()
    return made | {"csft": out / "csft"}
