"""Text of the data in Markdown, where it may mean nothing but itself."""

import re
from collections.abc import Sequence

MEANING = re.compile(
    r"[\\`*|~$]"  # anywhere
    r"|\](?=[(\[:])"  # the middle of a link
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # HTML
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, which does not begin or end inside a word
)
OPENING = re.compile(r"^(\d{0,9})(>|[#+\-.)=](?=[\s#=\-]|$))")
"""What makes something else of a paragraph that begins with it."""


def escaped(text: str) -> str:
    """Return a text of one line that Markdown shows as it is."""
    return MEANING.sub(lambda found: "\\" + found[0], " ".join(text.split()))


def paragraph(text: str) -> str:
    """Return a text that is a paragraph of its own and neither a list, a heading, a quotation nor a rule."""
    return OPENING.sub(r"\1\\\2", escaped(text))


def line_of_table(cells: Sequence[str]) -> str:
    """Return cells, escaped already, as a line of a table."""
    return f"| {' | '.join(cells)} |"


def head_of_table(names: Sequence[str], *, numbers: Sequence[bool]) -> list[str]:
    """Return the two lines that open a table; columns of numbers stand to the right."""
    return [line_of_table(names), f"|{'|'.join('---:' if right else '---' for right in numbers)}|"]
