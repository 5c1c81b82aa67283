"""Look into a finished run or reproduction: items, neighbors by generation, users, slices.

mimctr explore runs/demo
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from mimctr.data.dataset import CtrDataset
from mimctr.encoders.architecture import load_transformers
from mimctr.encoders.item import RECORD, ItemEncoder, recorded_fingerprint
from mimctr.errors import CenterError, ConfigError, EncoderError, RunError, StaleSnapshot, first_of
from mimctr.evaluate.results import read_results
from mimctr.explore.generation import Generation, all_decoded, in_order, split_seed
from mimctr.explore.kept import kept
from mimctr.explore.opened import Asked, Asks, OpenedRun
from mimctr.explore.scores import Scores
from mimctr.files import read_json
from mimctr.recipes.embed import SUMMARY, open_item_content
from mimctr.recipes.evaluate import PREDICTIONS, RESULTS, embed_folders, read_test_part
from mimctr.recipes.evaluate import Config as EvaluateConfig
from mimctr.recipes.serve import Listening, read_token

logger = logging.getLogger(__name__)

EVALUATIONS = ("evaluate", *(f"evaluate/{group}" for group in ("ubms", "online", "encoders", "extensions")))
"""Where results are looked for, below a run or a reproduction; the first that are there are shown."""
NUM_LOADED = 4
"""Encoders that are kept in memory, and encoders whose vectors are: a reproduction has dozens."""


class Config(Listening):
    """Settings of ``mimctr explore``."""

    port: int = Field(8090, ge=0, le=65535, description="To listen on.")
    num_threads: int = Field(2, ge=1, description="Requests that are worked on at a time.")
    max_waiting: int = Field(64, ge=1, description="Requests that may wait or be worked on; more get 429.")
    deadline: float = Field(30.0, gt=0, description="Seconds that a request may take; more get 504.")
    num_hits: int = Field(24, ge=1, le=500, description="Items that a search shows.")
    num_neighbors: int = Field(8, ge=1, le=100, description="Neighbors of an item by generation.")
    max_behaviors: int = Field(50, ge=1, le=1000, description="Behaviors of a user, the newest.")


def open_run(run: Path) -> OpenedRun:
    """Return a run, opened; what it lacks is listed in ``missing``.

    Raises:
        RunError: it has no dataset, or a damaged one.
    """
    opened = OpenedRun(name=run.resolve().name, data=CtrDataset.open(run / "dataset"))
    _open_vectors(run, opened)
    _open_evaluation(run, opened)
    opened.prepare()
    return opened


def encoder_folder(run: Path, name: str) -> Path | None:
    """Return where the encoder is that made the vectors of ``embed/name``; None where it is not there.

    A run has it in a folder of that name. A reproduction has the encoder of ``mim-seed1`` in ``seed1/mim``, that of
    ``plain``, which no seed changes, below its first seed, and that of ``mim, EVA-seed1``, which starts from other
    foundation models, in ``others/EVA/seed1/mim``.
    """
    encoder, seed = split_seed(name)
    encoder, _, other = encoder.partition(", ")
    made = run / "others" / other if other else run
    seeds = [made / f"seed{seed}"] if seed is not None else made.glob("seed*")
    below = sorted((folder / encoder for folder in seeds), key=lambda path: (len(path.parent.name), path))
    return next((path for path in (run / name, *below) if (path / RECORD).is_file()), None)


def _open_vectors(run: Path, opened: OpenedRun) -> None:
    made = {folder.name: (folder / SUMMARY).is_file() for folder in embed_folders(run)}  # it is written last
    generations: dict[str, Generation] = {}
    asks: dict[str, Asks] = {}
    load, decode_all = kept(_load, NUM_LOADED), kept(all_decoded, NUM_LOADED)
    for name in in_order([name for name, is_finished in made.items() if is_finished]):
        try:
            table = open_item_content(opened.data, run / "embed" / name)
        except (CenterError, RunError) as error:
            opened.missing.append(f"Vectors of {name}: {error}")
            continue
        folder, fingerprint = encoder_folder(run, name), table.snapshot.fingerprint
        centered_on: list[str] = []
        if folder is not None:
            try:
                centered_on = _centered_on(folder, fingerprint)
                asks[name] = _asks(partial(load, folder, fingerprint))
            except (EncoderError, RunError) as error:
                opened.missing.append(f"Encoder of {name}: {error}")
        generations[name] = Generation(name, table, centered_on=centered_on, decode_all=decode_all)
    opened.generations, opened.asks = generations, asks
    if asks:
        load_transformers()  # a first search should not wait for it
    if unfinished := in_order([name for name, is_finished in made.items() if not is_finished]):
        opened.missing.append(f"Vectors of {first_of(unfinished)}: not finished.")
    if not generations:
        opened.missing.append(
            "No vectors (embed): no neighbors, no content weights, no search by picture or text."
        )
    elif alone := [name for name in generations if name not in asks]:
        opened.missing.append(
            f"No encoder to {len(alone)} of {len(generations)} folders of vectors, {first_of(alone)}: no text or "
            "picture can be put to those."
        )


def _centered_on(folder: Path, fingerprint: str) -> list[str]:
    """Return the categories on whose means an encoder centers vectors; none where it did not make those at hand.

    Raises:
        EncoderError: its record is of another format.
        RunError: its record is damaged.
    """
    if recorded_fingerprint(folder) != fingerprint:
        return []
    return read_json(folder / RECORD)["settings"]["categories"]


def _open_evaluation(run: Path, opened: OpenedRun) -> None:
    opened.evaluation = next((name for name in EVALUATIONS if (run / name / RESULTS).is_file()), None)
    if opened.evaluation is None:
        opened.missing.append("No results (evaluate): no probabilities, no slices.")
        return
    folder = run / opened.evaluation
    results = read_results(folder / RESULTS)
    opened.results = results
    opened.name = results.dataset.name
    if (folder / PREDICTIONS).is_file():
        opened.scores = Scores.read(folder / PREDICTIONS, results.models, opened.test)
    else:
        opened.missing.append(f"No {PREDICTIONS} (evaluate): no probabilities of items and impressions.")
    config = EvaluateConfig.model_validate(results.settings)
    opened.slices = read_test_part(opened.data, np.array(opened.test), config, name=opened.name)[0].slices


def _asks(load: Callable[[], ItemEncoder]) -> Asks:
    """Return how texts and pictures are put to an encoder, which is loaded when it is asked."""
    return Asks(lambda text: ask_text(load(), text), lambda picture: ask_picture(load(), picture))


def _load(folder: Path, fingerprint: str) -> ItemEncoder:
    encoder = ItemEncoder.load(folder)
    if encoder.fingerprint != fingerprint:
        raise StaleSnapshot(
            f"{folder}: encoder {encoder.fingerprint[:12]}, the run's vectors came from {fingerprint[:12]}. Run "
            "'mimctr embed' again."
        )
    return encoder


def ask_text(encoder: ItemEncoder, text: str) -> Asked:
    """Return what an encoder makes of a text: a query where it was trained on text queries, else an item's title.

    Raises:
        DataError: the text is no Unicode.
    """
    if encoder.text_queries:
        vectors, category = encoder.embed_query_texts([text])
        return Asked(vectors[0].numpy(), _name(encoder, int(category[0])))
    with torch.no_grad():
        ids, mask = encoder.text_encoder.tokenize([text])
        reads = encoder.query_category(encoder.text_view(encoder.text_vectors(ids, mask)), asked="text")
    name = _name(encoder, int(reads[0]))
    vectors, _ = encoder.embed_items([None], [text], [name])
    return Asked(vectors[0].numpy(), name, as_title=True)


def ask_picture(encoder: ItemEncoder, picture: bytes) -> Asked:
    """Return what an encoder makes of a query picture.

    Raises:
        DataError: it cannot be decoded.
    """
    vectors, category = encoder.embed_query_images([picture])
    return Asked(vectors[0].numpy(), _name(encoder, int(category[0])))


def _name(encoder: ItemEncoder, category: int) -> str | None:
    return encoder.categories[category] if category >= 0 else None


def main(run: Path, config: Config) -> None:
    """Serve the pages until told to stop.

    Raises:
        ConfigError: FastAPI is not installed, or the address needs a token.
        MimctrError: the run is not what it should be.
    """
    try:
        from mimctr.explore.app import create_app
        from mimctr.explore.guard import in_address
        from mimctr.serve.process import run_until_told
    except ModuleNotFoundError as error:
        raise ConfigError(f"explore: needs {error.name}. Run: pip install 'mimctr[serve]'") from None
    token = read_token(config, command="explore")
    app = create_app(
        open_run(run),
        token=token,
        host=config.host,
        num_threads=config.num_threads,
        max_waiting=config.max_waiting,
        deadline=config.deadline,
        num_hits=config.num_hits,
        num_neighbors=config.num_neighbors,
        max_behaviors=config.max_behaviors,
    )
    run_until_told(
        app,
        host=config.host,
        port=config.port,
        shutdown_seconds=config.shutdown_seconds,
        listens=lambda port: logger.info("explore: http://%s:%d", in_address(config.host), port),
    )
