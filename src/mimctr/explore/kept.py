"""Answers that are kept, each worked out once however many ask at a time."""

import threading
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TypeVar

Answer = TypeVar("Answer")


def kept(work: Callable[..., Answer], num: int) -> Callable[..., Answer]:
    """Return ``work``, done by one thread at a time; the ``num`` answers that were last asked for are kept."""
    lock, known = threading.Lock(), lru_cache(num)(work)

    def get(*given: Hashable) -> Answer:
        with lock:
            return known(*given)

    return get
