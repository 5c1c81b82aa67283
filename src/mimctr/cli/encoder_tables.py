"""mimctr encoder-tables: the paper's Tables 3, 4 and 5 by held-out visual search."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Settings

NAME = "encoder-tables"
EXAMPLES = (
    "Example: mimctr encoder-tables benchmarks/encoder_tables_bazaar.toml --out runs/encoders --set seeds=[0]"
)


def command(
    recipe: Annotated[Path, typer.Argument(help="a recipe (TOML), see benchmarks/encoder_tables_*.toml")],
    out: Annotated[Path, typer.Option(help="run folder; run again to resume or to redo only what changed")],
    settings: Settings = None,
) -> None:
    """Compare encoders by visual search: random, plain, DDA, DMA, C-SFT, its signals, losses and ablations."""
    from mimctr.recipes import encoder_tables
    from mimctr.recipes.config import load_config

    config = load_config(encoder_tables.Recipe, recipe, section=None, assignments=settings or [])
    finished = encoder_tables.main(config, out)
    print(finished.tables)
    print(f"tables   {finished.markdown}")
    print(f"results  {finished.results}")
