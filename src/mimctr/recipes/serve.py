"""Score over HTTP: a bundle, the center's vectors, and histories kept fresh by events.

mimctr serve bundle --center center
"""

import gc
import ipaddress
import os
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.interface import ParameterStore
from mimctr.center.stores.redis import RedisStore
from mimctr.errors import ConfigError
from mimctr.recipes.ctr_model import load_model
from mimctr.serve.engines import EngineSetting
from mimctr.serve.histories import HistoryStore, LocalHistories, RedisHistories
from mimctr.serve.items import Items
from mimctr.serve.remote import BundleStore
from mimctr.serve.service import Service
from mimctr.train.memory import keep_freed_memory

TOKEN = "MIMCTR_TOKEN"


class Listening(BaseModel):
    """Where a service listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1", description=f"Address to listen on; any that is not loopback needs {TOKEN}."
    )
    port: int = Field(8080, ge=0, le=65535, description="To listen on.")
    shutdown_seconds: float = Field(
        10.0, gt=0, description="That requests have to end when the process is told to."
    )


class Config(Listening):
    """Settings of ``mimctr serve``."""

    num_threads: int = Field(1, ge=1, description="Requests that are scored at a time, on one core each.")
    max_waiting: int = Field(64, ge=1, description="Requests that may wait or be worked on; more get 429.")
    deadline: float = Field(1.0, gt=0, description="Seconds that a request may take; more get 504.")
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="Between not being ready and the end of listening, when the process is told to go: what a load "
        "balancer takes to see that.",
    )
    bundles: str = Field(
        "", description="Folder that reload may take bundles from; none: the one that the first bundle is in."
    )
    store: str = Field("", description="URL of the parameter store; none: a store of this process.")
    cache_rows: int = Field(
        0, ge=0, description="Hot rows of a store elsewhere that are kept in this process; 0: none."
    )
    cache_seconds: float = Field(
        1.0, gt=0, description="That a row is kept; so much later is its next version seen."
    )
    histories: str = Field(
        "", description="File, or redis:// URL, of the behavior store; none: /events is not there."
    )
    engine: EngineSetting = Field(
        "auto",
        description="What computes logits: PyTorch, ONNX Runtime, or the faster of them; ONNX Runtime is refused where "
        "it differs from PyTorch.",
    )
    name: str = Field("mimctr", description="Of the center on its stores.")
    items: bool = Field(
        False,
        description="Take items in: PUT and DELETE /items. One process of a center does; the last to start.",
    )
    items_waiting: int = Field(256, ge=1, description="Items that may wait to be encoded; more get 429.")
    item_deadline: float = Field(
        10.0, gt=0, description="Seconds that an item may take to be on the disk; more get 504."
    )
    disk_floor_mb: int = Field(
        512, ge=0, description="MB that must be free on the center's disk; else items get 507."
    )


def read_token(config: Listening, *, command: str = "serve") -> str | None:
    """Return the token that callers must bring: for writes to the service, for everything of the explorer.

    Raises:
        ConfigError: the address can be reached from elsewhere, and there is none.
    """
    token = os.environ.get(TOKEN) or None
    try:
        loopback = config.host == "localhost" or ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and token is None:
        raise ConfigError(
            f"{command}: {config.host} can be reached from elsewhere. Set {TOKEN}, or listen on 127.0.0.1."
        )
    return token


def make_service(bundle: str | None, center: Path | None, config: Config) -> Service:
    """Return a service that answers with ``bundle``, a folder or ``store:LABEL``.

    Without one it scores nothing, and follows no center.

    Raises:
        MimctrError: the bundle, the center or a store is not what it should be.
    """
    keep_freed_memory()
    torch.set_num_threads(1)

    def open_histories() -> HistoryStore:
        if "://" in config.histories:
            return RedisHistories(config.histories, name=config.name)
        return LocalHistories(Path(config.histories))

    service = Service(
        load_model,
        center=None if bundle is None else center,
        store=open_store(config),
        open_histories=open_histories if config.histories else None,
        bundles=BundleStore(config.store, name=config.name) if config.store else None,
        engine=config.engine,
    )
    try:
        if bundle is not None:
            service.load(bundle)
    except BaseException:
        service.close()
        raise
    return service


def open_store(config: Config) -> ParameterStore | None:
    """Return the parameter store that a service is told to ask, None where that is one of its own."""
    if not config.store:
        return None
    store = RedisStore(config.store, name=config.name)
    if not config.cache_rows:
        return store
    return CachedStore(store, max_rows=config.cache_rows, seconds=config.cache_seconds)


def main(bundle: str | None, center: Path | None, config: Config) -> None:
    """Serve until told to stop.

    Args:
        bundle: What scores; None where the process only takes items in.
        center: Folder of the center; Base needs none.
        config: Settings.

    Raises:
        ConfigError: FastAPI is not installed, the address needs a token, or there is nothing to do.
    """
    if bundle is None and not config.items:
        raise ConfigError("serve: no bundle, and no items to take in. Name a bundle, or set items=true.")
    if config.items and center is None:
        raise ConfigError("serve: items=true needs the center that they go to. Give --center.")
    try:
        from mimctr.serve.app import create_app
        from mimctr.serve.process import run_until_told
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve: needs {error.name}. Run: pip install 'mimctr[serve]'") from None
    token = read_token(config)
    service, items = make_service(bundle, center, config), None
    if config.items and center is not None:
        items = Items(center, max_waiting=config.items_waiting, disk_floor=config.disk_floor_mb * 1_000_000)
    app = create_app(
        service,
        items=items,
        scores=bundle is not None,
        token=token,
        bundles=Path(config.bundles) if config.bundles else None,
        num_threads=config.num_threads,
        max_waiting=config.max_waiting,
        deadline=config.deadline,
        item_deadline=config.item_deadline,
    )
    gc.collect()
    gc.freeze()  # what stays for good is not looked through again while requests wait
    run_until_told(
        app,
        host=config.host,
        port=config.port,
        shutdown_seconds=config.shutdown_seconds,
        drain_seconds=config.drain_seconds,
    )
