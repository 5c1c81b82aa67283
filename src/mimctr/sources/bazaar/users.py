"""The market's users: tastes over style, a taste that no content shows, preferred categories, drift."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.sources.bazaar.items import draw_looks
from mimctr.sources.bazaar.world import (
    ATTRIBUTES,
    CATEGORIES,
    COLLABORATIVE_DIM,
    LOOKS,
    OFFSETS,
    SHAPES_PER_CATEGORY,
    stream,
)

AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
CITIES = ("large", "medium", "small", "rural")
AGE_TELLS = 0.5
"""How often the age band follows from the user's first look instead of chance."""


class Users(NamedTuple):
    """All users, one row each. A taste holds a utility for every value of every attribute, at world.OFFSETS."""

    user_id: Int[ndarray, " users"]
    early_taste: Float[ndarray, "users values"]  # at the first impression
    late_taste: Float[ndarray, "users values"]  # at the last
    collaborative: Float[ndarray, "users latent"]
    categories: Float[ndarray, "users categories"]  # probabilities
    activity: Float[ndarray, " users"]  # probabilities
    age: Int[ndarray, " users"]
    city: Int[ndarray, " users"]
    looks: Int[ndarray, "users 2"]


def draw_users(seed: int, num_users: int) -> Users:
    """Return the users; their taste moves from ``early_taste`` to ``late_taste`` while the log runs."""
    rng = stream(seed, "users")
    looks = rng.integers(LOOKS, size=(num_users, 2))
    own = _own_taste(rng, num_users)
    later = np.where(rng.random((num_users, 1)) < 0.3, _own_taste(rng, num_users), own)
    later_looks = looks.copy()
    later_looks[:, 1] = np.where(
        rng.random(num_users) < 0.3, rng.integers(LOOKS, size=num_users), looks[:, 1]
    )
    age = np.where(
        rng.random(num_users) < AGE_TELLS, looks[:, 0] % len(AGES), rng.integers(len(AGES), size=num_users)
    )
    shares = np.array([category.share for category in CATEGORIES])
    activity = rng.lognormal(0, 0.45, num_users)
    return Users(
        user_id=500_000 + rng.permutation(num_users),
        early_taste=_taste(seed, looks, own),
        late_taste=_taste(seed, later_looks, later),
        collaborative=rng.normal(0, 1, (num_users, COLLABORATIVE_DIM)),
        categories=rng.dirichlet(shares * 5, num_users),
        activity=activity / activity.sum(),
        age=age,
        city=rng.integers(len(CITIES), size=num_users),
        looks=looks,
    )


def _own_taste(rng: np.random.Generator, num_users: int) -> Float[ndarray, "users values"]:
    """Sparse likings of the user's own: in each attribute (for shape: each category) one value up, one down."""
    blocks = []
    for attribute in ATTRIBUTES:
        size = SHAPES_PER_CATEGORY if attribute.name == "shape" else len(attribute.values)
        for _ in range(len(attribute.values) // size):
            order = rng.random((num_users, size)).argsort(axis=1)
            blocks.append(np.where(order == 0, 1.3, 0.0) - np.where(order == 1, 0.7, 0.0))
    return np.concatenate(blocks, axis=1)


def _taste(
    seed: int, looks: Int[ndarray, "users 2"], own: Float[ndarray, "users values"]
) -> Float[ndarray, "users values"]:
    """Add the looks' favored values; then make each attribute's part zero in the mean, of its weight in variance."""
    taste = own.copy()
    rows = np.arange(len(own))
    for column, favored in enumerate(draw_looks(seed)):
        for which, strength in ((0, 1.4), (1, 0.9)):
            for value in favored[looks[:, which]].T:
                np.add.at(taste, (rows, OFFSETS[column] + value), strength)
    for column, attribute in enumerate(ATTRIBUTES):
        size = SHAPES_PER_CATEGORY if attribute.name == "shape" else len(attribute.values)
        block = taste[:, OFFSETS[column] : OFFSETS[column + 1]].reshape(len(own), -1, size)
        block = block - block.mean(axis=2, keepdims=True)
        block *= np.sqrt(attribute.weight) / block.std(axis=2, keepdims=True)
        taste[:, OFFSETS[column] : OFFSETS[column + 1]] = block.reshape(len(own), -1)
    return taste.astype(np.float32)
