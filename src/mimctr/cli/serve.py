"""mimctr serve: score over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Settings

NAME = "serve"
EXAMPLES = "Example: mimctr serve bundle --center center --set port=8080"


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="folder written by 'mimctr export'; none: with items=true alone")
    ] = None,
    center: Annotated[Path | None, typer.Option(help="folder of the center; Base needs none")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Answer POST /score with a bundle's probabilities, and take in new items; docs at /docs, metrics at /metrics."""
    from mimctr.recipes import serve
    from mimctr.recipes.config import load_config

    serve.main(bundle, center, load_config(serve.Config, config, section=NAME, assignments=settings or []))
