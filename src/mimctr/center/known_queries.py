"""Queries whose vectors were embedded offline, found by what they say: a picture, or a text.

They lie with the vectors of a generation's queries, whose keys are indices in the dataset that they came from.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from mimctr.center.snapshot import Snapshot
from mimctr.weights import load_tensors, save_tensors

QUERIES, KNOWN = "queries", "known.safetensors"


def content_key(text: str | None, image: bytes | None) -> int:
    """Return the key of what a query says, at least 0: of its picture or, where it has none, of its text.

    63 bits of a BLAKE2b hash: among a million queries the chance that two share one is 1 in 18 million.
    """
    data, person = (image, b"image") if image is not None else ((text or "").encode(), b"text")
    digest = hashlib.blake2b(data, digest_size=8, person=person).digest()
    return int.from_bytes(digest, "big") >> 1


def write_known(folder: Path, contents: Int[ndarray, "queries"], queries: Int[ndarray, "queries"]) -> None:
    """Let queries be found by what they say.

    Args:
        folder: Snapshot of the queries' vectors.
        contents: Of each query, its :func:`content_key`; repeats allowed: they have the same vector.
        queries: Key of each in the snapshot.
    """
    distinct, first = np.unique(contents.astype(np.int64), return_index=True)
    found = queries.astype(np.int64)[first]
    save_tensors(folder / KNOWN, {"contents": torch.from_numpy(distinct), "queries": torch.from_numpy(found)})


class KnownQueries:
    """Vectors of queries by what they say.

    Args:
        folder: Snapshot of the queries' vectors.
        encoder: Fingerprint of the encoder whose vectors are wanted.

    Raises:
        CenterError: the folder holds no readable snapshot.
        StaleSnapshot: the vectors came from another encoder.
    """

    def __init__(self, folder: Path, *, encoder: str) -> None:
        self._vectors = Snapshot.open(folder, encoder=encoder)
        tensors, _ = load_tensors(folder / KNOWN)
        self._contents, self._queries = tensors["contents"].numpy(), tensors["queries"].numpy()

    @staticmethod
    def are_there(folder: Path) -> bool:
        """Return whether a snapshot's queries can be found by what they say."""
        return (folder / KNOWN).is_file()

    def find(self, key: int) -> Float[ndarray, "content"] | None:
        """Return a query's vector, float32; None where it is not known, or does not match its checksum.

        Args:
            key: From :func:`content_key`.
        """
        place = int(np.searchsorted(self._contents, key))
        if place == len(self._contents) or self._contents[place] != key:
            return None
        found = self._vectors.fetch(self._queries[place : place + 1])
        return found.vectors[0] if found.known[0] else None
