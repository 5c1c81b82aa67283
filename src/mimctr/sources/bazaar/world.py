"""What the generated marketplace is made of: categories, style attributes, sizes, and how much each thing counts."""

import zlib
from typing import Literal, NamedTuple

import numpy as np

SizeName = Literal["tiny", "small", "medium", "large"]

DAY = 86_400
START_TIME = 1_704_067_200
"""First impression: 2024-01-01 00:00 UTC, in seconds."""
NUM_DAYS = 28
NUM_WARMUP_DAYS = 14
"""Days before the first impression whose clicks and searches are logged, but not their impressions."""
SLOTS_PER_DAY = 4
"""Sessions are drawn a slot at a time; an item can be shown from the first slot that begins after its arrival."""
END_TIME = START_TIME + NUM_DAYS * DAY

LOOKS = 12
"""Number of looks ("boho", "minimal", ...): value combinations that items share and users like."""
COLLABORATIVE_DIM = 2


class Category(NamedTuple):
    """One category: its share of items and sessions, and how much its clicks depend on style."""

    name: str
    share: float
    sensitivity: float
    shapes: tuple[str, ...]


CATEGORIES = (
    Category("Home Decoration", 0.18, 1.15, ("vase", "lamp", "cushion", "clock")),
    Category("Clothes", 0.30, 1.30, ("shirt", "dress", "trousers", "hat")),
    Category("Sports", 0.12, 0.80, ("ball", "racket", "dumbbell", "skateboard")),
    Category("Toys", 0.10, 1.00, ("bear", "robot", "rocket", "duck")),
    Category("FMCG", 0.14, 0.90, ("bottle", "jar", "tube", "carton")),
    Category("Pets", 0.07, 0.65, ("bone", "bowl", "fish", "kennel")),
    Category("Cars", 0.09, 0.40, ("car", "wheel", "seat", "key")),
)
"""The paper's seven categories; sensitivities are in the order of the click gains of its Table 7."""
SHAPES_PER_CATEGORY = 4


class Attribute(NamedTuple):
    """One style attribute of an item: its values and its share of the variance of a user's taste."""

    name: str
    values: tuple[str, ...]
    weight: float
    visible: bool


ATTRIBUTES = (
    Attribute("shape", tuple(shape for category in CATEGORIES for shape in category.shapes), 0.14, True),
    Attribute(
        "pattern",
        ("plain", "stripes", "dots", "checks", "waves", "zigzag", "rings", "grid"),
        0.22,
        True,
    ),
    Attribute(
        "palette",
        ("red", "amber", "lime", "forest", "teal", "navy", "violet", "pink", "earth", "mono"),
        0.26,
        True,
    ),
    Attribute("texture", ("smooth", "ribbed", "grainy", "glossy"), 0.06, True),
    Attribute(
        "material",
        ("cotton", "wood", "leather", "metal", "glass", "bamboo", "wool", "plastic"),
        0.20,
        False,
    ),
    Attribute(
        "occasion",
        ("party", "office", "travel", "holiday", "gift", "everyday", "outdoor", "wedding"),
        0.12,
        False,
    ),
)
OFFSETS = np.cumsum([0, *(len(attribute.values) for attribute in ATTRIBUTES)])
"""Where each attribute's values begin in a taste vector; the last entry is its length."""

STYLE_SCALE = 0.88
"""Standard deviation of the style part of a click's logit, at sensitivity 1."""
COLLABORATIVE_SCALE = 0.60
QUALITY_SCALE = 0.40
QUERY_SCALE = 0.55
POSITION_SLOPE = -0.07
"""Change of a click's logit from one position to the next."""
CLICK_BIAS = -1.75
PURCHASE_BIAS = -1.75
PURCHASE_STYLE = 1.5
"""How much more a purchase depends on the style part than a click does (1 = as much)."""

IMAGE_QUERY_SHARE = 0.40
TEXT_QUERY_SHARE = 0.30
MISSING_SHARE = 0.02
"""Share of items without an image, and of items without a title."""


class Size(NamedTuple):
    """How much of everything a bazaar has."""

    num_items: int
    num_users: int
    num_sessions: int
    num_photos: int
    num_corpus_images: int
    num_captions: int


SIZES: dict[SizeName, Size] = {
    "tiny": Size(300, 150, 620, 120, 200, 400),
    "small": Size(4_000, 3_000, 30_000, 4_000, 7_000, 20_000),
    "medium": Size(20_000, 20_000, 250_000, 12_000, 12_000, 40_000),
    "large": Size(200_000, 150_000, 1_050_000, 30_000, 20_000, 60_000),
}
"""Sessions are counted without the warm-up; a session shows at most ``SESSION_LENGTH`` items."""
SESSION_LENGTH = 10


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the random generator of one named part of the world; parts never share draws."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in name)])
