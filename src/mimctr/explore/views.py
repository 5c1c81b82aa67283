"""What can be asked of a run, whoever asks: programs and pages get the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mimctr.explore.catalogue import NotThere, find_near, find_words, view_item
from mimctr.explore.kept import kept
from mimctr.explore.opened import Asked, Asks, OpenedRun
from mimctr.explore.pictures import Group, Size, Thumbnail, Thumbnails
from mimctr.explore.schemas import Found, ItemView, RunView, SliceRow, SliceView, UserView
from mimctr.explore.slices import slice_rows, view_run, view_slice
from mimctr.explore.users import choose_encoder, view_user

SMALL: Size = 128
LARGE: Size = 384
NUM_SLICES = 256
"""Slices that are kept; a run has fewer."""


@dataclass
class Views:
    """Views of one run."""

    run: OpenedRun
    num_hits: int = 24
    num_neighbors: int = 8
    max_behaviors: int = 50
    thumbnails: Thumbnails = field(init=False)
    _about: Callable[[], RunView] = field(init=False)
    _slices: Callable[[], list[SliceRow]] = field(init=False)
    _slice: Callable[[str], SliceView] = field(init=False)

    def __post_init__(self) -> None:
        data = self.run.data
        self.thumbnails = Thumbnails({"items": data.item_images, "queries": data.queries.images})
        self._about = kept(partial(view_run, self.run), 1)
        self._slices = kept(partial(slice_rows, self.run), 1)
        self._slice = kept(partial(view_slice, self.run), NUM_SLICES)

    def about(self) -> RunView:
        """Return what the run is."""
        return self._about()

    def words(self, words: str) -> Found:
        """Return items by the words of their titles, or their id."""
        return find_words(self.run, words, num=self.num_hits)

    def text(self, text: str, encoder: str | None) -> Found:
        """Return items near a text."""
        name, asks = self._asks(encoder)
        return self._near(name, asks.text(text), what=f"items nearest to the text {text!r}")

    def picture(self, picture: bytes, encoder: str | None) -> Found:
        """Return items near a picture."""
        name, asks = self._asks(encoder)
        return self._near(name, asks.picture(picture), what="items nearest to the picture")

    def query_picture(self, number: int, encoder: str | None) -> Found:
        """Return items near a query picture of the dataset."""
        images = self.run.data.queries.images
        if not 0 <= number < images.num_blobs:
            raise NotThere(f"there is no picture {number} of queries in this run")
        return self.picture(images.blob(number), encoder)

    def item(self, item_id: str, *, encoders: Sequence[str] | None = None) -> ItemView:
        """Return all that is known of an item; its neighbors by some encoders, or by all."""
        return view_item(self.run, item_id, num_neighbors=self.num_neighbors, encoders=encoders)

    def user(
        self, user_id: str, *, row: int | None, now: bool, target: str | None, encoder: str | None
    ) -> UserView:
        """Return a user before a test impression, or now."""
        return view_user(
            self.run, user_id, row=row, now=now, target=target, encoder=encoder, max_length=self.max_behaviors
        )

    def slices(self) -> list[SliceRow]:
        """Return metrics by slice."""
        return self._slices()

    def slice(self, name: str) -> SliceView:
        """Return examples of a slice."""
        return self._slice(name)

    def thumbnail(self, group: Group, number: int, *, large: bool) -> Thumbnail:
        """Return a picture of the dataset, made small."""
        return self.thumbnails.get(group, number, LARGE if large else SMALL)

    def _asks(self, encoder: str | None) -> tuple[str, Asks]:
        name = choose_encoder(self.run, encoder) if encoder else self.run.preferred_to_ask
        if name is None or name not in self.run.asks:
            raise NotThere(
                "this run has no encoder that a text or a picture could be put to; search for words"
            )
        return name, self.run.asks[name]

    def _near(self, name: str, asked: Asked, *, what: str) -> Found:
        return find_near(self.run, name, asked, num=self.num_hits, what=what)
