"""Who shops, asks and sees what, a slot of some hours at a time."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.sources.bazaar.market import Market
from mimctr.sources.bazaar.responses import (
    Parts,
    click_parts,
    click_probability,
    purchase_probability,
    query_match,
    style_liking,
)
from mimctr.sources.bazaar.world import (
    ATTRIBUTES,
    CATEGORIES,
    DAY,
    IMAGE_QUERY_SHARE,
    NUM_DAYS,
    NUM_WARMUP_DAYS,
    SESSION_LENGTH,
    SLOTS_PER_DAY,
    START_TIME,
    TEXT_QUERY_SHARE,
    stream,
)

NUM_DRAWN = {"feed": 28, "text": 28, "image": 200}
"""Items drawn by popularity for a session, of which those that match the query best are shown; visual search goes
through much more of the catalogue."""
NUM_PHOTOS_SEEN = 12
"""Photos a user could take; one near to the user's taste becomes the image query."""
RETRIEVAL = 1.6
"""Log odds, per unit of match, of being shown for a query."""
QUERY_KINDS = ("feed", "text", "image")
FEED, TEXT, IMAGE = range(3)
VISIBLE = np.array([attribute.visible for attribute in ATTRIBUTES])
NUM_SLOTS = (NUM_WARMUP_DAYS + NUM_DAYS) * SLOTS_PER_DAY


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Sessions of one slot, one row each, in time order."""

    user: Int[ndarray, " sessions"]
    category: Int[ndarray, " sessions"]
    time: Int[ndarray, " sessions"]
    kind: Int[ndarray, " sessions"]  # FEED, TEXT or IMAGE
    photo: Int[ndarray, " sessions"]  # what is wanted: the image query, or what a text describes
    asked: Bool[ndarray, "sessions attributes"]  # attributes that the query tells


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Impressions of one slot, one row each, in time order."""

    begin: int
    sessions: Sessions
    session: Int[ndarray, " impressions"]
    item: Int[ndarray, " impressions"]
    position: Int[ndarray, " impressions"]
    parts: Parts
    probability: Float[ndarray, " impressions"]
    click: Bool[ndarray, " impressions"]
    purchase: Bool[ndarray, " impressions"]
    bid: Float[ndarray, " impressions"]


def simulate(seed: int, market: Market, *, num_sessions: int) -> Iterator[Slot]:
    """Yield the slots in time order, those of the warm-up (``begin`` before START_TIME) first.

    Args:
        seed: Seed of the world; each slot has a random stream of its own.
        market: Who and what there is.
        num_sessions: Sessions without the warm-up; the slots share them evenly.
    """
    num_logged = NUM_DAYS * SLOTS_PER_DAY
    bounds = np.linspace(0, num_sessions, num_logged + 1).astype(int)
    for number in range(-NUM_WARMUP_DAYS * SLOTS_PER_DAY, num_logged):
        size = bounds[number + 1] - bounds[number] if number >= 0 else num_sessions // num_logged
        begin = START_TIME + number * DAY // SLOTS_PER_DAY
        yield _simulate_slot(stream(seed, "slot", number), market, size=int(size), begin=begin)


def _simulate_slot(rng: np.random.Generator, market: Market, *, size: int, begin: int) -> Slot:
    sessions = _draw_sessions(rng, market, size=size, begin=begin)
    wanted = market.photos.style[sessions.photo]
    session, item = _show(rng, market, sessions, wanted, begin=begin)
    position = np.arange(len(session)) - np.searchsorted(session, session)
    parts = click_parts(
        market.users,
        market.items,
        user=sessions.user[session],
        item=item,
        time=sessions.time[session],
        position=position,
        match=query_match(sessions.asked[session], wanted[session], market.items.style[item]),
    )
    probability = click_probability(parts)
    click = rng.random(len(item), dtype=np.float32) < probability
    purchase = click & (rng.random(len(item), dtype=np.float32) < purchase_probability(parts))
    bid = market.items.bid[item] * np.exp(rng.normal(0, 0.2, len(item)))
    return Slot(
        begin=begin,
        sessions=sessions,
        session=session,
        item=item,
        position=position,
        parts=parts,
        probability=probability,
        click=click,
        purchase=purchase,
        bid=bid.round(4).astype(np.float32),
    )


