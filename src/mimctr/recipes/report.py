"""Turn results.json into a page that people want to read.

mimctr report runs/demo --out runs/demo/report
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mimctr.evaluate.results import read_results
from mimctr.files import atomic_path
from mimctr.report.page import render_page


class Config(BaseModel):
    """Settings of ``mimctr report``: there are none, the results say everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def main(run: Path, out: Path) -> Path:
    """Write ``out/report.html`` from ``run/evaluate/results.json`` and the pictures beside it; return its path.

    Raises:
        RunError: there are no results, or a picture is missing.
        DataError: the results do not follow the schema.
    """
    evaluated = run / "evaluate"
    page = render_page(read_results(evaluated / "results.json"), evaluated)
    path = out / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path
