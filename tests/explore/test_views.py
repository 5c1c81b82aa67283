"""What the explorer says is what the run holds: compared with loops over the raw tables and the stored files."""

import dataclasses
import html
import json
import math
import re
import shutil
import time
import tracemalloc
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import polars as pl
import pytest
from encoders.small import item_encoder, picture
from fastapi.testclient import TestClient

from explore.conftest import (
    DAY,
    HERE,
    ITEM_IDS,
    NUM_ITEMS,
    ODD_IDS,
    ODD_TITLES,
    ODD_USERS,
    SCRIPT,
    START,
    USER_IDS,
    prepared,
)
from mimctr.batch import FIRST_INDEX
from mimctr.center.known_queries import QUERIES
from mimctr.center.snapshot import MANIFEST, VECTORS
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import RECORD, ItemEncoder
from mimctr.errors import DataError
from mimctr.evaluate.compare import Contender
from mimctr.evaluate.results import ModelFacts
from mimctr.explore import views
from mimctr.explore.app import create_app
from mimctr.explore.catalogue import as_title, find_words
from mimctr.explore.kept import kept
from mimctr.explore.pages import address as make_address
from mimctr.explore.schemas import Hit
from mimctr.explore.scores import Said, Scores
from mimctr.recipes import embed
from mimctr.recipes.embed import ITEMS, SUMMARY
from mimctr.recipes.explore import open_run


def stored_vectors(run_folder, encoder_folder=None) -> dict[str, np.ndarray]:
    """Return float64 vectors by raw item id, encoded anew, in float16 as they are kept; None: by the run's encoder."""
    encoder = ItemEncoder.load(encoder_folder or run_folder / "csft")
    items = pl.read_parquet(run_folder.parent / "tables" / "items.parquet")
    vectors, known = encoder.embed_items(
        items["image"].to_list(), items["title"].to_list(), items["category"].to_list()
    )
    kept = vectors.half().double().numpy()
    return {name: kept[row] for row, name in enumerate(items["item_id"]) if known[row]}


def cosine(one, other) -> float:
    products = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    lengths = [math.sqrt(sum(float(a) ** 2 for a in vector)) for vector in (one, other)]
    return products / (lengths[0] * lengths[1])


def test_weights_are_those_of_a_loop_over_the_log(client, run_folder):
    """Every behavior before the impression, newest first, against the target and against another item."""
    vectors = stored_vectors(run_folder)
    log = pl.read_parquet(run_folder.parent / "tables" / "impressions.parquet")
    for target in (None, "item/7"):
        asked = {"id": 3, "row": None, **({"target": target} if target else {})}
        said = client.get("/api/user", params={k: v for k, v in asked.items() if v is not None}).json()
        at, wanted = said["impression"]["time"], target or said["impression"]["item"]["item_id"]
        before = log.filter((pl.col("user_id") == 3) & (pl.col("click") == 1) & (pl.col("time") < at))
        newest = before.sort("time", descending=True)["item_id"].to_list()
        assert said["num_behaviors"] == len(newest)
        assert [one["item_id"] for one in said["behaviors"]] == newest[:50]
        for one in said["behaviors"]:
            name = one["item_id"]
            if name not in vectors or wanted not in vectors:
                assert one["weight"] is None
            else:
                assert one["weight"] == pytest.approx(cosine(vectors[name], vectors[wanted]), abs=1e-6)
    assert any(one["weight"] is not None for one in said["behaviors"])


def test_weights_for_an_item_without_a_vector_are_not_shown_and_that_is_said(client):
    """Models do weigh: by a vector that they learned in its place."""
    said = client.get("/api/user", params={"id": 3, "target": "item/3"}).json()
    assert said["target_has_vector"] is False
    assert {one["weight"] for one in said["behaviors"]} == {None}
    page = client.get("/user", params={"id": 3, "target": "item/3"}).text
    assert "has no vector: models by default put a learned one in its place" in page
    assert "nothing is weighed" not in page


def test_now_has_all_behaviors_and_no_impression(client, run_folder):
    log = pl.read_parquet(run_folder.parent / "tables" / "impressions.parquet")
    said = client.get("/api/user", params={"id": 3, "now": True}).json()
    assert said["impression"] is None
    assert said["num_behaviors"] == log.filter((pl.col("user_id") == 3) & (pl.col("click") == 1)).height


