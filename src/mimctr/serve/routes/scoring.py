"""``POST /score``."""

import time
from collections.abc import Sequence
from typing import Annotated

import pydantic_core
from fastapi import APIRouter, Depends, Request, Response

from mimctr.serve import scorer
from mimctr.serve.queries import QueryState, RawQuery, Vector
from mimctr.serve.refusals import refusals
from mimctr.serve.routes.bodies import json_body, read_json_body
from mimctr.serve.routes.context import Context
from mimctr.serve.schemas import ScoreRequest, ScoreResponse
from mimctr.serve.service import STATES, Serving


def scoring_router(context: Context) -> APIRouter:
    """Return the routes that score."""
    router = APIRouter(tags=["scoring"])

    @router.post(
        "/score",
        response_model=ScoreResponse,
        responses=refusals(400, 409, 413, 422, 429, 503, 504),
        openapi_extra=json_body(ScoreRequest),
    )
    async def score(
        request: Request, seconds: Annotated[float, Depends(context.admission.seconds_left)]
    ) -> Response:
        """Return the probability of a click on each candidate."""
        body = await read_json_body(request, ScoreRequest)
        serving, found = await answer(context, body.to_request(), seconds, from_store=body.history is None)
        return Response(to_json(body.candidates, found, serving), media_type="application/json")

    return router


async def answer(
    context: Context, request: scorer.Request, seconds: float, *, from_store: bool
) -> tuple[Serving, scorer.Scores]:
    """Return the scores of a request, and what they were made with: one bundle and one generation.

    A query without a vector gets one first, of the same generation, if there is one and while there is time.

    Args:
        context: The application's parts.
        request: What is asked.
        seconds: That it may take.
        from_store: Whether the behavior store is asked for the history.

    Raises:
        HTTPException: it is not answered now.
        DataError: its query cannot be read.
    """
    context.admission.refuse_unready()
    serving, end = context.service.serving, time.monotonic() + seconds
    assert serving is not None, "admission asks whether a bundle is loaded"
    vector, origin = await _query_vector(context, serving, request, seconds)
    request, asked = request._replace(query_vector=vector), time.perf_counter()

    def work() -> scorer.Scores:
        waited = time.perf_counter() - asked
        found = context.service.score(serving, request, from_store=from_store)
        return found._replace(seconds={"wait": waited, **found.seconds})

    found = await context.admission.run(work, max(end - time.monotonic(), 0.0))
    context.metrics.queries.labels(origin).inc()
    for stage, spent in found.seconds.items():
        context.metrics.stages.labels(stage).observe(spent)
    for state, name in STATES.items():
        if count := int((found.states == state).sum()):
            context.metrics.vectors.labels(name).inc(count)
    return serving, found._replace(query_vector=origin)


def to_json(candidates: Sequence[int | str], found: scorer.Scores, serving: Serving) -> bytes:
    """Return a ``ScoreResponse`` as JSON, without an object for each score."""
    states = [STATES[one] for one in found.states.tolist()]
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
            "query_vector": found.query_vector,
        }
    )


async def _query_vector(
    context: Context, serving: Serving, request: scorer.Request, seconds: float
) -> tuple[Vector, QueryState]:
    """Return the vector of a request's query, of the generation that scores it."""
    space, queries = serving.scorer.space, context.service.queries
    if space is None or queries is None or not serving.scorer.reads_query:
        return None, QueryState.NONE
    query = RawQuery(request.query_fields.get("query_text"), request.query_image, request.query_vector)
    return await queries.find(space, query, seconds)
