"""HTTP around the service: the only place that parses requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mimctr.errors import MimctrError
from mimctr.images import MAX_BYTES as MAX_IMAGE_BYTES
from mimctr.serve.admission import Admission
from mimctr.serve.items import Items
from mimctr.serve.metrics import Metrics
from mimctr.serve.middleware import Gate
from mimctr.serve.missing import Missing
from mimctr.serve.refusals import refuse, why
from mimctr.serve.routes.administration import administration_router
from mimctr.serve.routes.context import Context
from mimctr.serve.routes.events import events_router
from mimctr.serve.routes.inference import inference_router
from mimctr.serve.routes.items import items_router
from mimctr.serve.routes.scoring import scoring_router
from mimctr.serve.service import Service

MAX_BYTES = 4_000_000
"""Of a request."""
MAX_ITEM_BYTES = MAX_IMAGE_BYTES + 1_000_000
"""Of a request with an item: its picture alone, or a picture of three quarters of that in JSON."""


def create_app(
    service: Service,
    *,
    items: Items | None = None,
    scores: bool = True,
    token: str | None = None,
    bundles: Path | None = None,
    num_threads: int = 1,
    max_waiting: int = 64,
    deadline: float = 1.0,
    item_deadline: float = 10.0,
) -> FastAPI:
    """Return the application.

    Args:
        service: Answers.
        items: Takes items in; None: another process does.
        scores: Whether candidates are scored: not by a process that only takes items in.
        token: That writes and administration must bring as ``Authorization: Bearer``; None: they need none.
        bundles: Folder that ``POST /admin/reload`` may take bundles from; None: the one that the bundle is in
            that the service has loaded already, none where a store brought that.
        num_threads: Requests that are scored at a time.
        max_waiting: Requests that may wait or be worked on; more are told to come again.
        deadline: Seconds that a request may take, unless it says less (``X-Deadline-Ms``).
        item_deadline: Seconds that an item may take until it is on the disk.
    """
    metrics = Metrics(service.store)
    admission = Admission(
        service.is_ready if scores else lambda: None,
        metrics.waiting,
        num_threads=num_threads,
        max_waiting=max_waiting,
        deadline=deadline,
    )
    if bundles is None and service.serving is not None:
        folder = service.serving.scorer.bundle.folder
        bundles = folder.resolve().parent if folder.is_dir() else None  # gone, where a store brought it
    context = Context(service, admission, metrics, token, bundles, items)
    if items is not None and scores:
        service.missing = Missing(
            lambda key, damaged: items.renew(key, damaged=damaged),
            lambda outcome, count: metrics.missing.labels(outcome).inc(count),
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()
        if service.missing is not None:
            service.missing.close()
        if items is not None:
            items.close()
        service.close()

    app = FastAPI(title="mimctr", description="Click-through rates with content interest.", lifespan=lifespan)
    app.state.admission = admission
    if scores:
        app.include_router(scoring_router(context))
        app.include_router(inference_router(context))
    if items is not None:
        app.include_router(items_router(context, items, deadline=item_deadline))
    if service.keeps_histories:
        app.include_router(events_router(context))
    app.include_router(administration_router(context))
    for error in (MimctrError, OSError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, told)
    app.add_middleware(
        Gate,
        metrics=metrics,
        max_bytes=MAX_BYTES,
        larger={} if items is None else {"/items/": MAX_ITEM_BYTES},
        is_leaving=lambda: admission.is_leaving,
    )
    return app


async def told(_: Request, error: Exception) -> Response:
    """Return an error in one line, under the status that says whose it is."""
    return refuse(*why(error))