def test_one_can_step_through_all_test_impressions_of_a_user(client, opened):
    said, rows = client.get("/api/user", params={"id": 3}).json(), []
    while True:
        rows.append(said["impression"]["row"])
        if said["next"] is None:
            break
        following = client.get("/api/user", params={"id": 3, "row": said["next"]}).json()
        assert following["previous"] == rows[-1]
        said = following
    table = opened.data.impression_table(opened.test)
    assert rows == table.filter(pl.col("user_id") == 3)["row"].to_list()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (7, "of its category"),
        (6, "of its category"),
        (5, "of no category that the encoder knows"),
    ],
)
def test_neighbors_are_those_of_a_loop_over_the_items_that_are_centered_alike(
    client, run_folder, number, told
):
    """The encoder knows bags and hats, and no shoes. Mutant: items of all categories are searched."""
    vectors, own = stored_vectors(run_folder), f"item/{number}"
    items = pl.read_parquet(run_folder.parent / "tables" / "items.parquet")
    category = dict(zip(items["item_id"], items["category"], strict=True))
    alike = [one for one in vectors if one != own and category[one] == category[own]]
    strip = client.get("/api/item", params={"id": own}).json()["neighbors"][0]
    assert_nearest(strip["hits"], own, {one: vectors[one] for one in alike}, vectors[own])
    assert strip["among"] == told
    line = f"Searched among items {told}, as this encoder centers vectors by category."
    assert line in client.get("/item", params={"id": own}).text


def test_an_encoder_that_centers_on_no_category_has_neighbors_in_all(run_folder, tmp_path):
    (tmp_path / "dataset").symlink_to(run_folder / "dataset")
    item_encoder(categories=()).save(tmp_path / "csft")
    embed.main(
        tmp_path / "dataset",
        tmp_path / "csft",
        tmp_path / "embed" / "csft",
        embed.Config(device="cpu", num_workers=1),
    )
    vectors = stored_vectors(run_folder, tmp_path / "csft")
    own = vectors.pop("item/7")
    with TestClient(create_app(open_run(tmp_path)), base_url=HERE) as client:
        (strip,) = client.get("/api/item", params={"id": "item/7"}).json()["neighbors"]
        assert "Searched among" not in client.get("/item", params={"id": "item/7"}).text
    assert_nearest(strip["hits"], "item/7", vectors, own)
    assert strip["among"] is None


def assert_nearest(hits, own, vectors, query) -> None:
    """See to it that hits are the eight nearest of some items, none of which is ``own``."""
    near = {name: cosine(query, vector) for name, vector in vectors.items()}
    assert [hit["cosine"] for hit in hits] == pytest.approx(sorted(near.values(), reverse=True)[:8], abs=1e-6)
    assert own not in [hit["item_id"] for hit in hits]
    assert all(hit["cosine"] == pytest.approx(near[hit["item_id"]], abs=1e-6) for hit in hits)


def test_an_items_life_and_scores_are_counted_from_the_files(client, run_folder):
    log = pl.read_parquet(run_folder.parent / "tables" / "impressions.parquet").filter(
        pl.col("item_id") == "item/7"
    )
    said = client.get("/api/item", params={"id": "item/7"}).json()
    assert said["num_impressions"] == log.height == sum(one["num_impressions"] for one in said["life"])
    assert said["num_clicks"] == log["click"].sum() == sum(one["num_clicks"] for one in said["life"])
    for one in said["life"]:
        inside = log.filter((pl.col("time") >= one["start"]) & (pl.col("time") < one["end"]))
        assert (one["num_impressions"], one["num_clicks"]) == (inside.height, inside["click"].sum())
    said_of = pl.read_parquet(run_folder / "evaluate" / "predictions.parquet").filter(
        pl.col("item_id") == "item/7"
    )
    assert (
        said["num_test_impressions"]
        == said_of.height
        == sum(one["num_impressions"] for one in said["life"] if one["in_test"])
    )
    assert said["observed"] == pytest.approx(said_of["click"].mean())
    assert {one["name"]: one["probability"] for one in said["scores"]} == pytest.approx(
        {
            "Avg Pooling Base": said_of["probability:mean-base-seed0"].mean(),
            "Avg Pooling Base+MIM (csft)": said_of["probability:mean-mim-seed0"].mean(),
        }
    )


