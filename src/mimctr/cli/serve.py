"""mimctr serve: score over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Settings
from mimctr.cli.stopping import ends_when_told

NAME = "serve"
EXAMPLES = "Example: mimctr serve bundle --center center --set port=8080"


def command(
    bundle: Annotated[
        str | None,
        typer.Argument(
            help="folder of 'mimctr export', or store:LABEL of 'mimctr push'; none: with items=true alone"
        ),
    ] = None,
    center: Annotated[Path | None, typer.Option(help="folder of the center; Base needs none")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Answer POST /score with a bundle's probabilities, and take in new items; docs at /docs, metrics at /metrics."""
    from mimctr.recipes import serve
    from mimctr.recipes.config import load_config

    with ends_when_told():
        serve.main(
            bundle, center, load_config(serve.Config, config, section=NAME, assignments=settings or [])
        )
