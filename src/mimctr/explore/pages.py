"""The explorer's pages: views rendered on the server; scripts only add sorting, uploading and going on by itself."""

import asyncio
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from mimctr.evaluate import written
from mimctr.explore.api import MAX_LENGTH, ROW, Name
from mimctr.explore.catalogue import NotThere
from mimctr.explore.chart import life_chart
from mimctr.explore.schemas import Found
from mimctr.explore.views import Views
from mimctr.images import MAX_BYTES
from mimctr.report import wording
from mimctr.serve.admission import Admission

STATIC = {"explore.css": "text/css", "explore.js": "text/javascript", "icon.svg": "image/svg+xml"}
OptionalText = Annotated[str, Query(max_length=MAX_LENGTH)]


class Pages:
    """Renders views.

    Args:
        views: Of the run.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self._environment = Environment(
            loader=PackageLoader("mimctr.explore"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            day=wording.day, signed=written.signed, ago=ago, life_chart=life_chart, address=address
        )
        self._environment.globals.update(
            run=views.run,
            encoders=list(views.run.generations),
            asks=list(views.run.asks),
            max_bytes=MAX_BYTES,
            max_length=MAX_LENGTH,
            wording=wording,
        )

    def render(self, name: str, **values: Any) -> Response:
        """Return a page."""
        return self._page(name, 200, None, **values)

    def error(self, status: int, line: str, headers: Mapping[str, str] | None) -> Response:
        """Return what is wrong as a page."""
        return self._page("error", status, headers, status=status, line=line)

    def _page(self, name: str, code: int, headers: Mapping[str, str] | None, **values: Any) -> Response:
        html = self._environment.get_template(f"{name}.html.jinja").render(**values)
        return Response(html, status_code=code, headers=headers, media_type="text/html")


def pages_router(pages: Pages, admission: Admission) -> APIRouter:
    """Return the routes of the pages; none is in the documentation, which is of the JSON."""
    router, views = APIRouter(include_in_schema=False), pages.views
    Seconds = Annotated[float, Depends(admission.seconds_left)]

    async def answer(seconds: float, work: Callable[[], Response]) -> Response:
        return await admission.run(work, seconds)

    @router.get("/")
    async def start(seconds: Seconds) -> Response:
        return await answer(seconds, lambda: pages.render("start", about=views.about()))

    @router.get("/search")
    async def search(
        seconds: Seconds, q: OptionalText = "", by: OptionalText = "words", encoder: Name = None
    ) -> Response:
        def work() -> Response:
            found: Found | None = None
            if q.strip():
                found = views.text(q, encoder) if by == "text" else views.words(q)
            return pages.render("search", found=found, q=q, by=by, encoder=encoder, query=None)

        return await answer(seconds, work)

    @router.post("/search/picture")
    async def picture(request: Request, seconds: Seconds, encoder: Name = None) -> Response:
        body = await request.body()
        return await answer(seconds, lambda: pages.render("hits", found=views.picture(body, encoder)))

    @router.get("/search/query/{number}")
    async def query(number: int, seconds: Seconds, encoder: Name = None) -> Response:
        def work() -> Response:
            found = views.query_picture(number, encoder)
            return pages.render("search", found=found, q="", by="words", encoder=encoder, query=number)

        return await answer(seconds, work)

    @router.get("/item")
    async def item(seconds: Seconds, id: OptionalText = "", all: bool = False) -> Response:
        encoders = None if all else views.run.principal
        return await answer(seconds, lambda: pages.render("item", view=views.item(id, encoders=encoders)))

    @router.get("/user")
    async def user(
        seconds: Seconds,
        id: OptionalText = "",
        row: Annotated[int | None, ROW] = None,
        now: bool = False,
        target: OptionalText = "",
        encoder: Name = None,
    ) -> Response:
        def work() -> Response:
            given = target if target.strip() else ""
            view = views.user(id, row=row, now=now, target=given, encoder=encoder or None)
            return pages.render("user", view=view, given_target=given, now=now)

        return await answer(seconds, work)

    @router.get("/slices")
    async def slices(seconds: Seconds) -> Response:
        return await answer(seconds, lambda: pages.render("slices", rows=views.slices()))

    @router.get("/slice")
    async def one_slice(seconds: Seconds, name: OptionalText = "") -> Response:
        return await answer(seconds, lambda: pages.render("slice", view=views.slice(name)))

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in STATIC:
            raise NotThere("there is no such file")
        data = await asyncio.to_thread((files("mimctr.explore") / "static" / name).read_bytes)
        return Response(data, media_type=STATIC[name], headers={"cache-control": "no-cache"})

    return router


def address(path: str, **query: object) -> str:
    """Return an address; what is None or empty is left out, 0 is not: it is an id."""
    return f"{path}?{urlencode({name: value for name, value in query.items() if value is not None and value != ''})}"


def ago(seconds: int) -> str:
    """Return a stretch of time in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds} s"