def test_words_find_the_id_first_then_titles_with_every_word(client):
    def found(words):
        return [hit["item_id"] for hit in client.get("/api/search/words", params={"q": words}).json()["hits"]]

    assert found("item/3")[0] == "item/3"
    assert set(found("item/3")[1:]) == {f"item/3{n}" for n in range(10)}
    assert found("NUMBER11 hat") == []
    assert found("NUMBER11 bag") == ["item/11"]
    assert found("a.*") == []


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("caf\u00e9", [" a", "a"]),
        ("cafe\u0301", [" a", "a"]),
        ("CAFE\u0301 Noir", [" a"]),
        ("\u00e9T\u00c9", ["e\u0301te\u0301"]),
        ("cafe", []),
    ],
)
def test_letters_with_marks_are_found_however_they_are_written(odd, words, ids):
    """Composed or decomposed, small or capital; but not without their marks."""
    found = find_words(open_run(odd), words, num=9)
    assert sorted(hit.item_id for hit in found.hits) == ids
    assert (found.total, found.note) == (len(ids), None)


def test_what_words_are_looked_for_in_is_made_once(odd):
    """Composed, and in small letters; a null title is nothing."""
    opened = open_run(odd)
    titles = dict(zip(ODD_IDS, ODD_TITLES, strict=True))
    lines = [f"{one}\n{titles[one] or ''}" for one in opened.data.items["item_id"]]
    assert opened.words.to_list() == [unicodedata.normalize("NFC", line.lower()) for line in lines]
    assert opened.words is opened.words


def test_of_many_words_the_first_twenty_are_looked_for_and_that_is_said(odd):
    """Mutant: a word that is said twice counts twice."""
    words = " ".join(f"w{n} W{n}" for n in range(20))
    with TestClient(create_app(open_run(odd)), base_url=HERE) as client:
        found, more = (
            client.get("/api/search/words", params={"q": some}).json() for some in (words, f"{words} hat hut")
        )
        page = client.get("/search", params={"q": f"{words} hat"}).text
    assert [hit["item_id"] for hit in found["hits"]] == [hit["item_id"] for hit in more["hits"]] == ["many"]
    assert found["note"] is None
    assert more["note"] == "Only the first 20 of 22 different words were looked for."
    assert "Only the first 20 of 21 different words were looked for." in page


def test_more_matches_than_are_shown_are_counted(opened):
    found = find_words(opened, "item", num=3)
    assert (found.total, len(found.hits)) == (NUM_ITEMS, 3)


def test_a_picture_finds_what_its_query_vector_is_nearest_to(client, run_folder):
    vectors, encoder = stored_vectors(run_folder), ItemEncoder.load(run_folder / "csft")
    query, category = encoder.embed_query_images([picture(5)])
    name = encoder.categories[int(category[0])]
    items = pl.read_parquet(run_folder.parent / "tables" / "items.parquet").filter(pl.col("category") == name)
    near = sorted(
        (cosine(query[0].double().numpy(), vectors[one]) for one in items["item_id"] if one in vectors),
        reverse=True,
    )
    said = client.post("/api/search/picture", content=picture(5)).json()
    assert said["total"] == len(near)
    assert [hit["cosine"] for hit in said["hits"]] == pytest.approx(near[:24], abs=1e-5)
    assert name in said["asked"]


def test_a_text_is_an_item_with_this_title_alone(client, run_folder):
    """In the category that it reads like, whatever its own; compared with a loop over the items of it."""
    vectors, encoder = stored_vectors(run_folder), ItemEncoder.load(run_folder / "csft")
    items = pl.read_parquet(run_folder.parent / "tables" / "items.parquet")
    said = client.get("/api/search/text", params={"q": "blue leather hat"}).json()
    taken = said["asked"].rsplit("taken for ", 1)[1]
    assert taken in encoder.categories
    query, _ = encoder.embed_items([None], ["blue leather hat"], [taken])
    own = [one for one in items.filter(pl.col("category") == taken)["item_id"] if one in vectors]
    near = sorted((cosine(query[0].double().numpy(), vectors[one]) for one in own), reverse=True)
    assert said["total"] == len(own)
    assert [hit["cosine"] for hit in said["hits"]] == pytest.approx(near[:24], abs=1e-5)


