"""What does the error of an AUC over users cost? Ours against a bootstrap with scikit-learn.

    python benchmarks/bench_intervals.py

Impressions of users with tastes of their own, two models. Scikit-learn has no bootstrap over users; its
``roc_auc_score`` with the draws of every user as weights is what one would write. Both sides take the same resamples;
the errors of the difference of AUC have to agree to a twentieth, or nothing is printed. Scikit-learn's side is timed on
some of the resamples and counted up. Prints seconds and their ratio, then one line of JSON with the same numbers.
"""

import argparse
import json

import numpy as np
from sklearn.metrics import roc_auc_score
from timing import interleaved, machine, print_load, ratio

from mimctr.evaluate.significance import resample_users, resampled_auc

OURS, THEIRS = "mimctr", "scikit-learn"
AGREE = 0.05


def main() -> None:
    """Compare, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument(
        "--timed", type=int, default=5, help="resamples of scikit-learn's side that are timed"
    )
    parser.add_argument("--agreeing", type=int, default=200, help="resamples whose errors are compared")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    load = print_load()
    generator = np.random.default_rng(0)
    users = generator.integers(args.users, size=args.rows)
    taste = generator.normal(size=args.users)[users]
    labels = generator.random(args.rows) < 1 / (1 + np.exp(1.5 - taste))
    shared = generator.normal(size=args.rows)
    models = [strength * taste + shared + 0.3 * generator.normal(size=args.rows) for strength in (0.5, 0.6)]
    counts = resample_users(args.users, num_resamples=args.resamples, seed=0)

    def ours(scores):
        return resampled_auc(labels, scores, users, counts).draws

    def theirs(scores, number):
        return np.array(
            [roc_auc_score(labels, scores, sample_weight=count[users]) for count in counts[:number]]
        )

    one, other = (
        (first - second)[: args.agreeing]
        for first, second in (map(ours, models), (theirs(scores, args.agreeing) for scores in models))
    )
    apart = abs(one.std() / other.std() - 1)
    assert apart < AGREE, f"the errors do not agree: {one.std()} and {other.std()}"
    seconds = interleaved(
        {OURS: lambda: ours(models[0]), THEIRS: lambda: theirs(models[0], args.timed)}, rounds=args.rounds
    )
    seconds[THEIRS] = [took * args.resamples / args.timed for took in seconds[THEIRS]]
    faster = ratio(seconds, THEIRS, OURS)
    print(f"errors    {one.std():.6f} and {other.std():.6f}, correlation {np.corrcoef(one, other)[0, 1]:.4f}")
    for name, took in seconds.items():
        print(
            f"{name:12} {np.median(took):8.2f} s for {args.resamples:,} resamples of {args.rows:,} impressions"
        )
    print(f"scikit-learn takes {faster:.0f} times as long, median of rounds")
    print(json.dumps({"load": load, **machine(), "apart": apart, "seconds": seconds, "ratio": faster}))


if __name__ == "__main__":
    main()
