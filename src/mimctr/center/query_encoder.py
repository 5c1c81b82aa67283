"""Raw queries to vectors, with the encoders that a center keeps: what ``mimctr embed`` would have made of them."""

import logging
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from mimctr.center.center import ENCODERS
from mimctr.center.record import decode, encode
from mimctr.encoders.architecture import load_transformers
from mimctr.encoders.item import ItemEncoder

logger = logging.getLogger(__name__)


class QueryEncoder:
    """Encodes queries, one at a time, with one encoder at a time; not shared between threads.

    Args:
        center: Folder of the center.
    """

    def __init__(self, center: Path) -> None:
        self._folder = center / ENCODERS
        self._loaded: tuple[str, ItemEncoder] | None = None
        load_transformers()

    def has(self, fingerprint: str) -> bool:
        """Return whether the center keeps an encoder; any thread may ask."""
        return (self._folder / fingerprint).is_dir()

    def encode(
        self, fingerprint: str, *, text: str | None = None, image: bytes | None = None
    ) -> Float[ndarray, "content"] | None:
        """Return the vector of a query's picture or, without one, its text; float16 as snapshots are, in float32.

        Args:
            fingerprint: Of the encoder; another than before is loaded first.
            text: What was asked for.
            image: The picture's file.

        Returns:
            vector: None where there is neither, or only a text, and the encoder reads no texts that ask.

        Raises:
            DataError: the picture cannot be decoded.
            EncoderError: the encoder is not what was kept.
        """
        if self._loaded is None or self._loaded[0] != fingerprint:
            self._loaded = (fingerprint, ItemEncoder.load(self._folder / fingerprint))
            logger.info("queries are encoded by %s", fingerprint[:12])
        encoder = self._loaded[1]
        if image is not None:
            vectors, _ = encoder.embed_query_images([image])
        elif text is not None and encoder.text_queries:
            vectors, _ = encoder.embed_query_texts([text])
        else:
            return None
        return decode(encode(vectors.numpy(), "float16"), "float16")[0]
