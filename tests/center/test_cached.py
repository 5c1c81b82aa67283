"""A cache of hot rows: bounded in rows and age, never of another generation, never behind what went through it."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from center.worlds import BASE_KEYS, DIM, World, vector
from mimctr.center.record import Found, State
from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.interface import Space
from mimctr.center.stores.local import LocalStore
from mimctr.errors import StoreUnavailable

SPACE = Space(1, "encoder 1", DIM, "float16", 3)


class Scripted(LocalStore):
    """A store of any rows, which says what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[int, int], tuple[State, np.ndarray]] = {}
        self.asked: list[int] = []

    def put(self, key: int, value: float, state: State = State.HIT, *, generation: int = 1) -> None:
        row = np.full(DIM, value, np.float32) if state == State.HIT else np.zeros(DIM, np.float32)
        self.rows[generation, key] = (state, row)

    def fetch(self, space: Space, keys: np.ndarray) -> Found:
        self.asked += keys.tolist()
        found = Found.misses(len(keys), space.dim)
        for place, key in enumerate(keys.tolist()):
            if (space.generation, key) in self.rows:
                found.states[place], found.vectors[place] = self.rows[space.generation, key]
        return found

    def apply(self, space: Space, window) -> None:
        raise StoreUnavailable("no answer: it may have been applied")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(store, *keys: int, space: Space = SPACE) -> list[float | None]:
    """Return the first number of each vector, None where there is none."""
    found = store.fetch(space, np.array(keys, dtype=np.int64))
    assert not found.vectors[~found.known].any()
    return [row[0] if known else None for row, known in zip(found.vectors, found.known, strict=True)]


def test_a_row_is_kept_for_its_seconds(scripted, clock):
    """Mutant: a row is kept for ever. Its age counts from before the store was asked, and hits do not prolong it."""
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    scripted.put(1, 1.0)
    assert ask(store, 1) == [1]
    scripted.put(1, 2.0)
    for clock.now in (101.0, 103.0, 104.9):
        assert ask(store, 1) == [1]
    clock.now = 105.0
    assert ask(store, 1) == [2]
    assert scripted.asked == [1, 1]
    assert (store.hits, store.misses) == (3, 2)


def test_only_the_rows_asked_for_last_are_kept(scripted, clock):
    """Mutant: the cache grows; the first in is the first out."""
    store = CachedStore(scripted, max_rows=3, seconds=5.0, clock=clock)
    for key in range(10):
        scripted.put(key, key)
    ask(store, 0, 1, 2)
    ask(store, 0)
    ask(store, 3)  # in the place of 1
    scripted.asked.clear()
    assert ask(store, 0, 2, 3) == [0, 2, 3]
    assert scripted.asked == []
    assert ask(store, 1) == [1]
    assert scripted.asked == [1]


def test_more_rows_than_it_keeps_are_answered(scripted, clock):
    store = CachedStore(scripted, max_rows=3, seconds=5.0, clock=clock)
    for key in range(10):
        scripted.put(key, key)
    for _ in range(3):
        assert ask(store, *range(10)) == list(range(10))
        assert ask(store, *reversed(range(10))) == list(reversed(range(10)))


@pytest.mark.parametrize("state", [State.MISS, State.DELETED, State.DAMAGED])
def test_what_has_no_vector_is_asked_for_again(scripted, clock, state):
    """Mutant: misses are kept. A new item is there at once."""
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    scripted.put(1, 1.0)
    scripted.put(2, 0.0, state)
    for _ in range(2):
        assert store.fetch(SPACE, np.array([1, 2, 2])).states.tolist() == [State.HIT, state, state]
    assert scripted.asked == [1, 2, 2, 2, 2]
    scripted.put(2, 2.0)
    assert ask(store, 2, 1) == [2, 1]


def test_generations_never_mix(scripted, clock):
    """Mutant: rows are kept by key alone."""
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    other = SPACE._replace(generation=2, fingerprint="encoder 2")
    for generation in (1, 2):
        scripted.put(7, generation, generation=generation)
    for _ in range(2):
        assert ask(store, 7) == [1]
        assert ask(store, 7, space=other) == [2]
    assert scripted.asked == [7, 7]


