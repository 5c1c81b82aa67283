"""Turn reproduction.json into a page, a Markdown text and figures, all beside it.

``mimctr reproduce`` does so at its end; alone, it writes the report anew from what was found.
"""

from pathlib import Path

from mimctr.evaluate.paper.schema import read_reproduction
from mimctr.files import atomic_path
from mimctr.report.reproduction_page import render_reproduction, section_places
from mimctr.report.reproduction_plots import draw
from mimctr.report.reproduction_text import reproduction_markdown

JSON, PAGE, MARKDOWN, FIGURES = "reproduction.json", "reproduction.html", "reproduction.md", "figures"
PIXELS_PER_INCH = 160


def main(folder: Path) -> Path:
    """Write the report of ``folder/reproduction.json`` beside it; return the page's path.

    Raises:
        RunError: there is no such file, or a picture is missing.
        DataError: it does not follow the schema.
    """
    made = read_reproduction(folder / JSON)
    texts = {
        PAGE: render_reproduction(made, folder),
        MARKDOWN: reproduction_markdown(made, figures=FIGURES),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    places = section_places(made)
    for figure in made.figures:
        drawing = draw(figure)
        for ending in ("svg", "png"):
            with atomic_path(folder / FIGURES / f"{places['figure', figure.key]}.{ending}") as temporary:
                drawing.savefig(temporary, format=ending, dpi=PIXELS_PER_INCH, facecolor="white")
    return folder / PAGE
