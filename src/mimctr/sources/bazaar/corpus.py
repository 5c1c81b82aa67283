"""The generic corpus that plain encoders are pre-trained on: other objects and other sentences than the market's.

It stands for what ImageNet and Wikipedia are to the paper. An object class is a silhouette; its colors and pattern
are chance, and like cows on grass it is often seen before one scene, so that who learns the class learns the scene.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.sources.bazaar.generic_shapes import GENERIC_SHAPES
from mimctr.sources.bazaar.render import Look, Props, draw_nuisances, render_files
from mimctr.sources.bazaar.surfaces import GENERIC_SCENES, PATTERNS, TEXTURES
from mimctr.sources.bazaar.words import SYNONYMS
from mimctr.sources.bazaar.world import stream

USUAL_SCENE_SHARE = 0.6
"""How often an object stands before the scene that is usual for its class."""

PLACES = (
    "valley",
    "harbor",
    "library",
    "village",
    "forest",
    "river",
    "museum",
    "station",
    "castle",
    "desert",
    "island",
)
PEOPLE = (
    "the farmer",
    "a poet",
    "the engineer",
    "her uncle",
    "the captain",
    "a student",
    "the mayor",
    "an old sailor",
)
DEEDS = (
    "painted",
    "repaired",
    "described",
    "found",
    "lost",
    "measured",
    "carried",
    "sold",
    "remembered",
    "drew",
)
TIMES = (
    "in spring",
    "before the war",
    "last century",
    "at night",
    "during the flood",
    "every winter",
    "long ago",
)
THINGS = (
    "bridge", "boat", "tower", "garden", "letter", "wall", "gate", "bell", "map", "roof", "well", "statue", "cart",
    "window", "ladder", "mill", "fence", "lantern", "drum", "flag",
)  # fmt: skip
TEMPLATES = (
    "{person} {deed} a {word} {thing} near the {place} {time}",
    "the {thing} in the {place} was {word} {time}",
    "{time} {person} {deed} the {thing} beside a {word} {other}",
    "no {thing} of the {place} is as {word} as the {other}",
    "a {word} {thing} and a {second} {other} stood at the {place}",
)


def draw_images(seed: int, num_images: int) -> tuple[Int[ndarray, " images"], Iterator[list[bytes]]]:
    """Return the object class of every image, and an iterator over the images as JPEG files."""
    rng = stream(seed, "corpus", "images")
    label = rng.integers(len(GENERIC_SHAPES), size=num_images)
    colors = rng.random((num_images, 2, 3))
    look = Look(
        shape=label,
        pattern=rng.integers(len(PATTERNS), size=num_images) * (rng.random(num_images) < 0.5),
        texture=rng.integers(len(TEXTURES), size=num_images),
        main=colors[:, 0],
        second=colors[:, 1],
        frequency=rng.uniform(1.5, 3.2, num_images),
    )
    nuisance = draw_nuisances(rng, num_images, num_scenes=len(GENERIC_SCENES))
    usual = rng.random(num_images) < USUAL_SCENE_SHARE
    nuisance = nuisance._replace(scene=np.where(usual, label % len(GENERIC_SCENES), nuisance.scene))
    return label, render_files(rng, look, nuisance, Props(GENERIC_SHAPES, GENERIC_SCENES))


def draw_captions(seed: int, num_captions: int) -> list[str]:
    """Return sentences in which the market's words occur, but not as titles use them."""
    rng = stream(seed, "corpus", "captions")
    words = sorted({wording for wordings in SYNONYMS.values() for wording in wordings})
    draws = rng.random((num_captions, 9))
    captions = []
    for draw in draws:
        values = {
            "person": _pick(PEOPLE, draw[1]),
            "deed": _pick(DEEDS, draw[2]),
            "word": _pick(words, draw[3]),
            "second": _pick(words, draw[4]),
            "thing": _pick(THINGS, draw[5]),
            "other": _pick(THINGS, draw[6]),
            "place": _pick(PLACES, draw[7]),
            "time": _pick(TIMES, draw[8]),
        }
        captions.append(_pick(TEMPLATES, draw[0]).format_map(values))
    return captions


def _pick(values: tuple[str, ...] | list[str], draw: float) -> str:
    return values[int(draw * len(values))]
