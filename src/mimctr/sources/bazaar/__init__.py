"""The bazaar: a generated marketplace whose right answer is known (docs/bazaar.md)."""

from mimctr.sources.bazaar.bazaar import BazaarSummary, write_bazaar

__all__ = ["BazaarSummary", "write_bazaar"]
