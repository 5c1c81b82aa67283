"""What Tables 3, 4 and 5 claim."""

from typing import NamedTuple

from mimctr.evaluate.compare import MIM
from mimctr.evaluate.paper.encoders import EQUATIONS, INTEREST_NAMES, INTERESTS, Encoders
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.numbers import BASE, TABLE_3, TABLE_4, TABLE_5
from mimctr.evaluate.paper.schema import Finding


class Claim(NamedTuple):
    """One encoder is better than another."""

    key: str
    better: str
    worse: str
    words: str


UNREADABLE = "so it says, without readable numbers"
PRE_TRAINING = (
    Claim("dda_adds", "dda", "plain", "DDA adds to plain foundation models"),
    Claim("dma_adds", "dma", "dda", "DMA adds to DDA"),
    Claim("csft_adds", MIM, "dma", "C-SFT adds to DDA and DMA"),
)
SIGNALS = (
    Claim(
        "contrastive_beats_cross_entropy:purchase",
        MIM,
        "purchase_cross_entropy",
        "Contrast beats cross-entropy on purchases",
    ),
    Claim(
        "contrastive_beats_cross_entropy:click",
        "click_contrastive",
        "click_cross_entropy",
        "Contrast beats cross-entropy on clicks",
    ),
    Claim(
        "purchase_beats_click:contrastive", MIM, "click_contrastive", "Purchases beat clicks under contrast"
    ),
    Claim(
        "purchase_beats_click:cross_entropy",
        "purchase_cross_entropy",
        "click_cross_entropy",
        "Purchases beat clicks under cross-entropy",
    ),
    Claim(
        "click_beats_category", "click_cross_entropy", "category_cross_entropy", "Clicks beat the category"
    ),
)
PARTS = (
    Claim("ablation:tfn", MIM, "without_tfn", "Leaving out tensor fusion costs"),
    Claim("ablation:st_nsg", MIM, "without_st_nsg", "Leaving out space-time negatives costs"),
    Claim("ablation:multi_level", MIM, "without_multi_level", "Leaving out the multi-level loss costs"),
)


def encoder_findings(encoders: Encoders) -> list[Finding]:
    """Return what Tables 3, 4 and 5 claim, with the verdict of Base+MIM's AUC."""
    plain = finding(
        "plain_adds",
        source="Table 3",
        claim="Vectors of plain foundation models add to Base",
        paper=f"{BASE:.4f} to {TABLE_3['plain']:.4f}",
        difference=encoders.gain("plain"),
    )
    findings = [plain]
    for source, claims, paper in (
        ("Table 3", PRE_TRAINING, TABLE_3),
        ("Table 4", SIGNALS, TABLE_4),
        ("Table 5", PARTS, TABLE_5),
    ):
        for claim in claims:
            better, worse = paper.get(claim.better), paper.get(claim.worse)
            readable = better is not None and worse is not None
            findings.append(
                finding(
                    claim.key,
                    source=source,
                    claim=claim.words,
                    paper=f"{better:.4f} against {worse:.4f}" if readable else UNREADABLE,
                    difference=encoders.over(claim.better, claim.worse),
                    note=_of_starts(encoders, claim),
                )
            )
    for name in INTERESTS:
        _, cost = encoders.without(name)
        findings.append(
            finding(
                f"ablation:{name}",
                source="Table 5",
                claim=f"Leaving out the {INTEREST_NAMES[name]} ({EQUATIONS[name]}) costs",
                paper=f"{TABLE_5[MIM]:.4f} against {TABLE_5[name]:.4f}",
                difference=cost,
            )
        )
    return findings


def _of_starts(encoders: Encoders, claim: Claim) -> str:
    """Return which of two encoders are what C-SFT began with, in words; empty where neither is."""
    told = []
    for row in (claim.better, claim.worse):
        kept, of = encoders.kept(row)
        if kept:
            told.append(f"{row.replace('_', ' ')} ({kept} of {of} seeds)")
    return f"Kept its start, as C-SFT never searched better: {', '.join(told)}." if told else ""