def _draw_sessions(rng: np.random.Generator, market: Market, *, size: int, begin: int) -> Sessions:
    users = market.users
    user = np.searchsorted(np.cumsum(users.activity), rng.random(size)).clip(max=len(users.user_id) - 1)
    time = begin + rng.integers(DAY // SLOTS_PER_DAY, size=size)
    time, user = np.unique(np.stack([time, user]), axis=1)  # in time order; a user has one session a second
    size = len(user)
    chances = np.cumsum(users.categories[user], axis=1)
    category = (rng.random((size, 1)) > chances).sum(axis=1).clip(max=len(CATEGORIES) - 1)
    draw = rng.random(size)
    kind = np.where(
        draw < IMAGE_QUERY_SHARE, IMAGE, np.where(draw < IMAGE_QUERY_SHARE + TEXT_QUERY_SHARE, TEXT, FEED)
    )
    asked = np.zeros((size, len(ATTRIBUTES)), dtype=bool)
    asked[kind == IMAGE] = VISIBLE
    text = np.flatnonzero(kind == TEXT)
    asked[text, 0] = True  # a text names the shape and one attribute more
    asked[text, rng.integers(1, len(ATTRIBUTES), len(text))] = True
    photo = _choose_photos(rng, market, user, category, time)
    return Sessions(user=user, category=category, time=time, kind=kind, photo=photo, asked=asked)


def _choose_photos(
    rng: np.random.Generator,
    market: Market,
    user: Int[ndarray, " sessions"],
    category: Int[ndarray, " sessions"],
    time: Int[ndarray, " sessions"],
) -> Int[ndarray, " sessions"]:
    chosen = np.zeros(len(category), dtype=np.int64)
    for value in range(len(CATEGORIES)):
        rows = np.flatnonzero(category == value)
        pool = np.flatnonzero(market.photos.category == value)
        seen = pool[rng.integers(len(pool), size=(len(rows), NUM_PHOTOS_SEEN))]  # (S, seen)
        liking = style_liking(market.users, user[rows, None], market.photos.style[seen], time[rows, None])
        best = (2 * liking + rng.gumbel(size=seen.shape)).argmax(axis=1)
        chosen[rows] = seen[np.arange(len(rows)), best]
    return chosen


def _show(
    rng: np.random.Generator,
    market: Market,
    sessions: Sessions,
    wanted: Int[ndarray, "sessions attributes"],
    *,
    begin: int,
) -> tuple[Int[ndarray, " impressions"], Int[ndarray, " impressions"]]:
    """Return session and item of every impression, sessions in order and the best matching item first.

    Only items that arrived before the slot ``begin`` can be shown; recent ones are shown more.
    """
    items = market.items
    arrived = int(np.searchsorted(items.first_seen_time, begin, side="right"))
    age = (begin - items.first_seen_time[:arrived]) / DAY
    weight = items.popularity[:arrived] * (0.4 + 4 * np.exp(-age / 3) + np.exp(-age / 20))
    shown = np.full((len(sessions.user), SESSION_LENGTH), -1)
    for value, kind in itertools.product(range(len(CATEGORIES)), range(len(QUERY_KINDS))):
        rows = np.flatnonzero((sessions.category == value) & (sessions.kind == kind))
        pool = np.flatnonzero(items.category[:arrived] == value)
        chances = np.cumsum(weight[pool] / weight[pool].sum())
        size = (len(rows), NUM_DRAWN[QUERY_KINDS[kind]])
        drawn = np.searchsorted(chances, rng.random(size)).clip(max=len(pool) - 1)
        drawn = np.sort(pool[drawn], axis=1)  # (S, drawn)
        match = query_match(sessions.asked[rows, None], wanted[rows, None], items.style[drawn])
        score = RETRIEVAL * match + rng.gumbel(size=drawn.shape)
        score[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -np.inf  # an item drawn twice is shown once
        best = np.argsort(-score, axis=1)[:, :SESSION_LENGTH]
        found = np.take_along_axis(drawn, best, axis=1)
        found[np.take_along_axis(score, best, axis=1) == -np.inf] = -1
        shown[rows] = found
    session, position = np.nonzero(shown >= 0)
    return session, shown[session, position]
