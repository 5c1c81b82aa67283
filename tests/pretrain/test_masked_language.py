import pytest
import torch
from encoders.small import BERT, TITLES, text_encoder

from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.errors import EncoderError
from mimctr.pretrain.masked_language import MaskedLanguageModel


def test_masking_is_bert_s_on_real_tokens_only():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder)
    ids, mask = encoder.tokenize(TITLES * 2000)
    hidden, chosen = model.hide(ids, mask)
    ordinary = mask & (ids > 4)  # indices 0 to 4 are the special tokens
    assert not chosen[~ordinary].any()
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert chosen[ordinary].float().mean() == pytest.approx(0.15, abs=0.01)
    masked = hidden[chosen] == encoder.tokenizer.token_to_id("[MASK]")
    unchanged = hidden[chosen] == ids[chosen]
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    assert unchanged.float().mean() == pytest.approx(0.1, abs=0.02)
    assert len(hidden[chosen & (hidden != ids)].unique()) > 20  # the rest is anything


def test_loss_is_the_cross_entropy_of_the_chosen_tokens():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder).eval()
    ids, mask = encoder.tokenize(TITLES)
    hidden, chosen = model.hide(ids, mask)
    assert chosen.any()
    vectors = model.transform(encoder.token_vectors(hidden, mask))
    log_probability = (
        vectors @ encoder.network.embeddings.word_embeddings.weight.T + model.bias
    ).log_softmax(-1)
    losses = [
        -log_probability[n, position, ids[n, position]]
        for n in range(len(ids))
        for position in range(ids.shape[1])
        if chosen[n, position]
    ]
    torch.testing.assert_close(model(ids, mask, hidden, chosen), torch.stack(losses).mean())


def test_nothing_chosen_is_no_loss():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder)
    ids, mask = encoder.tokenize(["red"])
    loss = model(ids, mask, ids, torch.zeros_like(mask))
    loss.backward()
    assert loss == 0


def test_the_head_is_kept_apart_from_the_encoder():
    model = MaskedLanguageModel(text_encoder())
    state = model.head_state()
    assert sorted(state) == [
        "bias",
        "transform.0.bias",
        "transform.0.weight",
        "transform.2.bias",
        "transform.2.weight",
    ]
    other = MaskedLanguageModel(text_encoder())
    other.load_head({name: tensor + 1 for name, tensor in state.items()})
    for name, tensor in other.head_state().items():
        assert torch.equal(tensor, state[name] + 1)


def test_the_head_of_another_encoder_is_refused():
    wider = TextEncoder.from_config(BERT | {"hidden_size": 20}, train_tokenizer(TITLES), max_length=12)
    with pytest.raises(EncoderError, match=r"masked language head: .* does not fit the text encoder's"):
        MaskedLanguageModel(wider).load_head(MaskedLanguageModel(text_encoder()).head_state())
