"""Pictures of a reproduction: neighbors, scores that changed most, cold items that content rescued, and failures.

Every case is chosen by a number, which the note of its gallery names; nothing is chosen by how it looks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.paper.cases import (
    ItemCase,
    compare_items,
    impression_losses,
    largest,
    take_in_turn,
)
from mimctr.evaluate.paper.schema import Gallery
from mimctr.evaluate.results import PictureSheet
from mimctr.recipes.gallery_sheets import SheetWriter
from mimctr.recipes.neighbors import Encoded, draw_stored_neighbors
from mimctr.recipes.scored import Scored, read_scored
from mimctr.report.wording import ubm_name, variant_name

NUM_NEIGHBORS = 5
MIN_IMPRESSIONS, MIN_CLICKS = 20, 3
"""Fewest test impressions and clicks of an item whose ranks are compared."""
CHANGES = ("Upwards, clicked", "Upwards, not clicked", "Downwards, clicked", "Downwards, not clicked")
OUTCOMES = ("Clicked", "Not clicked")
"""Sorts of impressions."""
RETRIEVED = " This model takes content interest only over the behaviors that its search kept; weights are shown of all."


def draw_galleries(
    dataset: CtrDataset,
    *,
    content: Path,
    base: Path,
    mim: Path,
    encoders: Mapping[str, Encoded],
    out: Path,
    num: int,
    seed: int,
) -> list[Gallery]:
    """Return the galleries of two trained models; their files are written into ``out/pictures``.

    Args:
        dataset: Whose test part both models scored.
        content: Folder of the vectors that ``mim`` was trained on.
        base: Folder of a trained model without content.
        mim: Folder of one with content, of the same user behavior model and seed.
        encoders: Whose nearest neighbors are compared, by label, from top to bottom.
        out: Files are named relative to it.
        num: Sheets of each gallery; fewer where there are fewer cases.
        seed: Of the choice of held-out pairs, the only random one.

    Raises:
        RunError: the models are not such a pair, or scored other impressions.
        StaleSnapshot: ``mim`` was trained on other vectors.
    """
    if not (dataset.item_images.numbers >= 0).any():
        note = f"None of the {dataset.num_items:,} items of this dataset has a picture, so none is drawn."
        return [Gallery(key="pictures", title="Item pictures", note=note, sheets=[])]
    scored = read_scored(dataset, content=content, base=base, mim=mim)
    writer = SheetWriter(scored, out)
    items, changed = compare_cold_items(scored), choose_changed(scored, num)
    failures = choose_failures(scored, num - num // 2, without=[position for _, position in changed])
    return [
        _neighbors(dataset, encoders, out, num=num, seed=seed),
        _changed(scored, writer, changed),
        _rescued(scored, writer, items, num=num),
        _failures(scored, writer, failures, items, num=num // 2),
    ]


def choose_changed(scored: Scored, num: int) -> list[tuple[int, int]]:
    """Return up to ``num`` test impressions whose probability content changed most, as (sort, position)."""
    clicks, change = _clicks(scored), scored.change
    sorts = [largest(way * change, asked) for way in (1, -1) for asked in (clicks, ~clicks)]
    return _in_turn(scored, sorts, num)


def choose_failures(scored: Scored, num: int, *, without: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Return up to ``num`` test impressions whose log loss content raised most, as (sort, position).

    Args:
        scored: The test impressions.
        num: How many.
        without: Positions that are left out, since they are shown elsewhere.
    """
    clicks = _clicks(scored)
    raised = impression_losses(clicks, scored.mim) - impression_losses(clicks, scored.base)
    raised[list(without)] = 0.0
    return _in_turn(scored, [largest(raised, asked) for asked in (clicks, ~clicks)], num)


def compare_cold_items(scored: Scored) -> list[ItemCase]:
    """Return the items that the training part never saw and the test part often did, the most rescued first."""
    targets = scored.dataset.impressions.target[scored.rows]
    return compare_items(
        _clicks(scored),
        targets,
        _category_numbers(scored.dataset)[targets - FIRST_INDEX],
        (scored.base, scored.mim),
        chosen=scored.dataset.item_train_counts[targets] == 0,
        min_impressions=MIN_IMPRESSIONS,
        min_clicks=MIN_CLICKS,
    )


