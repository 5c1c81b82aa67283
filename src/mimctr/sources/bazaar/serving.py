"""Sessions of the log served anew: what the market can show in each, and how probable a click is wherever it stands.

Sessions and what retrieval finds come from the random streams that wrote the log, so that the first ten candidates of a
session are the impressions of the log, in the order in which they stood.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.errors import DataError
from mimctr.files import read_json
from mimctr.sources.bazaar.market import Market, draw_market
from mimctr.sources.bazaar.responses import click_parts, click_probability, query_match
from mimctr.sources.bazaar.retrieval import Sessions, retrieve
from mimctr.sources.bazaar.sessions import draw_sessions, shuffle_pages, spans
from mimctr.sources.bazaar.tables import sessions_table
from mimctr.sources.bazaar.world import CATEGORIES, DAY, SESSION_LENGTH, SIZES, SLOTS_PER_DAY, stream

RECORD = "bazaar.json"
BID_SPREAD = 0.2
"""Standard deviation of the logarithm of a candidate's bid around the item's own, as in the log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers:
    """What can be shown in some sessions, one row each, in time order."""

    asked: pa.Table
    """What a log tells of each session (:func:`~mimctr.sources.bazaar.tables.sessions_table`)."""
    category: list[str]
    """Of each session: all that it can show is of it."""
    item_id: Int[ndarray, "sessions candidates"]
    """Retrieval's best first, random pages as they stood; -1 where there are no more."""
    probability: Float[ndarray, "sessions candidates positions"]
    """True, of a click on each candidate at each position, float32; 0 where there is none."""
    bid: Float[ndarray, "sessions candidates"]
    """For a click, float32; 0 where there is none."""

    @property
    def offered(self) -> Bool[ndarray, "sessions candidates"]:
        """Where there is a candidate."""
        return self.item_id >= 0

    def __len__(self) -> int:
        return len(self.item_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Names a bazaar, all of it."""

    size: str
    seed: int
    random_pages: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"bazaar, {self.size}, seed {self.seed}" + (", random pages" if self.random_pages else "")

    @classmethod
    def read(cls, tables: Path) -> "World":
        """Return which bazaar a folder of raw tables is.

        Raises:
            DataError: it is none.
        """
        if not (tables / RECORD).is_file():
            raise DataError(
                f"{tables}: no bazaar ({RECORD} is missing), so nobody knows what would have been clicked in another "
                "ranking: a log of impressions without the probability with which each was shown (its propensity) "
                "allows no counterfactual estimate. Give the tables of 'mimctr bazaar'; with propensities, use "
                "'mimctr off-policy'."
            )
        record = read_json(tables / RECORD)
        size, seed = record.get("size"), record.get("seed")
        if size not in SIZES or not isinstance(seed, int) or seed < 0:
            raise DataError(
                f"{tables / RECORD}: size {size!r} and seed {seed!r} name no bazaar. Run 'mimctr bazaar' again."
            )
        return cls(size=size, seed=seed, random_pages=record.get("random_pages") is True)


def serve_sessions(
    world: World,
    *,
    start: int,
    end: int,
    most_sessions: int,
    num_candidates: int,
    num_positions: int = SESSION_LENGTH,
) -> Offers:
    """Return what the sessions between two times can show.

    Args:
        world: Which bazaar.
        start: Of the first session, seconds UTC.
        end: Behind the last.
        most_sessions: Of more, so many are taken at even distances.
        num_candidates: Most that a session can show.
        num_positions: Places of a page.

    Raises:
        DataError: there is no session.
    """
    numbers = SIZES[world.size]  # type: ignore[index]  # World.read has looked
    market = draw_market(world.seed, numbers)
    slots = [
        span
        for span in spans(numbers.num_sessions)
        if span.begin < end and span.begin + DAY // SLOTS_PER_DAY > start and span.size
    ]
    share = min(1.0, most_sessions / max(sum(span.size for span in slots), 1))
    parts, num_before = [], 0
    for span in slots:
        rng = stream(world.seed, "slot", span.number)
        sessions = draw_sessions(rng, market, span)
        found = retrieve(rng, market, sessions, begin=span.begin, most=max(num_candidates, SESSION_LENGTH))
        if world.random_pages:
            found = shuffle_pages(world.seed, span, found)
        found = found[:, :num_candidates]
        places = num_before + np.arange(len(sessions.time))
        num_before += len(places)
        kept = np.floor((places + 1) * share) > np.floor(places * share)
        kept &= (sessions.time >= start) & (sessions.time < end)
        bids = np.exp(stream(world.seed, "served bids", span.number).normal(0, BID_SPREAD, found.shape))
        parts.append(_offer(market, _only(sessions, kept), found[kept], bids[kept], num_positions))
    if not sum(map(len, parts)):
        raise DataError(f"the bazaar has no session from {start} to {end}, seconds UTC. Take other times.")
    return _joined(parts)


def _offer(
    market: Market,
    sessions: Sessions,
    found: Int[ndarray, "sessions candidates"],
    bids: Float[ndarray, "sessions candidates"],
    num_positions: int,
) -> Offers:
    items, there = market.items, found >= 0
    session, _ = np.nonzero(there)
    item = found[there]
    match = query_match(
        sessions.asked[session], market.photos.style[sessions.photo[session]], items.style[item]
    )
    probability = np.zeros((*found.shape, num_positions), np.float32)
    for position in range(num_positions):
        parts = click_parts(
            market.users,
            items,
            user=sessions.user[session],
            item=item,
            time=sessions.time[session],
            position=np.full(len(item), position),
            match=match,
        )
        probability[there, position] = click_probability(parts)
    return Offers(
        asked=sessions_table(sessions, market),
        category=[CATEGORIES[value].name for value in sessions.category],
        item_id=np.where(there, items.item_id[found], -1),
        probability=probability,
        bid=np.where(there, items.bid[found] * bids, 0).astype(np.float32),
    )


def _only(sessions: Sessions, kept: Bool[ndarray, " sessions"]) -> Sessions:
    return Sessions(
        user=sessions.user[kept],
        category=sessions.category[kept],
        time=sessions.time[kept],
        kind=sessions.kind[kept],
        photo=sessions.photo[kept],
        asked=sessions.asked[kept],
    )


def _joined(parts: list[Offers]) -> Offers:
    return Offers(
        asked=pa.concat_tables([part.asked for part in parts]),
        category=[name for part in parts for name in part.category],
        item_id=np.concatenate([part.item_id for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
        bid=np.concatenate([part.bid for part in parts]),
    )
