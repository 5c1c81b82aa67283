"""A reproduction is a run to the explorer: its encoders are below seeds, its results below groups of experiments."""

import html
import json
import re

import polars as pl
import pytest
from encoders.small import picture
from fastapi.testclient import TestClient

from explore.conftest import ENCODERS, HERE, NUM_ITEMS
from mimctr.encoders.item import RECORD
from mimctr.evaluate.results import read_results
from mimctr.explore.app import create_app
from mimctr.explore.generation import in_order, preferred_of
from mimctr.recipes.explore import encoder_folder, open_run
from mimctr.report.summary import Summary


@pytest.fixture
def client(opened_reproduction):
    with TestClient(create_app(opened_reproduction), base_url=HERE) as made:
        yield made


def test_it_lacks_nothing_and_has_the_finding_of_its_user_behavior_models(client, run_folder):
    said = client.get("/api/run").json()
    assert said["missing"] == []
    assert (said["name"], said["evaluation"]) == ("ubms", "evaluate/ubms")
    assert said["models"] == ["Avg Pooling Base, 1 seed", "Avg Pooling Base+MIM (mim), 1 seed"]
    page = client.get("/").text
    assert "What this run lacks" not in page
    assert "A run without results" not in page


def test_encoders_are_in_the_order_of_training_and_then_by_seed(client):
    assert client.get("/api/run").json()["asks"] == [
        "plain",
        "dma-seed1",
        "mim-seed1",
        "dda-seed1",
        "dma-seed2",
        "mim-seed2",
        "mim-seed10",
        "mim, EVA-seed1",
        "plain, EVA",
        "without_tfn-seed2",
    ]


@pytest.mark.parametrize("encoder", [None, *(name for name in ENCODERS if name != "mim-seed10")])
def test_every_encoder_can_be_asked_and_that_of_c_sft_is_where_none_is_named(client, encoder):
    asked = {} if encoder is None else {"encoder": encoder}
    by_text = client.get("/api/search/text", params={"q": "red hat"} | asked).json()
    by_picture = client.post("/api/search/picture", params=asked, content=picture(5)).json()
    by_query = client.get("/api/search/query/0", params=asked).json()
    for found in (by_text, by_picture, by_query):
        assert f" by {encoder or 'mim-seed1'}," in found["asked"]
        assert found["hits"]
    assert client.get("/api/user", params={"id": 3} | asked).json()["encoder"] == (encoder or "mim-seed1")


def test_an_encoder_that_did_not_make_the_vectors_is_refused(client):
    refused = client.get("/api/search/text", params={"q": "red hat", "encoder": "mim-seed10"})
    assert refused.status_code == 409
    assert "seed10/mim: encoder " in refused.json()["detail"]


def test_forms_offer_the_encoder_that_is_meant(client):
    for address in ("/search", "/user?id=3"):
        assert chosen(client.get(address).text) == ["mim-seed1"]
    assert chosen(client.get("/search/query/0").text) == ["mim-seed1"] * 2
    assert chosen(client.get("/search/query/0", params={"encoder": "plain, EVA"}).text) == ["plain, EVA"] * 2


def chosen(page: str) -> list[str]:
    """Return the encoders that the forms of a page have chosen."""
    return re.findall(r"<option selected>([^<]+)</option>", page)


def test_life_scores_and_slices_are_those_of_the_files(client, reproduced):
    said = client.get("/api/item", params={"id": "item/7"}).json()
    told = pl.read_parquet(reproduced / "evaluate" / "ubms" / "predictions.parquet").filter(
        pl.col("item_id") == "item/7"
    )
    assert {one["name"]: one["probability"] for one in said["scores"]} == pytest.approx(
        {
            "Avg Pooling Base": told["probability:mean-base-seed0"].mean(),
            "Avg Pooling Base+MIM (mim)": told["probability:mean-mim-seed0"].mean(),
        }
    )
    assert sum(one["num_impressions"] for one in said["life"]) == said["num_impressions"] > 0
    assert [one["encoder"] for one in said["neighbors"]] == client.get("/api/run").json()["encoders"]
    rows = json.loads((reproduced / "evaluate" / "ubms" / "results.json").read_text())["rows"]
    auc = {(one["slice"], one["variant"]): one["auc"] for one in rows}
    for row in client.get("/api/slices").json():
        assert (row["base"], row["content"]) == (auc[row["slice"], "base"], auc[row["slice"], "mim"])
        assert client.get("/slice", params={"name": row["slice"]}).status_code == 200