@pytest.mark.parametrize(
    ("pictured", "told"),
    [
        ([True, False, False], ", and items without one are often near it: 2 of these 3."),
        ([True, True], "."),
        ([], "."),
    ],
)
def test_a_text_that_is_taken_for_a_title_says_so(pictured, told):
    hits = [
        Hit(item_id=n, title=None, category=None, picture="/pictures/items/0" if there else None)
        for n, there in enumerate(pictured)
    ]
    assert as_title(hits) == f"The text is taken for the title of an item without a picture{told}"


def test_the_page_says_what_a_text_is_taken_for(client):
    """And says nothing of it for a picture, or words."""
    told = "The text is taken for the title of an item without a picture"
    assert told in client.get("/search", params={"q": "red hat", "by": "text"}).text
    assert told not in client.get("/search", params={"q": "red hat"}).text
    assert told not in client.post("/search/picture", content=picture(5)).text


def test_words_without_a_word_find_nothing(client):
    assert client.get("/api/search/words", params={"q": "  "}).json()["total"] == 0


def test_slices_are_those_of_the_results(client, opened, run_folder):
    rows = {row["slice"]: row for row in client.get("/api/slices").json()}
    assert rows["all"]["num_impressions"] == len(opened.test)
    results = json.loads((run_folder / "evaluate" / "results.json").read_text())["rows"]
    auc = {(one["slice"], one["variant"]): one["auc"] for one in results}
    for name, row in rows.items():
        assert (row["base"], row["content"]) == (auc[name, "base"], auc[name, "mim"])


def test_examples_are_the_impressions_on_which_the_probability_moved_most(opened):
    """Compared with a loop: six of the clicked and six of the others, nearer to what happened and farther from it.

    Probabilities near 0 are among them: a difference of logarithms would put those first.
    """
    rng = np.random.default_rng(0)
    base, mim = (rng.uniform(0, 1, len(opened.test)) ** 4 for _ in range(2))
    said = [
        Said(ubm="mean", variant=variant, encoder=encoder, seed=0, probability=probability)
        for variant, encoder, probability in (("base", None, base), ("mim", "csft", mim))
    ]
    run = dataclasses.replace(opened, scores=Scores(said))
    clicked = [bool(click) for click in opened.data.impressions.click[opened.test.start :]]
    nearer = [float(b - a) if click else float(a - b) for click, a, b in zip(clicked, base, mim, strict=True)]
    with TestClient(create_app(run), base_url=HERE) as client:
        view = client.get("/api/slice", params={"name": "all"}).json()
        page = client.get("/slice", params={"name": "all"}).text
    for name, sign in (("helped", 1), ("harmed", -1)):
        wanted = []
        for kind in (True, False):
            own = [place for place, click in enumerate(clicked) if click is kind and sign * nearer[place] > 0]
            wanted += sorted(own, key=lambda place: sign * nearer[place], reverse=True)[:6]
        assert [one["row"] - opened.test.start for one in view[name]] == wanted
        assert [one["clicked"] for one in view[name]] == [True] * 6 + [False] * 6
    assert page.count("<h3>Clicked</h3>") == page.count("<h3>Not clicked</h3>") == 2


def test_base_and_content_are_compared_over_what_both_have():
    """Mutant: Base is the mean of all its models, also of those that have no partner with content."""
    models = [
        ("mean", "base", None, 0, 0.1),
        ("mean", "base", None, 1, 0.3),
        ("din", "base", None, 0, 0.9),
        ("mean", "mim", "plain", 1, 0.8),
        ("mean", "mim", "csft", 1, 0.4),
        ("sim", "mim", "csft", 1, 0.7),
    ]
    scores = Scores(
        [
            Said(ubm=ubm, variant=variant, encoder=encoder, seed=seed, probability=np.array([probability]))
            for ubm, variant, encoder, seed, probability in models
        ]
    )
    assert scores.compared(Contender("mim", "csft")) == (pytest.approx([0.3]), pytest.approx([0.4]))
    assert scores.compared(Contender("mim", "dma")) is None
    assert scores.compared(None) is None


