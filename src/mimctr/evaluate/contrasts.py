"""Where a difference is larger: the mean over some slices minus the mean over others.

Both sides are taken on the same resamples of users and with the same seeds, so that what they share drops out.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from mimctr.evaluate.significance import BySeed, mean_of

CATEGORY = "category:"
CONTENT_SENSITIVE = ("Clothes", "Home Decoration", "Toys")
LESS_SENSITIVE = ("Sports", "Pets", "Cars")
"""The categories whose clicks gained most and least online (paper Table 7)."""


class Contrast(NamedTuple):
    """Slices of one kind whose mean is taken, and those whose mean is subtracted."""

    slices: tuple[str, ...]
    minus: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the mean over ``slices``: ``category:Clothes, Toys``."""
        return _together(self.slices)

    @property
    def minus_name(self) -> str | None:
        """Of what is subtracted; None where nothing is."""
        return _together(self.minus) if self.minus else None

    @property
    def all_slices(self) -> tuple[str, ...]:
        """Both sides."""
        return self.slices + self.minus

    def of(self, measure: Callable[[str], BySeed]) -> BySeed:
        """Return what ``measure`` says of each slice, contrasted."""
        found = mean_of([measure(name) for name in self.slices])
        return found.minus(mean_of([measure(name) for name in self.minus])) if self.minus else found


def between_categories(first: Sequence[str], second: Sequence[str]) -> Contrast:
    """Return the contrast of two groups of categories."""
    return Contrast(
        tuple(f"{CATEGORY}{name}" for name in first), tuple(f"{CATEGORY}{name}" for name in second)
    )


BY_SENSITIVITY = between_categories(CONTENT_SENSITIVE, LESS_SENSITIVE)


def possible(contrasts: Sequence[Contrast], there: Collection[str]) -> list[Contrast]:
    """Return the contrasts whose slices are all ``there``."""
    return [contrast for contrast in contrasts if all(name in there for name in contrast.all_slices)]


def _together(names: Sequence[str]) -> str:
    return ", ".join([names[0], *(name.partition(":")[2] for name in names[1:])])
