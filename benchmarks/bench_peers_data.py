"""What do FuxiCTR, DeepCTR-Torch and RecBole reach on a dataset that mimctr has prepared, and what does content add?

    .venv/bin/python benchmarks/bench_peers_data.py --dataset runs/demo/dataset --content runs/demo/embed/csft \\
      --seeds 0 1 2 --peers .venv-peers/bin/python --out peers.json

The dataset is exported once (peers/export_dataset.py): the same impressions, histories, fields and split for all. Every
library trains in a process of its own with its own loader and fit, the same sizes, optimizer and batch size, and stops
early by the validation part. Its learning rate is the one with the best validation AUC of the first seed, of
``--learning-rates`` and, where the best is the largest (smallest) of them, of twice (half) as much and so on. AUC and
GAUC are ours, exact, from the scores that each library leaves; nothing looks at the test part before.

With ``--keep`` every training is kept, and the same call goes on after an interruption.

Without ``--content`` there is no Base+MIM. docs/peers.md says which models the peers have, and what is wrong in them.

Writes ``--out`` (``mimctr.evaluate.paper.peers``), prints the table, then one line of JSON with the same numbers.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray
from peers.start import OURS, SCRIPTS, SIZES, run_task
from timing import print_load

from mimctr.center.snapshot import read_manifest
from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.machine import describe_machine
from mimctr.evaluate.metrics import auc, grouped_auc
from mimctr.evaluate.paper.peers import PeerResults, PeerRow, best_peer, group_of, peers_table, write_peers
from mimctr.evaluate.paper.schema import Table
from mimctr.evaluate.significance import by_seed, pool, resample_users, resampled_auc
from mimctr.files import atomic_path, hash_json
from mimctr.recipes.embed import ITEMS

ROWS = {"din": ("fuxictr", "deepctr_torch", "recbole"), "bst": (), "dien": (), "sim": (), "twin": ()}
"""Model -> peers whose own is right on histories of unequal length (docs/peers.md)."""
LIBRARIES = [OURS, *ROWS["din"]]
NOT_READ = [
    "Only mimctr reads the kind of a behavior and trains a row for unknown items and users.",
    "RecBole's DIN reads neither user, query nor context, only target and history.",
]
ONLY_TARGET_AND_HISTORY = "Here all peers were given what RecBole's DIN reads, and no more."
RESAMPLES_SEED = 0
MAX_MORE = 4
"""Learning rates that are tried beyond the given ones."""


@dataclass(kw_only=True)
class Entry:
    """One model of one library: what its trainings came to, and what they say of the test part."""

    library: str
    row: str
    tried: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    outcomes: list[dict] = field(default_factory=list)
    """By seed."""
    validation: list[float] = field(default_factory=list)
    scores: list[ndarray] = field(default_factory=list)
    """Of the test part."""


class Judge:
    """Exact metrics of scores, by the labels and users of the dataset itself.

    Args:
        dataset: As it was prepared.
        num_resamples: Of users, for the intervals; shared by all libraries.
    """

    def __init__(self, dataset: CtrDataset, *, num_resamples: int) -> None:
        rows = {part: dataset.rows(part) for part in ("validation", "test")}
        self.clicks = {
            part: dataset.impressions.click[of.start : of.stop].astype(bool) for part, of in rows.items()
        }
        self.users = np.array(dataset.impressions.user[rows["test"].start : rows["test"].stop])
        _, self.drawn = np.unique(self.users, return_inverse=True)
        self.counts = resample_users(
            int(self.drawn.max()) + 1, num_resamples=num_resamples, seed=RESAMPLES_SEED
        )
        true = dataset.impressions.true_probability
        self.ceiling = None
        if true is not None:
            self.ceiling = auc(self.clicks["test"], np.array(true[rows["test"].start : rows["test"].stop]))

    def gauc(self, scores: ndarray) -> float | None:
        """Return the AUC within users; None where no user has both classes."""
        found = grouped_auc(self.clicks["test"], scores, self.users)
        return None if found is None else found.weighted

    def difference(self, entry: Entry, base: Entry) -> Estimate:
        """Return test AUC minus that of ``base``, paired over seeds and resamples of users."""
        clicks = self.clicks["test"]
        ours, others = (
            by_seed([resampled_auc(clicks, scores, self.drawn, self.counts) for scores in one.scores])
            for one in (entry, base)
        )
        pooled = pool(ours.minus(others))
        return Estimate(
            mean=pooled.mean, sd=pooled.sd, low=pooled.low, high=pooled.high, p_value=pooled.p_value
        )


def main() -> None:
    """Export, tune and train every library, compare, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--dataset", type=Path, required=True, help="written by 'mimctr prepare'")
    parser.add_argument("--content", type=Path, help="written by 'mimctr embed'")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["din"])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[0.002, 0.005, 0.01])
    parser.add_argument(
        "--target-and-history",
        action="store_true",
        help="give the peers what RecBole's DIN reads and no more; without mimctr, which reads the dataset itself",
    )
    parser.add_argument("--epochs", type=int, default=5, help="at most")
    parser.add_argument("--patience", type=int, default=1, help="epochs without a better validation AUC")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=SIZES["batch_size"])
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--keep", type=Path, help="where trainings are kept, and found by the next call")
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    args = parser.parse_args()
    if args.target_and_history and OURS in args.libraries:
        parser.error(f"--target-and-history: {OURS} reads the dataset itself. Leave it out: --libraries ...")
    print_load()
    dataset = CtrDataset.open(args.dataset)
    judge = Judge(dataset, num_resamples=args.resamples)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name).absolute()
        export = [
            sys.executable,
            str(SCRIPTS / "export_dataset.py"),
            str(args.dataset),
            str(folder / "log.npz"),
            *(["--target-and-history"] if args.target_and_history else []),
        ]
        subprocess.run(export, check=True)
        entries = contestants(args)
        for library, row in {entry.library: entry.row for entry in entries}.items():
            run_task(library, "prepare", folder, settings_of(args, row, seed=0, rate=1.0), peers=args.peers)
        for entry in entries:
            compete(entry, folder, args, judge)
    results = collect(entries, dataset, args, judge)
    write_peers(args.out, results)
    print_table(peers_table(results))
    print(json.dumps(results.model_dump(mode="json")))


