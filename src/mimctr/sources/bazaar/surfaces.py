"""What fills a silhouette and what lies behind it: patterns, textures, palettes, scenes.

Patterns and scenes return how much of the second colour a pixel has, in [0, 1].
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mimctr.sources.bazaar.shapes import Plane

PerImage = Float[ndarray, "images 1 1"]

PALETTES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "red": ((0.80, 0.10, 0.12), (0.98, 0.86, 0.80)),
    "amber": ((0.97, 0.66, 0.08), (0.50, 0.22, 0.05)),
    "lime": ((0.66, 0.86, 0.16), (0.98, 0.98, 0.78)),
    "forest": ((0.07, 0.38, 0.18), (0.72, 0.84, 0.62)),
    "teal": ((0.05, 0.62, 0.62), (0.82, 0.97, 0.94)),
    "navy": ((0.09, 0.16, 0.52), (0.62, 0.78, 0.98)),
    "violet": ((0.46, 0.16, 0.66), (0.87, 0.76, 0.97)),
    "pink": ((0.97, 0.48, 0.68), (0.62, 0.08, 0.34)),
    "earth": ((0.48, 0.30, 0.17), (0.88, 0.76, 0.58)),
    "mono": ((0.10, 0.10, 0.11), (0.94, 0.94, 0.94)),
}
"""Main and second colour of each palette, RGB in [0, 1]."""


def _step(x: Plane) -> Plane:
    return np.clip(0.5 + 2.5 * x, 0, 1)


def _plain(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.zeros_like(u)


def _stripes(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return _step(np.sin(2 * np.pi * frequency * v))


def _dots(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    across, down = u * frequency % 1 - 0.5, v * frequency % 1 - 0.5
    return _step((0.33 - np.hypot(across, down)) * 4)


def _checks(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return _step(3 * np.sin(np.pi * frequency * u) * np.sin(np.pi * frequency * v))


def _waves(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return _step(np.sin(2 * np.pi * frequency * (v + 0.16 * np.sin(2 * np.pi * u))))


def _zigzag(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return _step(np.sin(2 * np.pi * frequency * (v + 0.9 * np.abs(u * 1.8 % 1 - 0.5))))


def _rings(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return _step(np.sin(2 * np.pi * frequency * np.hypot(u, v)))


def _grid(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    across, down = np.abs(u * frequency % 1 - 0.5), np.abs(v * frequency % 1 - 0.5)
    return _step((np.maximum(across, down) - 0.36) * 4)


PATTERNS: dict[str, Callable[[Plane, Plane, PerImage], Plane]] = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "waves": _waves,
    "zigzag": _zigzag,
    "rings": _rings,
    "grid": _grid,
}


def _smooth(u: Plane, v: Plane, grain: Plane) -> Plane:
    return np.ones_like(u)


def _ribbed(u: Plane, v: Plane, grain: Plane) -> Plane:
    return 1 + 0.30 * np.sin(2 * np.pi * 5.5 * u)


def _grainy(u: Plane, v: Plane, grain: Plane) -> Plane:
    return 1 + 0.26 * grain


def _glossy(u: Plane, v: Plane, grain: Plane) -> Plane:
    return 0.85 + 1.5 * np.exp(-8 * ((u + 0.30) ** 2 + (v + 0.30) ** 2))


TEXTURES: dict[str, Callable[[Plane, Plane, Plane], Plane]] = {
    "smooth": _smooth,
    "ribbed": _ribbed,
    "grainy": _grainy,
    "glossy": _glossy,
}
"""Each returns how bright a pixel is, 1 = unchanged; ``grain`` is standard normal noise."""


def _flat(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.zeros_like(u)


def _gradient(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(0.5 + 0.5 * v, 0, 1)


def _horizon(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(8 * (v - 0.2), 0, 1)


def _tiles(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return (np.minimum(u * frequency % 1, v * frequency % 1) < 0.12).astype(np.float32)


def _planks(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(np.abs(v * frequency * 0.8 % 1 - 0.5) * 2.2 - 0.2, 0, 1)


def _bokeh(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(1.2 * np.sin(2 * frequency * u + 1) * np.sin(2 * frequency * v + 2 * u), 0, 1)


def _clouds(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return (
        0.5
        + 0.25 * np.sin(2.1 * frequency * u + 3 * v)
        + 0.25 * np.sin(1.7 * frequency * v - 4 * u + frequency)
    )


def _spotlight(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(1.1 - np.hypot(u, v), 0, 1)


def _rays(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(0.5 + 2 * np.sin(np.round(2 * frequency) * np.arctan2(v, u)), 0, 1)


def _dunes(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(0.5 + 3 * np.sin(frequency * (3 * v + np.sin(2 * u))), 0, 1)


def _haze(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return 0.5 + 0.5 * np.sin(0.8 * frequency * (u + 0.6 * v))


def _shafts(u: Plane, v: Plane, frequency: PerImage) -> Plane:
    return np.clip(2 * np.abs((u + 0.4 * v) * frequency * 0.6 % 1 - 0.5), 0, 1)


MARKET_SCENES: dict[str, Callable[[Plane, Plane, PerImage], Plane]] = {
    "flat": _flat,
    "gradient": _gradient,
    "horizon": _horizon,
    "tiles": _tiles,
    "planks": _planks,
    "bokeh": _bokeh,
    "clouds": _clouds,
    "spotlight": _spotlight,
}
GENERIC_SCENES: dict[str, Callable[[Plane, Plane, PerImage], Plane]] = {
    "rays": _rays,
    "dunes": _dunes,
    "haze": _haze,
    "shafts": _shafts,
}
