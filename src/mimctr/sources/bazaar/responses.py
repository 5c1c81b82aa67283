"""What shoppers do with what they see. A click happens with the probability

    sigmoid(bias + sensitivity_c * style + collaborative + quality + query + position)

``style`` is the user's taste, at that time, for the item's attributes; ``collaborative`` and ``quality`` are in no
picture and no title. A purchase, given a click, leans on style more than the click did.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.sources.bazaar.items import Items
from mimctr.sources.bazaar.users import Users
from mimctr.sources.bazaar.world import (
    ATTRIBUTES,
    CATEGORIES,
    CLICK_BIAS,
    COLLABORATIVE_DIM,
    COLLABORATIVE_SCALE,
    DAY,
    NUM_DAYS,
    OFFSETS,
    POSITION_SLOPE,
    PURCHASE_BIAS,
    PURCHASE_STYLE,
    QUALITY_SCALE,
    QUERY_SCALE,
    START_TIME,
    STYLE_SCALE,
)

PARTS = ("style", "collaborative", "quality", "query", "position")
"""What the logit of a click is the sum of, besides the bias."""
SENSITIVITY = np.array([category.sensitivity for category in CATEGORIES], dtype=np.float32)
MATCH_WEIGHTS = 1.8 * np.sqrt(np.array([attribute.weight for attribute in ATTRIBUTES], dtype=np.float32))
MATCH_BY_CHANCE = np.float32(0.25)
"""What an asked attribute that does not match costs, as a share of what one that matches earns."""

Parts = dict[str, Float[ndarray, " impressions"]]


def click_parts(
    users: Users,
    items: Items,
    *,
    user: Int[ndarray, " impressions"],
    item: Int[ndarray, " impressions"],
    time: Int[ndarray, " impressions"],
    position: Int[ndarray, " impressions"],
    match: Float[ndarray, " impressions"],
) -> Parts:
    """Return the parts of each impression's logit, by name.

    Args:
        users: All users.
        items: All items.
        user: Row of the user.
        item: Row of the item.
        time: Seconds UTC; tastes drift.
        position: From 0 on.
        match: How well the item answers the query, from :func:`query_match`; 0 without a query.
    """
    liking = style_liking(users, user, items.style[item], time)
    alike = np.einsum("nk,nk->n", users.collaborative[user], items.collaborative[item])
    parts = {
        "style": STYLE_SCALE * SENSITIVITY[items.category[item]] * liking,
        "collaborative": COLLABORATIVE_SCALE / np.sqrt(COLLABORATIVE_DIM) * alike,
        "quality": QUALITY_SCALE * items.quality[item],
        "query": QUERY_SCALE * match,
        "position": POSITION_SLOPE * position,
    }
    return {name: values.astype(np.float32) for name, values in parts.items()}


def click_probability(parts: Parts) -> Float[ndarray, " impressions"]:
    """Return the true probability of a click."""
    return _sigmoid(np.float32(CLICK_BIAS) + np.sum([parts[name] for name in PARTS], axis=0))


def purchase_probability(parts: Parts) -> Float[ndarray, " impressions"]:
    """Return the probability that a clicked item is bought."""
    desire = PURCHASE_STYLE * parts["style"] + parts["query"] + 0.5 * parts["quality"]
    return _sigmoid(PURCHASE_BIAS + desire)


def style_liking(
    users: Users,
    user: Int[ndarray, "*rows"],
    style: Int[ndarray, "*rows attributes"],
    time: Int[ndarray, "*rows"],
) -> Float[ndarray, "*rows"]:
    """Return how much a user likes a style at a time, about standard normal over users and styles."""
    late_share = np.clip((time - START_TIME) / (NUM_DAYS * DAY), 0, 1).astype(np.float32)
    early = late = np.float32(0)
    for column, offset in enumerate(OFFSETS[:-1]):
        value = offset + style[..., column]
        early = early + users.early_taste[user, value]
        late = late + users.late_taste[user, value]
    return early + late_share * (late - early)


def query_match(
    asked: Bool[ndarray, "*rows attributes"],
    wanted: Int[ndarray, "*rows attributes"],
    style: Int[ndarray, "*rows attributes"],
) -> Float[ndarray, "*rows"]:
    """Return how well ``style`` has the ``asked`` attributes of what is ``wanted``; 0 where nothing is asked."""
    return (asked * ((style == wanted) - MATCH_BY_CHANCE)) @ MATCH_WEIGHTS


def _sigmoid(logit: Float[ndarray, " rows"]) -> Float[ndarray, " rows"]:
    return 1 / (1 + np.exp(-logit))
