"""mimctr push: a bundle to where scorers on other machines find it."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Json, show

NAME = "push"
EXAMPLES = (
    "Example: mimctr push bundle --store redis+cluster://node1:6379 --label sim-mim; "
    "then, on any machine, mimctr serve store:sim-mim --set store=redis+cluster://node1:6379"
)


def command(
    bundle: Annotated[Path, typer.Argument(help="folder written by 'mimctr export'")],
    store: Annotated[str, typer.Option(help="URL of the parameter store")],
    label: Annotated[str, typer.Option(help="by which scorers ask for it; none: the folder's name")] = "",
    name: Annotated[str, typer.Option(help="of the center on its stores")] = "mimctr",
    json: Json = False,
) -> None:
    """Put a bundle on a parameter store: rows of items and users one by one, its files as they are."""
    from mimctr.recipes.bundle import push

    show(push(bundle, store, label=label, name=name), as_json=json)
