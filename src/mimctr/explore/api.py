"""The explorer's JSON, and its pictures."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from mimctr.explore.pictures import MEDIA_TYPE, Group
from mimctr.explore.schemas import Found, ItemView, RunView, SliceRow, SliceView, UserView
from mimctr.explore.views import Views
from mimctr.images import MEDIA_TYPES
from mimctr.serve.admission import Admission
from mimctr.serve.refusals import refusals

MAX_LENGTH = 4000
"""Of an id, a text, or the name of a slice, in characters."""
Text = Annotated[str, Query(min_length=1, max_length=MAX_LENGTH)]
Meant = Annotated[
    str, Query(min_length=1, max_length=MAX_LENGTH, pattern=r"\S", description="Not only spaces.")
]
Id = Annotated[str, Query(min_length=1, max_length=MAX_LENGTH, description="As in the raw tables.")]
Name = Annotated[str | None, Query(max_length=500, description="Encoder; none: C-SFT's.")]
MAX_ROW = 2**62
ROW = Query(ge=0, le=MAX_ROW, description="Of an impression in the dataset.")
BUSY = (422, 429, 503, 504)


def api_router(views: Views, admission: Admission) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api")
    pictures = APIRouter()
    Seconds = Annotated[float, Depends(admission.seconds_left)]
    told, told_there = refusals(*BUSY), refusals(404, *BUSY)

    @router.get("/run", responses=told)
    async def run(seconds: Seconds) -> RunView:
        """Say what the run is."""
        return await admission.run(views.about, seconds)

    @router.get("/search/words", responses=told)
    async def words(q: Text, seconds: Seconds) -> Found:
        """Find items by id, or by words of their titles."""
        return await admission.run(lambda: views.words(q), seconds)

    @router.get("/search/text", responses=told_there)
    async def text(q: Meant, seconds: Seconds, encoder: Name = None) -> Found:
        """Find items near a text."""
        return await admission.run(lambda: views.text(q, encoder), seconds)

    @router.post("/search/picture", responses=refusals(400, 404, 413, *BUSY), openapi_extra=picture_body())
    async def picture(request: Request, seconds: Seconds, encoder: Name = None) -> Found:
        """Find items near the picture that is the body."""
        body = await request.body()
        return await admission.run(lambda: views.picture(body, encoder), seconds)

    @router.get("/search/query/{number}", responses=told_there)
    async def query_picture(number: int, seconds: Seconds, encoder: Name = None) -> Found:
        """Find items near a query picture of the dataset."""
        return await admission.run(lambda: views.query_picture(number, encoder), seconds)

    @router.get("/item", responses=told_there)
    async def item(id: Id, seconds: Seconds) -> ItemView:
        """Say all that is known of an item."""
        return await admission.run(lambda: views.item(id), seconds)

    @router.get("/user", responses=told_there)
    async def user(
        id: Id,
        seconds: Seconds,
        row: Annotated[int | None, ROW] = None,
        now: bool = False,
        target: Annotated[str | None, Query(max_length=MAX_LENGTH)] = None,
        encoder: Name = None,
    ) -> UserView:
        """Say what a user did before a test impression, and what content makes of it for a target."""
        return await admission.run(
            lambda: views.user(id, row=row, now=now, target=target, encoder=encoder), seconds
        )

    @router.get("/slices", responses=told)
    async def slices(seconds: Seconds) -> list[SliceRow]:
        """Return metrics by slice."""
        return await admission.run(views.slices, seconds)

    @router.get("/slice", responses=told_there)
    async def one_slice(name: Text, seconds: Seconds) -> SliceView:
        """Return examples of a slice."""
        return await admission.run(lambda: views.slice(name), seconds)

    shown: dict[int | str, dict[str, Any]] = {
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "It is as it was."},
    }

    @pictures.get("/pictures/{group}/{number}", responses=told_there | shown, response_class=Response)
    async def thumbnail(
        request: Request, group: Group, number: int, seconds: Seconds, large: bool = False
    ) -> Response:
        """Return a picture of the dataset, made small."""
        found = await admission.run(lambda: views.thumbnail(group, number, large=large), seconds)
        headers = {"etag": found.etag, "cache-control": "private, no-cache"}
        if found.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type=MEDIA_TYPE, headers=headers)

    router_all = APIRouter()
    router_all.include_router(router)
    router_all.include_router(pictures)
    return router_all


def picture_body() -> dict:
    """Return what the documentation says of a body that is a picture."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(MEDIA_TYPES, binary)}}
