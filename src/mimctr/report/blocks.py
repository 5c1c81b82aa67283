"""Results in a text that people write: blocks between two marks are what the committed JSON says, and nothing else.

``<!-- results: docs/results/demo.json -->`` ... ``<!-- end of results -->`` holds the main table of a ``results.json``;
``<!-- reproduction: docs/results/NAME.json -->`` ... ``<!-- end of reproduction -->`` findings and tables of a
``reproduction.json``.
"""

import re
from pathlib import Path

from mimctr.evaluate.paper.schema import read_reproduction
from mimctr.evaluate.results import read_results
from mimctr.report.reproduction_text import reproduction_block
from mimctr.report.table import results_table

BLOCK = re.compile(
    r"(?P<opening><!-- (?P<kind>results|reproduction): (?P<file>\S+) -->).*?(?P<end><!-- end of (?P=kind) -->)",
    re.DOTALL,
)


def fill_blocks(text: str, root: Path) -> str:
    """Return ``text`` with every block written anew from its file.

    Args:
        text: Markdown.
        root: Folder that the files' names are relative to.

    Raises:
        RunError: a file is missing.
        DataError: it does not follow its schema.
    """
    return BLOCK.sub(
        lambda found: "\n\n".join(
            [found["opening"], _content(found["kind"], root / found["file"]), found["end"]]
        ),
        text,
    )


def _content(kind: str, path: Path) -> str:
    if kind == "results":
        return f"```\n{results_table(read_results(path))}\n```"
    return reproduction_block(read_reproduction(path))
