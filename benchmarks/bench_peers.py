"""Does mimctr train faster than FuxiCTR, DeepCTR-Torch and RecBole on the same data, and learn as much?

    make bench-peers

or, with both environments there (Makefile):

    .venv/bin/python benchmarks/bench_peers.py --peers .venv-peers/bin/python

One generated log; the same rows and the same split for all; each library in a process of its own with its own fit, its
own loading and its own defaults; the same sizes, distribution of first weights, learning rate, number of threads, fp32.
Each round trains every library once, with another seed, in an order that alternates.

``din-best`` is ours at its best against the others at what they have: bfloat16.

Test AUC is compared first: who learns less is not slower, but does something else. After one epoch nobody has learned
all there is; ``--epochs 5`` shows where each ends. Ours and RecBole's deep network read the product of interest and
target, as DIN's authors' does; FuxiCTR's and DeepCTR-Torch's do not, and learn later what DIN can find here.

Samples per second are training impressions by the seconds of the whole fit, a look at the validation part after each
epoch included; opening the prepared files is shown apart, and PyTorch's own imports are over before either.

Prints a table a row, then one line of JSON with the same numbers. Ends with an error if ours learns less than a peer,
or, on an idle machine, is not as much faster as wanted.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from peers.market import Log, generate
from peers.start import OURS, SIZES, run_task
from timing import machine, print_load, ratio

from mimctr.evaluate.metrics import auc

ROWS: dict[str, dict[str, float]] = {
    "din": {"fuxictr": 1.7, "deepctr_torch": 2.5, "recbole": 2.5},
    "din-dice": {"fuxictr": 2.0, "deepctr_torch": 2.5},
    "dien": {"fuxictr": 1.7},
    "sim": {"fuxictr": 1.7},
    "twin": {"fuxictr": 1.7},
    "din-best": {"fuxictr": 3.0},
}
"""Row -> peer -> how many times as fast ours is wanted. What a row means to a library stands in its peers/run_*.py."""
LIKE = {"din-best": "din"}
"""Row -> row whose test AUC ours must keep, where both are trained: what makes it faster may not cost any."""
LEAST_NOISE = 0.002
"""Differences of test AUC below this are told apart by nobody."""
STANDARD_ERRORS = 3.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the rounds of one library in one row came to."""

    fit: list[float]
    """Seconds."""
    open: list[float]
    auc: list[float]
    versions: dict[str, str]


