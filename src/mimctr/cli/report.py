"""mimctr report: results.json as a page that people want to read."""

from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import Out

NAME = "report"
EXAMPLES = "Example: mimctr report runs/demo --out runs/demo/report"


def command(
    run: Annotated[Path, typer.Argument(help="run folder with evaluate/results.json")],
    out: Out,
) -> None:
    """Write the HTML report of a run."""
    from mimctr.recipes import stages

    stages.report(run, out).run()
    print(out / "report.html")
