"""Shops with odd or missing content: every item ends with a sensible vector, or the stage with one clear line."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from csft.shop import NUM_ITEMS, open_shop, write_shop
from csft.test_csft_recipe import metrics_of
from mimctr.center.snapshot import Snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import DataError, EncoderError
from mimctr.recipes import csft, embed, pretrain
from mimctr.recipes.csft_examples import Examples

CONFIG = csft.Config(
    dim=4, hidden=3, batch_size=100_000, num_steps=2, evaluate_every=1, device="cpu", bf16=False
)
BLANK = ["", "   ", "\x00", "\u200b"]
ODD = ["\u0301", "word " * 20_000, "x" * 100_000, "👟🔥", "赤い靴", "red\x00 shoe", "赤" * 100_000]


def odd_pictures() -> list[bytes]:
    def encoded(image: Image.Image, form: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    noise = Image.effect_noise((20, 30), 90)
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime")]
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        encoded(noise, "JPEG"),
        encoded(Image.fromarray(np.asarray(noise).astype(np.uint16) * 257), "PNG"),
        encoded(noise.convert("CMYK"), "JPEG"),
        encoded(noise.convert("P"), "PNG", transparency=0),
        encoded(noise.convert("RGBA"), "PNG"),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(noise, "JPEG", exif=turned),
        encoded(Image.new("RGB", (1, 1)), "PNG"),
        encoded(Image.new("RGB", (1, 5000), "blue"), "PNG"),
    ]


def replaced(column: str, first: int, values: list, dtype: type[pl.DataType]) -> pl.Expr:
    """Return ``column`` with ``values`` from row ``first`` on."""
    expression = pl.col(column)
    for row, value in enumerate(values, start=first):
        expression = (
            pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value, dtype=dtype)).otherwise(expression)
        )
    return expression


def test_odd_titles_and_pictures_all_have_a_vector_of_their_own(encoders, tmp_path):
    """Item 102 alone has neither; a title of nothing visible is missing, and its item does with its picture."""
    columns = {
        "title": replaced("title", 3, [*BLANK, *ODD], pl.String),
        "image": replaced("image", 10, odd_pictures(), pl.Binary),
    }
    shop = write_shop(tmp_path / "shop", columns=columns)
    csft.main(shop, encoders, tmp_path / "csft", CONFIG)
    summary = embed.main(shop, tmp_path / "csft", tmp_path / "embed", embed.Config(device="cpu"))
    assert (summary.num_items, summary.num_items_without_content) == (NUM_ITEMS - 1, 1)
    items = Snapshot.open(tmp_path / "embed" / "items", encoder=summary.fingerprint)
    assert sorted(items.keys.tolist()) == [100, 101, *range(103, 100 + NUM_ITEMS)]
    np.testing.assert_allclose(np.linalg.norm(items.vectors.astype(np.float64), axis=1), 1.0, atol=1e-3)
    assert len(np.unique(items.vectors.round(3), axis=0)) == NUM_ITEMS - 1

    data, encoder = CtrDataset.open(shop), ItemEncoder.load(tmp_path / "csft")
    assert data.items["title"].is_null().to_list() == [row in (1, 2, 3, 4, 5, 6) for row in range(NUM_ITEMS)]
    alone, known = encoder.embed_items([data.item_images.get(3)], [None])
    assert known.all()
    row = items.keys.tolist().index(103)
    np.testing.assert_allclose(items.vectors[row], alone[0].numpy(), atol=2e-3)


def test_a_validation_part_of_one_class_leaves_one_metric_out(encoders, tmp_path):
    """Mutant: it is computed whatever is watched; a log of clicks alone is refused although search needs none."""
    write_shop(tmp_path / "shop")
    tables = tmp_path / "shop" / "tables"
    impressions = pl.read_parquet(tables / "impressions.parquet")
    impressions.with_columns(click=pl.lit(1)).write_parquet(tables / "impressions.parquet")
    prepare_tables(tables, tmp_path / "clicked")
    for shop, judged in ((tmp_path / "shop" / "dataset", True), (tmp_path / "clicked", False)):
        out = tmp_path / f"csft-{judged}"
        csft.main(shop, encoders, out, CONFIG)
        lines = [line for line in metrics_of(out) if "recall@10" in line]
        assert [line["step"] for line in lines] == [0, 1, 2]
        assert all(("cosine_auc" in line) == judged for line in lines)
    watched = CONFIG.model_copy(update={"metric": "cosine_auc"})
    with pytest.raises(DataError, match="labels are 1, so there is no pair to rank"):
        csft.main(tmp_path / "clicked", encoders, tmp_path / "watched", watched)


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_step_may_hold_no_title(encoders, tmp_path, pieces):
    """Mutant: run the text tower on no rows, which BERT refuses."""
    few = pl.when(pl.int_range(pl.len()) < 16).then(None).otherwise(pl.col("title"))
    shop = write_shop(tmp_path / "shop", columns={"title": few})
    settings = {"batch_size": 2, "hard_negatives": False, "num_steps": 6, "tower_batch_size": pieces}
    config = CONFIG.model_copy(update=settings)
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, config)
    titles = [catalogue.has_text[examples.batch(step).items].sum() for step in range(6)]
    assert min(titles) == 0 < max(titles)
    csft.main(shop, encoders, tmp_path / "csft", config)
    assert ItemEncoder.load(tmp_path / "csft").dim == 4


@pytest.mark.parametrize("column", ["title", "image"])
def test_a_shop_without_titles_or_without_pictures_is_told_in_a_line(encoders, tmp_path, column):
    nothing = pl.lit(None, dtype=pl.String if column == "title" else pl.Binary)
    shop = write_shop(tmp_path / "shop", columns={column: nothing})
    with pytest.raises(
        EncoderError, match=r"0 items have both image and title; PCA needs at least 2\. Add what is missing"
    ):
        csft.main(shop, encoders, tmp_path / "csft", CONFIG)
    with pytest.raises(
        DataError, match=f"only 0 items known before the test part have {column}; 4 are needed"
    ):
        pretrain.main(
            shop, encoders, tmp_path / "pretrain", pretrain.Config(device="cpu", masked_image_steps=1)
        )
    assert not (tmp_path / "csft" / "encoder.json").exists()
    assert not (tmp_path / "pretrain" / "pretrain.json").exists()
