"""Silhouettes of the generic corpus: objects that the market does not sell."""

from collections.abc import Callable

import numpy as np

from mimctr.sources.bazaar.shapes import Plane, bar, box, circle, cut, ellipse, trapezoid, union


def _polar(u: Plane, v: Plane, *, lobes: int, inner: float) -> Plane:
    wave = 0.5 + 0.5 * np.cos(np.arctan2(u, -v) * lobes)
    return np.hypot(u, v) - (inner + (0.95 - inner) * wave)


def _star(u: Plane, v: Plane) -> Plane:
    folded = np.abs((np.arctan2(u, -v) / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2
    return np.hypot(u, v) - (0.95 - 0.55 * folded)


def _heart(u: Plane, v: Plane) -> Plane:
    lobes = [circle(u, v, x, -0.35, 0.48) for x in (-0.42, 0.42)]
    return union(*lobes, np.maximum(np.abs(u) * 0.75 + v * 0.66 - 0.55, -0.3 - v))


def _cross(u: Plane, v: Plane) -> Plane:
    return union(box(u, v, 0, 0, 0.3, 0.92), box(u, v, 0, 0, 0.92, 0.3))


def _crescent(u: Plane, v: Plane) -> Plane:
    return cut(circle(u, v, 0, 0, 0.9), circle(u, v, 0.42, -0.1, 0.72))


def _tree(u: Plane, v: Plane) -> Plane:
    crowns = [
        trapezoid(u, v, top, top + 0.75, 0.02, width)
        for top, width in ((-1, 0.5), (-0.6, 0.68), (-0.2, 0.85))
    ]
    return union(*crowns, box(u, v, 0, 0.75, 0.14, 0.25))


def _arrow(u: Plane, v: Plane) -> Plane:
    return union(trapezoid(u, v, -0.95, -0.1, 0.02, 0.75), box(u, v, 0, 0.4, 0.24, 0.55))


def _mushroom(u: Plane, v: Plane) -> Plane:
    return union(np.maximum(ellipse(u, v, 0, 0, 0.95, 0.85), v - 0.05), box(u, v, 0, 0.45, 0.26, 0.5, 0.12))


def _cup(u: Plane, v: Plane) -> Plane:
    handle = np.abs(np.hypot(u - 0.62, v + 0.05) - 0.3) - 0.1
    return union(trapezoid(u, v, -0.65, 0.7, 0.68, 0.5), handle)


def _umbrella(u: Plane, v: Plane) -> Plane:
    return union(
        np.maximum(circle(u, v, 0, 0.1, 0.95), v - 0.05),
        bar(u, v, 0, 0, 0, 0.85, 0.07),
        bar(u, v, 0, 0.88, 0.25, 0.8, 0.07),
    )


def _cloud(u: Plane, v: Plane) -> Plane:
    puffs = [
        circle(u, v, x, y, r) for x, y, r in ((-0.55, 0.15, 0.38), (-0.1, -0.2, 0.48), (0.5, 0.08, 0.42))
    ]
    return union(*puffs, box(u, v, 0, 0.35, 0.75, 0.2, 0.15))


def _flower(u: Plane, v: Plane) -> Plane:
    return _polar(u, v, lobes=6, inner=0.45)


def _hexagon(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(v), np.abs(u) * 0.866 + np.abs(v) * 0.5) - 0.78


def _crown(u: Plane, v: Plane) -> Plane:
    points = np.abs((u * 1.6 + 0.5) % 1 - 0.5) * 2.4 - 0.9
    return np.maximum(np.maximum(np.abs(u) - 0.9, v - 0.65), points - v)


def _snowman(u: Plane, v: Plane) -> Plane:
    return union(circle(u, v, 0, -0.45, 0.4), circle(u, v, 0, 0.4, 0.58), box(u, v, 0, -0.86, 0.5, 0.08))


def _drop(u: Plane, v: Plane) -> Plane:
    return union(circle(u, v, 0, 0.32, 0.6), trapezoid(u, v, -0.95, 0.1, 0.02, 0.54))


def _sandglass(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u) - np.abs(v) * 0.75 - 0.06, np.abs(v) - 0.92)


GENERIC_SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "crescent": _crescent,
    "tree": _tree,
    "arrow": _arrow,
    "mushroom": _mushroom,
    "cup": _cup,
    "umbrella": _umbrella,
    "cloud": _cloud,
    "flower": _flower,
    "hexagon": _hexagon,
    "crown": _crown,
    "snowman": _snowman,
    "drop": _drop,
    "sandglass": _sandglass,
}
