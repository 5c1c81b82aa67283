"""What pictures of items are drawn with: a picture in a tile, a line of text that fits, a file of limited size."""

import io
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from mimctr.images import decode_image

TILE, GAP = 128, 8
"""Pixels: side of one picture, space between two."""
LARGEST, SMALLEST = 27, 13
"""Font sizes: a line of text that is too wide is set smaller, then cut."""
PAPER, INK, FRAME, POSITIVE = "#ffffff", "#30343b", "#d8dbe0", "#0a7d4f"
QUALITIES = (90, 80, 70, 60)
"""Of a JPEG file, best first; where none is small enough, the picture is made smaller."""


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, as matplotlib brings it: Pillow's own font has no minus and no accents."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def paste_picture(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    data: bytes | None,
    *,
    place: tuple[int, int],
    side: int = TILE,
) -> None:
    """Put one picture into the middle of a square tile; words where there is no picture.

    Args:
        sheet: It is drawn on.
        draw: Of ``sheet``.
        data: An encoded image.
        place: Left top corner of the tile.
        side: Of the tile.

    Raises:
        DataError: ``data`` is no image.
    """
    left, top = place
    if data is None:
        write_line(draw, (left + GAP, top + side // 2), "no image", width=side - 2 * GAP)
        return
    picture = fit(decode_image(data), side)
    sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))


def fit(picture: Image.Image, side: int = TILE) -> Image.Image:
    """Return a picture scaled to touch the sides of a tile from within, at least one pixel wide and high."""
    scale = side / max(picture.size)
    width, height = (max(round(length * scale), 1) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def write_line(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, *, width: int, largest: int = LARGEST
) -> None:
    """Write a line of text from ``place``, the middle of its left end; smaller or cut where wider than ``width``."""
    size = largest
    while size > SMALLEST and draw.textlength(text, font=font_of(size)) > width:
        size -= 1
    font = font_of(size)
    shown = text
    while shown and draw.textlength(shown, font=font) > width:
        shown = shown.removesuffix("…")[:-1] + "…" if len(shown) > 1 else ""
    draw.text(place, shown, fill=INK, font=font, anchor="lm")


def can_write(text: str) -> bool:
    """Return whether the font of pictures has every letter of a text: it has Latin, Greek, Cyrillic, not CJK."""
    font = font_of(LARGEST)
    box = bytes(font.getmask("\uffff"))
    return not any(bytes(font.getmask(letter)) == box for letter in set(text))


def break_lines(text: str, *, width: int, size: int, most: int) -> list[str]:
    """Return a text in at most ``most`` lines, broken between words; the last one may be too wide."""
    font = font_of(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (font.getlength(longer) <= width or len(lines) == most):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def encode_jpeg(picture: Image.Image, *, limit: int) -> bytes:
    """Return a picture as JPEG of at most ``limit`` bytes, as good and as large as that allows."""
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=quality)
            if buffer.tell() <= limit or max(picture.size) == 1:
                return buffer.getvalue()
        width, height = (max(side * 3 // 4, 1) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
