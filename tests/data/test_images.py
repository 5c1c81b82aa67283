"""Decoding is safe: an image is wholly readable or an error, whatever its bytes."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mimctr.errors import DataError
from mimctr.images import decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, *, bits: int = 8) -> bytes:
    """Return an RGB PNG by hand; ``pixels`` may be too few."""
    stride = 3 * width * bits // 8
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return PNG_START + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG = encoded(Image.fromarray(PIXELS), "JPEG")
PNG = encoded(Image.fromarray(PIXELS), "PNG")


def test_a_png_keeps_its_pixels():
    assert np.array_equal(np.asarray(decode_image(PNG)), PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_gives_rgb_of_the_same_size(form):
    image = decode_image(encoded(Image.fromarray(PIXELS), form))
    assert (image.mode, image.size) == ("RGB", (9, 12))


def test_exif_rotation_is_applied():
    """Mutant: decode without ``exif_transpose``; phone photos then lie on their side."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 270 degrees to show
    rotated = decode_image(encoded(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert np.array_equal(np.asarray(rotated), np.rot90(PIXELS, k=-1))


def test_transparency_lies_over_white():
    """Mutant: ``convert('RGB')`` alone shows the color hidden under a transparent pixel."""
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.asarray(decode_image(encoded(clear, "PNG"))).min() == 255


def test_a_transparent_palette_lies_over_white():
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30])
    assert np.asarray(decode_image(encoded(palette, "PNG", transparency=0))).min() == 255


@pytest.mark.parametrize("transparent", [None, 700])
def test_16_bit_grey_is_scaled_as_16_bit_color_is(transparent):
    """Mutant: ``convert('RGB')`` alone clips at 255, so that nearly everything is white."""
    values = (np.arange(12 * 9) * 600 + 100).astype(np.uint16).reshape(12, 9)
    image = Image.fromarray(values)
    options = {} if transparent is None else {"transparency": transparent}
    color = png(9, 12, np.stack([values] * 3, axis=-1).astype(">u2").tobytes(), bits=16)
    expected = np.asarray(decode_image(color)).copy()
    if transparent is not None:
        expected[values == transparent] = 255
    assert np.array_equal(np.asarray(decode_image(encoded(image, "PNG", **options))), expected)


