"""Titles: informative words, their synonyms, and idle words around them."""

from mimctr.sources.bazaar.items import Items
from mimctr.sources.bazaar.words import IDLE, MENTION_SHARES, NAME_SYLLABLES, SYNONYMS
from mimctr.sources.bazaar.world import ATTRIBUTES, stream

MAX_IDLE = 4


def write_titles(seed: int, items: Items) -> list[str]:
    """Return a title for every item: a made-up name, then informative and idle words in any order."""
    rng = stream(seed, "titles")
    num_items = len(items.item_id)
    mentioned = rng.random((num_items, len(ATTRIBUTES))) < [MENTION_SHARES[a.name] for a in ATTRIBUTES]
    wording = rng.random((num_items, len(ATTRIBUTES)))
    num_idle = rng.integers(1, MAX_IDLE + 1, num_items)
    idle = rng.integers(len(IDLE), size=(num_items, MAX_IDLE))
    order = rng.random((num_items, MAX_IDLE + len(ATTRIBUTES))).argsort(axis=1)
    name = rng.integers(len(NAME_SYLLABLES), size=(num_items, 3))
    titles = []
    for row in range(num_items):
        words = [IDLE[i] for i in idle[row, : num_idle[row]]]
        words += [
            say(attribute, value, wording[row, attribute])
            for attribute, value in enumerate(items.style[row])
            if mentioned[row, attribute]
        ]
        shuffled = [words[i] for i in order[row] if i < len(words)]
        titles.append(" ".join(["".join(NAME_SYLLABLES[i] for i in name[row]), *shuffled]))
    return titles


def say(attribute: int, value: int, draw: float) -> str:
    """Return one wording of an attribute's value, chosen by ``draw`` in [0, 1)."""
    wordings = SYNONYMS[ATTRIBUTES[attribute].values[value]]
    return wordings[int(draw * len(wordings))]
