"""What the paper prints (arXiv 2502.00321, Section 4). None: the scan is unreadable there."""

from typing import NamedTuple


class Pair(NamedTuple):
    """AUC of a user behavior model without and with content, and the difference as printed."""

    base: float
    mim: float
    gain: float


class OnlineGains(NamedTuple):
    """What one release gained in a category."""

    auc: float
    ctr: float
    """As a share: 0.05 is 5 %."""
    rpm: float


TABLE_2 = {
    "mean": Pair(0.6965, 0.7030, 0.0066),
    "din": Pair(0.7004, 0.7047, 0.0042),
    "dien": Pair(0.7010, 0.7055, 0.0046),
    "bst": Pair(0.6995, 0.7049, 0.0054),
    "sim": Pair(0.7024, 0.7062, 0.0038),
    "twin": Pair(0.7028, 0.7051, 0.0023),
}
BASE = 0.7024
"""SIM without content, what Tables 3 to 5 start from."""
TABLE_3 = {"plain": 0.7030, "dda": 0.7034, "dma": 0.7040, "mim": 0.7062}
TABLE_4: dict[str, float | None] = {
    "category_cross_entropy": 0.7043,
    "click_cross_entropy": 0.7053,
    "purchase_cross_entropy": None,
    "click_contrastive": None,
    "mim": 0.7062,
}
TABLE_5 = {
    "without_tfn": 0.7058,
    "without_st_nsg": 0.7056,
    "without_multi_level": 0.7052,
    "dma": 0.7040,
    "id": 0.7057,
    "content": 0.7052,
    "fusion": 0.7054,
    "mim": 0.7062,
}
"""Encoders by row; models by the interest that they lack."""
TABLE_7 = {
    "Home Decoration": OnlineGains(0.0047, 0.0463, 0.0304),
    "Clothes": OnlineGains(0.0037, 0.0869, 0.0444),
    "Sports": OnlineGains(0.0030, 0.0348, 0.0186),
    "Toys": OnlineGains(0.0024, 0.0444, 0.0189),
    "FMCG": OnlineGains(0.0028, 0.0398, 0.0274),
    "Pets": OnlineGains(0.0024, 0.0302, 0.0269),
    "Cars": OnlineGains(0.0028, 0.0254, 0.0002),
}
ALL_CATEGORIES = OnlineGains(0.0038, 0.05, 0.01)
"""Of the release that Table 7 is about."""
ONLINE_CTR, ONLINE_RPM = (0.051, 0.0475, 0.0429), (0.015, 0.0119, 0.0143)
"""What the three releases of MIM gained one after the other in clicks and in revenue per thousand impressions."""