def test_the_mean_of_many_models_is_that_of_a_loop_and_takes_the_memory_of_few():
    """Mutant: what all of them say is put into one array first."""
    num_rows, num_seeds, rng = 20_000, 30, np.random.default_rng(0)
    models = [
        Said(ubm="mean", variant=variant, encoder=encoder, seed=seed, probability=rng.uniform(size=num_rows))
        for variant, encoder in (("base", None), ("mim", "csft"))
        for seed in range(num_seeds)
    ]
    tracemalloc.start()
    try:
        means = Scores(models).compared(Contender("mim", "csft"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 8 * num_rows
    for mean, variant in zip(means, ("base", "mim"), strict=True):
        own = [model.probability for model in models if model.variant == variant]
        for row in range(0, num_rows, 997):
            assert mean[row] == pytest.approx(sum(float(one[row]) for one in own) / num_seeds)


def test_what_does_not_change_is_worked_out_once(opened, monkeypatch):
    """Mutant: every request for a slice averages all models."""
    asked = Counter()

    def counted(name, work):
        def count(*given):
            asked[name] += 1
            return work(*given)

        return count

    for name in ("view_run", "slice_rows", "view_slice"):
        monkeypatch.setattr(views, name, counted(name, getattr(views, name)))
    monkeypatch.setattr(Scores, "compared", counted("compared", Scores.compared))
    names = list(opened.slices)[:2]
    with TestClient(create_app(dataclasses.replace(opened)), base_url=HERE) as client:
        first, second = (
            [client.get(address).json() for address in ("/api/run", "/api/slices")]
            + [client.get("/api/slice", params={"name": name}).json() for name in names]
            for _ in range(2)
        )
    assert first == second
    assert [one["slice"] for one in first[2:]] == names
    assert asked == {"view_run": 1, "slice_rows": 1, "view_slice": 2, "compared": 1}


def test_predictions_are_in_the_order_of_the_rows_and_nothing_else_is_read(tmp_path):
    """What is in another column is no text at all. Mutant: all columns are read."""
    path, rows = tmp_path / "predictions.parquet", [7, 5, 9, 6, 8]
    said = {name: [row / 10 + place for row in rows] for place, name in enumerate("ab")}
    columns = {f"probability:{name}": values for name, values in said.items()}
    table = pl.DataFrame({"row": rows, "user_id": [f"user-{row}" for row in rows], **columns})
    table.write_parquet(path, compression="uncompressed", statistics=False)
    path.write_bytes(path.read_bytes().replace(b"user-", b"\xff" * 5))
    with pytest.raises(pl.exceptions.PolarsError):
        pl.read_parquet(path)
    models = [
        ModelFacts(ubm="mean", variant="base", seed=seed, encoder=None, folder=f"train/{name}", config={})
        for seed, name in enumerate("bc")
    ]
    (found,) = Scores.read(path, models, range(5, 10)).models
    assert found.seed == 0
    assert found.probability.tolist() == [row / 10 + 1 for row in range(5, 10)]
    with pytest.raises(DataError, match="5 impressions that are not the 4 of the test part"):
        Scores.read(path, models, range(5, 9))


def test_ids_that_are_0_or_negative_or_of_19_digits_are_links(numbered):
    """Mutants: 0 is left out of an address as False is; an id has 18 digits and no sign."""
    with TestClient(create_app(open_run(numbered)), base_url=HERE) as client:
        for item_id in ITEM_IDS:
            assert client.get("/api/item", params={"id": item_id}).json()["card"]["item_id"] == item_id
            found = client.get("/search", params={"q": f"hat {item_id}"}).text
            assert client.get(f"/item?id={item_id}").status_code == 200
            assert f'"/item?id={item_id}"' in found
            assert (
                client.get("/api/search/words", params={"q": item_id}).json()["hits"][0]["item_id"] == item_id
            )
        for user_id in USER_IDS:
            page = client.get("/user", params={"id": user_id}).text
            (later,) = re.findall(r'rel="next" href="([^"]+)"', page)
            assert later.startswith(f"/user?id={user_id}&amp;row=")
            assert client.get(html.unescape(later)).status_code == 200
        seen_by = {user for item in ITEM_IDS for user in links(client, item)}
        assert {f"/user?id={user}" for user in USER_IDS} >= seen_by > set()


def links(client, item) -> set[str]:
    """Return the addresses of users on an item's page, without their impressions."""
    return {
        address.partition("&amp;")[0]
        for address in re.findall(r'href="(/user[^"]+)"', client.get(f"/item?id={item}").text)
    }


def test_an_id_is_found_with_spaces_around_it(client):
    assert client.get("/user", params={"id": " 3 "}).status_code == 200
    assert client.get("/api/item", params={"id": "item/7\t"}).json()["card"]["item_id"] == "item/7"


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_an_id_is_taken_as_it_is_given(odd, item_id):
    """Mutant: spaces that are part of an id are taken off."""
    with TestClient(create_app(open_run(odd)), base_url=HERE) as client:
        assert client.get("/api/item", params={"id": item_id}).json()["card"]["item_id"] == item_id
        found = client.get("/api/search/words", params={"q": item_id}).json()
        assert found["hits"][0]["item_id"] == item_id
        link = html.escape(make_address("/item", id=item_id))
        assert f'href="{link}"' in client.get("/search", params={"q": item_id}).text
        for user_id in ODD_USERS:
            page = client.get("/user", params={"id": user_id, "now": True, "target": item_id}).text
            assert f'name="id" value="{user_id}"' in page
            assert f'placeholder="{item_id}"' in page
            assert f'name="target" value="{item_id}"' in page


def test_a_target_of_spaces_is_none(odd):
    with TestClient(create_app(open_run(odd)), base_url=HERE) as client:
        page = client.get("/user", params={"id": "u", "now": True, "target": "  "})
        assert page.status_code == 200
        assert 'name="target" value=""' in page.text


def test_ids_and_names_of_slices_may_be_long(odd):
    with TestClient(create_app(open_run(odd)), base_url=HERE) as client:
        for address in ("/api/item", "/api/user", "/item", "/user"):
            assert client.get(address, params={"id": "y" * 4000}).status_code == 404
            assert client.get(address, params={"id": "y" * 4001}).status_code == 422
        for address in ("/api/slice", "/slice"):
            assert client.get(address, params={"name": "y" * 4000}).status_code == 404
        for address in ("/", "/search", "/user?id=u"):
            assert set(re.findall('maxlength="([0-9]+)"', client.get(address).text)) == {"4000"}


def test_an_item_that_the_log_never_names_was_not_first_seen(numbered, tmp_path):
    """Mutant: the first second of the log, which stands for no time, is told as a fact."""
    shutil.copytree(numbered.parent / "tables", tmp_path / "tables")
    path = tmp_path / "tables" / "items.parquet"
    items = pl.read_parquet(path)
    pl.concat([items, pl.DataFrame({"item_id": [99], "title": ["never shown"]})]).write_parquet(path)
    prepare_tables(tmp_path / "tables", tmp_path / "run" / "dataset")
    with TestClient(create_app(open_run(tmp_path / "run")), base_url=HERE) as client:
        never, shown = (client.get("/api/item", params={"id": one}).json() for one in (99, ITEM_IDS[1]))
        assert (never["in_log"], shown["in_log"]) == (False, True)
        assert "<dd>not in the log</dd>" in client.get("/item", params={"id": 99}).text
        assert "<dd>not in the log</dd>" not in client.get("/item", params={"id": ITEM_IDS[1]}).text


def test_an_item_is_in_the_log_whatever_the_catalogue_says_of_its_first_time(tmp_path):
    """All are listed: 98, which is only bought, at the first second of the log; 99, which nothing names, before it.

    Mutant: what is listed at another time than the first second is in the log.
    """
    first = dict.fromkeys(ITEM_IDS, START - 9 * DAY) | {98: START, 99: START - DAY}
    items = pl.DataFrame({"item_id": list(first), "first_seen_time": list(first.values())})
    bought = {"user_id": USER_IDS[0], "item_id": 98, "time": START + 60 * DAY, "kind": "purchase"}
    seen = bought | {"item_id": ITEM_IDS[0], "time": START}
    (tmp_path / "tables").mkdir()
    pl.DataFrame([seen, bought]).write_parquet(tmp_path / "tables" / "behaviors.parquet")
    run = prepared(tmp_path, items, ITEM_IDS, USER_IDS)
    opened = open_run(run)
    with TestClient(create_app(opened), base_url=HERE) as client:
        found = {one: client.get("/api/item", params={"id": one}).json()["in_log"] for one in first}
    assert found == dict.fromkeys(ITEM_IDS, True) | {98: True, 99: False}


def test_the_items_that_the_log_names_are_those_of_a_loop(opened):
    data = opened.data
    named = {int(one) for some in (data.impressions.target, data.behaviors.item) for one in some}
    named |= set(data.pairs["item"].to_list())
    assert opened.named.tolist() == [item in named for item in range(NUM_ITEMS + FIRST_INDEX)]


def test_vectors_that_are_not_finished_are_told_and_left_out(run_folder, tmp_path):
    for name in ("dataset", "train", "csft", "evaluate"):
        (tmp_path / name).symlink_to(run_folder / name)
    shutil.copytree(run_folder / "embed" / "csft", tmp_path / "embed" / "csft")
    shutil.copytree(run_folder / "embed" / "csft", tmp_path / "embed" / "new")
    (tmp_path / "embed" / "new" / SUMMARY).unlink()
    (tmp_path / "embed" / "begun" / ITEMS).mkdir(parents=True)
    opened = open_run(tmp_path)
    assert list(opened.generations) == ["csft"]
    assert "Vectors of begun, new: not finished." in opened.missing


def flip_a_bit(folder) -> None:
    """Damage a snapshot where only its checksum tells."""
    data = bytearray((folder / VECTORS).read_bytes())
    data[-1] ^= 1
    (folder / VECTORS).write_bytes(data)


def cut_the_manifest(folder) -> None:
    """Leave half of what a snapshot says of itself."""
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])


