"""Text encoder ``F_L`` of Eq. (2): any language network of transformers, with its tokenizer and pooling."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from mimctr.encoders.architecture import (
    Network,
    architecture,
    build_network,
    load_network,
    read_hub_json,
    read_record,
    save_network,
)
from mimctr.errors import DataError, EncoderError
from mimctr.files import atomic_path, hash_json
from mimctr.weights import digest_tensors

Pooling = Literal["cls", "mean", "last"]
"""First token (BGE); mean over real tokens (MiniLM, and networks that were only pre-trained); last real token (networks
that look back only: GPT-2, CLIP)."""
_POOLING_OF_TYPE: dict[str, Pooling] = {"beit3": "cls", "gpt2": "last", "clip_text_model": "last"}
_SENTENCE_TRANSFORMERS: dict[str, Pooling] = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "lasttoken": "last",
}
"""Poolings of sentence-transformers that we have, as its newer and its older files name them."""
PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")
"""The last one is GPT-2's and CLIP's only special token; where it pads, the mask says so."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER = "tokenizer.json"
LETTERS_PER_TOKEN = 32
"""A text that has more letters than this for each token that is kept is tokenized in part."""
_POOLING_FILE = "1_Pooling/config.json"
_OLDER_TOKENIZERS = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


class Tokens(NamedTuple):
    """Token indices of some texts, padded on the right to the longest."""

    ids: Int[Tensor, "texts tokens"]
    mask: Bool[Tensor, "texts tokens"]
    """True at a real token."""


