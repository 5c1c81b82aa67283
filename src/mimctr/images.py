"""Bytes to pixels, safely: an image is either wholly readable or a ``DataError``.

The images come from other people's logs. So only formats whose decoders are plain C libraries are tried (never
PostScript, which Pillow hands to a program), the pixel count is checked before a pixel is decoded, and nothing is
guessed from a truncated file.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from mimctr.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
"""Most pixels of an image; as RGB they take 150 MB."""
MAX_BYTES = 20_000_000
"""Of an image's file, where it comes in alone."""
MEDIA_TYPES = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
"""What a file may be called over HTTP."""
OVERSAMPLING = 2
"""How much larger than asked for a JPEG is still decoded, at least, a side; Pillow's own choice for thumbnails."""
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged input."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, size: int | None = None) -> Image.Image:
    """Return the image as RGB, upright (EXIF rotation applied), transparency laid over white.

    An animation gives its first frame.

    Args:
        data: A complete JPEG, PNG, WebP, GIF or BMP file.
        max_pixels: Refuse larger images before decoding them: a few kilobytes can unpack to gigabytes.
        size: Height and width that the caller resizes to. A JPEG is then decoded at the smallest of its full, half,
            quarter and eighth size that is at least ``OVERSAMPLING`` times as large: most of its bytes need no
            inverse transform. docs/log.md says what it changes.

    Raises:
        DataError: empty, of another format, truncated, damaged, or too large.
    """
    with _telling(data, max_pixels):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise Image.DecompressionBombError
        if size is not None:
            image.draft(None, (OVERSAMPLING * size, OVERSAMPLING * size))
        if image.format == "PNG":
            # Reads every chunk's checksum, and that none is missing; loading does not.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def check_media_type(data: bytes, media_type: str) -> None:
    """See to it that an image is what it is said to be, by its beginning; nothing is decoded.

    Args:
        data: The file.
        media_type: One of :data:`MEDIA_TYPES`.

    Raises:
        DataError: it is another one, or none.
    """
    with _telling(data, MAX_PIXELS):
        found = Image.open(io.BytesIO(data), formats=FORMATS).format or ""
    if found.replace("MPO", "JPEG") != MEDIA_TYPES[media_type]:  # several JPEGs in one file
        raise DataError(f"image: said to be {media_type}, it is {found}. Say what it is.")


@contextlib.contextmanager
def _telling(data: bytes, max_pixels: int) -> Iterator[None]:
    """Let whatever Pillow says of an image be a ``DataError`` of one line."""
    if not data:
        raise DataError("image: it is empty (0 bytes). Export it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError:
        raise DataError(f"image: larger than {max_pixels:,} pixels. Scale it down.") from None
    except Image.UnidentifiedImageError:
        raise DataError(
            f"image: its {len(data):,} bytes are not {', '.join(FORMATS[:-1])} or {FORMATS[-1]} (they begin with "
            f"{data[:8]!r}). Convert it."
        ) from None
    except _UNREADABLE as error:
        raise DataError(f"image: damaged or truncated ({_first_line(error)}). Export it again.") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        image = _high_byte(image)
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA"):
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8 bits, with its transparency as alpha; Pillow's conversion would clip it at 255."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" in image.info:
        visible = values != image.info["transparency"]
        grey.putalpha(Image.fromarray(visible.astype(np.uint8) * 255))
    return grey


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
