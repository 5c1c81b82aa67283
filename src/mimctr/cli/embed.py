"""mimctr embed: fill the representation center."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Json, Out, Settings, show

NAME = "embed"
EXAMPLES = "Example: mimctr embed dataset --encoder csft --out embed"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    encoder: Annotated[Path, typer.Option(help="item encoder, written by 'mimctr csft' or 'mimctr plain'")],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Embed every item and every query image once; write the snapshots that training looks up."""
    from mimctr.recipes import embed, stages
    from mimctr.recipes.config import load_config

    stages.embed(
        dataset, encoder, out, load_config(embed.Config, config, section=NAME, assignments=settings or [])
    ).run()
    show(embed.Summary.model_validate_json((out / "summary.json").read_text()), as_json=json)
