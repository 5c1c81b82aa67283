"""What the market finds for a session: drawn by popularity, those that match the query best first."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mimctr.sources.bazaar.market import Market
from mimctr.sources.bazaar.responses import query_match
from mimctr.sources.bazaar.world import CATEGORIES, DAY

NUM_DRAWN = {"feed": 28, "text": 28, "image": 200}
"""Items drawn by popularity for a session, of which those that match the query best are shown; visual search goes
through much more of the catalogue."""
RETRIEVAL = 1.6
"""Log odds, per unit of match, of being shown for a query."""
QUERY_KINDS = ("feed", "text", "image")
FEED, TEXT, IMAGE = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Sessions of one slot, one row each, in time order."""

    user: Int[ndarray, " sessions"]
    category: Int[ndarray, " sessions"]
    time: Int[ndarray, " sessions"]
    kind: Int[ndarray, " sessions"]  # FEED, TEXT or IMAGE
    photo: Int[ndarray, " sessions"]  # what is wanted: the image query, or what a text describes
    asked: Bool[ndarray, "sessions attributes"]  # attributes that the query tells


def retrieve(
    rng: np.random.Generator, market: Market, sessions: Sessions, *, begin: int, most: int
) -> Int[ndarray, "sessions found"]:
    """Return at most ``most`` different items for each session, the best matching first; -1 where there are no more.

    Only items that arrived before the slot ``begin`` are found; recent ones more often. What is drawn does not depend
    on ``most``: a longer list begins with the shorter one.
    """
    items, wanted = market.items, market.photos.style[sessions.photo]
    arrived = int(np.searchsorted(items.first_seen_time, begin, side="right"))
    age = (begin - items.first_seen_time[:arrived]) / DAY
    weight = items.popularity[:arrived] * (0.4 + 4 * np.exp(-age / 3) + np.exp(-age / 20))
    found = np.full((len(sessions.user), most), -1)
    for value, kind in itertools.product(range(len(CATEGORIES)), range(len(QUERY_KINDS))):
        rows = np.flatnonzero((sessions.category == value) & (sessions.kind == kind))
        pool = np.flatnonzero(items.category[:arrived] == value)
        chances = np.cumsum(weight[pool] / weight[pool].sum())
        size = (len(rows), NUM_DRAWN[QUERY_KINDS[kind]])
        drawn = np.searchsorted(chances, rng.random(size)).clip(max=len(pool) - 1)
        drawn = np.sort(pool[drawn], axis=1)  # (S, drawn)
        match = query_match(sessions.asked[rows, None], wanted[rows, None], items.style[drawn])
        score = RETRIEVAL * match + rng.gumbel(size=drawn.shape)
        score[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -np.inf  # an item drawn twice is found once
        best = np.argsort(-score, axis=1)[:, :most]
        own = np.take_along_axis(drawn, best, axis=1)
        own[np.take_along_axis(score, best, axis=1) == -np.inf] = -1
        found[rows, : own.shape[1]] = own
    return found
