"""Apply, crash, lose, replay, compact, prune, switch and delete in any order: a store is always some moment of the log.

The model is a list of dictionaries: what the vectors of a generation were after every change. A store may lag behind,
but what it answers is what the log said at one of those moments, for each partition, and never an older one than it
acknowledged, unless it lost that itself.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from center.servers import STORES
from center.worlds import BASE_KEYS, PARTITIONS, World, partition_of
from mimctr.center.log import Pruned
from mimctr.center.stores.interface import ParameterStore, Space, Watermark
from mimctr.center.stores.local import LocalStore

KEYS = [*BASE_KEYS.tolist()[:4], 6, 7, 8, 9]
keys = st.sampled_from(KEYS)


class Backups:
    """Saves what a store holds and puts it back, as a fail-over to a replica that lags behind does."""

    def save(self, store: ParameterStore) -> object:
        if isinstance(store, LocalStore):
            return copy.deepcopy(
                {number: (held.tail, held.watermarks) for number, held in store._held.items()}
            )
        client = store._client
        return {name: client.dump(name) for name in client.scan_iter(match=f"{store.name}{{*")}

    def put_back(self, store: ParameterStore, saved: object) -> None:
        if isinstance(store, LocalStore):
            for number in [number for number in store._held if number not in saved]:
                del store._held[number]
            for number, (tail, watermarks) in copy.deepcopy(saved).items():
                if number in store._held:  # a base that was dropped since comes back from the log
                    store._held[number].tail, store._held[number].watermarks = tail, watermarks
            return
        for name in list(store._client.scan_iter(match=f"{store.name}{{*")):
            store._client.delete(name)
        for name, value in saved.items():
            store._client.restore(name, 0, value)


class StoreMachine(RuleBasedStateMachine, Backups):
    """Everything that happens to one store that follows one center."""

    open_store: Callable[[str], ParameterStore]
    count = 0

    @initialize()
    def start(self) -> None:
        StoreMachine.count += 1
        self.folder = Path(tempfile.mkdtemp(prefix="center-"))
        self.name = f"machine{StoreMachine.count}-{self.folder.name}"
        self.world = World(self.folder / "center")
        self.store = self.open_store(self.name)
        self.salt = 0
        self.moments: dict[int, list[dict[int, np.ndarray]]] = {1: [dict(self.world.expected[1])]}
        self.acknowledged: dict[int, list[Watermark | None]] = {}
        self.saved: tuple[object, dict[int, list[Watermark | None]]] | None = None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for space in self.spaces():
                self.store.drop(space)
            self.world.center.log.close()
            shutil.rmtree(self.folder)

    def live(self) -> list[int]:
        return [one.number for one in self.world.center.log.generations.all() if one.is_live]

    def spaces(self) -> list[Space]:
        return [self.world.center.log.generations.space(number) for number in self.live()]

    def remember(self) -> None:
        for number in self.live():
            self.moments.setdefault(number, []).append(dict(self.world.expected[number]))

    @rule(changed=st.lists(keys, min_size=1, max_size=4))
    def put(self, changed: list[int]) -> None:
        self.salt += 1
        self.world.put(*changed, salt=self.salt)
        self.remember()

    @rule(gone=st.lists(keys, min_size=1, max_size=3))
    def delete(self, gone: list[int]) -> None:
        self.world.delete(*gone)
        self.remember()

    @rule(which=st.integers(0, 2))
    def bring(self, which: int) -> None:
        live = self.live()
        number = live[which % len(live)]
        self.world.bring(self.store, number)
        self.world.check(self.store, number, more_keys=tuple(KEYS))
        self.acknowledged[number] = self.store.watermarks(self.world.center.log.generations.space(number))

    @rule(which=st.integers(0, 2), first=st.integers(0, 3), count=st.integers(1, 3))
    def apply_some(self, which: int, first: int, count: int) -> None:
        """Windows from anywhere: earlier ones again, later ones too soon."""
        live = self.live()
        space = self.world.center.log.generations.space(live[which % len(live)])
        for partition in range(PARTITIONS):
            mark = self.store.watermarks(space)[partition]
            if mark is None or mark.seq > self.world.center.log.head(space.generation, partition).seq:
                continue
            try:
                windows = self.world.center.log.windows_after(
                    space.generation, partition, max(mark.seq - first, 0)
                )
            except Pruned:
                continue
            for window in reversed(windows[:count]):
                self.store.apply(space, window)
            for window in windows[:count]:
                self.store.apply(space, window)
        if any(self.store.watermarks(space)):
            self.acknowledged[space.generation] = self.store.watermarks(space)

    @rule()
    def save(self) -> None:
        self.saved = (Backups.save(self, self.store), copy.deepcopy(self.acknowledged))

    @precondition(lambda self: self.saved is not None)
    @rule()
    def lose(self) -> None:
        """A replica that lagged behind takes over: acknowledged windows are gone."""
        saved, acknowledged = self.saved
        live = set(self.live())
        self.put_back(self.store, saved)
        self.acknowledged = {number: marks for number, marks in acknowledged.items() if number in live}

    @rule()
    def restart(self) -> None:
        """Another process opens the store."""
        self.store = self.open_store(self.name)
        if isinstance(self.store, LocalStore):
            self.acknowledged = {}
            self.saved = None

    @rule(which=st.integers(0, 2), hours=st.sampled_from([0.0, 24.0]))
    def compact(self, which: int, hours: float) -> None:
        live = self.live()
        self.world.center.compact(live[which % len(live)])
        self.world.center.collect_garbage(keep_snapshots=1, keep_hours=hours)

    @precondition(lambda self: len(self.live()) < 3)
    @rule()
    def begin(self) -> None:
        number = self.world.begin(np.array(KEYS[:3]))
        self.moments[number] = [dict(self.world.expected[number])]

    @precondition(lambda self: len(self.live()) > 1)
    @rule()
    def drop(self) -> None:
        number = self.live()[0]
        self.store.drop(self.world.center.log.generations.space(number))
        self.world.center.drop(number)
        self.acknowledged.pop(number, None)
        self.saved = None

    @rule()
    def take_over(self) -> None:
        """Another producer writes from now on."""
        self.world.producer = self.world.center.log.take_over("another")

    @invariant()
    def watermarks_never_go_back(self) -> None:
        """Mutant: a watermark is written before, or without, its rows."""
        if not hasattr(self, "world"):
            return
        for number, marks in self.acknowledged.items():
            now = self.store.watermarks(self.world.center.log.generations.space(number))
            assert all(
                old is None or (new is not None and new >= old) for old, new in zip(marks, now, strict=True)
            )

    @invariant()
    def every_answer_is_of_one_moment(self) -> None:
        """Mutants: a torn window; a generation missing from a key; an older version that comes back."""
        if not hasattr(self, "world"):
            return
        for space in self.spaces():
            marks = self.store.watermarks(space)
            found = self.store.fetch(space, np.array(KEYS))
            for partition in range(PARTITIONS):
                own = [place for place, key in enumerate(KEYS) if partition_of(key) == partition]
                if marks[partition] is None:
                    continue
                answer = {KEYS[place]: found.vectors[place] for place in own if found.known[place]}
                assert any(
                    _same(
                        answer,
                        {
                            key: one
                            for key, one in moment.items()
                            if key in set(KEYS) and partition_of(key) == partition
                        },
                    )
                    for moment in self.moments[space.generation]
                ), f"generation {space.generation}, partition {partition}: {answer}"


def _same(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[key], other[key], atol=2e-3) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("open_store", STORES, indirect=True)
def test_a_store_is_always_a_moment_of_the_log(open_store, request):
    kind = request.node.callspec.params["open_store"]
    machine = type("Machine", (StoreMachine,), {"open_store": staticmethod(_by_name(kind, request))})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60 if kind == "local" else 15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


def _by_name(kind: str, request: pytest.FixtureRequest) -> Callable[[str], ParameterStore]:
    if kind == "local":
        return lambda name: LocalStore()
    from mimctr.center.stores.redis import RedisStore

    server = request.getfixturevalue(f"redis_{'server' if kind == 'redis' else 'cluster'}")
    return lambda name: RedisStore(server.url, name=name)
