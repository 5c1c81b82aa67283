"""HTTP around an opened run: the same views as JSON (``/api``) and as pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mimctr.errors import MimctrError
from mimctr.explore.api import api_router
from mimctr.explore.catalogue import NotThere
from mimctr.explore.guard import Guard
from mimctr.explore.opened import OpenedRun
from mimctr.explore.pages import Pages, pages_router
from mimctr.explore.views import Views
from mimctr.images import MAX_BYTES as MAX_IMAGE_BYTES
from mimctr.serve.admission import Admission
from mimctr.serve.metrics import Metrics
from mimctr.serve.middleware import Gate
from mimctr.serve.refusals import refuse, why

MAX_BYTES = 100_000
"""Of a request without a picture."""


def create_app(
    run: OpenedRun,
    *,
    token: str | None = None,
    host: str = "127.0.0.1",
    num_threads: int = 2,
    max_waiting: int = 64,
    deadline: float = 30.0,
    num_hits: int = 24,
    num_neighbors: int = 8,
    max_behaviors: int = 50,
) -> FastAPI:
    """Return the application.

    Args:
        run: What is shown.
        token: That every request must bring; None: none, and only this machine's own names are answered.
        host: That is listened on; it is one of those names.
        num_threads: Requests that are worked on at a time.
        max_waiting: Requests that may wait or be worked on; more are told to come again.
        deadline: Seconds that a request may take, unless it says less (``X-Deadline-Ms``).
        num_hits: Items that a search shows.
        num_neighbors: Neighbors of an item by generation.
        max_behaviors: Behaviors of a user, the newest.
    """
    metrics = Metrics()
    admission = Admission(
        lambda: None, metrics.waiting, num_threads=num_threads, max_waiting=max_waiting, deadline=deadline
    )
    views = Views(run, num_hits=num_hits, num_neighbors=num_neighbors, max_behaviors=max_behaviors)
    pages = Pages(views)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()

    async def told(request: Request, error: Exception) -> Response:
        """Return an error: a page to who reads pages, a line of JSON to programs."""
        status, line, headers = (404, str(error), None) if isinstance(error, NotThere) else why(error)
        if request.url.path.startswith(("/api/", "/pictures/", "/static/")):
            return refuse(status, line, headers)
        return pages.error(status, line, headers)

    app = FastAPI(
        title="mimctr explore",
        description="A finished run, looked into.",
        lifespan=lifespan,
        docs_url=None,  # their scripts come from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.admission = admission
    app.include_router(api_router(views, admission))
    app.include_router(pages_router(pages, admission))
    for error in (MimctrError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, told)
    app.add_middleware(
        Gate,
        metrics=metrics,
        max_bytes=MAX_BYTES,
        larger={"/api/search/picture": MAX_IMAGE_BYTES, "/search/picture": MAX_IMAGE_BYTES},
        is_leaving=lambda: admission.is_leaving,
    )
    app.add_middleware(Guard, token=token, host=host)
    return app