def _neighbors(
    dataset: CtrDataset, encoders: Mapping[str, Encoded], out: Path, *, num: int, seed: int
) -> Gallery:
    sheets: list[PictureSheet] = []
    if encoders:
        sheets = draw_stored_neighbors(
            dataset, encoders, out, num_pictures=num, num_neighbors=NUM_NEIGHBORS, seed=seed
        )
    note = (
        f"Pairs of a query picture and an item that no training saw, drawn at random with seed {seed}; beside them the "
        "items nearest to the query by each encoder, of those with a picture: of all, or of one category where an "
        "encoder takes the query for it. Ranks are among these. The item of the pair is framed in green."
    )
    if not encoders:
        note = "Nothing is drawn: there are no encoders to compare."
    elif not sheets:
        note = "Nothing is drawn: no held-out pair of this dataset asks by picture."
    return Gallery(key="neighbors", title="Neighbors before and after", note=note, sheets=sheets)


def _changed(scored: Scored, writer: SheetWriter, chosen: list[tuple[int, int]]) -> Gallery:
    sheets = [
        writer.impression(position, name=f"changed-{number:02d}", title=CHANGES[sort])
        for number, (sort, position) in enumerate(chosen, start=1)
    ]
    note = (
        f"Of all {len(scored.rows):,} test impressions those whose probability {_names(scored)} differ in most: "
        "upwards and downwards, clicked and not, of each sort in turn the next largest difference, no user and no item "
        f"twice. {_bars(scored)}"
    )
    return Gallery(key="changed", title="Whose score changed most", note=note, sheets=sheets)


def _rescued(scored: Scored, writer: SheetWriter, items: list[ItemCase], *, num: int) -> Gallery:
    better = [case for case in items if case.gain > 0]
    sheets = _item_sheets(writer, better[:num], name="rescued", title="Clicks rose")
    note = f"{_standing(scored, items)} It rose for {len(better)}; shown are those for which it rose most."
    return Gallery(key="rescued", title="Cold items that content rescued", note=note, sheets=sheets)


def _failures(
    scored: Scored, writer: SheetWriter, chosen: list[tuple[int, int]], items: list[ItemCase], *, num: int
) -> Gallery:
    worse = [case for case in reversed(items) if case.gain < 0]
    sheets = [
        writer.impression(position, name=f"failed-impression-{number:02d}", title=OUTCOMES[sort])
        for number, (sort, position) in enumerate(chosen, start=1)
    ]
    sheets += _item_sheets(writer, worse[:num], name="failed-item", title="Clicks fell")
    note = (
        f"First the test impressions whose log loss content raised most ({_names(scored)}), clicked and not in turn, "
        "no user and no item twice, without those that are among the scores that changed most. "
        f"{_bars(scored)} Then cold items. {_standing(scored, items)} It fell for {len(worse)}; shown are those for "
        "which it fell most."
    )
    return Gallery(key="failures", title="Failures", note=note, sheets=sheets)


def _item_sheets(writer: SheetWriter, cases: list[ItemCase], *, name: str, title: str) -> list[PictureSheet]:
    return [
        writer.item(case, name=f"{name}-{number:02d}", title=title)
        for number, case in enumerate(cases, start=1)
    ]


def _in_turn(scored: Scored, sorts: list[Int[ndarray, "ranked"]], num: int) -> list[tuple[int, int]]:
    impressions = scored.dataset.impressions
    return take_in_turn(sorts, impressions.user[scored.rows], impressions.target[scored.rows], num=num)


def _clicks(scored: Scored) -> Bool[ndarray, "rows"]:
    return np.asarray(scored.dataset.impressions.click[scored.rows] == 1)


def _names(scored: Scored) -> str:
    return (
        f"Base and {variant_name(scored.variant)} of {ubm_name(scored.config.ubm)}, seed {scored.config.seed}"
    )


def _bars(scored: Scored) -> str:
    """Return what the bars below the behaviors mean."""
    told = (
        f"Below each of the newest behaviors stands its weight of Eq. (7), the cosine with the item on top; the plot "
        f"shows up to {scored.config.max_length} newest behaviors, which is what the model sees."
    )
    return told + (RETRIEVED if scored.config.resolved_scope == "retrieved" else "")


def _standing(scored: Scored, items: list[ItemCase]) -> str:
    return (
        "Of items that are not in the training part, each click is compared with the test impressions of the same "
        "category that were not clicked: which share of them has a lower score? An item's number is the mean over its "
        f"clicks, by {_names(scored)}. With few clicks an item, part of a large difference is chance. "
        f"{len(items)} items have at least {MIN_IMPRESSIONS} test impressions and {MIN_CLICKS} clicks."
    )


def _category_numbers(dataset: CtrDataset) -> Int[ndarray, "items"]:
    """Return a number for each category by row of the catalogue; items without one have a number of their own."""
    return dataset.items["category"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
