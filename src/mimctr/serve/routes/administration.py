"""Health, metrics, and which bundle is served."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mimctr.serve.routes.context import Context
from mimctr.serve.schemas import Reload


def administration_router(context: Context) -> APIRouter:
    """Return the routes that nobody scores with."""
    router = APIRouter()

    @router.post("/admin/reload", tags=["administration"], dependencies=[Depends(context.permitted)])
    async def reload(body: Reload) -> dict[str, Any]:
        """Serve another bundle, loaded and warmed beside the one that is served; if it is not sound, that one stays."""
        serving = await asyncio.to_thread(context.service.load, Path(body.bundle))
        return {"bundle": serving.name, "generation": serving.generation}

    @router.get("/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """Say that the process runs."""
        return {"live": True}

    @router.get("/health/ready", tags=["health"], responses={503: {"description": "not ready"}})
    async def ready() -> dict[str, bool]:
        """Say whether requests are answered."""
        why = context.admission.why_not()
        if why is not None:
            raise HTTPException(503, f"not ready: {why}")
        return {"ready": True}

    @router.get("/metrics", tags=["health"], response_class=Response)
    async def read_metrics() -> Response:
        """Return what Prometheus reads."""
        await asyncio.to_thread(_look, context)
        return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _look(context: Context) -> None:
    """Bring up to date what is not counted as it happens."""
    metrics, serving, behind = context.metrics, context.service.serving, context.service.behind()
    metrics.bundle.clear()
    if serving is not None:
        metrics.bundle.labels(serving.name).set(1)
        metrics.generation.set(serving.generation or 0)
    if behind is not None:
        metrics.lag.set(behind.num_windows)
        metrics.staleness.set(behind.seconds)
    if context.items is not None:
        metrics.items_waiting.set(context.items.num_waiting())
        metrics.disk_free.set(context.items.free_bytes())
    metrics.failing.set(context.service.follower_error is not None)
