"""HTTP around the service: the only place that parses requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mimctr.errors import MimctrError
from mimctr.serve.admission import Admission
from mimctr.serve.metrics import Metrics
from mimctr.serve.middleware import Gate
from mimctr.serve.refusals import refuse, why
from mimctr.serve.routes.administration import administration_router
from mimctr.serve.routes.context import Context
from mimctr.serve.routes.events import events_router
from mimctr.serve.routes.inference import inference_router
from mimctr.serve.routes.scoring import scoring_router
from mimctr.serve.service import Service

MAX_BYTES = 4_000_000
"""Of a request."""


def create_app(
    service: Service,
    *,
    token: str | None = None,
    bundles: Path | None = None,
    num_threads: int = 1,
    max_waiting: int = 64,
    deadline: float = 1.0,
) -> FastAPI:
    """Return the application.

    Args:
        service: Answers.
        token: That writes and administration must bring as ``Authorization: Bearer``; None: they need none.
        bundles: Folder that ``POST /admin/reload`` may take bundles from; None: the one that the bundle is in
            that the service has loaded already.
        num_threads: Requests that are scored at a time.
        max_waiting: Requests that may wait or be worked on; more are told to come again.
        deadline: Seconds that a request may take, unless it says less (``X-Deadline-Ms``).
    """
    metrics = Metrics()
    admission = Admission(
        service.is_ready,
        metrics.waiting,
        num_threads=num_threads,
        max_waiting=max_waiting,
        deadline=deadline,
    )
    if bundles is None and service.serving is not None:
        bundles = service.serving.scorer.bundle.folder.resolve().parent
    context = Context(service, admission, metrics, token, bundles)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()
        service.close()

    app = FastAPI(title="mimctr", description="Click-through rates with content interest.", lifespan=lifespan)
    app.state.admission = admission
    app.include_router(scoring_router(context))
    app.include_router(inference_router(context))
    if service.keeps_histories:
        app.include_router(events_router(context))
    app.include_router(administration_router(context))
    for error in (MimctrError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, told)
    app.add_middleware(Gate, metrics=metrics, max_bytes=MAX_BYTES, is_leaving=lambda: admission.is_leaving)
    return app


async def told(_: Request, error: Exception) -> Response:
    """Return an error in one line, under the status that says whose it is."""
    return refuse(*why(error))
