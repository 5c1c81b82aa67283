"""The market's items: style, what no content shows, arrival, price; and their pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.sources.bazaar.render import Look, Props, draw_nuisances, render_files
from mimctr.sources.bazaar.shapes import MARKET_SHAPES
from mimctr.sources.bazaar.surfaces import MARKET_SCENES, PALETTES
from mimctr.sources.bazaar.world import (
    ATTRIBUTES,
    CATEGORIES,
    COLLABORATIVE_DIM,
    DAY,
    END_TIME,
    LOOKS,
    MISSING_SHARE,
    NUM_WARMUP_DAYS,
    SHAPES_PER_CATEGORY,
    START_TIME,
    stream,
)

OLD_SHARE = 0.40
"""Share of items that are there before the log begins; the rest arrive evenly until its end."""
ITEMS_PER_SELLER = 50
SELLER_SHARE = 0.5
"""Share of the variance of quality and collaborative taste that items of one seller have in common."""
LOOK_SHARE = 0.70
"""How often an attribute's value comes from the item's look instead of being any value."""
VALUES_PER_LOOK = 2
MARKET_PROPS = Props(MARKET_SHAPES, MARKET_SCENES)


class Items(NamedTuple):
    """The catalogue, one row an item."""

    item_id: Int[ndarray, " items"]
    category: Int[ndarray, " items"]
    style: Int[ndarray, "items attributes"]  # value of each of ATTRIBUTES
    seller: Int[ndarray, " items"]
    quality: Float[ndarray, " items"]  # about standard normal
    collaborative: Float[ndarray, "items latent"]
    popularity: Float[ndarray, " items"]  # relative
    first_seen_time: Int[ndarray, " items"]
    price: Float[ndarray, " items"]
    bid: Float[ndarray, " items"]  # typical bid for a click


def draw_looks(seed: int) -> list[Int[ndarray, "looks values"]]:
    """Return, for each attribute, the values that each look favors; no value is favored much more than another.

    Shape follows no look: its rows are empty.
    """
    rng = stream(seed, "looks")
    looks = []
    for attribute in ATTRIBUTES:
        size = 0 if attribute.name == "shape" else VALUES_PER_LOOK
        num_values = len(attribute.values)  # even, so that no look gets a value twice
        num_decks = max(1, -(-LOOKS * size // num_values))
        deck = np.concatenate([rng.permutation(num_values) for _ in range(num_decks)])
        looks.append(deck[: LOOKS * size].reshape(LOOKS, size))
    return looks


def draw_items(seed: int, num_items: int) -> Items:
    """Return the catalogue, in order of arrival."""
    rng = stream(seed, "items")
    category = rng.choice(len(CATEGORIES), num_items, p=[c.share for c in CATEGORIES])
    category[: len(CATEGORIES)] = np.arange(len(CATEGORIES))  # none is empty when the first session begins
    num_old = int(OLD_SHARE * num_items)
    begin = START_TIME - NUM_WARMUP_DAYS * DAY
    first_seen_time = np.sort(
        np.concatenate(
            [
                rng.integers(begin - 60 * DAY, begin, num_old),
                rng.integers(begin, END_TIME, num_items - num_old),
            ]
        )
    )
    num_sellers = max(8, num_items // ITEMS_PER_SELLER)
    seller = rng.integers(num_sellers, size=num_items)
    own, shared = np.sqrt(1 - SELLER_SHARE), np.sqrt(SELLER_SHARE)
    hidden = own * rng.normal(0, 1, (num_items, COLLABORATIVE_DIM + 1))
    hidden += shared * rng.normal(0, 1, (num_sellers, COLLABORATIVE_DIM + 1))[seller]
    hidden -= hidden.mean(axis=0)
    quality, collaborative = hidden[:, 0], hidden[:, 1:]
    price = np.exp(rng.normal(3.0, 0.3, len(CATEGORIES))[category] + rng.normal(0, 0.6, num_items)).round(2)
    return Items(
        item_id=100_000 + rng.permutation(num_items) * 3,
        category=category,
        style=draw_styles(rng, category, draw_looks(seed)),
        seller=seller,
        quality=quality,
        collaborative=collaborative,
        popularity=np.exp(rng.normal(0, 0.9, num_items) + 0.25 * quality),
        first_seen_time=first_seen_time,
        price=price,
        bid=(0.02 * price * np.exp(rng.normal(0, 0.3, num_items))).clip(0.01).round(3),
    )


def draw_styles(
    rng: np.random.Generator, category: Int[ndarray, " items"], looks: list[Int[ndarray, "looks values"]]
) -> Int[ndarray, "items attributes"]:
    num_items = len(category)
    look = rng.integers(LOOKS, size=num_items)
    columns = []
    for attribute, favored in zip(ATTRIBUTES, looks, strict=True):
        if attribute.name == "shape":
            columns.append(category * SHAPES_PER_CATEGORY + rng.integers(SHAPES_PER_CATEGORY, size=num_items))
            continue
        any_value = rng.integers(len(attribute.values), size=num_items)
        of_look = favored[look, rng.integers(VALUES_PER_LOOK, size=num_items)]
        columns.append(np.where(rng.random(num_items) < LOOK_SHARE, of_look, any_value))
    return np.stack(columns, axis=1)


def pictures(
    rng: np.random.Generator, style: Int[ndarray, "images attributes"], *, strength: float
) -> Iterator[list[bytes]]:
    """Yield JPEG files of items of the given styles, some dozens at a time, each under its own nuisance."""
    shape, pattern, palette, texture = (style[:, column] for column in range(4))
    colors = np.array(list(PALETTES.values()))[palette]  # (N, 2, 3)
    colors = (colors + rng.normal(0, 0.03, colors.shape)).clip(0, 1)
    look = Look(shape, pattern, texture, colors[:, 0], colors[:, 1], rng.uniform(2.2, 2.8, len(style)))
    nuisance = draw_nuisances(rng, len(style), num_scenes=len(MARKET_SCENES), strength=strength)
    yield from render_files(rng, look, nuisance, MARKET_PROPS)


def draw_missing(seed: int, num_items: int) -> tuple[ndarray, ndarray]:
    """Return which items have no image and which have no title."""
    rng = stream(seed, "missing")
    return rng.random(num_items) < MISSING_SHARE, rng.random(num_items) < MISSING_SHARE
