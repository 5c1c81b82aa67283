"""Silhouettes as signed distances: negative inside, in units of half the object's size.

Every function takes the pixels' object coordinates ``u`` (right) and ``v`` (down); the object fills about [-1, 1]².
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Plane = Float[ndarray, "images height width"]


def circle(u: Plane, v: Plane, x: float, y: float, radius: float) -> Plane:
    """Return the distance to a circle around (x, y)."""
    return np.hypot(u - x, v - y) - radius


def ellipse(u: Plane, v: Plane, x: float, y: float, width: float, height: float) -> Plane:
    """Return roughly the distance to an ellipse with half axes ``width`` and ``height``."""
    return (np.hypot((u - x) / width, (v - y) / height) - 1) * min(width, height)


def box(u: Plane, v: Plane, x: float, y: float, width: float, height: float, radius: float = 0.05) -> Plane:
    """Return roughly the distance to a box of half size ``width`` by ``height`` with rounded corners."""
    across, down = np.abs(u - x) - (width - radius), np.abs(v - y) - (height - radius)
    return (
        np.hypot(np.maximum(across, 0), np.maximum(down, 0))
        + np.minimum(np.maximum(across, down), 0)
        - radius
    )


def bar(u: Plane, v: Plane, x0: float, y0: float, x1: float, y1: float, radius: float) -> Plane:
    """Return the distance to a thick line from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(u - x0 - along * dx, v - y0 - along * dy) - radius


def trapezoid(u: Plane, v: Plane, top: float, bottom: float, at_top: float, at_bottom: float) -> Plane:
    """Return roughly the distance to a trapezoid between two heights, with half widths there."""
    part = (v - top) / (bottom - top)
    return np.maximum(np.abs(u) - (at_top + (at_bottom - at_top) * part), np.maximum(top - v, v - bottom))


def union(*parts: Plane) -> Plane:
    """Return the distance to the nearest of ``parts``."""
    return np.minimum.reduce(parts)


def cut(whole: Plane, hole: Plane) -> Plane:
    """Return ``whole`` without ``hole``."""
    return np.maximum(whole, -hole)


def _vase(u: Plane, v: Plane) -> Plane:
    return union(
        ellipse(u, v, 0, 0.3, 0.68, 0.65),
        trapezoid(u, v, -0.9, -0.1, 0.26, 0.3),
        box(u, v, 0, -0.92, 0.42, 0.09),
    )


def _lamp(u: Plane, v: Plane) -> Plane:
    return union(
        trapezoid(u, v, -0.95, 0.15, 0.38, 0.82), box(u, v, 0, 0.5, 0.09, 0.45), box(u, v, 0, 0.9, 0.45, 0.09)
    )


def _cushion(u: Plane, v: Plane) -> Plane:
    corners = [circle(u, v, x, y, 0.12) for x in (-0.78, 0.78) for y in (-0.78, 0.78)]
    return union(box(u, v, 0, 0, 0.8, 0.8, 0.3), *corners)


def _clock(u: Plane, v: Plane) -> Plane:
    bells = [circle(u, v, x, -0.72, 0.26) for x in (-0.5, 0.5)]
    feet = [bar(u, v, x * 0.7, 0.5, x, 0.92, 0.1) for x in (-0.6, 0.6)]
    return union(circle(u, v, 0, 0.05, 0.75), *bells, *feet)


def _shirt(u: Plane, v: Plane) -> Plane:
    sleeves = [bar(u, v, x * 0.45, -0.6, x, -0.1, 0.2) for x in (-0.85, 0.85)]
    body = union(box(u, v, 0, 0.1, 0.52, 0.85), *sleeves)
    return cut(body, ellipse(u, v, 0, -0.82, 0.26, 0.22))


