"""mimctr join: parts of a reproduction, made on several machines, as one."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Json

NAME = "join"
EXAMPLES = "Example: mimctr join runs/tables_2_and_7 runs/table_4 other/reproduction.json --out runs/whole"


def command(
    parts: Annotated[
        list[Path], typer.Argument(help="run folders of 'mimctr reproduce', or their reproduction.json")
    ],
    out: Annotated[Path, typer.Option(help="folder of the whole")],
    json: Json = False,
) -> None:
    """Join what several machines made of a reproduction: different experiments, the same recipe and data."""
    from mimctr.cli.reproduce import show
    from mimctr.recipes.reproduction import join

    show(join.main(parts, out, command=shlex.join(["mimctr", *sys.argv[1:]])), json=json)