def contestants(args: argparse.Namespace) -> list[Entry]:
    """Return who trains what: the peers, ours, and ours with content."""
    entries = []
    for row in args.rows:
        entries += [
            Entry(library=library, row=row) for library in (*ROWS[row], OURS) if library in args.libraries
        ]
        if args.content is not None and OURS in args.libraries:
            entries.append(Entry(library=OURS, row=f"{row}-mim"))
    return entries


def settings_of(args: argparse.Namespace, row: str, *, seed: int, rate: float) -> dict:
    """Return what one training is told; alike for all but row, seed and learning rate."""
    return SIZES | {
        "row": row,
        "seed": seed,
        "threads": args.threads,
        "epochs": args.epochs,
        "patience": args.patience,
        "batch_size": args.batch,
        "length": args.length,
        "learning_rate": rate,
        "dataset": str(args.dataset.absolute()),
        "content": str(args.content.absolute()) if args.content else None,
    }


def compete(entry: Entry, folder: Path, args: argparse.Namespace, judge: Judge) -> None:
    """Choose the learning rate with the first seed, then train the others with it."""
    trained: dict[float, tuple[dict, float, ndarray]] = {}
    waiting = list(args.learning_rates)
    while waiting:
        rate = waiting.pop(0)
        trained[rate] = train(entry, folder, args, judge, seed=args.seeds[0], rate=rate)
        entry.tried[str(rate)] = trained[rate][1]
        entry.learning_rate = max(trained, key=lambda rate: trained[rate][1])
        if not waiting and 1 < len(trained) < len(args.learning_rates) + MAX_MORE:
            beyond = {max(trained): 2 * max(trained), min(trained): min(trained) / 2}
            waiting = [beyond[entry.learning_rate]] if entry.learning_rate in beyond else []
    found = [trained[entry.learning_rate]]
    found += [
        train(entry, folder, args, judge, seed=seed, rate=entry.learning_rate) for seed in args.seeds[1:]
    ]
    entry.outcomes, entry.validation, entry.scores = (list(part) for part in zip(*found, strict=True))


def train(
    entry: Entry, folder: Path, args: argparse.Namespace, judge: Judge, *, seed: int, rate: float
) -> tuple[dict, float, ndarray]:
    """Return outcome, validation AUC and test scores of one training."""
    settings = settings_of(args, entry.row, seed=seed, rate=rate)
    outcome, scores = kept_or_made(entry, folder, args, settings)
    validation, test = auc(judge.clicks["validation"], scores["validation"]), scores["test"]
    print(
        f"{entry.library} {entry.row} seed {seed} learning rate {rate}: validation AUC {validation:.4f}, "
        f"{outcome['epochs']} epochs, {outcome['seconds']['fit']:.1f} s",
        file=sys.stderr,
    )
    return outcome, validation, test


