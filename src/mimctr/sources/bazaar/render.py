"""Styles and nuisances to 64 x 64 RGB images, many at a time.

A *look* is what a shopper sees (silhouette, pattern, colours, texture); a *nuisance* is what only the camera sees
(scene, pose, crop, light, noise). One look under two nuisances is one product in two photos.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from mimctr.sources.bazaar.shapes import Plane
from mimctr.sources.bazaar.surfaces import PATTERNS, TEXTURES, PerImage

SIDE = 64
JPEG_QUALITY = 88
CHUNK = 64
"""Images rendered at once: their planes fit the processor's cache."""


class Props(NamedTuple):
    """What a world can show: silhouettes and scenes, each a function of pixel coordinates."""

    shapes: Mapping[str, Callable[[Plane, Plane], Plane]]
    scenes: Mapping[str, Callable[[Plane, Plane, PerImage], Plane]]


class Look(NamedTuple):
    """What the image is of; one row an image."""

    shape: Int[ndarray, " images"]
    pattern: Int[ndarray, " images"]
    texture: Int[ndarray, " images"]
    main: Float[ndarray, "images 3"]
    second: Float[ndarray, "images 3"]
    frequency: Float[ndarray, " images"]


class Nuisance(NamedTuple):
    """How the image was taken; one row an image. Lengths are in half image sides, angles in radians."""

    scene: Int[ndarray, " images"]
    scene_colors: Float[ndarray, "images 2 3"]
    scene_angle: Float[ndarray, " images"]
    scene_frequency: Float[ndarray, " images"]
    angle: Float[ndarray, " images"]
    size: Float[ndarray, " images"]
    center: Float[ndarray, "images 2"]
    mirrored: Int[ndarray, " images"]
    light_angle: Float[ndarray, " images"]
    light: Float[ndarray, " images"]
    cast: Float[ndarray, "images 3"]
    noise: Float[ndarray, " images"]


def draw_nuisances(
    rng: np.random.Generator, num_images: int, *, num_scenes: int, strength: float = 1.0
) -> Nuisance:
    """Return random nuisances.

    Args:
        rng: Source of randomness.
        num_images: How many.
        num_scenes: Scenes to choose from.
        strength: 1 for a seller's picture; more for a shopper's photo: stronger tilt, crop, light and noise.
    """
    return Nuisance(
        scene=rng.integers(num_scenes, size=num_images),
        scene_colors=rng.random((num_images, 2, 3), dtype=np.float32),
        scene_angle=rng.uniform(0, 2 * np.pi, num_images),
        scene_frequency=rng.uniform(1.2, 4.0, num_images),
        angle=rng.normal(0, 0.22 * strength, num_images),
        size=np.exp(rng.normal(np.log(0.68), 0.13 * strength, num_images)).clip(0.42, 0.95),
        center=rng.normal(0, 0.13 * strength, (num_images, 2)).clip(-0.4, 0.4),
        mirrored=rng.integers(2, size=num_images),
        light_angle=rng.uniform(0, 2 * np.pi, num_images),
        light=rng.uniform(0.0, 0.35 * strength, num_images),
        cast=1 + rng.normal(0, 0.05 * strength, (num_images, 3)).clip(-0.15, 0.15),
        noise=rng.uniform(0.01, 0.04 * strength, num_images),
    )


def render(
    rng: np.random.Generator, look: Look, nuisance: Nuisance, props: Props
) -> UInt8[ndarray, "images 64 64 3"]:
    """Return the images of ``look`` as taken under ``nuisance``; ``rng`` draws the pixel noise.

    Args:
        rng: Source of the pixel noise.
        look: What is shown. Its ``shape`` counts through the silhouettes of ``props``.
        nuisance: How it is shown. Its ``scene`` counts through the scenes of ``props``.
        props: Silhouettes and scenes.
    """
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2)
    u, v = _object_coordinates(x, y, nuisance)  # (N, 64, 64)
    grain = rng.standard_normal(u.shape, dtype=np.float32)
    distance = _by_kind(list(props.shapes.values()), look.shape, u, v)
    pattern = _by_kind(list(PATTERNS.values()), look.pattern, u, v, _per_image(look.frequency))
    shade = _by_kind(list(TEXTURES.values()), look.texture, u, v, grain)
    scene = _scene(x, y, nuisance, props)

    pixel = 2 / (SIDE * _per_image(nuisance.size))
    inside = np.clip(0.5 - distance / pixel, 0, 1)[:, None]
    shade = shade * np.where(distance > -1.6 * pixel, np.float32(0.55), np.float32(1))  # a dark outline
    item = (_mix(look.main, look.second, pattern) * shade[:, None]).clip(0, 1)  # (N, 3, 64, 64)
    behind = _mix(nuisance.scene_colors[:, 0], nuisance.scene_colors[:, 1], scene)
    image = behind + inside * (item - behind)
    light = 1 + _per_image(nuisance.light) * (
        np.cos(_per_image(nuisance.light_angle)) * x + np.sin(_per_image(nuisance.light_angle)) * y
    )
    image *= light[:, None] * nuisance.cast[:, :, None, None].astype(np.float32)
    image += (_per_image(nuisance.noise) * grain[:, ::-1])[:, None]
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def encode(images: UInt8[ndarray, "images 64 64 3"]) -> list[bytes]:
    """Return each image as a JPEG file."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        files.append(buffer.getvalue())
    return files


def render_files(
    rng: np.random.Generator, look: Look, nuisance: Nuisance, props: Props
) -> Iterator[list[bytes]]:
    """Yield the JPEG files of :func:`render`, :data:`CHUNK` at a time."""
    for start in range(0, len(look.shape), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = render(rng, Look(*(a[rows] for a in look)), Nuisance(*(a[rows] for a in nuisance)), props)
        yield encode(chunk)


def _per_image(values: Float[ndarray, " images"]) -> Float[ndarray, "images 1 1"]:
    return values.astype(np.float32)[:, None, None]


def _object_coordinates(x: ndarray, y: ndarray, nuisance: Nuisance) -> tuple[Plane, Plane]:
    cos, sin, size = (_per_image(a) for a in (np.cos(nuisance.angle), np.sin(nuisance.angle), nuisance.size))
    right, down = x - _per_image(nuisance.center[:, 0]), y - _per_image(nuisance.center[:, 1])
    flip = _per_image(1.0 - 2.0 * nuisance.mirrored)
    return flip * (cos * right + sin * down) / size, (cos * down - sin * right) / size


def _scene(x: ndarray, y: ndarray, nuisance: Nuisance, props: Props) -> Plane:
    angle = 0.12 * np.sin(nuisance.scene_angle)  # scenes stand nearly upright
    cos, sin, shift = (
        _per_image(a) for a in (np.cos(angle), np.sin(angle), 0.4 * np.cos(nuisance.scene_angle))
    )
    u, v = cos * x + sin * y + shift, cos * y - sin * x + shift
    return _by_kind(list(props.scenes.values()), nuisance.scene, u, v, _per_image(nuisance.scene_frequency))


def _mix(first: ndarray, second: ndarray, part: Plane) -> Float[ndarray, "images 3 height width"]:
    first, second = (color.astype(np.float32)[:, :, None, None] for color in (first, second))
    return first + part[:, None] * (second - first)


def _by_kind(
    functions: list[Callable[..., Plane]], kinds: Int[ndarray, " images"], *planes: ndarray
) -> Plane:
    result = np.empty(planes[0].shape, dtype=np.float32)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        result[rows] = functions[kind](*(plane[rows] for plane in planes))
    return result
