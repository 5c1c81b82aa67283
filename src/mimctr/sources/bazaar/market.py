"""Everything that exists before anybody shops: items, users, and the photos that shoppers search with."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.sources.bazaar.items import Items, draw_items, draw_looks, draw_styles
from mimctr.sources.bazaar.users import Users, draw_users
from mimctr.sources.bazaar.world import CATEGORIES, Size, stream


class Photos(NamedTuple):
    """Image queries, one row a photo: what each shows, and what its owner wants beyond what can be seen."""

    category: Int[ndarray, " photos"]
    style: Int[ndarray, "photos attributes"]


class Market(NamedTuple):
    """A whole market."""

    items: Items
    users: Users
    photos: Photos


def draw_market(seed: int, size: Size) -> Market:
    """Return the market of a seed."""
    items, users = draw_items(seed, size.num_items), draw_users(seed, size.num_users)
    rng = stream(seed, "photos")
    category = rng.choice(len(CATEGORIES), size.num_photos, p=[category.share for category in CATEGORIES])
    category[: len(CATEGORIES)] = np.arange(len(CATEGORIES))  # every category has a photo
    return Market(items, users, Photos(category, draw_styles(rng, category, draw_looks(seed))))
