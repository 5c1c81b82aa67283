"""mimctr explore: a local web page over a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Settings
from mimctr.cli.stopping import ends_when_told

NAME = "explore"
EXAMPLES = "Example: mimctr explore runs/demo --port 8090"


def command(
    run: Annotated[Path, typer.Argument(help="folder of a finished 'mimctr run' or 'mimctr reproduce'")],
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="to listen on; 0: a free one")] = None,
    host: Annotated[str | None, typer.Option(help="to listen on; not loopback: needs MIMCTR_TOKEN")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Show a run's items, neighbors, users and slices in the browser."""
    from mimctr.recipes import explore
    from mimctr.recipes.config import load_config

    given = [f"{name}={value}" for name, value in (("port", port), ("host", host)) if value is not None]
    with ends_when_told():
        explore.main(
            run, load_config(explore.Config, config, section=NAME, assignments=[*(settings or []), *given])
        )