@pytest.mark.parametrize(("mode", "form"), [("L", "JPEG"), ("1", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG")])
def test_other_color_models_look_like_the_picture_they_were_made_from(mode, form):
    smooth = Image.fromarray(PIXELS).resize((36, 48), Image.Resampling.BICUBIC)
    made = smooth.convert(mode)
    image = decode_image(encoded(made, form))
    assert (image.mode, image.size) == ("RGB", (36, 48))
    distance = np.abs(np.asarray(image, dtype=int) - np.asarray(made.convert("RGB"), dtype=int))
    assert distance.mean() < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(form):
    frames = [Image.new("RGB", (9, 12), color) for color in ("red", "lime", "blue")]
    moving = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    assert Image.open(io.BytesIO(moving)).n_frames == 3
    assert np.abs(np.asarray(decode_image(moving), dtype=int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_and_tiny_pictures_are_pictures(size):
    image = decode_image(encoded(Image.new("RGB", size, (9, 80, 200)), "PNG"))
    assert image.size == size
    assert image.resize((16, 16), Image.Resampling.BILINEAR).getpixel((8, 8)) == (9, 80, 200)


def test_a_small_file_with_gigabytes_of_text_is_refused():
    header = len(PNG_START) + 25
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    bomb = PNG[:header] + text + PNG[header:]
    with pytest.raises(DataError, match=r"image: damaged or truncated \(Decompressed data too large"):
        decode_image(bomb)


def test_no_bytes_are_an_error():
    with pytest.raises(DataError, match=r"image: it is empty \(0 bytes\)\. Export it again\."):
        decode_image(b"")


def test_a_truncated_jpeg_is_an_error():
    with pytest.raises(DataError, match=r"image: damaged or truncated \(.*\)\. Export it again\."):
        decode_image(JPEG[: len(JPEG) // 2])


@pytest.mark.parametrize("missing", [5, 12, 20])
def test_a_png_without_its_end_is_an_error(missing):
    """All pixels are there, and the file was cut off all the same; so is one whose checksum is wrong."""
    for damaged in (PNG[:-missing], PNG[:-16] + b"\0\0\0\0" + PNG[-12:]):
        with pytest.raises(DataError, match=r"image: damaged or truncated"):
            decode_image(damaged)


def test_text_is_an_error_that_shows_how_it_begins():
    with pytest.raises(
        DataError, match=r"image: its 11 bytes are not JPEG, PNG, .* \(they begin with b'<html>40'\)"
    ):
        decode_image(b"<html>404..")


def test_postscript_is_never_handed_to_ghostscript():
    with pytest.raises(DataError, match="are not JPEG"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")


@pytest.mark.parametrize("side", [8_000, 30_000])
def test_a_bomb_is_refused_before_it_unpacks(side):
    """Mutant: check the size after ``load``. Both sides of Pillow's own limit."""
    with pytest.raises(DataError, match=r"image: larger than 50,000,000 pixels\. Scale it down\."):
        decode_image(png(side, side, b"0"))


def test_the_pixel_limit_counts_pixels():
    assert decode_image(PNG, max_pixels=108).size == (9, 12)
    with pytest.raises(DataError, match="larger than 107 pixels"):
        decode_image(PNG, max_pixels=107)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([JPEG, PNG]), st.integers(0, 400), st.integers(0, 255), st.integers(1, 400))
def test_damaged_bytes_decode_or_raise_data_error(data, place, value, length):
    damaged = bytearray(data[:length] if length % 3 == 0 else data)
    damaged[place % len(damaged)] = value
    with contextlib.suppress(DataError):  # any other exception fails
        assert decode_image(bytes(damaged)).mode == "RGB"


def jpeg(width: int, height: int, *, mode: str = "RGB", rotated: bool = False) -> bytes:
    """Return a JPEG with smooth gradients."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    picture = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6 if rotated else 1
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    ("width", "height", "wanted", "decoded"),
    [
        (800, 400, 50, (200, 100)),  # an eighth would be 50 high, a quarter is 100 = 2 * 50
        (800, 398, 50, (400, 199)),  # a quarter would be 99.5 high
        (100, 99, 50, (100, 99)),
        (99, 800, 50, (99, 800)),
        (30, 20, 50, (30, 20)),  # never larger than it is
    ],
)
def test_a_jpeg_is_decoded_at_twice_the_wanted_size_at_least(width, height, wanted, decoded, mode):
    """Mutant: the wanted size itself, of which a resize has nothing left to average."""
    data = jpeg(width, height, mode=mode)
    picture = decode_image(data, size=wanted)
    assert picture.size == decoded
    shrunk = decode_image(data).resize(decoded, Image.Resampling.BOX)
    np.testing.assert_allclose(np.asarray(picture, float), np.asarray(shrunk, float), atol=6)


def test_a_rotated_jpeg_is_upright_at_a_part_of_its_size_too():
    whole, part = (
        decode_image(jpeg(400, 200, rotated=True)),
        decode_image(jpeg(400, 200, rotated=True), size=25),
    )
    assert (whole.size, part.size) == ((200, 400), (50, 100))
    np.testing.assert_allclose(
        np.asarray(part, float), np.asarray(whole.resize((50, 100), Image.Resampling.BOX), float), atol=6
    )


def test_other_formats_are_decoded_whole_whatever_is_wanted():
    buffer = io.BytesIO()
    decode_image(jpeg(400, 300)).save(buffer, "PNG")
    assert decode_image(buffer.getvalue(), size=10).size == (400, 300)


def test_a_truncated_jpeg_is_refused_at_a_part_of_its_size_too():
    data = jpeg(800, 800)
    with pytest.raises(DataError, match="damaged or truncated"):
        decode_image(data[: len(data) // 2], size=20)