def test_an_item_shows_three_encoders_and_leads_to_all(client):
    page = client.get("/item?id=item/7").text
    assert re.findall("<h3>(.+)</h3>", page) == ["plain", "dma-seed1", "mim-seed1"]
    link = re.search(rf'<a href="([^"]+)">Neighbors by the other {len(ENCODERS) - 3} encoders too</a>', page)
    whole = client.get(html.unescape(link[1])).text
    assert len(re.findall("<h3>", whole)) == len(ENCODERS)
    assert whole.count(' loading="lazy"') > page.count(' loading="lazy"') > 0
    assert "Neighbors by the other" not in whole


def test_what_a_reproduction_in_progress_lacks_is_one_line_each(reproduced, tmp_path):
    (tmp_path / "dataset").symlink_to(reproduced / "dataset")
    (tmp_path / "embed").symlink_to(reproduced / "embed")
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "dma").symlink_to(reproduced / "seed1" / "dma")
    with TestClient(create_app(open_run(tmp_path)), base_url=HERE) as client:
        assert client.get("/api/run").json()["missing"] == [
            "No encoder to 9 of 10 folders of vectors, plain, mim-seed1, dda-seed1, dma-seed2, mim-seed2 and 4 more: "
            "no text or picture can be put to those.",
            "No results (evaluate): no probabilities, no slices.",
        ]
        assert "mimctr reproduce" in client.get("/slices").text
        assert " by dma-seed1," in client.get("/api/search/text", params={"q": "hat"}).json()["asked"]
        assert client.get("/api/search/words", params={"q": "item"}).json()["total"] == NUM_ITEMS


def test_an_encoder_is_found_where_each_kind_of_run_has_it(tmp_path):
    """Mutants: a name's seed is left out of account; the first of the text order stands for the first seed."""
    for folder in (
        "csft",
        "seed10/plain",
        "seed9/plain",
        "seed9/mim",
        "seed10/mim",
        "others/EVA-02, L/seed9/mim",
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / RECORD).touch()
    (tmp_path / "seed9" / "dma").mkdir()
    found = {
        "csft": "csft",
        "plain": "seed9/plain",
        "mim-seed10": "seed10/mim",
        "mim-seed9": "seed9/mim",
        "mim, EVA-02, L-seed9": "others/EVA-02, L/seed9/mim",
    }
    for name, folder in found.items():
        assert encoder_folder(tmp_path, name) == tmp_path / folder
    for name in ("dma-seed9", "mim-seed8", "mim, EVA-seed9", "plain, EVA-02, L"):
        assert encoder_folder(tmp_path, name) is None


@pytest.mark.parametrize(
    ("names", "one"),
    [
        (["plain", "csft", "mim-seed0", "without_tfn-seed2"], "csft"),
        (["plain", "mim", "mim-seed0", "without_tfn-seed2"], "mim"),
        (["mim-seed10", "mim-seed9", "without_tfn-seed2", "mim, EVA-seed0"], "mim-seed9"),
        (["plain", "own"], "own"),
        ([], None),
    ],
)
def test_the_encoder_of_c_sft_is_meant_where_none_is_named(names, one):
    assert preferred_of(in_order(names)) == one


def test_results_on_many_encoders_are_told_of_that_of_c_sft(reproduced, opened_reproduction):
    """An evaluation of the encoders has Base+MIM on each; its first is an ablation."""
    results = read_results(reproduced / "evaluate" / "encoders" / "results.json")
    other = [
        row.model_copy(update={"encoder": "category_cross_entropy", "auc": 0.0})
        for row in results.rows
        if row.variant == "mim"
    ]
    both = results.model_copy(update={"rows": [*other, *results.rows]})
    assert Summary(both).content.encoder == "mim"
    only = results.model_copy(
        update={"rows": [*other, *(row for row in results.rows if row.variant == "base")]}
    )
    assert Summary(only).content.encoder == "category_cross_entropy"
