"""New items into the center, from a table or a stream of JSON lines.

mimctr center ingest CENTER items.parquet
"""

import contextlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from mimctr.center.incoming import NewItem
from mimctr.center.log import Appended
from mimctr.center.realtime import ItemRealtime
from mimctr.data.keys import item_key
from mimctr.data.texts import visible_text
from mimctr.errors import DataError
from mimctr.images import MAX_BYTES
from mimctr.progress import track

MAX_SHOWN = 10
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
}


class Row(BaseModel):
    """A new item in a table or a line."""

    model_config = ConfigDict(extra="forbid")

    item_id: StrictInt | StrictStr
    title: StrictStr | None = None
    image: bytes | StrictStr | None = Field(None, description="the file itself, or its path")
    category: StrictStr | None = None
    deleted: StrictBool = False


class Ingested(BaseModel):
    """What became of the items."""

    num_items: int
    """That are in the log."""
    num_refused: int
    refused: list[str]
    """The first of them, and why."""


def main(
    center: Path, rows: Iterable[dict[str, Any] | DataError], *, images: Path, num_rows: int | None = None
) -> Ingested:
    """Encode and log items; each is acknowledged by the log before it counts.

    Args:
        center: Folder of the center.
        rows: An item each (:class:`Row`), or what is wrong with it.
        images: What the paths of pictures are relative to.
        num_rows: How many, if that is known.

    Raises:
        CenterError: there is no center, or another process took it over.
    """
    realtime = ItemRealtime(center, name=f"ingest {os.uname().nodename} {os.getpid()}")
    waiting: deque[Future[Appended]] = deque()
    found = Ingested(num_items=0, num_refused=0, refused=[])

    def settle() -> None:
        error = waiting.popleft().exception()
        if error is None:
            found.num_items += 1
        elif isinstance(error, DataError):
            _refuse(found, str(error))
        else:
            raise error

    try:
        for number, row in enumerate(track(rows, total=num_rows, description="ingest", unit="items")):
            try:
                item = read_item(row, images)
            except DataError as error:
                _refuse(found, f"row {number}: {error}")
                continue
            waiting.append(realtime.submit(item, wait=True))
            while waiting and waiting[0].done():
                settle()
        while waiting:
            settle()
    finally:
        realtime.close()
    return found


def _refuse(found: Ingested, told: str) -> None:
    found.num_refused += 1
    if len(found.refused) < MAX_SHOWN:
        found.refused.append(told)


def read_item(row: dict[str, Any] | DataError, images: Path) -> NewItem:
    """Return the item that a row says.

    Raises:
        DataError: it is not one, or its picture cannot be read.
    """
    if isinstance(row, DataError):
        raise row
    try:
        checked = Row.model_validate({name: value for name, value in row.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return NewItem(
        key=item_key(checked.item_id),
        item_id=str(checked.item_id),
        title=visible_text(checked.title),
        image=_image(checked.image, images),
        category=checked.category,
        deleted=checked.deleted,
    )


def _image(image: bytes | str | None, folder: Path) -> bytes | None:
    if not isinstance(image, str):
        return image
    path = (folder / image).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"picture {image}: lies outside of {folder}.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"picture {image}: larger than {MAX_BYTES:,} bytes. Scale it down.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"picture {image}: {error.strerror}.") from None


def read_table(path: Path) -> tuple[Iterator[dict[str, Any]], int | None]:
    """Return the rows of a Parquet, CSV or JSON lines file, or of all those of a folder, in the order of their names.

    Returns:
        rows: Of one file after the other; a folder's files are read when their turn comes.
        num_rows: How many, of one file.

    Raises:
        DataError: it is none, there is none, or one is not readable.
    """
    if not path.is_dir():
        table = _read(path)
        return table.iter_rows(named=True), len(table)
    parts = sorted(part for part in path.iterdir() if part.suffix in READERS)
    if not parts:
        raise DataError(f"{path}: holds no table of items. Known: {', '.join(READERS)}.")
    return itertools.chain.from_iterable(_read(part).iter_rows(named=True) for part in parts), None


def _read(path: Path) -> pl.DataFrame:
    if path.suffix not in READERS:
        raise DataError(
            f"{path}: not a table of items. Known: {', '.join(READERS)}; or '-' for JSON lines from stdin."
        )
    try:
        return READERS[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not readable ({str(error).splitlines()[0]}).") from None


def read_lines(lines: TextIO) -> Iterator[dict[str, Any] | DataError]:
    """Return the items of a stream of JSON lines, and what is wrong with a line that is none."""
    for number in itertools.count():
        line = lines.readline()
        if not line:
            return
        if line.strip():
            with contextlib.suppress(ValueError):
                parsed = json.loads(line)
                if isinstance(parsed, dict):
                    yield parsed
                    continue
            yield DataError(f"line {number + 1} is not a JSON object.")
