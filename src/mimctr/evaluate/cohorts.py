"""Slices of the test impressions: by item age (paper Figure 6), by category (Table 7), by what training has seen.

A slice is a bool mask over impressions under a name ``kind:value``; ``all`` is every impression. Slices of one kind do
not overlap. They are slices of one run's predictions, never separate trainings.
"""

import logging
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mimctr.errors import DataError

logger = logging.getLogger(__name__)

Slices = dict[str, Bool[ndarray, "rows"]]

ALL = "all"
UNSEEN_ITEMS = "item:unseen"
SEEN_ITEMS = "item:seen"
HISTORY_BOUNDS = (1, 10, 50)
"""Behaviors at which a new slice by length of history starts."""
SUPPORT_BOUNDS = (1, 10, 100, 1000)
"""Times that the training part shows the target, as target or behavior, at which a new slice starts."""


def whole(num_rows: int) -> Slices:
    """Return the one slice that holds every impression."""
    return {ALL: np.ones(num_rows, dtype=bool)}


def age_slices(
    targets: Int[ndarray, "rows"], first_seen_times: Int[ndarray, "items"], *, num_sets: int = 10
) -> Slices:
    """Return ``age:S1`` (newest) to ``age:S10`` (oldest): the test part's items in sets of equal size (Figure 6).

    The sets are equal in *items*, up to one, so they differ in impressions. Items that were first seen in the same
    second are ordered by index, higher is newer.

    Args:
        targets: ``item_index`` of each impression's target.
        first_seen_times: Seconds UTC by ``item_index``.
        num_sets: How many sets. Paper: 10.

    Raises:
        DataError: the part has fewer items than sets.
    """
    items, place = np.unique(targets, return_inverse=True)
    if len(items) < num_sets:
        raise DataError(f"age_slices: {len(items):,} items cannot make {num_sets} sets. Ask for fewer sets.")
    newest_first = np.lexsort((-items, -first_seen_times[items]))
    rank = np.empty(len(items), dtype=np.int64)
    rank[newest_first] = np.arange(len(items))
    number = (rank * num_sets // len(items))[place]
    return {f"age:S{index + 1}": number == index for index in range(num_sets)}


def category_slices(
    targets: Int[ndarray, "rows"],
    categories: Sequence[str | None],
    *,
    most: int = 50,
    besides: Collection[str] = (),
) -> Slices:
    """Return ``category:<name>`` for the largest categories that have an impression; items without one: ``(none)``.

    They are in the order of their names. How many are left out is logged: each is a mask and a round of all measures.

    Args:
        targets: ``item_index`` of each impression's target.
        categories: Name by ``item_index``.
        most: As many are kept, of most impressions, ties by name.
        besides: Names that are kept however small.
    """
    names, code = np.unique(["(none)" if name is None else name for name in categories], return_inverse=True)
    number = code[targets]
    sizes = np.bincount(number, minlength=len(names))
    shown = np.flatnonzero(sizes)
    largest = shown[np.argsort(-sizes[shown], kind="stable")[:most]]
    kept = np.union1d(largest, shown[np.isin(names[shown], list(besides))])
    if len(kept) < len(shown):
        logger.info(
            "slices: %d of %d categories, with %.1f %% of the impressions, are measured on their own; the "
            "smallest are not.",
            len(kept),
            len(shown),
            100 * sizes[kept].sum() / len(targets),
        )
    return {f"category:{names[index]}": number == index for index in kept}


def seen_slices(targets: Int[ndarray, "rows"], item_train_counts: Int[ndarray, "items"]) -> Slices:
    """Return ``item:unseen`` (targets that do not occur in the training part) and ``item:seen``.

    Args:
        targets: ``item_index`` of each impression's target.
        item_train_counts: Times that the training part shows it, as target or behavior, by ``item_index``.
    """
    unseen = item_train_counts[targets] == 0
    return _not_empty({UNSEEN_ITEMS: unseen, SEEN_ITEMS: ~unseen})


def support_slices(
    targets: Int[ndarray, "rows"],
    item_train_counts: Int[ndarray, "items"],
    *,
    bounds: Sequence[int] = SUPPORT_BOUNDS,
) -> Slices:
    """Return one slice per range of how often the training part shows the target (``support:1-9`` ...).

    As target or behavior: a clicked impression is both. Targets that it never shows are ``item:unseen``.

    Args:
        targets: ``item_index`` of each impression's target.
        item_train_counts: Times that the training part shows it, as target or behavior, by ``item_index``.
        bounds: Where each range starts, increasing from 1.
    """
    return _not_empty(_ranges("support", item_train_counts[targets], bounds))


def arrival_slices(
    targets: Int[ndarray, "rows"], first_seen_times: Int[ndarray, "items"], *, test_start: int
) -> Slices:
    """Return ``arrival:new`` (targets first seen in the test part) and ``arrival:known``.

    Narrower than :func:`seen_slices`: an item of the validation part is known, though training has not seen it.

    Args:
        targets: ``item_index`` of each impression's target.
        first_seen_times: Seconds UTC by ``item_index``.
        test_start: Seconds UTC.
    """
    new = first_seen_times[targets] >= test_start
    return _not_empty({"arrival:new": new, "arrival:known": ~new})


def history_slices(lengths: Int[ndarray, "rows"], *, bounds: Sequence[int] = HISTORY_BOUNDS) -> Slices:
    """Return ``history:none`` and one slice per range of the number of earlier behaviors (``history:1-9`` ...).

    Args:
        lengths: Behaviors strictly before each impression, before truncation.
        bounds: Where each range starts, increasing from 1.
    """
    return _not_empty({"history:none": lengths < bounds[0]} | _ranges("history", lengths, bounds))


def query_slices(has_text: Bool[ndarray, "rows"], has_image: Bool[ndarray, "rows"]) -> Slices:
    """Return ``query:none``, ``query:text``, ``query:image`` and ``query:both``, those that occur.

    Where every impression is of one sort the slice would be ``all`` again, so nothing is returned.
    """
    slices = _not_empty(
        {
            "query:none": ~has_text & ~has_image,
            "query:text": has_text & ~has_image,
            "query:image": ~has_text & has_image,
            "query:both": has_text & has_image,
        }
    )
    return slices if len(slices) > 1 else {}


def content_slices(
    targets: Int[ndarray, "rows"], has_image: Bool[ndarray, "items"], has_title: Bool[ndarray, "items"]
) -> Slices:
    """Return ``image:yes``, ``image:no``, ``title:yes`` and ``title:no``: whether the target has the one and the other.

    Where every target is alike in one, it makes no slices: they would be ``all`` again.

    Args:
        targets: ``item_index`` of each impression's target.
        has_image: By ``item_index``.
        has_title: By ``item_index``.
    """
    slices: Slices = {}
    for kind, has in [("image", has_image), ("title", has_title)]:
        found = _not_empty({f"{kind}:yes": has[targets], f"{kind}:no": ~has[targets]})
        if len(found) > 1:
            slices |= found
    return slices


def _ranges(kind: str, counts: Int[ndarray, "rows"], bounds: Sequence[int]) -> Slices:
    """Return a slice for each range of a count, from one bound up to the next; the last one is open."""
    slices = {}
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        name = f"{kind}:{low}+" if high is None else f"{kind}:{low}-{high - 1}"
        slices[name] = (counts >= low) & ((counts < high) if high is not None else True)
    return slices


def _not_empty(slices: Slices) -> Slices:
    return {name: mask for name, mask in slices.items() if mask.any()}
