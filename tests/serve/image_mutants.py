"""Images that are damaged on purpose, from a seed; run as a script, they are decoded under a limit of memory."""

import io
import json
import resource
import signal
import struct
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mimctr.errors import DataError
from mimctr.images import MAX_PIXELS, decode_image

SIDES = (1_000, 7_000, 7_072, 12_000, 30_000, 65_535, 2**31 - 1)
SECONDS, MEMORY = 5, 2 * 2**30
"""Processor seconds of one image, and bytes of all: a picture of 50 megapixels with transparency takes about 1 GB."""


def originals() -> dict[str, bytes]:
    """Return sound images of six formats, one of which is not read, in several color models."""
    rng, made = np.random.default_rng(0), {}
    for width, height in ((5, 3), (40, 33)):
        color = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        smooth = Image.radial_gradient("L").resize((width, height))
        frames = [color.rotate(90 * n) for n in range(1, 3)]
        for name, image, form, settings in (
            ("rgb", color, "PNG", {}),
            ("palette", color.quantize(16), "PNG", {}),
            ("alpha", color.convert("RGBA"), "PNG", {}),
            ("bit", smooth.convert("1"), "PNG", {}),
            ("deep", smooth.convert("I;16"), "PNG", {}),
            ("rgb", color, "JPEG", {}),
            ("progressive", color, "JPEG", {"progressive": True}),
            ("cmyk", color.convert("CMYK"), "JPEG", {}),
            ("lossy", color, "WEBP", {}),
            ("lossless", color.convert("RGBA"), "WEBP", {"lossless": True}),
            ("moving", color, "WEBP", {"save_all": True, "append_images": frames}),
            ("still", color, "GIF", {}),
            ("moving", color, "GIF", {"save_all": True, "append_images": frames}),
            ("rgb", color, "BMP", {}),
            ("palette", color.quantize(16), "BMP", {}),
            ("rgb", color, "TIFF", {}),
        ):
            buffer = io.BytesIO()
            image.save(buffer, form, **settings)
            made[f"{form} {name} {width}x{height}"] = buffer.getvalue()
    return made


def mutants(count: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of damaged images."""
    rng, sound = np.random.default_rng(seed), originals()
    names = list(sound)
    yield "nothing", b""
    for number in range(count - 1):
        name = names[int(rng.integers(len(names)))]
        kind = list(KINDS)[number % len(KINDS)]
        other = sound[names[int(rng.integers(len(names)))]]
        yield f"{kind} of {name} ({number})", KINDS[kind](sound[name], other, rng)


def flipped(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 12))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def nearly_whole(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return data[: -int(rng.integers(1, 24))]


def spliced(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    cut = int(rng.integers(1, 64))
    return other[:cut] + data[cut:]


def swapped_magic(data: bytes, other: bytes, _: np.random.Generator) -> bytes:
    return other[:8] + data[8:]


def overwritten(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    place, size = int(rng.integers(len(data))), int(rng.integers(1, 40))
    return data[:place] + rng.bytes(size) + data[place + size :]


def shortened(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    place, size = int(rng.integers(len(data))), int(rng.integers(1, 40))
    return data[:place] + data[place + size :]


def doubled(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data + other[int(rng.integers(len(other))) :]


def resized(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """Let the header say another size, checksums included."""
    width, height = (
        int(SIDES[one] if rng.random() < 0.7 else rng.integers(0, 90)) for one in rng.integers(7, size=2)
    )
    short = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    if data.startswith(b"\x89PNG"):
        return with_checksums(data[:16] + struct.pack(">II", width, height) + data[24:])
    if data.startswith(b"GIF"):
        block = data.find(b"\x2c")
        frame = data[: block + 5] + short + data[block + 9 :] if rng.random() < 0.5 else data
        return frame[:6] + short + frame[10:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<ii", width, -height if rng.random() < 0.3 else height) + data[26:]
    if data.startswith(b"\xff\xd8"):
        start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return data[: start + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[start + 9 :]
    start = data.find(b"\x9d\x01\x2a")
    return data[: start + 3] + short + data[start + 7 :] if start > 0 else flipped(data, b"", rng)


def recomputed(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """Damage a PNG's chunks and let their checksums be right."""
    return with_checksums(flipped(data, b"", rng)) if data.startswith(b"\x89PNG") else flipped(data, b"", rng)


def bomb(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """Put megabytes of nothing into a PNG's text, profile or pixels."""
    if not data.startswith(b"\x89PNG"):
        return truncated(data, b"", rng)
    nothing = zlib.compress(bytes(int(rng.integers(1, 40)) * 1_000_000), 9)
    kind = int(rng.integers(4))
    heads = (b"zTXtComment\0\0", b"iCCPname\0\0", b"iTXtComment\0\1\0\0\0", b"IDAT")
    return data[:33] + chunk(heads[kind] + nothing) + data[33:]


def noise(_: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return (other[: int(rng.integers(0, 13))] if rng.random() < 0.5 else b"") + rng.bytes(
        int(rng.integers(0, 400))
    )


KINDS = {
    one.__name__: one
    for one in (
        *(flipped, truncated, nearly_whole, spliced, swapped_magic, overwritten, shortened),
        *(doubled, resized, recomputed, bomb, noise),
    )
}


def chunk(typed: bytes) -> bytes:
    """Return a PNG chunk of its type and data."""
    return struct.pack(">I", len(typed) - 4) + typed + struct.pack(">I", zlib.crc32(typed))


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks, as far as they can be told apart, match their checksums."""
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + size > len(data):
            break
        typed = data[place + 4 : place + 8 + size]
        parts.append(chunk(typed))
        place += 12 + size
    return b"".join(parts) + data[place:]


def is_broken(data: bytes) -> bool:
    """Return whether Pillow, asked strictly and at full size, finds an image broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).verify()
            Image.open(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - whatever it says
        return True
    return False


def main(count: int, seed: int = 0) -> None:
    """Decode as RIM does and print what became of the images; a crash, a hang or too much memory ends it before."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes: Counter[str] = Counter()
    for name, data in mutants(count, seed=seed):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        found: Image.Image | str
        try:
            found = decode_image(data, size=16)
        except DataError as error:
            found = str(error)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
        if isinstance(found, str):
            assert found.startswith("image: "), f"{name}: {found}"
            assert "\n" not in found, f"{name}: {found}"
            outcomes["refused"] += 1
        else:
            assert found.mode == "RGB", name
            assert found.width * found.height <= MAX_PIXELS, name
            assert not is_broken(data), f"{name}: accepted, and Pillow finds it broken"
            outcomes["accepted"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**outcomes, "peak_mb": peak}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
