"""mimctr csft: MIM's second stage, what users are interested in."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Out, Settings

NAME = "csft"
EXAMPLES = "Example: mimctr csft dataset --encoders pretrain --out csft"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    encoders: Annotated[
        Path, typer.Option(help="folder with image/ and text/, written by 'mimctr pretrain'")
    ],
    out: Out,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Tune the encoders on purchases: query image against item, multi-level InfoNCE (C-SFT)."""
    from mimctr.recipes import csft, stages
    from mimctr.recipes.config import load_config

    stages.csft(
        dataset, encoders, out, load_config(csft.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out)
