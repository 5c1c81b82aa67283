"""mimctr pretrain: MIM's first stage, what an item is."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "pretrain"
EXAMPLES = "Example: mimctr pretrain dataset --encoders foundation --out pretrain"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    encoders: Annotated[
        Path, typer.Option(help="folder with image/ and text/, written by 'mimctr foundation'")
    ],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Continue pre-training on the catalogue (DDA), then align images with titles (DMA)."""
    from mimctr.recipes import pretrain, stages
    from mimctr.recipes.config import load_config

    stages.pretrain(
        dataset, encoders, out, load_config(pretrain.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out)
