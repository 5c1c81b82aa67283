"""mimctr train: MIM's third stage, a CTR model with or without content interest."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Content, Out, Settings

NAME = "train"
EXAMPLES = "Example: mimctr train dataset --content embed --set ubm=din --set variant=mim --out model"


def command(
    dataset: Annotated[Path, typer.Argument(help="folder written by 'mimctr prepare'")],
    out: Out,
    content: Content = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Train one CTR model and score the test part with it. By default SIM with content interest."""
    from mimctr.recipes import stages, train
    from mimctr.recipes.config import load_config

    stages.train(
        dataset, content, out, load_config(train.Config, config, section=NAME, assignments=settings or [])
    ).run()
    print(out)
