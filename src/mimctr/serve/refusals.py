"""How the service says no: one line in JSON under a status, the same form everywhere."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mimctr.center.database import DiskFull
from mimctr.errors import DataError, MimctrError, StoreUnavailable
from mimctr.serve.admission import AGAIN

MEANINGS = {
    400: "not a request",
    401: "a token is missing or wrong",
    404: "no such model or version",
    409: "it does not fit what is there",
    413: "too large",
    415: "in an encoding that is not known",
    422: "not a request",
    429: "too many wait; Retry-After says when to come again",
    503: "not ready, on its way out, or a store cannot be reached or written",
    504: "not done within the deadline",
    507: "the disk that it is written to is too full",
}


class Refusal(BaseModel):
    """Why a request is not answered."""

    detail: str


def refusals(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """Return what the documentation of a route says of the statuses that it may refuse with."""
    return {status: {"description": MEANINGS[status], "model": model} for status in statuses}


def refuse(
    status: int, told: str, headers: Mapping[str, str] | None = None, *, key: str = "detail"
) -> Response:
    """Return a refusal; what the request brought is escaped, so that any text of it can be told."""
    content = json.dumps({key: told})
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def why(error: Exception) -> tuple[int, str, Mapping[str, str] | None]:
    """Return the status, the line and the headers of an error that is not a fault of ours."""
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), error.headers
    if isinstance(error, RequestValidationError | ValidationError):
        return 422, first_of(error), None
    if isinstance(error, DiskFull):
        return 507, str(error), None
    if isinstance(error, OSError):
        return 503, str(error), AGAIN
    assert isinstance(error, MimctrError)
    known = {DataError: 422, StoreUnavailable: 503}
    status = next((number for kind, number in known.items() if isinstance(error, kind)), 409)
    return status, str(error), None


def first_of(error: RequestValidationError | ValidationError) -> str:
    """Return where the first thing is that is wrong, what it is, and how many there are beside it."""
    wrong = list(error.errors())
    where = ".".join(str(part) for part in wrong[0]["loc"] if part != "body")
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{where or 'the request'}: {wrong[0]['msg']}{more}"
