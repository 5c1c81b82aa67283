"""HTTP around the service: the only place that parses requests.

Every request is counted in before any work is done: beyond what may wait it is told to come again (429). What takes
longer than its deadline is told so (504), and a process that is not ready, or is on its way out, says that (503).
"""

import asyncio
import functools
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic_core
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mimctr.center.record import State
from mimctr.data.keys import item_key
from mimctr.errors import DataError, MimctrError, StoreUnavailable
from mimctr.serve import scorer
from mimctr.serve.histories import Event
from mimctr.serve.service import STATES, Service, Serving

MAX_CANDIDATES, MAX_HISTORY, MAX_EVENTS = 5_000, 10_000, 1_000
MAX_BYTES = 4_000_000
"""Of a request."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
Id = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(min_length=1, max_length=512)]
Second = Annotated[int, Field(ge=0, lt=2**40)]
Text = Annotated[str, Field(max_length=4096)]


class Strict(BaseModel):
    """What comes in: nothing that is not known is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Behavior(Strict):
    """Something that the user did."""

    item_id: Id
    time: Second = Field(description="Seconds UTC.")
    kind: Annotated[str, Field(max_length=64)] = "click"


class ScoreRequest(Strict):
    """One user, now, and what might be shown."""

    user: Id | None = Field(None, description="As in the log that the model was trained on.")
    candidates: list[Id] = Field(min_length=1, max_length=MAX_CANDIDATES)
    history: list[Behavior] | None = Field(
        None, max_length=MAX_HISTORY, description="What the user did; none: the behavior store is asked."
    )
    time: Second | None = Field(None, description="Seconds UTC; none: now.")
    query: Text | None = Field(None, description="Text of the query.")
    user_fields: dict[str, Text | None] = {}
    query_fields: dict[str, Text | None] = {}
    context_fields: dict[str, Text | None] = {}


class Score(BaseModel):
    """What the model says of a candidate."""

    item_id: int | str
    probability: float = Field(description="Of a click.")
    vector: str = Field(description="Of its content: hit, miss, deleted or damaged.")


class ScoreResponse(BaseModel):
    """Scores in the order of the candidates."""

    scores: list[Score]
    bundle: str
    generation: int | None
    num_behaviors: int = Field(description="That the model saw.")
    num_known: int = Field(description="Of them, with a content vector.")


class NewEvent(Strict):
    """Something that a user did just now."""

    user: Id
    item_id: Id
    time: Second
    kind: Annotated[str, Field(min_length=1, max_length=64)] = "click"
    event_id: Annotated[str, Field(max_length=128)] = ""


