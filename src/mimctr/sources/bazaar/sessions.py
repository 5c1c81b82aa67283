"""Who shops, asks and sees what, a slot of some hours at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
from mimctr.sources.bazaar.retrieval import FEED, IMAGE, TEXT, Sessions, retrieve
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

NUM_PHOTOS_SEEN = 12
"""Photos a user could take; one near to the user's taste becomes the image query."""
VISIBLE = np.array([attribute.visible for attribute in ATTRIBUTES])
NUM_SLOTS = (NUM_WARMUP_DAYS + NUM_DAYS) * SLOTS_PER_DAY


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


class Span(NamedTuple):
    """When a slot is, and how many come."""

    number: int
    """From the first impression on; negative in the warm-up. Names the slot's random stream."""
    begin: int
    size: int
    """Sessions, two of one user in one second counted twice."""


def spans(num_sessions: int) -> list[Span]:
    """Return the slots in time order; they share ``num_sessions`` evenly, those of the warm-up apart."""
    num_logged = NUM_DAYS * SLOTS_PER_DAY
    bounds = np.linspace(0, num_sessions, num_logged + 1).astype(int)
    sizes = [num_sessions // num_logged] * (NUM_WARMUP_DAYS * SLOTS_PER_DAY) + np.diff(bounds).tolist()
    return [
        Span(number, START_TIME + number * DAY // SLOTS_PER_DAY, size)
        for number, size in enumerate(sizes, start=-NUM_WARMUP_DAYS * SLOTS_PER_DAY)
    ]


def simulate(seed: int, market: Market, *, num_sessions: int, random_pages: bool = False) -> Iterator[Slot]:
    """Yield the slots in time order, those of the warm-up (``begin`` before START_TIME) first.

    Args:
        seed: Seed of the world; each slot has a random stream of its own.
        market: Who and what there is.
        num_sessions: Sessions without the warm-up; the slots share them evenly.
        random_pages: Every page stands in random order, not the best match first.
    """
    for span in spans(num_sessions):
        yield _simulate_slot(seed, market, span, random_pages=random_pages)


def shuffle_pages(
    seed: int, span: Span, found: Int[ndarray, "sessions found"]
) -> Int[ndarray, "sessions found"]:
    """Return what was found with each session's page, its first ten, in random order; from a stream of its own."""
    page, rest = found[:, :SESSION_LENGTH], found[:, SESSION_LENGTH:]
    drawn = stream(seed, "page order", span.number).random((len(found), SESSION_LENGTH))
    order = np.argsort(np.where(page >= 0, drawn, np.inf), axis=1, kind="stable")
    return np.concatenate([np.take_along_axis(page, order, axis=1), rest], axis=1)


def _simulate_slot(seed: int, market: Market, span: Span, *, random_pages: bool) -> Slot:
    rng = stream(seed, "slot", span.number)
    sessions = draw_sessions(rng, market, span)
    wanted = market.photos.style[sessions.photo]
    found = retrieve(rng, market, sessions, begin=span.begin, most=SESSION_LENGTH)
    if random_pages:
        found = shuffle_pages(seed, span, found)
    session, position = np.nonzero(found >= 0)
    item = found[session, position]
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
        begin=span.begin,
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


def draw_sessions(rng: np.random.Generator, market: Market, span: Span) -> Sessions:
    """Return the sessions of a slot: the first that its random stream is asked for."""
    users, size = market.users, span.size
    user = np.searchsorted(np.cumsum(users.activity), rng.random(size)).clip(max=len(users.user_id) - 1)
    time = span.begin + rng.integers(DAY // SLOTS_PER_DAY, size=size)
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
