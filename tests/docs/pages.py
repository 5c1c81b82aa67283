"""The fenced blocks of a page, in order."""

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent.parent / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, what it holds, and the text before it."""

    language: str
    text: str
    before: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found, last = [], 0
    for match in FENCE.finditer(page):
        found.append(Block(match[1], match[2], page[last : match.start()]))
        last = match.end()
    return found