def take_another_catalogue(folder) -> None:
    """Put the vectors of two other items there."""
    shutil.rmtree(folder)
    write_snapshot(folder, np.array([1, 2]), np.ones((2, 6), np.float32), encoder="another")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_a_bit, "its bytes do not match the checksum in manifest.json"),
        (cut_the_manifest, "not valid JSON"),
        (take_another_catalogue, f"none of its 2 vectors belongs to one of the {NUM_ITEMS} items"),
        (shutil.rmtree, "holds no snapshot (manifest.json is missing)"),
    ],
)
def test_damaged_vectors_are_told_and_left_out(run_folder, tmp_path, damage, told):
    """One of two folders, then both. Mutant: the explorer does not open."""
    for name in ("dataset", "train", "csft", "evaluate"):
        (tmp_path / name).symlink_to(run_folder / name)
    for name in ("csft", "new"):
        shutil.copytree(run_folder / "embed" / "csft", tmp_path / "embed" / name)
    damage(tmp_path / "embed" / "csft" / ITEMS)
    opened = open_run(tmp_path)
    assert (list(opened.generations), list(opened.asks)) == (["new"], [])
    assert opened.missing[0].startswith("Vectors of csft: ")
    assert told in opened.missing[0]
    damage(tmp_path / "embed" / "new" / ITEMS)
    with TestClient(create_app(open_run(tmp_path)), base_url=HERE) as client:
        missing = client.get("/api/run").json()["missing"]
        assert [line.split(": ")[0] for line in missing] == [
            "Vectors of csft",
            "Vectors of new",
            "No vectors (embed)",
        ]
        assert all(told in line for line in missing[:2])
        assert "This run has no vectors." in client.get("/item?id=item/7").text


