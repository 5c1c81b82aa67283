"""mimctr run: every stage of a recipe in order."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Settings

NAME = "run"
EXAMPLES = "Example: mimctr run recipes/demo.toml --out runs/demo --set models.seeds=[0]"


def command(
    recipe: Annotated[Path, typer.Argument(help="a recipe (TOML), see recipes/")],
    out: Annotated[Path, typer.Option(help="run folder; run again to resume or to redo only what changed")],
    settings: Settings = None,
) -> None:
    """Run every stage of a recipe; skip what is unchanged, resume what was interrupted."""
    from mimctr.recipes import pipeline
    from mimctr.recipes.config import load_config

    recipe_config = load_config(pipeline.Recipe, recipe, section=None, assignments=settings or [])
    finished = pipeline.main(recipe_config, out)
    print(finished.table)
    print(f"report   {finished.report}")
    print(f"results  {finished.results}")
