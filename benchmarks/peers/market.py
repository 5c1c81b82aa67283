"""The log that every contestant trains on, and the market that generates one.

NumPy alone: each environment reads it.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy import ndarray

START = 1_700_000_000
SECONDS_BETWEEN = 10
"""From one impression to the next: no two share a time, so all libraries sort them alike."""
NUM_FAVORITES = 3
HELD_OUT = 0.1
"""Share of the steps that validate, and again of those that test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """Impressions in the order of their times, and each user's behaviors, oldest first. 0 is padding, no id."""

    users: ndarray
    items: ndarray
    times: ndarray
    clicks: ndarray
    ends: ndarray
    """How many of its user's behaviors an impression may see."""
    bounds: ndarray
    """First row of train, validation and test, and the number of rows."""
    item_fields: ndarray
    """Row ``i`` holds the fields of item ``i``; item 0 is padding and has zeros."""
    item_names: ndarray
    item_sizes: ndarray
    """One above the largest value of each."""
    fields: ndarray
    """One row an impression: everything else that is known when it is shown, of the user, the query, the context."""
    names: ndarray
    sizes: ndarray
    known_items: ndarray
    """By item: its row in a table of embeddings, where all that training never showed share row 1."""
    known_users: ndarray
    offsets: ndarray
    """User ``u`` owns the behaviors ``offsets[u]:offsets[u + 1]``."""
    behaviors: ndarray
    """The items."""
    behavior_times: ndarray

    def rows(self, part: str) -> slice:
        """Return the rows of ``train``, ``validation`` or ``test``."""
        first = ("train", "validation", "test").index(part)
        return slice(int(self.bounds[first]), int(self.bounds[first + 1]))

    def newest(self, rows: slice, length: int) -> tuple[ndarray, ndarray]:
        """Return the newest ``length`` behaviors of each row, the newest last and then zeros, and how many they are."""
        counts = np.minimum(self.ends[rows], length)
        starts = self.offsets[self.users[rows]] + self.ends[rows] - counts
        places = np.arange(length)
        real = places < counts[:, None]
        return np.where(real, self.behaviors[np.where(real, starts[:, None] + places, 0)], 0), counts

    def item_columns(self) -> dict[str, tuple[ndarray, int]]:
        """Return the fields of items by name, each by item, with their sizes."""
        return _columns(self.item_fields, self.item_names, self.item_sizes)

    def field_columns(self, rows: slice) -> dict[str, tuple[ndarray, int]]:
        """Return the other fields of some impressions by name, with their sizes."""
        return _columns(self.fields[rows], self.names, self.sizes)

    def target_and_history(self) -> "Log":
        """Return the log as RecBole's DIN reads it: one row for all users, and no other field of the impression."""
        return replace(
            self,
            known_users=np.where(self.known_users > 0, 1, 0),
            fields=self.fields[:, :0],
            names=self.names[:0],
            sizes=self.sizes[:0],
        )

    def save(self, path: Path) -> None:
        """Write one .npz file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Log":
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


def _columns(table: ndarray, names: ndarray, sizes: ndarray) -> dict[str, tuple[ndarray, int]]:
    return {
        str(name): (table[:, column], int(size))
        for column, (name, size) in enumerate(zip(names, sizes, strict=True))
    }


def generate(
    *, num_users: int, num_steps: int, num_items: int, num_categories: int, length: int, seed: int = 0
) -> tuple[Log, ndarray]:
    """Return a log in which every user sees one item a step and clicks on what is good and like what was clicked on,
    and the logarithm of the true odds of each click: nobody can rank better.

    A click's log odds are the item's quality plus a multiple of the share of the target's category in the newest
    ``length`` behaviors, which is what DIN's attention can find. Nothing of a user matters but the behaviors.
    """
    random = np.random.default_rng(seed)
    categories = np.concatenate([[0], random.permutation(np.arange(num_items) % num_categories) + 1])
    by_category = np.argsort(categories[1:], kind="stable") + 1
    first = np.searchsorted(categories[by_category], np.arange(1, num_categories + 2))
    quality = random.normal(size=num_items + 1)
    favorites = random.integers(1, num_categories + 1, size=(num_users, NUM_FAVORITES))

    def draw(shape: tuple[int, int], favorite_share: float) -> ndarray:
        chosen = np.take_along_axis(favorites, random.integers(NUM_FAVORITES, size=shape), axis=1)
        category = np.where(
            random.random(shape) < favorite_share, chosen, random.integers(1, num_categories + 1, size=shape)
        )
        low, high = first[category - 1], first[category]
        return by_category[low + (random.random(shape) * (high - low)).astype(int)]

    newest = draw((num_users, length), 0.7)
    histories = [newest.copy()]
    clicked = [np.ones(newest.shape, dtype=bool)]
    items, clicks, all_odds = [], [], []
    for _ in range(num_steps):
        target = draw((num_users, 1), 0.4)[:, 0]
        share = (categories[newest] == categories[target][:, None]).mean(axis=1)
        odds = -1.5 + quality[target] + 8 * share
        click = random.random(num_users) < 1 / (1 + np.exp(-odds))
        newest[click] = np.concatenate([newest[click][:, 1:], target[click, None]], axis=1)
        items.append(target)
        clicks.append(click)
        all_odds.append(odds)
        histories.append(target[:, None])
        clicked.append(click[:, None])
    log = _assemble(np.stack(items), np.stack(clicks), histories, clicked, categories=categories)
    return log, np.concatenate(all_odds)


def _assemble(
    items: ndarray,
    clicks: ndarray,
    histories: list[ndarray],
    clicked: list[ndarray],
    *,
    categories: ndarray,
) -> Log:
    num_steps, num_users = items.shape
    length = histories[0].shape[1]
    times = START + SECONDS_BETWEEN * np.arange(num_steps * num_users)
    before = np.repeat(START - SECONDS_BETWEEN * np.arange(length, 0, -1)[None], num_users, axis=0)
    when = np.concatenate([before, times.reshape(num_steps, num_users).T], axis=1)
    kept = np.concatenate(clicked, axis=1)  # (users, length + steps)
    held_out = round(HELD_OUT * num_steps)
    return Log(
        users=np.tile(np.arange(1, num_users + 1), num_steps),
        items=items.ravel(),
        times=times,
        clicks=clicks.ravel().astype(np.int64),
        ends=(length + clicks.cumsum(axis=0) - clicks).ravel(),
        bounds=num_users * np.array([0, num_steps - 2 * held_out, num_steps - held_out, num_steps]),
        item_fields=categories[:, None],
        item_names=np.array(["category"]),
        item_sizes=categories.max(keepdims=True) + 1,
        fields=np.zeros((num_steps * num_users, 0), dtype=np.int64),
        names=np.zeros(0, dtype=str),
        sizes=np.zeros(0, dtype=np.int64),
        known_items=np.arange(len(categories)),
        known_users=np.arange(num_users + 1),
        offsets=np.concatenate([[0, 0], kept.sum(axis=1).cumsum()]),
        behaviors=np.concatenate(histories, axis=1)[kept],
        behavior_times=when[kept],
    )