def test_a_generation_that_nobody_asks_for_is_forgotten(scripted, clock):
    """Memory stays bounded over many bundles."""
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    for generation in range(1, 30):
        ask(store, 7, space=SPACE._replace(generation=generation))
        clock.now += 3.0
    assert len(store._tables) <= 3


def test_a_window_is_seen_at_once_by_who_applied_it(tmp_path: Path):
    store, world = CachedStore(LocalStore(), max_rows=100, seconds=1e9), World(tmp_path / "center")
    world.bring(store)
    world.check(store)
    world.put(5, 700)
    world.delete(17)
    world.bring(store)
    world.check(store)
    store.drop(world.center.log.generations.space(1))
    found = store.fetch(world.center.log.generations.space(1), BASE_KEYS)
    assert not found.known.any()


def test_a_window_that_may_have_been_applied_is_forgotten(scripted, clock, tmp_path: Path):
    """Mutant: rows are forgotten only after the store's answer. It may apply and die before it says so."""
    world = World(tmp_path / "center")
    world.put(5)
    windows = [w for number in range(3) for w in world.center.log.windows_after(1, number, 0)]
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    scripted.put(5, 1.0)
    assert ask(store, 5) == [1]
    scripted.put(5, 2.0)
    with pytest.raises(StoreUnavailable, match="no answer"):
        store.apply(SPACE, windows[0])
    assert ask(store, 5) == [2]


def test_what_was_fetched_while_a_window_was_applied_is_not_kept(tmp_path: Path):
    """Mutant: a fetch that began before a window keeps the row that stood there before."""
    world, local = World(tmp_path / "center"), LocalStore()
    store = CachedStore(local, max_rows=100, seconds=1e9)
    world.bring(store)
    world.put(5)
    space, fetch = world.center.log.generations.space(1), local.fetch

    def slow(space: Space, keys: np.ndarray) -> Found:
        found = fetch(space, keys)
        local.fetch = fetch
        world.bring(store)
        return found

    local.fetch = slow
    before = store.fetch(space, np.array([5])).vectors[0]
    np.testing.assert_allclose(before, vector(5, 0, 1), atol=2e-3)
    np.testing.assert_allclose(store.fetch(space, np.array([5])).vectors[0], vector(5, 1, 1), atol=2e-3)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.lists(st.integers(-3, 9), max_size=8)),
            st.tuples(st.just("put"), st.integers(-3, 9)),
            st.tuples(st.just("delete"), st.integers(-3, 9)),
            st.tuples(st.just("wait"), st.integers(0, 4)),
        ),
        max_size=40,
    )
)
def test_what_is_answered_was_so_within_the_last_seconds(steps):
    """The model: every value that a key had, and when it was replaced."""
    scripted, clock = Scripted(), Clock()
    store = CachedStore(scripted, max_rows=4, seconds=3.0, clock=clock)
    past: dict[int, list[tuple[float, float | None]]] = {}
    """Key -> what stood there, and until when."""
    now: dict[int, float | None] = {}
    for number, (what, value) in enumerate(steps, start=1):
        if what == "wait":
            clock.now += value
        elif what == "ask":
            for key, one in zip(value, ask(store, *value), strict=True):
                recent = [old for until, old in past.get(key, []) if clock.now < until + 3.0]
                assert one in [now.get(key), *recent]
        else:
            past.setdefault(value, []).append((clock.now, now.get(value)))
            now[value] = float(number) if what == "put" else None
            scripted.put(value, number, State.HIT if what == "put" else State.DELETED)


def test_threads_share_it(scripted):
    """Each row says which key it is of, so that a row in another's slot is seen."""
    store = CachedStore(scripted, max_rows=20, seconds=3600.0)
    for key in range(100):
        scripted.put(key, key)
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            keys = rng.integers(0, 100, 30)
            if ask(store, *keys.tolist()) != keys.tolist():
                wrong.append(f"thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.hits + store.misses == 4 * 200 * 30
    assert store.hits > 0


def test_int8_rows_come_back_exactly(scripted, clock):
    """Mutant: rows of an int8 store are kept as float16."""
    store = CachedStore(scripted, max_rows=10, seconds=5.0, clock=clock)
    scripted.put(1, 1.0 + 2.0**-20)
    space = SPACE._replace(dtype="int8")
    first, second = (store.fetch(space, np.array([1])).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert scripted.asked == [1]
