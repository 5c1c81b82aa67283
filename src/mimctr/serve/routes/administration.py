"""Health, metrics, and which bundle is served."""

import asyncio
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mimctr.center.publish import Behind
from mimctr.errors import MimctrError, StoreUnavailable
from mimctr.serve.folders import folder_within
from mimctr.serve.refusals import refusals
from mimctr.serve.remote import SCHEME
from mimctr.serve.routes.context import Context
from mimctr.serve.schemas import Live, Ready, Reload, Reloaded, Served


def administration_router(context: Context) -> APIRouter:
    """Return the routes that nobody scores with."""
    router = APIRouter()

    @router.post(
        "/admin/reload",
        tags=["administration"],
        dependencies=[Depends(context.permitted)],
        responses=refusals(400, 401, 409, 413, 422, 503),
    )
    async def reload(body: Reload) -> Reloaded:
        """Serve another bundle, loaded and warmed beside the one that is served; if it is not sound, that one stays."""
        on_store = body.bundle.startswith(SCHEME)
        name = body.bundle if on_store else folder_within(context.bundles, body.bundle)
        pool = ThreadPoolExecutor(1, "reload", initializer=give_way)
        loading = asyncio.get_running_loop().run_in_executor(pool, context.service.load, name)
        pool.shutdown(wait=False)  # its thread ends with the loading, also where the caller has gone
        serving = await loading
        return Reloaded(bundle=serving.name, generation=serving.generation)

    @router.get(
        "/admin/bundle",
        tags=["administration"],
        dependencies=[Depends(context.permitted)],
        responses=refusals(401, 503),
    )
    async def bundle() -> Served:
        """Say what is served, and with what engine."""
        context.admission.refuse_unready()
        serving = context.service.serving
        assert serving is not None, "admission asks whether a bundle is loaded"
        return Served(bundle=serving.name, generation=serving.generation, **serving.engine.said())

    @router.get("/health/live", tags=["health"])
    async def live() -> Live:
        """Say that the process runs."""
        return Live(live=True)

    @router.get("/health/ready", tags=["health"], responses=refusals(503))
    async def ready() -> Ready:
        """Say whether requests should be sent here."""
        context.admission.must_be_ready()
        return Ready(ready=True)

    text: dict[int | str, dict[str, Any]] = {
        200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}
    }

    @router.get("/metrics", tags=["health"], response_class=Response, responses=text | refusals(503))
    async def read_metrics() -> Response:
        """Return what Prometheus reads."""
        await asyncio.to_thread(_look, context)
        return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def give_way() -> None:
    """Let requests go before what this thread does, where threads have priorities."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _look(context: Context) -> None:
    """Bring up to date what is not counted as it happens."""
    metrics, serving = context.metrics, context.service.serving
    metrics.bundle.clear()
    if serving is not None:
        metrics.bundle.labels(serving.name, serving.engine.name).set(1)
        metrics.generation.set(serving.generation or 0)
    behind, unreachable = None, False
    try:
        behind = context.service.behind()
    except StoreUnavailable:
        unreachable = True
    except (MimctrError, OSError):
        pass  # not known; that the log cannot be read, the follower says
    if behind is None and (serving is None or serving.generation is None):
        behind = Behind(0, 0.0)  # there is nothing to follow
    metrics.unreachable.set(unreachable)
    metrics.lag.set(math.nan if behind is None else behind.num_windows)
    metrics.staleness.set(math.nan if behind is None else behind.seconds)
    items = context.items
    metrics.items_waiting.set(math.nan if items is None else items.num_waiting())
    metrics.disk_free.set(math.nan if items is None else items.free_bytes())
    metrics.failing.set(context.service.follower_error is not None)
