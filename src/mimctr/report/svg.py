"""Matplotlib figures as SVG that can stand inside an HTML page: no addresses, unique ids, the page's text color."""

import html
import io
import re
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text color, light or dark; nothing else in a figure may have it."""
STYLE = {
    "svg.fonttype": "none",  # real text: it takes the page's font and can be searched
    "svg.hashsalt": "mimctr",  # the same figure gives the same bytes
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
styled = matplotlib.rc_context(STYLE)
"""Decorator of a function that draws and returns one figure."""


class Plot(NamedTuple):
    """One figure of the page."""

    svg: str
    caption: str


def new_axes(*, width: float = 5.2, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def to_svg(figure: Figure, *, name: str, title: str) -> str:
    """Return the figure as one ``<svg>`` element.

    Args:
        figure: From :func:`new_axes`.
        name: Unique on the page; opens every id.
        title: Read aloud by screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?)="[^"]*"', "", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = text.replace("xlink:href", "href").replace('href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    width, height = (float(value) for value in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(title)}">'
    return head + text[text.index(">") + 1 :].strip()


def verbatim(text: str) -> str:
    """Return a text that matplotlib draws as it is: between two dollar signs it would read a formula."""
    return text.replace("$", r"\$")


def legend_below(axes: Axes) -> None:
    """Put the legend under the axes, where it covers nothing; every label is drawn as it is."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        shown = [verbatim(label) for label in labels]
        axes.figure.legend(handles, shown, loc="outside lower center", ncols=min(len(shown), 4))
