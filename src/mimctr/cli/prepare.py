"""mimctr prepare: check raw tables at the door and write the compact dataset."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Json, Out, Settings, show

NAME = "prepare"
EXAMPLES = "Example: mimctr prepare tables --out dataset --lenient"


def command(
    tables: Annotated[
        Path, typer.Argument(help="folder with items, impressions and, if any, behaviors and searches")
    ],
    out: Out,
    lenient: Annotated[
        bool, typer.Option(help="drop bad rows, counted, instead of refusing the tables")
    ] = False,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Check raw tables and write the dataset that every later stage reads."""
    from mimctr.recipes import prepare, stages
    from mimctr.recipes.config import load_config

    assignments = [*(settings or []), *(["lenient=true"] if lenient else [])]
    stages.prepare(
        tables, out, load_config(prepare.Config, config, section=NAME, assignments=assignments)
    ).run()
    show(prepare.Summary.model_validate_json((out / "summary.json").read_text()), as_json=json)
