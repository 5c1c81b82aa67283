"""mimctr plain: an item encoder before C-SFT."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "plain"
EXAMPLES = "Example: mimctr plain dataset --encoders pretrain --out plain"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    encoders: Annotated[Path, typer.Option(help="folder with image/ and text/")],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Join image and title vectors by PCA: the item encoder without C-SFT."""
    from mimctr.recipes import plain, stages
    from mimctr.recipes.config import load_config

    stages.plain(
        dataset, encoders, out, load_config(plain.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out)
