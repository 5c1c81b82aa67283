"""HTTP around the service: the only place that parses requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mimctr.errors import DataError, MimctrError, StoreUnavailable
from mimctr.serve.admission import Admission
from mimctr.serve.metrics import Metrics
from mimctr.serve.middleware import Gate
from mimctr.serve.routes.administration import administration_router
from mimctr.serve.routes.context import Context
from mimctr.serve.routes.events import events_router
from mimctr.serve.routes.scoring import scoring_router
from mimctr.serve.service import Service

MAX_BYTES = 4_000_000
"""Of a request."""


def create_app(
    service: Service,
    *,
    token: str | None = None,
    num_threads: int = 1,
    max_waiting: int = 64,
    deadline: float = 1.0,
) -> FastAPI:
    """Return the application.

    Args:
        service: Answers.
        token: That writes and administration must bring as ``Authorization: Bearer``; None: they need none.
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
    context = Context(service, admission, metrics, token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()
        service.close()

    app = FastAPI(title="mimctr", description="Click-through rates with content interest.", lifespan=lifespan)
    app.include_router(scoring_router(context))
    if service.keeps_histories:
        app.include_router(events_router(context))
    app.include_router(administration_router(context))
    app.add_exception_handler(MimctrError, told)
    app.add_middleware(Gate, metrics=metrics, max_bytes=MAX_BYTES)
    return app


async def told(_: Request, error: Exception) -> JSONResponse:
    """Return an error of ours in one line, under the status that says whose it is."""
    status = 422 if isinstance(error, DataError) else 503 if isinstance(error, StoreUnavailable) else 409
    return JSONResponse({"detail": str(error)}, status_code=status)
