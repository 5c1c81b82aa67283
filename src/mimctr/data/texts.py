"""Texts of items and queries, as they come in one by one."""

import unicodedata

UNSEEN = ("Cc", "Cf")
"""Categories of characters that nobody sees, beside all kinds of space."""


def visible_text(text: str | None) -> str | None:
    """Return a text, or None where there is nothing to see: as ``mimctr prepare`` reads a table's."""
    if text is None:
        return None
    kinds = map(unicodedata.category, text)
    return None if all(kind[0] == "Z" or kind in UNSEEN for kind in kinds) else text
