"""A user before an impression: behaviors, and what content makes of them for a target (Eq. 7)."""

import numpy as np

from mimctr.batch import FIRST_INDEX
from mimctr.errors import first_of
from mimctr.explore.catalogue import NotThere, card, place
from mimctr.explore.opened import OpenedRun
from mimctr.explore.schemas import Impression, UserView, Weighed


def view_user(
    run: OpenedRun,
    given: str,
    *,
    row: int | None,
    now: bool,
    target: str | None,
    encoder: str | None,
    max_length: int,
) -> UserView:
    """Return a user's behaviors before a test impression, newest first, weighed against a target.

    Args:
        run: Whose user it is.
        given: Raw id of the user.
        row: Of one of the user's test impressions; None: the first of them.
        now: All behaviors, before no impression.
        target: Raw id of any item; None: the impression's.
        encoder: Whose vectors weigh; None: the preferred one's.
        max_length: Most behaviors that are shown.

    Raises:
        NotThere: the user, the impression, the item or the encoder is not in the run.
    """
    user = place(run.data.users["user_id"], given, what="user")
    rows = run.rows_of_user.of(user)
    tested = rows[rows >= run.test.start]
    if row is not None and row not in tested:
        raise NotThere(f"impression {row} is none of user {given[:100]!r} in the test part")
    chosen = None if now or not len(tested) else int(tested[0]) if row is None else row
    behaviors, impressions = run.data.behaviors, run.data.impressions
    first = int(behaviors.offsets[user])
    end = int(behaviors.offsets[user + 1] if chosen is None else impressions.end[chosen])
    item = int(impressions.target[chosen]) if chosen is not None else None
    if target:
        item = place(run.data.items["item_id"], target, what="item")
    name = choose_encoder(run, encoder)
    newest = np.arange(first, end)[::-1][:max_length]
    items = np.asarray(behaviors.item)[newest].astype(np.int64)
    generation = run.generations[name] if name else None
    weights: list[float | None] = [None] * len(items)
    if generation is not None and item is not None:
        weights = generation.weights(item, items)
    at = None if chosen is None else int(impressions.time[chosen])
    kinds = run.data.manifest.kinds
    place_of = None if chosen is None else int(np.searchsorted(tested, chosen))
    return UserView(
        user_id=run.data.users["user_id"][user - FIRST_INDEX],
        num_behaviors=end - first,
        num_test_impressions=len(tested),
        place=None if place_of is None else place_of + 1,
        impression=None if chosen is None else view_impression(run, chosen),
        previous=int(tested[place_of - 1]) if place_of else None,
        next=int(tested[place_of + 1]) if place_of is not None and place_of + 1 < len(tested) else None,
        encoder=name,
        target=None if item is None else card(run, item),
        target_has_vector=bool(generation is not None and item is not None and generation.known[item]),
        behaviors=[
            Weighed(
                **card(run, int(one)).model_dump(),
                kind=kinds[int(behaviors.kind[position]) - FIRST_INDEX],
                seconds_before=None if at is None else at - int(behaviors.time[position]),
                time=int(behaviors.time[position]),
                weight=weight,
            )
            for position, one, weight in zip(newest, items, weights, strict=True)
        ],
    )


def choose_encoder(run: OpenedRun, name: str | None) -> str | None:
    """Return the generation that is meant; of none named, the preferred one; None where there is none.

    Raises:
        NotThere: it is not in the run.
    """
    if name and name not in run.generations:
        raise NotThere(
            f"there are no vectors of {name[:100]!r} in this run, but of {first_of(list(run.generations)) or 'none'}"
        )
    return name or run.preferred


def view_impression(run: OpenedRun, row: int) -> Impression:
    """Return a test impression with what the models say of it."""
    impressions, queries = run.data.impressions, run.data.queries
    query = int(impressions.query[row])
    number = int(queries.images.numbers[query - 1]) if query else -1
    truth = impressions.true_probability
    return Impression(
        row=row,
        time=int(impressions.time[row]),
        clicked=bool(impressions.click[row]),
        item=card(run, int(impressions.target[row])),
        query_text=queries.texts[query - 1] if query else None,
        query_picture=f"/pictures/queries/{number}" if number >= 0 else None,
        true_probability=None if truth is None else float(truth[row]),
        scores=run.scores.of(np.array([row - run.test.start])),
    )
