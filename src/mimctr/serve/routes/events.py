"""``POST /events``: what users did, kept for the next score."""

from typing import Annotated

from fastapi import APIRouter, Depends

from mimctr.serve.refusals import refusals
from mimctr.serve.routes.context import Context
from mimctr.serve.schemas import Events, Kept


def events_router(context: Context) -> APIRouter:
    """Return the routes that write to the behavior store."""
    router = APIRouter(tags=["writing"], dependencies=[Depends(context.permitted)])

    @router.post("/events", status_code=202, responses=refusals(400, 401, 413, 422, 429, 503, 504, 507))
    async def events(
        body: Events, seconds: Annotated[float, Depends(context.admission.seconds_left)]
    ) -> Kept:
        """Keep what users did; the next score without a history of its own sees it."""
        rows = [one.to_event() for one in body.events]
        await context.admission.run(lambda: context.service.append(rows), seconds)
        return Kept(num_events=len(rows))

    return router
