"""Write the tables of settings in docs/ anew from the settings themselves.

    python docs/settings_tables.py

A page has a table between ``<!-- settings: STAGE -->`` and ``<!-- end of settings -->``; tests/docs says which is old.
"""

import re
from pathlib import Path

from mimctr.recipes.settings import markdown

DOCS = Path(__file__).parent
TABLE = re.compile(r"(<!-- settings: (\w+) -->\n)(.*?)(<!-- end of settings -->)", re.DOTALL)


def fresh(page: str) -> str:
    """Return a page with the tables that it should have."""
    return TABLE.sub(lambda found: f"{found[1]}\n{markdown(found[2])}\n\n{found[4]}", page)


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text()
        if fresh(page) != page:
            path.write_text(fresh(page))


if __name__ == "__main__":
    main()