def test_an_encoder_of_another_format_is_told_and_its_vectors_are_shown(run_folder, tmp_path):
    for name in ("dataset", "embed"):
        (tmp_path / name).symlink_to(run_folder / name)
    shutil.copytree(run_folder / "csft", tmp_path / "csft")
    record = json.loads((tmp_path / "csft" / RECORD).read_text())
    (tmp_path / "csft" / RECORD).write_text(json.dumps(record | {"format": 1}))
    opened = open_run(tmp_path)
    assert (list(opened.generations), list(opened.asks)) == (["csft"], [])
    assert opened.missing[0].startswith("Encoder of csft: ")
    assert "format 1" in opened.missing[0]


def test_vectors_of_queries_are_not_read(run_folder, tmp_path):
    """Mutant: they are opened, checked and kept."""
    for name in ("dataset", "train", "csft", "evaluate"):
        (tmp_path / name).symlink_to(run_folder / name)
    shutil.copytree(run_folder / "embed" / "csft", tmp_path / "embed" / "csft")
    shutil.rmtree(tmp_path / "embed" / "csft" / QUERIES)
    opened = open_run(tmp_path)
    assert list(opened.generations) == ["csft"]
    assert opened.missing == []


def test_what_is_kept_is_worked_out_once_however_many_ask():
    """Mutant: the second thread does not wait for the first one's answer."""
    asked = []

    def work(key):
        asked.append(key)
        time.sleep(0.05)
        return object()

    get = kept(work, 2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(get, ["a"] * 8))
    assert asked == ["a"]
    assert len({id(one) for one in found}) == 1


