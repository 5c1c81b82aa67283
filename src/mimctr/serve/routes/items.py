"""``PUT`` and ``DELETE /items/{item_id}``: new items, acknowledged when they are on the disk."""

import asyncio
import contextlib
import queue
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError

from mimctr.center.database import DiskFull
from mimctr.center.incoming import NewItem
from mimctr.data.keys import item_key
from mimctr.data.texts import visible_text
from mimctr.errors import DataError, Fenced, MimctrError
from mimctr.images import MEDIA_TYPES, check_media_type
from mimctr.serve.admission import AGAIN, MAX_DEADLINE_MS
from mimctr.serve.items import Items
from mimctr.serve.refusals import refusals
from mimctr.serve.routes.bodies import JSON, json_body, read_json_body
from mimctr.serve.routes.context import Context
from mimctr.serve.schemas import ItemContent, ItemTaken, LongText, ShortText

BYTES = "application/octet-stream"
MAX_ID = 512
LIKE_A_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
"""Ids that a caller may mean as a number: these say which they are."""
IdType = Annotated[
    Literal["integer", "text"] | None,
    Query(description="What the id is in the catalogue. Ids that look like a number need it: 7 is not '7'."),
]
BODY = json_body(ItemContent)
BODY["requestBody"]["content"] |= {
    name: {"schema": {"type": "string", "format": "binary"}} for name in (*MEDIA_TYPES, BYTES)
}


def items_router(context: Context, items: Items, *, deadline: float) -> APIRouter:
    """Return the routes by which items come and go.

    Args:
        context: The application's parts.
        items: Takes them in.
        deadline: Seconds that an item may take, unless it says less.
    """
    router = APIRouter(
        tags=["items"],
        dependencies=[Depends(context.permitted)],
        responses=refusals(400, 401, 409, 413, 415, 422, 429, 503, 504, 507),
    )

    async def seconds_left(
        x_deadline_ms: Annotated[int | None, Header(ge=1, le=MAX_DEADLINE_MS)] = None,
    ) -> float:
        return deadline if x_deadline_ms is None else min(deadline, x_deadline_ms / 1000)

    @router.put("/items/{item_id:path}", status_code=202, openapi_extra=BODY)
    async def put(
        request: Request,
        item_id: str,
        seconds: Annotated[float, Depends(seconds_left)],
        id_type: IdType = None,
        title: Annotated[LongText | None, Query(description="Of an item whose picture is the body.")] = None,
        category: Annotated[ShortText | None, Query(description="Likewise.")] = None,
    ) -> ItemTaken:
        """Take a new or changed item in; the same content again is a new version with the same vector.

        The body is JSON, or the picture's file alone; title and category then stand in the address.
        """
        with _counted(context):
            name = read_id(item_id, id_type)
            content = await _read_content(request, title, category)
            item = NewItem(
                key=item_key(name),
                item_id=str(name),
                title=visible_text(content.title),
                image=content.image,
                category=visible_text(content.category),
            )
            return await _taken(items, item, name, seconds)

    @router.delete("/items/{item_id:path}", status_code=202)
    async def delete(
        request: Request,
        item_id: str,
        seconds: Annotated[float, Depends(seconds_left)],
        id_type: IdType = None,
    ) -> ItemTaken:
        """Let an item go, whether or not it ever came; it has no vector from then on."""
        with _counted(context):
            name = read_id(item_id, id_type)
            _refuse_unknown(request, {"id_type"})
            item = NewItem(key=item_key(name), item_id=str(name), deleted=True)
            return await _taken(items, item, name, seconds)

    return router


def read_id(item_id: str, id_type: Literal["integer", "text"] | None) -> int | str:
    """Return the id that a path names.

    Args:
        item_id: As it stands in the path.
        id_type: What the caller says that it is.

    Raises:
        DataError: it is none, or may be an integer and a text, which are two items, and the caller does not say which.
    """
    if not item_id or len(item_id) > MAX_ID:
        raise DataError(f"item id: has {len(item_id)} characters, allowed are 1 to {MAX_ID}.")
    if "\ufffd" in item_id:  # what servers put for bytes that are no text; two such ids would become one
        raise DataError("item id: it is not UTF-8.")
    if id_type is None:
        if LIKE_A_NUMBER.fullmatch(item_id):
            raise DataError(
                f"item id {item_id}: an integer and a text are two items. Add ?id_type=integer or ?id_type=text, as "
                "the catalogue has it."
            )
        return item_id
    if id_type == "text":
        return item_id
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", item_id) or int(item_id) >= 2**63:
        raise DataError(f"item id {item_id}: not an integer from 0 to {2**63 - 1}.")
    return int(item_id)


async def _read_content(request: Request, title: str | None, category: str | None) -> ItemContent:
    """Return what a request says of its item.

    Raises:
        HTTPException: 415 neither JSON nor a picture.
        RequestValidationError: what is JSON is not an item.
        DataError: the picture is not what it is said to be.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type == JSON:
        _refuse_unknown(request, {"id_type"})
        return await read_json_body(request, ItemContent)
    if media_type not in (*MEDIA_TYPES, BYTES):
        known = ", ".join((JSON, *MEDIA_TYPES, BYTES))
        raise HTTPException(415, f"content-type '{media_type}': send one of {known}.")
    _refuse_unknown(request, {"id_type", "title", "category"})
    image = await request.body()
    if media_type != BYTES:
        check_media_type(image, media_type)
    return ItemContent.model_construct(title=title, category=category, image=image)


def _refuse_unknown(request: Request, known: set[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise DataError(
            f"{', '.join(unknown)}: nothing of that name stands in the address of such a request; "
            f"known are {', '.join(sorted(known))}."
        )


async def _taken(items: Items, item: NewItem, name: int | str, seconds: float) -> ItemTaken:
    """Wait until an item is on the disk.

    Raises:
        HTTPException: 429 too many wait, 503 not the producer, 504 not within ``seconds``, 507 no room.
        MimctrError: the item cannot be taken in.
    """
    try:
        done = asyncio.wrap_future(items.submit(item))
        appended = await asyncio.wait_for(asyncio.shield(done), seconds)
    except queue.Full:
        raise HTTPException(429, "too many items wait already", headers=AGAIN) from None
    except TimeoutError:
        raise HTTPException(
            504,
            f"not done within {seconds:g} s; the item may still be taken in. Send it again, or look later.",
        ) from None
    except DiskFull as error:
        raise HTTPException(507, str(error)) from None
    except (Fenced, OSError) as error:
        raise HTTPException(503, str(error)) from None
    return ItemTaken(item_id=name, version=appended.version, windows=appended.seqs)


@contextlib.contextmanager
def _counted(context: Context) -> Iterator[None]:
    """Count what becomes of an item: accepted, refused (the caller's fault, or no room), failed."""
    outcome = "failed"
    try:
        yield
        outcome = "accepted"
    except HTTPException as error:
        outcome = "failed" if error.status_code in (503, 504) else "refused"
        raise
    except (MimctrError, RequestValidationError):
        outcome = "refused"
        raise
    finally:
        context.metrics.items.labels(outcome).inc()