def _dress(u: Plane, v: Plane) -> Plane:
    straps = [box(u, v, x, -0.85, 0.07, 0.2) for x in (-0.28, 0.28)]
    return union(trapezoid(u, v, -0.75, -0.1, 0.44, 0.24), trapezoid(u, v, -0.1, 0.98, 0.24, 0.86), *straps)


def _trousers(u: Plane, v: Plane) -> Plane:
    legs = [bar(u, v, x * 0.6, -0.4, x, 0.78, 0.22) for x in (-0.42, 0.42)]
    return union(box(u, v, 0, -0.72, 0.52, 0.26), *legs)


def _hat(u: Plane, v: Plane) -> Plane:
    crown = np.maximum(ellipse(u, v, 0, 0.3, 0.58, 0.95), v - 0.35)
    return union(crown, ellipse(u, v, 0, 0.4, 1.0, 0.26))


def _ball(u: Plane, v: Plane) -> Plane:
    return circle(u, v, 0, 0, 0.85)


def _racket(u: Plane, v: Plane) -> Plane:
    return union(ellipse(u, v, 0, -0.35, 0.58, 0.65), bar(u, v, 0, 0.25, 0, 0.92, 0.11))


def _dumbbell(u: Plane, v: Plane) -> Plane:
    plates = [box(u, v, x, 0, 0.22, 0.62) for x in (-0.6, 0.6)]
    ends = [box(u, v, x, 0, 0.12, 0.38) for x in (-0.9, 0.9)]
    return union(bar(u, v, -0.6, 0, 0.6, 0, 0.14), *plates, *ends)


def _skateboard(u: Plane, v: Plane) -> Plane:
    wheels = [circle(u, v, x, 0.38, 0.22) for x in (-0.55, 0.55)]
    tips = [bar(u, v, x * 0.7, 0, x, -0.25, 0.26) for x in (-0.85, 0.85)]
    return union(box(u, v, 0, -0.02, 0.75, 0.28), *wheels, *tips)


def _bear(u: Plane, v: Plane) -> Plane:
    ears = [circle(u, v, x, -0.82, 0.2) for x in (-0.38, 0.38)]
    limbs = [circle(u, v, x, y, 0.24) for x, y in ((-0.62, 0.15), (0.62, 0.15), (-0.45, 0.8), (0.45, 0.8))]
    return union(circle(u, v, 0, -0.48, 0.44), ellipse(u, v, 0, 0.38, 0.55, 0.55), *ears, *limbs)


def _robot(u: Plane, v: Plane) -> Plane:
    arms = [box(u, v, x, 0.15, 0.12, 0.4) for x in (-0.78, 0.78)]
    legs = [box(u, v, x, 0.8, 0.16, 0.2) for x in (-0.3, 0.3)]
    return union(
        box(u, v, 0, -0.58, 0.4, 0.28),
        box(u, v, 0, 0.2, 0.58, 0.44),
        bar(u, v, 0, -0.9, 0, -1, 0.08),
        *arms,
        *legs,
    )


def _rocket(u: Plane, v: Plane) -> Plane:
    fins = [bar(u, v, x * 0.4, 0.35, x, 0.85, 0.16) for x in (-0.62, 0.62)]
    return union(ellipse(u, v, 0, -0.1, 0.42, 0.9), *fins)


def _duck(u: Plane, v: Plane) -> Plane:
    beak = ellipse(u, v, 0.92, -0.42, 0.22, 0.1)
    tail = bar(u, v, -0.6, 0.2, -0.92, -0.1, 0.12)
    return union(ellipse(u, v, -0.1, 0.38, 0.8, 0.5), circle(u, v, 0.42, -0.45, 0.4), beak, tail)


def _bottle(u: Plane, v: Plane) -> Plane:
    return union(
        box(u, v, 0, 0.35, 0.46, 0.62, 0.15),
        trapezoid(u, v, -0.6, -0.2, 0.16, 0.42),
        box(u, v, 0, -0.82, 0.2, 0.17),
    )


