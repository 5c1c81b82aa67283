"""What Tables 3, 4 and 5 claim."""

from typing import NamedTuple

from mimctr.evaluate.compare import MIM
from mimctr.evaluate.paper.encoders import INTEREST_NAMES, INTERESTS, Encoders
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.numbers import BASE, TABLE_3, TABLE_4, TABLE_5
from mimctr.evaluate.paper.schema import Finding


class Claim(NamedTuple):
    """One encoder is better than another."""

    key: str
    better: str
    worse: str
    words: str


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
    Claim("ablation:csft", MIM, "dma", "Leaving out C-SFT costs"),
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
            words = f"{better:.4f} against {worse:.4f}" if better is not None and worse is not None else ""
            findings.append(
                finding(
                    claim.key,
                    source=source,
                    claim=claim.words,
                    paper=words,
                    difference=encoders.over(claim.better, claim.worse),
                )
            )
    for name in INTERESTS:
        _, cost = encoders.without(name)
        findings.append(
            finding(
                f"ablation:{name}",
                source="Table 5",
                claim=f"Leaving out {INTEREST_NAMES[name]} costs",
                paper=f"{TABLE_5[MIM]:.4f} against {TABLE_5[name]:.4f}",
                difference=cost,
            )
        )
    return findings
