"""A small run that went through the real stages: tables, dataset, encoder, vectors, two models, evaluation."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from encoders.small import TITLES, item_encoder, picture
from fastapi.testclient import TestClient
from serve.shops import SMALL

from mimctr.data.prepare import prepare_tables
from mimctr.explore.app import create_app
from mimctr.recipes import embed, evaluate
from mimctr.recipes.ctr_config import Config as CtrConfig
from mimctr.recipes.explore import open_run
from mimctr.recipes.train import main as train

NUM_ITEMS, NUM_USERS, NUM_ROWS, DAY, START = 40, 12, 900, 86_400, 1_700_000_000
SCRIPT = "<script>window.broken = 1</script> red hat"
HERE = "http://127.0.0.1:8090"
"""The only kind of address under which the explorer answers without a token."""
ENCODERS = {
    "plain": "seed1/plain",
    "dda-seed1": "seed1/dda",
    "dma-seed1": "seed1/dma",
    "dma-seed2": "seed2/dma",
    "mim-seed1": "seed1/mim",
    "mim-seed2": "seed2/mim",
    "mim-seed10": "seed10/mim",
    "plain, EVA": "others/EVA/seed1/plain",
    "mim, EVA-seed1": "others/EVA/seed1/mim",
    "without_tfn-seed2": "seed2/without_tfn",
}
"""By their folders of vectors, below a reproduction."""
ITEM_IDS = [0, 7, 1_234_567_890_123_456_789]
USER_IDS = [0, -5, 2**63 - 1]
ODD_IDS = [" a", "a", "b ", "x" * 3000, "e\u0301te\u0301", "many"]
ODD_TITLES = [
    "cafe\u0301 noir",
    "CAF\u00c9 au lait",
    None,
    "long",
    "sun",
    " ".join(f"w{n}" for n in range(20)),
]
ODD_USERS = [" u", "u"]
CHROMIUM = Path(os.environ.get("MIMCTR_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """Item 0 has a title with markup, 1 no picture, 2 no title, 3 neither, so no vector."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "tables").mkdir()
    rng = np.random.default_rng(0)
    titles = [f"{TITLES[n % 6]} number{n}" for n in range(NUM_ITEMS)]
    titles[:4] = [SCRIPT, titles[1], None, None]
    pl.DataFrame(
        {
            "item_id": [f"item/{n}" for n in range(NUM_ITEMS)],
            "title": titles,
            "image": [None if n in (1, 3) else picture(n) for n in range(NUM_ITEMS)],
            "category": [("bags", "hats", "shoes")[n % 3] for n in range(NUM_ITEMS)],
            "brand": [f"brand{n % 5}" for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    log = {
        "user_id": rng.integers(0, NUM_USERS, NUM_ROWS),
        "item_id": [f"item/{n}" for n in rng.integers(0, NUM_ITEMS, NUM_ROWS)],
        "time": START + np.sort(rng.choice(60 * DAY, NUM_ROWS, replace=False)),
    }
    pl.DataFrame(
        {
            **log,
            "click": rng.integers(0, 2, NUM_ROWS),
            "query_image": [picture(100 + n % 5) if n % 2 else None for n in range(NUM_ROWS)],
            "query_text": [None if n % 2 else "red & blue" for n in range(NUM_ROWS)],
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    run = folder / "run"
    prepare_tables(folder / "tables", run / "dataset")
    item_encoder().save(run / "csft")
    embed.main(
        run / "dataset", run / "csft", run / "embed" / "csft", embed.Config(device="cpu", num_workers=1)
    )
    for variant, content in (("base", None), ("mim", run / "embed" / "csft")):
        config = CtrConfig(
            **(SMALL | {"ubm": "mean", "variant": variant, "encoder": "csft" if content else "none"})
        )
        train(run / "dataset", content, run / "train" / f"mean-{variant}-seed0", config)
    evaluate.main(run, run / "evaluate", evaluate.Config(num_resamples=10, num_pictures=0))
    return run


@pytest.fixture(scope="session")
def opened(run_folder):
    return open_run(run_folder)


@pytest.fixture
def client(opened):
    with TestClient(create_app(opened), base_url=HERE) as made:
        yield made


@pytest.fixture(scope="session")
def reproduced(run_folder, tmp_path_factory) -> Path:
    """The same run in the layout of 'mimctr reproduce': encoders by seed, vectors by encoder and seed, two evaluations.

    All encoders are one, but for ``without_tfn``; what is in ``seed10/mim`` did not make the vectors of its name.
    """
    out = tmp_path_factory.mktemp("reproduced")
    (out / "dataset").symlink_to(run_folder / "dataset")
    (out / "embed").mkdir()
    own, other = "without_tfn-seed2", out / ENCODERS["without_tfn-seed2"]
    item_encoder(dim=4).save(other)
    embed.main(out / "dataset", other, out / "embed" / own, embed.Config(device="cpu", num_workers=1))
    for name, encoder in ENCODERS.items():
        if name != own:
            (out / "embed" / name).symlink_to(run_folder / "embed" / "csft")
            (out / encoder).parent.mkdir(parents=True, exist_ok=True)
            (out / encoder).symlink_to(other if name == "mim-seed10" else run_folder / "csft")
    results = (run_folder / "evaluate" / "results.json").read_text().replace('"csft"', '"mim"')
    for group in ("encoders", "ubms"):
        (out / "evaluate" / group).mkdir(parents=True)
        told = results.replace('"name": "run"', f'"name": "{group}"')
        (out / "evaluate" / group / "results.json").write_text(told)
        shutil.copy(run_folder / "evaluate" / "predictions.parquet", out / "evaluate" / group)
    return out


@pytest.fixture(scope="session")
def opened_reproduction(reproduced):
    return open_run(reproduced)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory) -> Path:
    """A run without vectors, whose ids are integers: 0, below 0, and of 19 digits."""
    items = pl.DataFrame({"item_id": ITEM_IDS, "title": [f"hat {n}" for n in ITEM_IDS]})
    return prepared(tmp_path_factory.mktemp("numbered"), items, ITEM_IDS, USER_IDS)


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> Path:
    """A run without vectors, whose ids are texts that begin or end with a space, long, or decomposed Unicode."""
    items = pl.DataFrame({"item_id": ODD_IDS, "title": ODD_TITLES})
    return prepared(tmp_path_factory.mktemp("odd"), items, ODD_IDS, ODD_USERS)


def prepared(folder: Path, items: pl.DataFrame, item_ids: list, user_ids: list) -> Path:
    """Return a run with nothing but a dataset: of a catalogue, of which some are shown to some users."""
    (folder / "tables").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    items.write_parquet(folder / "tables" / "items.parquet")
    users = rng.integers(0, len(user_ids), 300)
    shown = rng.integers(0, len(item_ids), 300)
    pl.DataFrame(
        {
            "user_id": [user_ids[n] for n in users],
            "item_id": [item_ids[n] for n in shown],
            "time": START + np.sort(rng.choice(60 * DAY, 300, replace=False)),
            "click": rng.integers(0, 2, 300),
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    prepare_tables(folder / "tables", folder / "run" / "dataset")
    return folder / "run"
