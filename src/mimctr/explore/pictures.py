"""Pictures of the dataset, made small; kept by a hash of what they are made from."""

import hashlib
import io
import threading
from typing import Literal, NamedTuple

from cachetools import LRUCache
from PIL import Image

from mimctr.data.blobs import BlobStore
from mimctr.errors import DataError
from mimctr.explore.catalogue import NotThere
from mimctr.images import decode_image

Group = Literal["items", "queries"]
Size = Literal[128, 384]
MEDIA_TYPE = "image/png"
KEPT = 128_000_000


class Thumbnail(NamedTuple):
    """A small PNG."""

    data: bytes
    etag: str
    """Names source and size."""


class Thumbnails:
    """Small pictures of some blobs.

    Args:
        stores: Where they come from.
        kept: Bytes of them that are kept in memory at most; no small picture has as many.
    """

    def __init__(self, stores: dict[Group, BlobStore], *, kept: int = KEPT) -> None:
        self._stores = stores
        self._kept: LRUCache[str, bytes] = LRUCache(kept, getsizeof=len)
        self._lock = threading.Lock()

    def get(self, group: Group, number: int, size: Size) -> Thumbnail:
        """Return a picture at most ``size`` high and wide, never larger than it is.

        Raises:
            NotThere: there is no such picture.
            DataError: it cannot be decoded.
        """
        store = self._stores[group]
        if not 0 <= number < store.num_blobs:
            raise NotThere(f"there is no picture {number} of {group} in this run")
        data = store.blob(number)
        name = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}-{size}"
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            kept = _small(data, size)
            with self._lock:
                self._kept[name] = kept
        return Thumbnail(kept, f'"{name}"')


def _small(data: bytes, size: int) -> bytes:
    try:
        picture = decode_image(data, size=size)
    except DataError as error:
        raise DataError(f"a picture of the dataset cannot be shown ({error})") from None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
