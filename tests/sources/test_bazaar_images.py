"""A picture shows its style to a shopper; nuisances change the pixels, not the style."""

import numpy as np
import pytest

from mimctr.sources.bazaar.generic_shapes import GENERIC_SHAPES
from mimctr.sources.bazaar.render import Look, Nuisance, Props, draw_nuisances, encode, render
from mimctr.sources.bazaar.shapes import MARKET_SHAPES
from mimctr.sources.bazaar.surfaces import MARKET_SCENES, PALETTES, PATTERNS, TEXTURES

ALL_SHAPES = MARKET_SHAPES | GENERIC_SHAPES
PROPS = Props(ALL_SHAPES, MARKET_SCENES)
GRID = np.linspace(-1.4, 1.4, 141, dtype=np.float32)


def one_look(num_images: int, *, shape: str, pattern: str = "plain", palette: str = "red") -> Look:
    main, second = np.array(PALETTES[palette])
    return Look(
        shape=np.full(num_images, list(ALL_SHAPES).index(shape)),
        pattern=np.full(num_images, list(PATTERNS).index(pattern)),
        texture=np.full(num_images, list(TEXTURES).index("smooth")),
        main=np.tile(main, (num_images, 1)),
        second=np.tile(second, (num_images, 1)),
        frequency=np.full(num_images, 2.5),
    )


def nuisances(num_images: int, *, seed: int = 0, strength: float = 1.0) -> Nuisance:
    rng = np.random.default_rng(seed)
    return draw_nuisances(rng, num_images, num_scenes=len(MARKET_SCENES), strength=strength)


@pytest.mark.parametrize("name", ALL_SHAPES)
def test_a_silhouette_fills_a_good_part_of_its_square_and_no_more(name: str) -> None:
    u, v = np.meshgrid(GRID, GRID)
    inside = ALL_SHAPES[name](u[None], v[None])[0] < 0
    assert 0.18 < inside.sum() / (4 / 0.02**2) < 0.85
    assert np.abs(u[inside]).max() < 1.2
    assert np.abs(v[inside]).max() < 1.2


def test_no_two_silhouettes_are_alike() -> None:
    u, v = np.meshgrid(GRID, GRID)
    masks = {name: shape(u[None], v[None])[0] < 0 for name, shape in ALL_SHAPES.items()}
    names = list(masks)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            overlap = (masks[first] & masks[second]).sum() / (masks[first] | masks[second]).sum()
            assert overlap < 0.9, (first, second, overlap)


def test_the_market_and_the_generic_corpus_share_no_silhouette() -> None:
    assert not set(MARKET_SHAPES) & set(GENERIC_SHAPES)
    assert (len(MARKET_SHAPES), len(GENERIC_SHAPES)) == (28, 16)


def test_the_same_look_under_the_same_nuisance_is_the_same_image() -> None:
    look, nuisance = one_look(3, shape="vase"), nuisances(3)
    first, second = (render(np.random.default_rng(5), look, nuisance, PROPS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 64, 64, 3)
    assert encode(first) == encode(second)


def test_another_nuisance_changes_most_pixels() -> None:
    images = render(np.random.default_rng(0), one_look(20, shape="vase"), nuisances(20), PROPS).astype(int)
    changed = np.abs(images[1:] - images[:-1]).max(axis=-1) > 10
    assert changed.mean() > 0.85


@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_no_nuisance_hides_the_color_family(strength: float) -> None:
    """The object's middle is nearer to its own palette than to the others, by hue, on nearly every image."""
    hues = {
        name: _hue(np.array(main)) for name, (main, _) in PALETTES.items() if name not in ("mono", "earth")
    }
    for name, hue in hues.items():
        nuisance = nuisances(50, seed=1, strength=strength)
        images = render(np.random.default_rng(0), one_look(50, shape="ball", palette=name), nuisance, PROPS)
        where = ((nuisance.center + 1) * 32).astype(int).clip(3, 60)
        middle = [
            np.median(im[y - 3 : y + 4, x - 3 : x + 4], axis=(0, 1))
            for im, (x, y) in zip(images, where, strict=True)
        ]
        off = np.array([_turn(_hue(color) - hue) for color in middle])
        others = np.array([[_turn(_hue(color) - other) for other in hues.values()] for color in middle])
        assert (off <= others.min(axis=1) + 1e-9).mean() > 0.8, name


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "plain"])
def test_a_pattern_uses_both_colors_and_differs_from_the_others(pattern: str) -> None:
    u, v = np.meshgrid(np.linspace(-1, 1, 101), np.linspace(-1, 1, 101))
    frequency = np.full((1, 1, 1), 2.5)
    second = PATTERNS[pattern](u[None], v[None], frequency)
    assert second.min() >= 0
    assert second.max() <= 1
    assert 0.15 < second.mean() < 0.85
    for name, other in PATTERNS.items():
        if name != pattern:
            assert np.abs(second - other(u[None], v[None], frequency)).mean() > 0.1, name


def test_a_row_does_not_depend_on_its_batch() -> None:
    names = list(ALL_SHAPES)
    looks = [one_look(1, shape=name, pattern="dots", palette="teal") for name in names[:6]]
    nuisance = nuisances(6)._replace(noise=np.zeros(6))
    together = render(
        np.random.default_rng(0),
        Look(*(np.concatenate(column) for column in zip(*looks, strict=True))),
        nuisance,
        PROPS,
    )
    for row, look in enumerate(looks):
        alone = Nuisance(*(column[row : row + 1] for column in nuisance))
        np.testing.assert_array_equal(render(np.random.default_rng(0), look, alone, PROPS)[0], together[row])


def _hue(color: np.ndarray) -> float:
    red, green, blue = color.astype(float)
    return float(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))


def _turn(angle: float) -> float:
    return abs((angle + np.pi) % (2 * np.pi) - np.pi)
