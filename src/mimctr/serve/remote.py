"""Bundles on a parameter store: tables row by row, everything else as it lies in the folder.

A scorer takes the small files to itself when it begins, and of the tables only the rows of its requests: its memory
does not grow with the catalogue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mimctr.center.stores.redis import RedisStore, connect, telling
from mimctr.errors import RunError
from mimctr.serve.bundle import MANIFEST, Bundle
from mimctr.serve.tables import Tables, publish_tables, remote_tables

SCHEME = "store:"
"""Before the name of a bundle that is on a parameter store."""


class BundleStore:
    """Bundles on a parameter store.

    Args:
        url: Of the store.
        name: Of the center on its stores.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self.url = url
        self.name = name

    def push(self, bundle: Bundle, label: str) -> None:
        """Put a bundle there under ``label``, in place of what was there: tables first, then all files at once.

        Raises:
            StoreUnavailable: the store cannot be reached; what was there is served as before.
        """
        publish_tables(bundle, self._open)
        files = {file: (bundle.folder / file).read_bytes() for file in (MANIFEST, *bundle.manifest.files)}
        client = connect(self.url)
        with telling(self.url):
            pipeline = client.pipeline(transaction=True)  # one key: one slot of a cluster
            pipeline.delete(self._key(label))
            pipeline.hset(self._key(label), mapping=files)
            pipeline.execute()
        client.close()

    @contextmanager
    def pull(self, label: str) -> Iterator[Path]:
        """Yield a folder with the files of a bundle, without its tables; it is gone afterwards.

        Raises:
            RunError: the store has no such bundle, or one that reaches out of its folder.
            StoreUnavailable: the store cannot be reached.
        """
        client = connect(self.url)
        with telling(self.url):
            files = client.hgetall(self._key(label))
        client.close()
        if not files:
            raise RunError(f"{self.url}: has no bundle '{label}' of {self.name}. Run 'mimctr push' first.")
        with TemporaryDirectory(prefix="mimctr-") as kept:
            folder = Path(kept).resolve() / "bundle"
            for file, content in files.items():
                path = (folder / file.decode()).resolve()
                if not path.is_relative_to(folder):
                    raise RunError(
                        f"{self.url}: bundle '{label}' has a file outside of it, {file.decode()!r}."
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield folder

    def tables(self, bundle: Bundle) -> Tables:
        """Return the tables of a bundle that was put there."""
        return remote_tables(bundle, self._open)

    def _open(self, table: str) -> RedisStore:
        return RedisStore(self.url, name=f"{self.name}:{table}")

    def _key(self, label: str) -> str:
        return f"{self.name}:bundle:{label}"
