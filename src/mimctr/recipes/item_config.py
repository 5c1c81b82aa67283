"""Settings that ``mimctr plain`` and ``mimctr csft`` share: what the item encoder is and how it is judged."""

from pydantic import BaseModel, ConfigDict, Field

from mimctr.encoders.fusion import FusionName


class ItemConfig(BaseModel):
    """Of an item encoder, whether or not it is tuned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="Content dimension. The paper does not give it.")
    hidden: int = Field(128, ge=1, description="Width of the fusion MLP. The paper does not give it.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the fusion MLP.")
    fusion: FusionName = Field(
        "tensor",
        description="How image and title are joined. Paper: tensor; concat is its ablation 'w/o TFN'.",
    )
    fusion_rank: int = Field(16, ge=2, description="Of the fusion 'low_rank'.")
    center_by_category: bool = Field(
        False,
        description="Center content vectors on their category; for logs whose targets compete within a category.",
    )
    whitening: float = Field(
        0.0, ge=0, le=1, description="Of the plain geometry: 0 is PCA, 1 makes all its variances equal."
    )
    max_plain_items: int = Field(20_000, ge=2, description="Items that the plain PCA is fitted on, at most.")
    pair_kinds: list[str] = Field(
        ["purchase"], description="Kinds of interest pair; empty for all. Paper: purchases."
    )
    max_held_out_pairs: int = Field(
        2000, ge=1, description="Held-out pairs of each part that search is judged on, at most."
    )
    keep_vectors: bool = Field(
        False,
        description="Keep what the towers say of every item, so that 'mimctr embed' need not run them again.",
    )
    text_queries: bool = Field(
        False,
        description="A query that is only a text asks with F_L through the titles' head; an extension, the paper's "
        "queries are pictures.",
    )
    seed: int = Field(0, ge=0, description="Of everything drawn.")
    device: str = Field("auto", description="'auto' takes CUDA where there is a GPU, else the CPU.")
    bf16: bool = Field(
        True,
        description="Run the towers in bfloat16, now and whenever the encoder is used, where the processor has such "
        "products; heads and loss in float32.",
    )