def main() -> None:
    """Generate, train in rounds, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=20, help="impressions of each user; at least 15")
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--categories", type=int, default=100)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=SIZES["batch_size"])
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    args = parser.parse_args()
    load = print_load()
    log, odds = generate(
        num_users=args.users,
        num_steps=args.steps,
        num_items=args.items,
        num_categories=args.categories,
        length=args.length,
    )
    ceiling = auc(log.clicks[log.rows("test")], odds[log.rows("test")])
    ceiling_error = auc_error(log.clicks[log.rows("test")], ceiling)
    print(f"ceiling   {ceiling:.4f}: test AUC of the true odds")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name).absolute()
        log.save(folder / "log.npz")
        for library in (OURS, *dict.fromkeys(peer for row in args.rows for peer in ROWS[row])):
            run(library, "prepare", folder, args, row=args.rows[0], seed=0)
        results = {row: train_in_rounds(row, log, folder, args) for row in args.rows}
    num_samples = args.epochs * int(log.bounds[1])
    failures = [
        f"{row}: {failure}"
        for row, of_row in results.items()
        for failure in report(row, of_row, num_samples=num_samples, idle=load < 0.5)
    ]
    failures += [
        f"{row}: {failure}"
        for row, other in LIKE.items()
        if row in results and other in results
        for failure in report_like(row, other, results)
    ]
    failures += [
        f"{row}: {library} ranks better than the true odds, so the log leaks"
        for row, of_row in results.items()
        for library, result in of_row.items()
        if statistics.mean(result.auc) > ceiling + STANDARD_ERRORS * ceiling_error
    ]
    print(json.dumps(record(results, log, args, load) | {"auc_ceiling": ceiling}))
    if failures:
        raise SystemExit(f"bench_peers: {'; '.join(failures)}.")


def train_in_rounds(row: str, log: Log, folder: Path, args: argparse.Namespace) -> dict[str, Result]:
    """Train every library of a row once a round."""
    libraries = [OURS, *ROWS[row]]
    results = {library: Result(fit=[], open=[], auc=[], versions={}) for library in libraries}
    test = log.rows("test")
    for seed in range(args.rounds):
        for library in libraries[:: -1 if seed % 2 else 1]:
            outcome = run(library, "train", folder, args, row=row, seed=seed)
            result = results[library]
            result.fit.append(outcome["seconds"]["fit"])
            result.open.append(outcome["seconds"]["open"])
            result.auc.append(auc(log.clicks[test], np.load(folder / library / "scores.npz")["test"]))
            result.versions.update(outcome["versions"])
            print(
                f"round {seed} {row} {library}: {result.fit[-1]:.1f} s, AUC {result.auc[-1]:.4f}",
                file=sys.stderr,
            )
    return results


def run(library: str, task: str, folder: Path, args: argparse.Namespace, *, row: str, seed: int) -> dict:
    """Run one task of a library in a process of its own; return what it wrote down."""
    sizes = SIZES | {"batch_size": args.batch, "length": args.length, "learning_rate": args.learning_rate}
    settings = {"row": row, "seed": seed, "threads": args.threads, "epochs": args.epochs, **sizes}
    settings |= {"patience": args.epochs}
    return run_task(library, task, folder, settings, peers=args.peers)


def report(row: str, results: dict[str, Result], *, num_samples: int, idle: bool) -> list[str]:
    """Print a row's table, AUC first; return what is not as it should be."""
    ours = results[OURS]
    failures = []
    print(f"\n{row}: test AUC, mean of {len(ours.auc)} seeds; then samples/s, median of rounds")
    for library, result in results.items():
        difference, noise = compare(ours.auc, result.auc)
        verdict = "" if library == OURS else f"ours {difference:+.4f}, {judge(difference, noise)}"
        print(f"  {library:14} {statistics.mean(result.auc):.4f}  {verdict}")
        if library != OURS and difference < -noise:
            failures.append(f"AUC below {library}'s by {-difference:.4f}, noise {noise:.4f}")
    seconds = {library: result.fit for library, result in results.items()}
    for library, result in results.items():
        speed = num_samples / statistics.median(result.fit)
        line = f"  {library:14} {speed:10,.0f} samples/s   open {statistics.median(result.open):6.2f} s"
        if library != OURS:
            faster, wanted = ratio(seconds, library, OURS), ROWS[row][library]
            line += f"   ours {faster:.2f} x as fast; wanted {wanted} x"
            if idle and faster < wanted:
                failures.append(f"{faster:.2f} x {library}, wanted {wanted} x")
        print(line)
    return failures


def report_like(row: str, other: str, results: dict[str, dict[str, Result]]) -> list[str]:
    """Print how ours in ``row`` learns beside ours in ``other``; return what is not as it should be."""
    difference, noise = compare(results[row][OURS].auc, results[other][OURS].auc)
    print(f"\n{row}: test AUC {difference:+.4f} beside our {other}: {judge(difference, noise)}")
    return [f"AUC below our {other}'s by {-difference:.4f}, noise {noise:.4f}"] if difference < -noise else []


def compare(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the difference of the mean AUCs and how large it may be by chance."""
    difference = statistics.mean(ours) - statistics.mean(theirs)
    if len(ours) < 2:
        return difference, math.inf
    error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / len(ours))
    return difference, max(LEAST_NOISE, STANDARD_ERRORS * error)


def auc_error(clicks: ndarray, value: float) -> float:
    """Return a bound on the standard error of an AUC (Birnbaum and Klose 1957)."""
    return math.sqrt(value * (1 - value) / min(clicks.sum(), len(clicks) - clicks.sum()))


def judge(difference: float, noise: float) -> str:
    """Say what a difference of AUCs means."""
    if math.isinf(noise):
        return "one seed: not to be judged"
    if abs(difference) <= noise:
        return f"agrees (noise {noise:.4f})"
    return f"{'more' if difference > 0 else 'LESS'} than noise ({noise:.4f})"


def record(
    results: dict[str, dict[str, Result]], log: Log, args: argparse.Namespace, load: float
) -> dict[str, object]:
    """Return everything as JSON holds it."""
    sizes = {
        name: getattr(args, name)
        for name in ("users", "steps", "items", "categories", "length", "rounds", "epochs")
    }
    versions = {library: result.versions for of_row in results.values() for library, result in of_row.items()}
    return {
        **sizes,
        **SIZES,
        "batch_size": args.batch,
        "learning_rate": args.learning_rate,
        "train_impressions": int(log.bounds[1]),
        "load": load,
        **machine(),
        "threads": args.threads,
        "versions": versions,
        "results": {
            row: {
                library: {"auc": result.auc, "fit_seconds": result.fit, "open_seconds": result.open}
                for library, result in of_row.items()
            }
            for row, of_row in results.items()
        },
    }


if __name__ == "__main__":
    main()
