"""The rows of the paper's Tables 3, 4 and 5 that are about encoders: how each differs from MIM's own."""

from typing import Any, Literal, NamedTuple

Towers = Literal["random", "foundation", "dda", "dma"]
"""Random weights; as given; after DDA; after DDA and DMA."""
PLAIN, AFTER_DMA, MIM = "plain", "dma", "mim"
CLICK = "click"
"""The kind of pair of the rows that Table 4 calls so; every other row has the recipe's, a purchase."""


class Row(NamedTuple):
    """One item encoder of the tables."""

    name: str
    labels: dict[int, str]
    """What it is called in each table of the paper that it stands in."""
    towers: Towers
    csft: dict[str, Any] | None = None
    """Settings of C-SFT that differ from MIM's; None: no C-SFT, the plain geometry."""

    @property
    def fixed(self) -> bool:
        """Whether no seed changes it."""
        return self.towers == "foundation" and self.csft is None


_NO_NEGATIVES: dict[str, Any] = {"hard_negatives": False, "num_memory_batches": 0}

ROWS = (
    Row("random", {3: "Random weights"}, "random"),
    Row(PLAIN, {3: "Plain FoM"}, "foundation"),
    Row("dda", {3: "+DDA"}, "dda"),
    Row(AFTER_DMA, {3: "+DDA+DMA", 5: "w/o C-SFT"}, "dma"),
    Row(
        "category_cross_entropy",
        {4: "v1: category, cross-entropy"},
        "dma",
        {"objective": "category_cross_entropy", **_NO_NEGATIVES},
    ),
    Row(
        "click_cross_entropy",
        {4: "v2: click, cross-entropy"},
        "dma",
        {"objective": "pair_cross_entropy", "pair_kinds": [CLICK], **_NO_NEGATIVES},
    ),
    Row(
        "purchase_cross_entropy",
        {4: "v3: purchase, cross-entropy"},
        "dma",
        {"objective": "pair_cross_entropy", **_NO_NEGATIVES},
    ),
    Row("click_contrastive", {4: "v4: click, contrastive"}, "dma", {"pair_kinds": [CLICK]}),
    Row(
        MIM,
        {3: "+DDA+DMA+C-SFT (MIM)", 4: "v5: purchase, contrastive (MIM)", 5: "MIM"},
        "dma",
        {},
    ),
    Row("without_tfn", {5: "w/o TFN"}, "dma", {"fusion": "concat"}),
    Row("without_st_nsg", {5: "w/o ST-NSG"}, "dma", _NO_NEGATIVES),
    Row(
        "without_multi_level",
        {5: "w/o multi-level InfoNCE"},
        "dma",
        {"text_weight": 0.0, "image_weight": 0.0},
    ),
)