def _jar(u: Plane, v: Plane) -> Plane:
    return union(box(u, v, 0, 0.2, 0.78, 0.62, 0.25), box(u, v, 0, -0.6, 0.66, 0.17))


def _tube(u: Plane, v: Plane) -> Plane:
    return union(trapezoid(u, v, -0.95, 0.6, 0.62, 0.26), box(u, v, 0, 0.78, 0.3, 0.18))


def _carton(u: Plane, v: Plane) -> Plane:
    return union(
        box(u, v, 0, 0.3, 0.58, 0.66, 0.02),
        trapezoid(u, v, -0.8, -0.34, 0.14, 0.58),
        box(u, v, 0, -0.86, 0.3, 0.1),
    )


def _bone(u: Plane, v: Plane) -> Plane:
    knobs = [circle(u, v, x, y, 0.29) for x in (-0.7, 0.7) for y in (-0.24, 0.24)]
    return union(bar(u, v, -0.7, 0, 0.7, 0, 0.22), *knobs)


def _bowl(u: Plane, v: Plane) -> Plane:
    return union(trapezoid(u, v, -0.3, 0.5, 0.7, 0.95), ellipse(u, v, 0, -0.3, 0.72, 0.16))


def _fish(u: Plane, v: Plane) -> Plane:
    tail = np.maximum(np.abs(v) - (u - 0.42) * 0.95, u - 0.98)
    return union(ellipse(u, v, -0.2, 0, 0.78, 0.5), tail)


def _kennel(u: Plane, v: Plane) -> Plane:
    door = union(box(u, v, 0, 0.72, 0.24, 0.3), circle(u, v, 0, 0.42, 0.24))
    return cut(union(box(u, v, 0, 0.35, 0.68, 0.6), trapezoid(u, v, -0.95, -0.15, 0.04, 0.98)), door)


def _car(u: Plane, v: Plane) -> Plane:
    wheels = [circle(u, v, x, 0.42, 0.25) for x in (-0.52, 0.52)]
    return union(box(u, v, 0, 0.15, 0.98, 0.28, 0.12), trapezoid(u, v, -0.5, -0.05, 0.38, 0.66), *wheels)


def _wheel(u: Plane, v: Plane) -> Plane:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    spokes = np.maximum(np.abs(np.sin(angle * 2.5)) * radius - 0.14, radius - 0.85)
    return union(np.abs(radius - 0.76) - 0.18, circle(u, v, 0, 0, 0.24), spokes)


def _seat(u: Plane, v: Plane) -> Plane:
    return union(
        box(u, v, 0, -0.12, 0.5, 0.55, 0.15),
        box(u, v, 0, -0.84, 0.26, 0.15, 0.1),
        box(u, v, 0, 0.65, 0.72, 0.28, 0.15),
    )


def _key(u: Plane, v: Plane) -> Plane:
    teeth = [box(u, v, 0.2, y, 0.2, 0.08) for y in (0.5, 0.8)]
    return union(
        cut(circle(u, v, 0, -0.45, 0.52), circle(u, v, 0, -0.6, 0.17)), box(u, v, 0, 0.4, 0.13, 0.58), *teeth
    )


MARKET_SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "vase": _vase,
    "lamp": _lamp,
    "cushion": _cushion,
    "clock": _clock,
    "shirt": _shirt,
    "dress": _dress,
    "trousers": _trousers,
    "hat": _hat,
    "ball": _ball,
    "racket": _racket,
    "dumbbell": _dumbbell,
    "skateboard": _skateboard,
    "bear": _bear,
    "robot": _robot,
    "rocket": _rocket,
    "duck": _duck,
    "bottle": _bottle,
    "jar": _jar,
    "tube": _tube,
    "carton": _carton,
    "bone": _bone,
    "bowl": _bowl,
    "fish": _fish,
    "kennel": _kennel,
    "car": _car,
    "wheel": _wheel,
    "seat": _seat,
    "key": _key,
}