def kept_or_made(
    entry: Entry, folder: Path, args: argparse.Namespace, settings: dict
) -> tuple[dict, dict[str, ndarray]]:
    """Return outcome and scores of one training, from ``--keep`` where they are there."""
    if args.keep is None:
        return made(entry, folder, args, settings)
    content = read_manifest(args.content / ITEMS).digest if args.content else None
    read = {"dataset": CtrDataset.open(args.dataset).manifest.source_hash, "content": content}
    key = hash_json(settings | read | {"target_and_history": args.target_and_history})
    kept = args.keep / f"{entry.library}-{entry.row}-{key[:16]}.npz"
    if not kept.exists():
        outcome, scores = made(entry, folder, args, settings)
        with atomic_path(kept) as temporary:
            np.savez(temporary, outcome=json.dumps(outcome), **scores)
    with np.load(kept) as arrays:
        scores = dict(arrays)
    return json.loads(str(scores.pop("outcome"))), scores


def made(
    entry: Entry, folder: Path, args: argparse.Namespace, settings: dict
) -> tuple[dict, dict[str, ndarray]]:
    """Train; return outcome and scores."""
    outcome = run_task(entry.library, "train", folder, settings, peers=args.peers)
    with np.load(folder / entry.library / "scores.npz") as arrays:
        return outcome, dict(arrays)


def collect(entries: list[Entry], dataset: CtrDataset, args: argparse.Namespace, judge: Judge) -> PeerResults:
    """Return what goes into ``peers.json``."""
    rows = [describe(entry, judge) for entry in entries]
    for place, row in enumerate(rows):
        best = best_peer(rows, group_of(row.row))
        if best is not None and best is not row:
            against = entries[next(number for number, other in enumerate(rows) if other is best)]
            difference = judge.difference(entries[place], against)
            rows[place] = row.model_copy(update={"over_best_peer": difference})
    settings = SIZES | {
        "batch_size": args.batch,
        "length": args.length,
        "epochs": args.epochs,
        "patience": args.patience,
        "threads": args.threads,
        "learning_rates": args.learning_rates,
        "schedule": "constant",
        "resamples": args.resamples,
    }
    return PeerResults(
        dataset=args.dataset.name if args.dataset.name != "dataset" else args.dataset.absolute().parent.name,
        source_hash=dataset.manifest.source_hash,
        seeds=args.seeds,
        num_impressions={part: dataset.manifest.counts[part] for part in ("train", "validation", "test")},
        settings=settings,
        not_read=[*NOT_READ, *([ONLY_TARGET_AND_HISTORY] if args.target_and_history else [])],
        ceiling_auc=judge.ceiling,
        rows=rows,
        command=shlex.join(["python", *sys.argv]),
        machine=describe_machine(),
    )


def describe(entry: Entry, judge: Judge) -> PeerRow:
    """Return one row, without its difference from others."""
    gauc = [judge.gauc(scores) for scores in entry.scores]
    return PeerRow(
        library=entry.library,
        row=entry.row,
        versions=entry.outcomes[0]["versions"],
        tried=entry.tried,
        learning_rate=entry.learning_rate,
        auc=[auc(judge.clicks["test"], scores) for scores in entry.scores],
        gauc=[value for value in gauc if value is not None],
        validation_auc=entry.validation,
        fit_seconds=[outcome["seconds"]["fit"] for outcome in entry.outcomes],
        epochs=[outcome["epochs"] for outcome in entry.outcomes],
        peak_memory_bytes=[outcome["peak_memory_bytes"] for outcome in entry.outcomes],
    )


def print_table(table: Table) -> None:
    """Print the table for people."""
    print(f"\n{table.title}. {table.note}\n")
    print(f"  {'':28}" + "".join(f"{column.name:>16}" for column in table.columns))
    for row in table.rows:
        values = [cell.ours.mean if cell.ours else None for cell in row.cells]
        texts = ("-" if value is None else f"{value:.4g}" for value in values)
        print(f"  {row.label:28}" + "".join(f"{text:>16}" for text in texts))
    print("\n".join(table.reading))


if __name__ == "__main__":
    main()
