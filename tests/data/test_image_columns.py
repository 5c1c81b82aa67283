"""Image columns: bytes or files beside the tables; what cannot be used is told, and leniently missing."""

import io
import re

import polars as pl
import pytest
from PIL import Image

from mimctr.data import CtrDataset, prepare_tables

from .conftest import NUM_ITEMS, START, edit, picture, refusal, with_paths, write_tables


def truncated_jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()[:600]


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (truncated_jpeg(), r"image: damaged or truncated \(.*\)\. Export it again\."),
        (b"", r"image: it is empty \(0 bytes\)\. Export it again\."),
        (
            b"<html>",
            r"image: its 6 bytes are not JPEG, PNG, WEBP, GIF or BMP \(they begin with b'<html>'\)\.",
        ),
    ],
)
def test_an_unreadable_image_is_told_and_leniently_missing(tables, write, tmp_path, image, told):
    tables["items"] = edit(edit(tables["items"], "image", 4, image), "image", 9, image)
    [line] = refusal(write(tables), tmp_path / "out")
    assert re.fullmatch(
        r"items\.image: 2 of 20 rows have an image that cannot be used\. First: row 4, "
        + told
        + r".* '--lenient' treats these images as missing\.",
        line,
    )
    summary = prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    dataset = CtrDataset.open(tmp_path / "lenient")
    assert summary.counts["items"] == NUM_ITEMS
    assert [row for row in range(NUM_ITEMS) if dataset.item_images.get(row) is None] == [4, 9]
    assert dataset.items["has_image"].to_list() == [row not in (4, 9) for row in range(NUM_ITEMS)]
    assert {(problem.rule, problem.severity) for problem in summary.problems} == {
        ("unreadable-image", "dropped"),
        ("missing-image", "information"),
    }


def test_images_may_be_files_beside_the_tables(tables, tmp_path):
    write_tables(tmp_path / "tables", with_paths(tables, tmp_path / "tables", {}))
    prepare_tables(tmp_path / "tables", tmp_path / "out")
    images = CtrDataset.open(tmp_path / "out").item_images
    assert [images.get(row) for row in range(NUM_ITEMS)] == [picture(row) for row in range(NUM_ITEMS)]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            "photos/none.png",
            r"photos/none\.png: no such file\. Paths are relative to the folder of the tables\.",
        ),
        ("photos", r"photos: no such file"),
        (
            "../secret.png",
            r"\.\./secret\.png: the path leads out of .*\. Put the file below",
        ),
        ("/etc/passwd", r"/etc/passwd: the path leads out of"),
        ("photos/link.png", r"photos/link\.png: the path leads out of"),
        ("a\0b", r"a\x00b: the path is not usable"),
    ],
)
def test_a_path_that_leads_nowhere_or_out_is_told(tables, tmp_path, path, told):
    """Mutant: open ``folder / path`` as it is; a table could then read any file of the machine."""
    (tmp_path / "secret.png").write_bytes(picture(1))
    tables = with_paths(tables, tmp_path / "tables", {6: path})
    (tmp_path / "tables" / "photos" / "link.png").symlink_to(tmp_path / "secret.png")
    write_tables(tmp_path / "tables", tables)
    [line] = refusal(tmp_path / "tables", tmp_path / "out")
    assert re.match(
        r"items\.image: 1 of 20 rows have an image that cannot be used\. First: row 6, " + told, line
    )


def test_a_search_without_a_usable_image_is_dropped(tables, write, tmp_path):
    """Mutant: keep it without image and text; C-SFT then meets a pair whose query is nothing."""
    tables["searches"] = pl.DataFrame(
        {
            "query_image": [picture(1), None, b"broken"],
            "user_id": [1, 2, 3],
            "item_id": [100, 101, 102],
            "time": [START + 5] * 3,
            "kind": ["purchase"] * 3,
        }
    )
    lines = refusal(write(tables), tmp_path / "out")
    assert re.match(
        r"searches\.query_image: 1 of 3 rows have an image that cannot be used\. First: row 2, ", lines[0]
    )
    assert lines[0].endswith("'--lenient' treats these images as missing.")
    assert lines[1:] == [
        "searches: 2 of 3 rows have neither a usable query_image nor a query_text. First: row 1. Fill in one of them, "
        "or leave the rows out."
    ]
    prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    assert CtrDataset.open(tmp_path / "lenient").pairs["item"].to_list() == [2]
