"""What ``mimctr center`` does, beside building and filling one: generations, snapshots, stores."""

import functools
import logging
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimctr.center.center import Center, Seal
from mimctr.center.plan import plan
from mimctr.center.publish import behind, bring_up_to_date
from mimctr.center.record import DType
from mimctr.center.stores.redis import RedisStore
from mimctr.errors import ConfigError, StoreUnavailable

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 0.1
"""Between two looks at the log."""
SECONDS_WITHOUT = 2.0
"""Between two tries to reach a store."""


def vector_dtype(name: str) -> DType:
    """Return a dtype by its name.

    Raises:
        ConfigError: vectors are not kept so.
    """
    known = typing.get_args(DType)
    if name not in known:
        raise ConfigError(f"--dtype: '{name}' is not one of {', '.join(known)}.")
    return typing.cast(DType, name)


def open_stores(urls: Sequence[str], *, name: str) -> dict[str, RedisStore]:
    """Return parameter stores by their URLs."""
    return {url: RedisStore(url, name=name) for url in urls}


def init(folder: Path, *, num_partitions: int) -> dict[str, Any]:
    """Make an empty center."""
    center = Center.create(folder, num_partitions=num_partitions)
    return {"center": str(folder), "num_partitions": center.log.num_partitions}


def publish(folder: Path, urls: Sequence[str], *, name: str, follow: bool) -> dict[str, Any]:
    """Bring stores up to date with every live generation; with ``follow`` for ever.

    A store that cannot be reached is tried again while this follows, and is an error otherwise.

    Raises:
        ConfigError: no store is named.
        StoreUnavailable: a store cannot be reached.
        CenterError: a store does not keep what it is given, or follows another center.
    """
    if not urls:
        raise ConfigError("publish: no store is named. Add --store redis://HOST:PORT/0")
    center, stores = Center(folder), open_stores(urls, name=name)
    applied = 0
    while True:
        for store in stores.values():
            try:
                applied += _bring(center, store)
            except StoreUnavailable as error:
                if not follow:
                    raise
                logger.warning("%s; trying again", error)
                time.sleep(SECONDS_WITHOUT)
        if not follow:
            return {"num_windows": applied}
        time.sleep(SECONDS_BETWEEN)


def _bring(center: Center, store: RedisStore) -> int:
    """Apply what is new, then say which generation is active: the store holds it by then."""
    applied = 0
    for one in center.log.generations.all():
        if one.is_live and center.snapshots(one.number):
            applied += bring_up_to_date(
                center.log, store, one.number, functools.partial(center.open_base, one.number)
            )
    active = center.log.generations.active()
    space = None if active is None else center.log.generations.space(active.number)
    if space is not None and store.pointed() != space:
        store.point_at(space)
    return applied


def compact(folder: Path, generation: int | None) -> dict[str, Any]:
    """Write the next snapshot of a generation."""
    center = Center(folder)
    number = center.number(generation)
    return {"generation": number, "snapshot": center.compact(number)}


def seal(folder: Path, generation: int, urls: Sequence[str], *, name: str, min_coverage: float) -> Seal:
    """Compare log and stores, and let a generation be activated."""
    return Center(folder).seal(generation, open_stores(urls, name=name), min_coverage=min_coverage)


def activate(folder: Path, generation: int) -> dict[str, Any]:
    """Serve a sealed generation."""
    Center(folder).log.generations.activate(generation)
    return {"active": generation}


def rollback(folder: Path) -> dict[str, Any]:
    """Serve the generation that was active before."""
    log = Center(folder).log
    log.generations.activate(log.generations.previous().number)
    return {"active": log.generations.active().number}  # type: ignore[union-attr]


def drop(folder: Path, generation: int, urls: Sequence[str], *, name: str) -> dict[str, Any]:
    """Forget a generation."""
    Center(folder).drop(generation, list(open_stores(urls, name=name).values()))
    return {"dropped": generation}


def status(folder: Path, urls: Sequence[str], *, name: str) -> dict[str, Any]:
    """Return generations, and how many windows and seconds each store is behind in each."""
    center = Center(folder)
    stores = open_stores(urls, name=name)
    found: dict[str, Any] = {}
    for one in center.status():
        facts = one.model_dump(mode="json", exclude={"generation"})
        if one.state != "dropped":
            for url, store in stores.items():
                late = behind(center.log, store, one.generation)
                facts |= {f"lag of {url}": late.num_windows, f"staleness of {url}": round(late.seconds, 3)}
        found[f"generation {one.generation}"] = facts
    return found


def verify(folder: Path, urls: Sequence[str], *, name: str) -> dict[str, Any]:
    """Read and check everything."""
    Center(folder).verify(open_stores(urls, name=name))
    return {"verified": "center" + "".join(f", {url}" for url in urls)}


def collect_garbage(folder: Path, *, keep_snapshots: int, keep_hours: float) -> dict[str, Any]:
    """Remove what nobody needs."""
    snapshots, windows = Center(folder).collect_garbage(keep_snapshots=keep_snapshots, keep_hours=keep_hours)
    return {"num_snapshots_removed": snapshots, "num_windows_removed": windows}


def plan_catalogue(items: int, **settings: Any) -> dict[str, Any]:
    """Return what a catalogue takes (:func:`mimctr.center.plan.plan`), and what that rests on."""
    made = plan(items, **settings)
    return made._asdict() | {"assumptions": made.assumptions()}
