"""mimctr features: content interest as columns, for models of your own."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "features"
EXAMPLES = "Example: mimctr features dataset --content embed --out features"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    content: Annotated[
        Path,
        typer.Option(help="folder written by 'mimctr embed', or a center, for its active generation"),
    ],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Write content interest as columns of OUT/features.parquet, a row an impression, for models of your own."""
    from mimctr.recipes import features, stages
    from mimctr.recipes.config import load_config

    stages.features(
        dataset, content, out, load_config(features.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out / features.FEATURES)
