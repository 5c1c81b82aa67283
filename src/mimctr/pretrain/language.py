"""DDA for titles: the language modelling that suits a network."""

from collections.abc import Mapping

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mimctr.encoders.text import TextEncoder
from mimctr.pretrain.causal_language import CausalLanguageModel
from mimctr.pretrain.masked_language import MaskedLanguageModel

LanguageModel = MaskedLanguageModel | CausalLanguageModel


def language_model(encoder: TextEncoder, *, ratio: float, head: Mapping[str, Tensor]) -> LanguageModel:
    """Return the encoder with causal language modelling where it looks back only, else with masked.

    Args:
        encoder: Trained along.
        ratio: Share of tokens that masked language modelling predicts.
        head: To start from, of masked language modelling (:func:`mimctr.pretrain.masked_language.read_head`); drawn
            from PyTorch's generator where it is empty.

    Raises:
        EncoderError: the tokenizer has no mask token, or the head belongs to another encoder.
    """
    if encoder.looks_back_only:
        return CausalLanguageModel(encoder)
    model = MaskedLanguageModel(encoder, ratio=ratio)
    if head:
        model.load_head(head)
    return model


def language_loss(
    model: LanguageModel, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
) -> Float[Tensor, ""]:
    """Return the share of the model's loss, in nats a predicted token; masks come from PyTorch's generator."""
    if isinstance(model, CausalLanguageModel):
        return model(ids, mask)
    return model(ids, mask, *model.hide(ids, mask))
