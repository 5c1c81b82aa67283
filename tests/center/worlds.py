"""Small centers whose content is known to a dictionary."""

from pathlib import Path

import numpy as np
from numpy import ndarray

from mimctr.center import record
from mimctr.center.center import Center
from mimctr.center.log import Appended, Change, Producer
from mimctr.center.publish import bring_up_to_date
from mimctr.center.stores.interface import ParameterStore

DIM, PARTITIONS = 6, 3
BASE_KEYS = np.array([5, 17, 40, 41, 1000, 2**40, 2**62])


class World:
    """A center, a producer, and what every item's vector should be.

    Args:
        folder: Of the center.
        dtype: Of its first generation.
    """

    def __init__(self, folder: Path, *, dtype: str = "float16") -> None:
        self.center = Center.create(folder, num_partitions=PARTITIONS)
        self.dtype = dtype
        self.expected: dict[int, dict[int, ndarray]] = {}
        """Generation -> key -> vector."""
        self.producer: Producer = self.center.log.take_over("test")
        self.begin(BASE_KEYS)

    def begin(self, keys: ndarray, *, encoder: str | None = None) -> int:
        """Start a generation with a base; every generation's vectors are its own."""
        number = len(self.center.log.generations.all()) + 1
        one = self.center.log.generations.begin(
            fingerprint=encoder or f"encoder {number}", dim=DIM, dtype=self.dtype
        )
        vectors = (
            np.stack([vector(key, 0, number) for key in keys.tolist()]) if len(keys) else np.zeros((0, DIM))
        )
        with self.center.write_base(number, keys) as writer:
            writer.write(keys, vectors)
        self.expected[one.number] = dict(zip(keys.tolist(), vectors, strict=True))
        return one.number

    def put(self, *keys: int, salt: int = 1) -> list[Appended]:
        """Write a vector of each key, to every live generation, in one transaction."""
        live = [one.number for one in self.center.log.generations.all() if one.is_live]
        changes = []
        for key in keys:
            fresh = {number: vector(key, salt, number) for number in live}
            payloads = {
                number: record.encode(one[None], self.dtype)[0].tobytes() for number, one in fresh.items()
            }
            changes.append(Change(key=key, payloads=payloads, item_id=str(key)))
            for number, one in fresh.items():
                self.expected[number][key] = one
        return self.center.log.append(self.producer, changes)

    def delete(self, *keys: int) -> list[Appended]:
        """Delete items."""
        for held in self.expected.values():
            for key in keys:
                held.pop(key, None)
        return self.center.log.append(self.producer, [Change(key=key, deleted=True) for key in keys])

    def bring(self, store: ParameterStore, generation: int = 1) -> int:
        """Bring a store up to date."""
        return bring_up_to_date(self.center.log, store, generation, lambda: self.center.open_base(generation))

    def check(self, store: ParameterStore, generation: int = 1, *, more_keys: tuple[int, ...] = ()) -> None:
        """Assert that a store answers what the dictionary says, for every key that ever was and some that never."""
        held = self.expected[generation]
        ever = (
            {key for one in self.expected.values() for key in one} | set(BASE_KEYS.tolist()) | set(more_keys)
        )
        keys = np.array(sorted(ever | {3, 2**50}), dtype=np.int64)
        found = store.fetch(self.center.log.generations.space(generation), keys)
        assert found.known.tolist() == [key in held for key in keys.tolist()]
        wanted = np.stack([held.get(key, np.zeros(DIM)) for key in keys.tolist()])
        step = 2.0**-11 if self.dtype == "float16" else 0.5 / 127
        np.testing.assert_allclose(found.vectors, wanted, atol=step * np.abs(wanted).max() + 1e-7)


def vector(key: int, salt: int, generation: int) -> ndarray:
    """Return a vector that no other key, version or generation has."""
    return np.random.default_rng([key, salt, generation]).normal(size=DIM).astype(np.float32)


def partition_of(key: int) -> int:
    """Return the partition of one item."""
    return int(record.partition_of(np.array([key]), PARTITIONS)[0])