class TextEncoder(nn.Module):
    """Turn texts into one vector each, and into one vector a token.

    Args:
        network: A language network of transformers.
        tokenizer: The network's tokenizer.
        max_length: Most tokens of a text, special ones included; longer texts lose their end.
        pooling: How token vectors become one vector.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        max_length: int = 64,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pooling = pooling
        self.dim: int = network.config.hidden_size
        self.padding_index = _special(tokenizer, *PADDING_TOKENS)
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(
            pad_id=self.padding_index, pad_token=tokenizer.id_to_token(self.padding_index)
        )
        limit = getattr(network.config, "max_position_embeddings", max_length)
        if max_length > limit:
            raise EncoderError(
                f"max_length {max_length}: the text encoder has only {limit} positions. Lower it."
            )
        if tokenizer.get_vocab_size() > network.config.vocab_size:
            raise EncoderError(
                f"tokenizer with {tokenizer.get_vocab_size()} tokens: the text encoder has only "
                f"{network.config.vocab_size} embeddings. They do not belong together."
            )
        self.eval()

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tokenizer: Tokenizer,
        *,
        max_length: int = 64,
        pooling: Pooling | None = None,
    ) -> "TextEncoder":
        """Return an untrained encoder; weights come from PyTorch's global generator.

        Args:
            config: ``model_type`` and fields of a transformers configuration; ``vocab_size`` and
                ``pad_token_id`` are taken from the tokenizer.
            tokenizer: For instance from :func:`train_tokenizer`.
            max_length: Most tokens of a text.
            pooling: How token vectors become one vector; None takes the network's own, as :meth:`load` does.
        """
        padding = _special(tokenizer, *PADDING_TOKENS)
        fields = {**config, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": padding}
        network = build_network(fields, modality="input_ids")
        return cls(network, tokenizer, max_length=max_length, pooling=pooling or _default_pooling(network))

    @classmethod
    def load(
        cls, source: Path | str, *, max_length: int | None = None, pooling: Pooling | None = None
    ) -> "TextEncoder":
        """Return an encoder with given weights and its tokenizer.

        Args:
            source: Folder written by :meth:`save`, folder in Hugging Face's layout, or a model's name on the hub.
            max_length: Overrides the recorded number of tokens; 64 where none is recorded.
            pooling: Overrides the recorded pooling (ours, or sentence-transformers'). Where none is recorded: BEiT-3's
                first token, GPT-2's and CLIP's last one, and the mean of any other network.

        Raises:
            EncoderError: nothing loadable there, damaged weights, or a pooling of sentence-transformers that we lack.
        """
        network = load_network(source, modality="input_ids")
        record = read_record(source)
        return cls(
            network,
            _load_tokenizer(source),
            max_length=max_length or record.get("max_length", 64),
            pooling=pooling
            or record.get("pooling")
            or _sentence_transformers_pooling(source)
            or _default_pooling(network),
        )

    def save(self, folder: Path) -> None:
        """Write the encoder into ``folder``, in Hugging Face's layout plus, last, ``encoder.json``."""
        with atomic_path(folder / TOKENIZER) as temporary:
            temporary.write_text(self.tokenizer.to_str(pretty=True), encoding="utf-8")
        save_network(self.network, folder, record=self.preprocessing)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Everything outside weights and tokenizer that the vectors depend on."""
        return {"kind": "text", "max_length": self.max_length, "pooling": self.pooling}

    @property
    def fingerprint(self) -> str:
        """Hash (hex) of weights, architecture, tokenizer, pooling, dimension and dtype."""
        return hash_json(
            {
                "weights": digest_tensors(self.network.state_dict()),
                "architecture": architecture(self.network),
                "tokenizer": self.tokenizer.to_str(),
                "preprocessing": self.preprocessing,
                "dim": self.dim,
                "dtype": "float32",
            }
        )

    @property
    def looks_back_only(self) -> bool:
        """Whether a token's vector depends on no later token, as in GPT-2; found by changing a later one."""
        probe = torch.tensor([[2, 2], [2, 3]], device=self.network.device)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            first, second = self.token_vectors(probe, torch.ones_like(probe, dtype=torch.bool))[:, 0]
        self.train(was_training)
        return bool((first - second).norm() < 1e-4 * first.norm())

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of ``texts``, at least one each: the special ones or, of an empty text, one of padding.

        Raises:
            DataError: a text is no Unicode: it holds half of a surrogate pair.
        """
        encoded = self.tokenizer.encode_batch([self._beginning(text) for text in texts])
        width = len(encoded[0].ids) if encoded else 1
        shape = (len(encoded), width)
        ids = torch.tensor([text.ids for text in encoded], dtype=torch.int64).view(shape)
        mask = torch.tensor([text.attention_mask for text in encoded], dtype=torch.bool).view(shape)
        if width == 0:  # a tokenizer without special tokens, and nothing but empty texts
            ids, mask = ids.new_full((len(ids), 1), self.padding_index), mask.new_zeros(len(ids), 1)
        mask[:, 0] = True
        return Tokens(ids, mask)

    def _beginning(self, text: str) -> str:
        """Return as much of ``text`` as has the same first ``max_length`` tokens; all of it unless it is very long.

        Its last word, perhaps cut in two, is not among those tokens.
        """
        _check_unicode(text)
        length = self.max_length * LETTERS_PER_TOKEN
        while length < len(text):
            kept = self.tokenizer.encode(text[:length])
            if kept.overflowing and _last_word(kept) < _last_word(kept.overflowing[-1]):
                return text[:length]
            length *= 2
        return text

    def token_vectors(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens dim"]:
        """Return one vector a token; padding is invisible to real tokens."""
        return self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state

    def forward(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts dim"]:
        """Return ``F_L(text)``, not normalized to length one."""
        hidden = self.token_vectors(ids, mask)
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        real = mask.unsqueeze(-1)
        return hidden.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 4096) -> Tokenizer:
    """Return a WordPiece tokenizer of lower-cased words, trained on ``texts``.

    The same texts give the same tokenizer in every process. The library's trainer alone does not: it numbers the
    continuation letters (##a, ##b ...) in the order of a randomly seeded hash table, and breaks ties by number. So
    every letter gets its number beforehand.

    Args:
        texts: Read once.
        vocab_size: Most tokens, special ones and letters included.

    Raises:
        EncoderError: there is no word in ``texts``.
    """
    texts = list(texts)
    tokenizer = _word_piece(models.WordPiece(unk_token="[UNK]"))
    words = {
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    letters = sorted({letter for word in words for letter in word})
    if not letters:
        raise EncoderError(f"tokenizer: no word in {len(texts)} texts to train it on.")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab()
    trained = _word_piece(models.WordPiece(vocabulary, unk_token="[UNK]"))
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return trained


def mask_token_index(tokenizer: Tokenizer) -> int:
    """Return the index of the token that hides another one in masked language modelling."""
    return _special(tokenizer, "[MASK]", "<mask>")


def special_token_indices(tokenizer: Tokenizer) -> list[int]:
    """Return the indices of all special tokens, in ascending order."""
    return sorted(index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special)


def _word_piece(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"text {text[:40]!r}: letter {error.start} is half of a surrogate pair, which is no Unicode. Decode the "
            "text again, with errors='replace' where it is damaged."
        ) from None


def _last_word(encoded: Encoding) -> int:
    """Return the number of the last word that has a token in ``encoded``; -1 where there is none."""
    return max((word for word in encoded.word_ids if word is not None), default=-1)


def _special(tokenizer: Tokenizer, *names: str) -> int:
    for name in names:
        index = tokenizer.token_to_id(name)
        if index is not None:
            return index
    raise EncoderError(f"tokenizer: has none of the tokens {', '.join(names)}, one of which is needed here.")


def _load_tokenizer(source: Path | str) -> Tokenizer:
    folder = Path(source)
    if (folder / TOKENIZER).is_file():
        try:
            return Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # noqa: BLE001 - tokenizers raises nothing narrower
            raise EncoderError(f"{folder / TOKENIZER}: damaged ({error}). Copy it again.") from None
    if folder.is_dir() and not any((folder / name).is_file() for name in _OLDER_TOKENIZERS):
        raise EncoderError(
            f"{source}: no tokenizer in it. Add its {TOKENIZER}."
        )  # transformers makes up an empty one
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{source}: no tokenizer can be loaded from it ({reason}). Add its {TOKENIZER}."
        ) from None


def _default_pooling(network: Network) -> Pooling:
    return _POOLING_OF_TYPE.get(network.config.model_type, "mean")


def _sentence_transformers_pooling(source: Path | str) -> Pooling | None:
    """Return what the model's file says: a name or several, or in older ones a flag for each; without any, the mean."""
    saved = read_hub_json(source, _POOLING_FILE)
    if not saved:
        return None
    flag = "pooling_mode_"
    flags = [name.removeprefix(flag) for name, on in saved.items() if name.startswith(flag) and on]
    modes = saved.get("pooling_mode") or flags or "mean"
    names = [modes] if isinstance(modes, str) else modes
    if len(names) != 1 or names[0] not in _SENTENCE_TRANSFORMERS:
        raise EncoderError(
            f"{source}: {_POOLING_FILE} asks for the pooling {' and '.join(names)}, which is none of ours. "
            f"Give one: {', '.join(get_args(Pooling))}."
        )
    return _SENTENCE_TRANSFORMERS[names[0]]
