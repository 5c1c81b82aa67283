"""Table 1: the data, overall and by category, and what content there is."""

import itertools

from mimctr.evaluate.encoder_results import alone
from mimctr.evaluate.paper.schema import Cell, Column, Figure, Point, Series, Table, TableRow
from mimctr.evaluate.results import Record
from mimctr.evaluate.written import percent


class CategoryFacts(Record):
    """How much there is of one category, or of all."""

    name: str
    num_impressions: int
    num_clicks: int
    num_users: int
    """Who was shown something."""
    num_queries: int
    """Distinct ones: text and image together."""
    num_items: int
    """Of the catalogue."""
    num_shown: int
    """Items with an impression."""
    image_share: float
    """Of the catalogue's items."""
    title_share: float


class Profile(Record):
    """How old and how popular what is shown is: shares of the impressions."""

    age_days: list[float]
    """Upper bounds of ages; the last range is open."""
    age_shares: list[float]
    """One more than bounds."""
    popularity: list[float]
    """Shares of the shown items, the most shown first."""
    popularity_shares: list[float]
    """Of the impressions on that share of the items."""


class DataFacts(Record):
    """What Table 1 is made of."""

    all: CategoryFacts
    categories: list[CategoryFacts]
    """The largest first."""
    profile: Profile


PAPER_TABLE_1 = {
    "All": (1.83e9, 56.34e6, 0.12e9, 16.16e6),
    "Home Decoration": (0.15e9,),
    "Clothes": (0.91e9,),
    "Sports": (0.1e9,),
    "Toys": (51.6e6,),
    "FMCG": (0.21e9,),
    "Pets": (24.81e6,),
    "Cars": (60.75e6,),
}
"""Samples, and of all categories together queries, users and items."""


def table_1(facts: DataFacts) -> Table:
    """Return Table 1."""
    shown = [facts.all, *facts.categories[:20]]
    left_out = len(facts.categories) - len(shown) + 1
    more = f" {left_out} smaller categories are in 'All' only." if left_out > 0 else ""
    pictured, titled = facts.all.image_share, facts.all.title_share
    return Table(
        key="table 1",
        title="The data",
        columns=[
            Column(name="impressions", unit="count"),
            Column(name="queries", unit="count", note="different ones, text and image together"),
            Column(name="users", unit="count", note="who were shown something"),
            Column(name="items", unit="count", note="of the catalogue"),
            Column(name="click rate", unit="share"),
            Column(name="items shown", unit="share"),
            Column(name="with image", unit="share"),
            Column(name="with title", unit="share"),
        ],
        rows=[_row(facts.all).model_copy(update={"summary": True}), *map(_row, shown[1:])],
        note=f"All parts together. The paper's numbers are Taobao's, beside ours for scale.{more}",
        reading=[
            f"{percent(pictured)} of the items have an image and {percent(titled)} a title; the rest is masked out "
            "of content attention.",
            _read_profile(facts.profile),
        ],
    )


def _row(facts: CategoryFacts) -> TableRow:
    paper = [*PAPER_TABLE_1.get(facts.name, ()), *[None] * 4][:4]
    counts = (facts.num_impressions, facts.num_queries, facts.num_users, facts.num_items)
    shares = (
        facts.num_clicks / max(facts.num_impressions, 1),
        facts.num_shown / max(facts.num_items, 1),
        facts.image_share,
        facts.title_share,
    )
    cells = [Cell(ours=alone(count), paper=printed) for count, printed in zip(counts, paper, strict=True)]
    cells += [Cell(ours=alone(share)) for share in shares]
    return TableRow(label=facts.name, cells=cells)


def _read_profile(profile: Profile) -> str:
    return (
        f"{percent(sum(profile.age_shares[:2]))} of the impressions are on items in their first "
        f"{profile.age_days[1]:g} days, "
        f"{percent(profile.popularity_shares[1])} on the most shown {percent(profile.popularity[1], 0)} of the items."
    )


def figure_profile(facts: DataFacts) -> Figure:
    """Return how old the items are that impressions are on."""
    bounds = facts.profile.age_days
    names = [f"up to {bounds[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(bounds))]
    names.append(f"over {bounds[-1]:g}")
    shares = facts.profile.age_shares
    points = [Point(x=name, y=share) for name, share in zip(names, shares, strict=True)]
    return Figure(
        key="age profile",
        title="Impressions by age of the item",
        kind="bar",
        x_label="days since the item was first seen",
        y_label="share of impressions",
        series=[Series(name="impressions", points=points)],
        note="At the time of the impression. Content counts where this leans to the left.",
        reading=[
            f"The largest share of impressions, {percent(max(shares))}, is on items of "
            f"{names[shares.index(max(shares))]} days."
        ],
    )
