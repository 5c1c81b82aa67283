"""mimctr settings: what --set and a recipe can say."""

from typing import Annotated

import typer

NAME = "settings"
EXAMPLES = "Example: mimctr settings train"


def command(
    stage: Annotated[
        str,
        typer.Argument(
            help="a command with settings, or a section of a recipe; docs/reproduction.md has those of [source]"
        ),
    ],
) -> None:
    """List the settings of a command, what they are and their defaults, as a section of a recipe (TOML)."""
    from mimctr.recipes import settings

    print(settings.main(stage))
