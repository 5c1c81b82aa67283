"""Which impressions and items are shown as pictures: ranked by a stated number, never chosen by how they look."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


class ItemCase(NamedTuple):
    """What two models make of one item's impressions."""

    item: int
    """``item_index``."""
    num_impressions: int
    num_clicks: int
    """Of those that have a standing."""
    base: float
    """Mean standing of its clicks without content (:func:`click_standings`)."""
    mim: float
    """Likewise with content."""
    base_loss: float
    """Log loss of its impressions without content."""
    mim_loss: float

    @property
    def gain(self) -> float:
        """How far content moved the item's clicks upwards."""
        return self.mim - self.base


def impression_losses(
    clicks: Bool[ndarray, "rows"], logits: Float[ndarray, "rows"]
) -> Float[ndarray, "rows"]:
    """Return the log loss of each impression, from logits: finite however sure a model is."""
    return np.logaddexp(0.0, np.where(clicks, -logits, logits).astype(np.float64))


def click_standings(
    clicks: Bool[ndarray, "rows"], groups: Int[ndarray, "rows"], scores: Float[ndarray, "rows"]
) -> Float[ndarray, "rows"]:
    """Return, for each click, the share of its group's impressions without a click that score below it.

    Ties count one half, so that the mean over a group's clicks is the group's AUC. NaN at an impression without a
    click, and where the group has none to compare with.

    Args:
        clicks: True at a click.
        groups: With whom an impression is compared: the category of its target.
        scores: Anything increasing in the click probability.
    """
    standings = np.full(len(clicks), np.nan)
    for group in np.unique(groups[clicks]):
        inside = groups == group
        others = np.sort(scores[inside & ~clicks])
        if len(others):
            own = scores[inside & clicks]
            below = np.searchsorted(others, own, side="left") + np.searchsorted(others, own, side="right")
            standings[inside & clicks] = below / (2 * len(others))
    return standings


def compare_items(
    clicks: Bool[ndarray, "rows"],
    targets: Int[ndarray, "rows"],
    groups: Int[ndarray, "rows"],
    logits: tuple[Float[ndarray, "rows"], Float[ndarray, "rows"]],
    *,
    chosen: Bool[ndarray, "rows"],
    min_impressions: int,
    min_clicks: int,
) -> list[ItemCase]:
    """Return the items with enough impressions and clicks, the one whose clicks rose most first, ties by index.

    Args:
        clicks: True at a click.
        targets: ``item_index`` of each impression's target.
        groups: Its category.
        logits: Without and with content.
        chosen: True at an impression whose target is asked about; the others are only compared with.
        min_impressions: Fewest impressions of an item.
        min_clicks: Fewest clicks of an item that have a standing.
    """
    standings = [click_standings(clicks, groups, scores) for scores in logits]
    losses = [impression_losses(clicks, scores) for scores in logits]
    asked = np.flatnonzero(np.isin(targets, targets[chosen]))
    by_item = asked[np.argsort(targets[asked], kind="stable")]
    items, starts, sizes = np.unique(targets[by_item], return_index=True, return_counts=True)
    cases = []
    for item, start, size in zip(items.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        own = by_item[start : start + size]
        placed = own[~np.isnan(standings[0][own])]
        if size >= min_impressions and len(placed) >= max(min_clicks, 1):
            base, mim = (float(values[placed].mean()) for values in standings)
            base_loss, mim_loss = (float(values[own].mean()) for values in losses)
            cases.append(ItemCase(item, size, len(placed), base, mim, base_loss, mim_loss))
    return sorted(cases, key=lambda case: (-case.gain, case.item))


def largest(values: Float[ndarray, "rows"], chosen: Bool[ndarray, "rows"]) -> Int[ndarray, "ranked"]:
    """Return the chosen rows whose value is above 0, the largest first, ties by row."""
    rows = np.flatnonzero(chosen & (values > 0))
    return rows[np.argsort(-values[rows], kind="stable")]


def take_in_turn(
    sorts: Sequence[Int[ndarray, "ranked"]],
    users: Int[ndarray, "rows"],
    targets: Int[ndarray, "rows"],
    *,
    num: int,
) -> list[tuple[int, int]]:
    """Return up to ``num`` impressions as (sort, row): of each sort in turn the next one, no user and no item twice.

    Args:
        sorts: Rows of each sort, first choice first.
        users: Of each row.
        targets: Of each row.
        num: How many; fewer are returned where no sort has any left.
    """
    left = [iter(ranked.tolist()) for ranked in sorts]
    seen_users: set[int] = set()
    seen_items: set[int] = set()
    taken: list[tuple[int, int]] = []
    going = list(range(len(sorts)))
    while going and len(taken) < num:
        sort = going.pop(0)
        for row in left[sort]:
            user, item = int(users[row]), int(targets[row])
            if user not in seen_users and item not in seen_items:
                seen_users.add(user)
                seen_items.add(item)
                taken.append((sort, row))
                going.append(sort)
                break
    return sorted(taken, key=lambda pair: pair[0])
