"""The words of a reproduction's report, for readers who do not have the paper beside them."""

from mimctr.report.wording import listing

WORDS = (
    ("Base", "a CTR model without content: IDs and fields alone"),
    ("MIM, Base+MIM", "the same model with content interest, Eq. (7) to (9) of the paper (arXiv 2502.00321)"),
    ("MIM+", "Base+MIM with extensions that the paper has not"),
    ("UBM, CiUBM", "user behavior model (Avg Pooling, DIN, SIM ...); one with content interest"),
    (
        "content vector",
        "of an item's picture and title together; what is seen and read, not who clicked",
    ),
    ("DDA", "downstream data adaptation: pre-training goes on with the catalogue's pictures and titles"),
    ("DMA", "different-modal alignment: picture and title of one item are drawn together"),
    ("C-SFT", "content-interest-aware supervised fine-tuning, on what users searched for and then bought"),
    ("TFN", "tensor fusion network: picture and title become one vector"),
    ("ST-NSG", "space-time negative sample generation: negatives of the same category and of batches before"),
    (
        "ID, content, fusion interest",
        "the parts of Eq. (9): the UBM's own; behaviors' content weighted by its likeness to the target's, Eq. (7); "
        "their IDs with the same weights, Eq. (8)",
    ),
    ("center", "the representation center: vectors are made once and looked up, in training and in serving"),
    ("recall@10", "share of held-out purchases that are among the ten items most like what was searched for"),
)
"""Word -> meaning, in the order of the report."""
ONE_SEED = (
    "One seed: intervals and confidences are over users alone. With another seed a verdict may turn round."
)
"""What has to be said of a reproduction with one seed."""

TWO_PRECISIONS = (
    "Some parts come from machines with products in bfloat16 and some do not: where the recipe asks for them, encoders "
    "of one name are not the same in all tables."
)
"""What has to be said where parts come from both kinds of processor."""


def lacking_words(lacking: list[str], *, joined: bool) -> str:
    """Return what a reproduction has nothing of yet, and what makes it; empty where it lacks nothing.

    Args:
        lacking: Experiments.
        joined: Whether it is joined from several.
    """
    further = "Make it in a part of its own, and join again." if joined else "The command below goes on."
    return f"Not made yet: {listing(lacking)}. {further}" if lacking else ""