class Events(Strict):
    """Some of them."""

    events: list[NewEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class Reload(Strict):
    """Which bundle to serve from now on."""

    bundle: str


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "mimctr_requests", "Requests by route and status.", ["route", "status"], **named
        )
        self.seconds = Histogram(
            "mimctr_request_seconds", "Time of a request.", ["route"], buckets=BUCKETS, **named
        )
        self.vectors = Counter("mimctr_vectors", "Candidates' vectors by what was found.", ["state"], **named)
        self.waiting = Gauge("mimctr_requests_in_flight", "Requests that wait or are worked on.", **named)
        self.generation = Gauge("mimctr_generation", "Generation that is served; 0 is none.", **named)


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
    metrics, pool = Metrics(), ThreadPoolExecutor(num_threads, thread_name_prefix="score")
    state = {"draining": False, "waiting": 0}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        state["draining"] = True
        pool.shutdown(wait=True)
        service.close()

    app = FastAPI(title="mimctr", description="Click-through rates with content interest.", lifespan=lifespan)

    @app.exception_handler(MimctrError)
    async def told(_: Request, error: MimctrError) -> JSONResponse:
        status = 422 if isinstance(error, DataError) else 503 if isinstance(error, StoreUnavailable) else 409
        return _refusal(status, str(error))

    def permitted(authorization: Annotated[str | None, Header()] = None) -> None:
        given = (authorization or "").removeprefix("Bearer ").encode()
        if token is not None and not hmac.compare_digest(given, token.encode()):
            raise HTTPException(401, "a token is missing or wrong", headers={"WWW-Authenticate": "Bearer"})

    async def admitted(work: Callable[[], Any], seconds: float) -> Any:
        """Run work in a thread, if there is room and while there is time."""
        why = "on its way out" if state["draining"] else service.is_ready()
        if why is not None:
            raise HTTPException(503, f"not ready: {why}", headers={"Retry-After": "1"})
        if state["waiting"] >= max_waiting:
            raise HTTPException(429, f"{max_waiting} requests wait already", headers={"Retry-After": "1"})
        state["waiting"] += 1
        metrics.waiting.set(state["waiting"])
        loop, future = asyncio.get_running_loop(), pool.submit(work)

        def done() -> None:
            state["waiting"] -= 1
            metrics.waiting.set(state["waiting"])

        # Counted until the thread is done with it, however long the caller waits.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), seconds)
        except TimeoutError:
            future.cancel()  # if nobody has begun with it
            raise HTTPException(504, f"not done within {seconds:g} s") from None

    def seconds_left(x_deadline_ms: Annotated[int | None, Header(ge=1)] = None) -> float:
        return deadline if x_deadline_ms is None else min(deadline, x_deadline_ms / 1000)

    @app.post("/score", tags=["scoring"], response_model=ScoreResponse)
    async def score(body: ScoreRequest, seconds: Annotated[float, Depends(seconds_left)]) -> Response:
        """Return the probability of a click on each candidate."""
        serving = service.serving
        request = to_request(body)

        def work() -> scorer.Scores:
            assert serving is not None, "admitted asks whether a bundle is loaded"
            return service.score(serving, request, from_store=body.history is None)

        found: scorer.Scores = await admitted(work, seconds)
        assert serving is not None
        for one, number in enumerate(np.bincount(found.states).tolist()):
            if number:
                metrics.vectors.labels(STATES[State(one)]).inc(number)
        return Response(to_json(body.candidates, found, serving), media_type="application/json")

    if service.keeps_histories:

        @app.post("/events", tags=["writing"], status_code=202, dependencies=[Depends(permitted)])
        async def events(body: Events, seconds: Annotated[float, Depends(seconds_left)]) -> dict[str, int]:
            """Keep what users did; the next score without a history of its own sees it."""
            rows = [
                Event(item_key(one.user), item_key(one.item_id), one.time, one.kind, one.event_id)
                for one in body.events
            ]
            await admitted(lambda: service.append(rows), seconds)
            return {"num_events": len(rows)}

    @app.post("/admin/reload", tags=["administration"], dependencies=[Depends(permitted)])
    async def reload(body: Reload) -> dict[str, Any]:
        """Serve another bundle, loaded and warmed beside the one that is served; if it is not sound, that one stays."""
        serving = await asyncio.to_thread(service.load, Path(body.bundle))
        metrics.generation.set(serving.generation or 0)
        return {"bundle": serving.name, "generation": serving.generation}

    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """Say that the process runs."""
        return {"live": True}

    @app.get("/health/ready", tags=["health"], responses={503: {"description": "not ready"}})
    async def ready() -> dict[str, bool]:
        """Say whether requests are answered."""
        why = "on its way out" if state["draining"] else service.is_ready()
        if why is not None:
            raise HTTPException(503, f"not ready: {why}")
        return {"ready": True}

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def read_metrics() -> Response:
        """Return what Prometheus reads."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(Counted, metrics=metrics, paths=functools.cache(lambda: known_paths(app)))
    return app


class Counted:
    """Middleware that refuses what is too large, and counts. A plain one: FastAPI's own costs a task per request.

    Args:
        app: Answers.
        metrics: Where it is counted.
        paths: Return those that are counted by name.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Callable[[], set[str]]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, route = time.perf_counter(), scope["path"] if scope["path"] in self.paths() else "other"
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        try:
            if length.isdigit() and int(length) > MAX_BYTES:
                refusal = _refusal(413, f"the request is larger than {MAX_BYTES:,} bytes")
                await refusal(scope, receive, sent)
            else:
                await self.app(scope, receive, sent)
        finally:
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)


def to_json(candidates: Sequence[int | str], found: scorer.Scores, serving: Serving) -> bytes:
    """Return a :class:`ScoreResponse` as JSON, without an object for each score."""
    states = [STATES[State(one)] for one in found.states.tolist()]
    return pydantic_core.to_json(
        {
            "scores": [
                {"item_id": name, "probability": value, "vector": one}
                for name, value, one in zip(candidates, found.probabilities.tolist(), states, strict=True)
            ],
            "bundle": serving.name,
            "generation": serving.generation,
            "num_behaviors": found.num_behaviors,
            "num_known": found.num_known,
        }
    )


def known_paths(app: FastAPI) -> set[str]:
    """Return the paths that the application has."""
    return {route.path for route in app.routes if hasattr(route, "path")}


def to_request(body: ScoreRequest) -> scorer.Request:
    """Return what a scorer understands."""
    behaviors = scorer.NO_BEHAVIORS
    if body.history:
        behaviors = scorer.Behaviors(
            np.array([item_key(one.item_id) for one in body.history], dtype=np.int64),
            np.array([one.time for one in body.history], dtype=np.int64),
            [one.kind for one in body.history],
        )
    query = {} if body.query is None else {"query_text": body.query}
    return scorer.Request(
        user=None if body.user is None else item_key(body.user),
        candidates=np.array([item_key(name) for name in body.candidates], dtype=np.int64),
        behaviors=behaviors,
        time=int(time.time()) if body.time is None else body.time,
        user_fields=body.user_fields,
        query_fields=query | body.query_fields,
        context_fields=body.context_fields,
    )


def _refusal(status: int, told: str) -> JSONResponse:
    return JSONResponse({"detail": told}, status_code=status)