def test_numbers_of_categories_are_those_of_a_loop(opened):
    names = [None, None, *opened.data.items["category"].to_list()]
    for name in {*names, "elsewhere"} - {None}:
        found = opened.of_category(name)
        assert (found is None) == (name == "elsewhere")
        assert found is None or found.tolist() == [one == name for one in names]
        assert opened.outside([name]).tolist() == [one != name for one in names]
    assert opened.of_category(None) is None
    assert opened.outside([]).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_of_a_life_can_be_told_apart(scheme):
    """WCAG 2.2, 1.4.11: 3 to 1 against the paper, and of clicks against impressions."""
    css = (files("mimctr.explore") / "static" / "explore.css").read_text()
    block = css.split(":root {")[1 if scheme == "light" else 2]
    colors = {name: re.search(rf"--{name}: #(\w{{6}})", block)[1] for name in ("paper", "shown", "clicked")}

    def luminance(color):
        parts = [int(color[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for one, other in (("paper", "shown"), ("shown", "clicked")):
        low, high = sorted(luminance(colors[name]) for name in (one, other))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_an_address_leaves_out_what_is_not_there():
    assert make_address("/user", id=0, row=None, encoder="", target=-5) == "/user?id=0&target=-5"


def test_what_words_do_not_find_is_searched_for_by_meaning(client):
    page = client.get("/search", params={"q": "sombrero"}).text
    assert "Items with &#39;sombrero&#39; in the title or id: none." in page
    assert 'href="/search?q=sombrero&amp;by=text"' in page
    assert "by=text" not in client.get("/search", params={"q": "hat"}).text


def asked_with_a_picture(client) -> dict:
    """Return where a test impression of user 3 is that has a query picture."""
    said = client.get("/api/user", params={"id": 3}).json()
    while not said["impression"]["query_picture"]:
        said = client.get("/api/user", params={"id": 3, "row": said["next"]}).json()
    return {"id": 3, "row": said["impression"]["row"]}


def test_a_query_picture_leads_to_what_is_near_it(client):
    page = client.get("/user", params=asked_with_a_picture(client)).text
    (search,) = re.findall(r'href="(/search/query/[0-9]+)"', page)
    found = client.get(search)
    assert found.status_code == 200
    assert f'<img src="{search.replace("/search/query", "/pictures/queries")}"' in found.text


def test_what_a_run_lacks_is_said(run_folder, tmp_path):
    shutil.copytree(run_folder / "dataset", tmp_path / "dataset")
    with TestClient(create_app(open_run(tmp_path)), base_url=HERE) as client:
        user = client.get("/user", params=asked_with_a_picture(client)).text
        assert "the query picture" in user
        assert "/search/query/" not in user
        page = client.get("/").text
        assert "No vectors (embed)" in page
        assert "No results (evaluate)" in page
        for address in ("/search?q=hat", "/item?id=item/7", "/user?id=3", "/slices"):
            assert client.get(address).status_code == 200, address
        refused = client.get("/api/search/text", params={"q": "hat"})
        assert (refused.status_code, "no encoder" in refused.json()["detail"]) == (404, True)


def test_titles_are_text_on_every_page(client):
    for address in ("/search?q=script", "/item?id=item/0", "/slice?name=all"):
        text = client.get(address).text
        assert SCRIPT not in text
    assert "&lt;script&gt;window.broken" in client.get("/item?id=item/0").text
