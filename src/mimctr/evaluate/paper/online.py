"""What the paper measured online, from ``online.json``: clicks and revenue of ranking policies in the bazaar."""

from collections.abc import Mapping

from mimctr.evaluate.compare import BASE, MIM, Contender
from mimctr.evaluate.contrasts import CATEGORY
from mimctr.evaluate.encoder_results import Estimate, alone
from mimctr.evaluate.online import AS_LOGGED, TRUTH, Measure, Online, Ranking
from mimctr.evaluate.paper.findings import confidence, finding
from mimctr.evaluate.paper.lookup import DEVIATION, NO_CONTENT
from mimctr.evaluate.paper.numbers import ONLINE_CTR, ONLINE_RPM, TABLE_7
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Table, TableRow
from mimctr.evaluate.paper.slices import PAPERS_GROUPS, contrasted_groups
from mimctr.evaluate.results import Comparison, Results
from mimctr.evaluate.written import percent, signed

LABELS = {BASE: "Base", MIM: "Base+MIM", AS_LOGGED: "As logged", TRUTH: "True probabilities"}
GROUPS: dict[Ranking, str] = {
    "probability": "ranked by probability of a click",
    "revenue": "ranked by probability × bid",
}
RANKED_FOR: dict[Measure, Ranking] = {"ctr": "probability", "rpm": "revenue"}
"""The ranking that wants the most of a measure."""
COLUMNS = (
    Column(name="clicks per impression", unit="share"),
    Column(name="over Base", unit="rate"),
    Column(name="revenue per 1,000", unit="money", note="impressions; a click pays its bid"),
    Column(name="over Base", unit="rate"),
)
TITLE = "Clicks and revenue of ranking policies, a simulated A/B test"
SOURCE = "Online experiments"


def online_table(online: Online, names: Mapping[str, str]) -> Table:
    """Return clicks and revenue of every policy under both rankings, and what content adds in every category.

    Args:
        online: The simulated A/B test.
        names: How user behavior models are written.
    """
    policies = [AS_LOGGED, *(one.name for one in online.policies if one.name != AS_LOGGED)]
    rows = [
        TableRow(label=LABELS.get(policy, policy), group=group, cells=_cells(online, policy, ranking))
        for ranking, group in GROUPS.items()
        for policy in policies
    ]
    rows += [_category_row(online, name) for name in online.slices() if name.startswith(CATEGORY)]
    return Table(
        key="online",
        title=TITLE,
        columns=list(COLUMNS),
        rows=rows,
        note=_note(online, names.get(online.ubm, online.ubm)),
        reading=_reading(online),
    )


def no_online_table(reason: str) -> Table:
    """Return the table of a log from which nothing can be said of another ranking, for this reason."""
    not_run = f"{reason}, so what another ranking would have earned cannot be estimated from it"
    return Table(
        key="online",
        title=TITLE,
        columns=list(COLUMNS),
        rows=[TableRow(label="Base+MIM", not_run=not_run)],
        note="A simulation needs the true click probabilities, which a generated marketplace has (docs/online.md).",
    )


def online_findings(online: Online, offline: Comparison | None) -> list[Finding]:
    """Return what the paper claims of MIM online, and whether the simulation agrees with the offline gain.

    Args:
        online: The simulated A/B test.
        offline: Base+MIM against Base on all test impressions, of the same user behavior model (:func:`offline_gain`);
            None where that was not measured.
    """
    ctr, rpm = (_gain(online, measure) for measure in RANKED_FOR)
    groups = first, second = contrasted_groups(online.changes)
    ours = groups != PAPERS_GROUPS
    return [
        finding(
            "online:ctr",
            source=SOURCE,
            claim="Ranked with Base+MIM, more of what is shown is clicked than with Base",
            paper=paper_gain("ctr"),
            difference=ctr,
            unit="rate",
        ),
        finding(
            "online:rpm",
            source=SOURCE,
            claim="Ranked with Base+MIM, a thousand impressions earn more than with Base",
            paper=paper_gain("rpm"),
            difference=rpm,
            unit="rate",
        ),
        finding(
            "online:sensitive_categories",
            source="Table 7",
            claim=f"Clicks grow more in {first.removeprefix(CATEGORY)} than in {second.removeprefix(CATEGORY)}",
            paper="" if ours else "+4.44 % to +8.69 % against +2.54 % to +3.48 %",
            difference=_gain(online, "ctr", first, minus=second),
            unit="rate",
            ours=ours,
        ),
        _ceiling(online, "ctr", "get more clicks"),
        _ceiling(online, "rpm", "and the bids earn more"),
        agreement(ctr, offline),
    ]


def agreement(online: Estimate | None, offline: Comparison | None) -> Finding:
    """Return whether the click rate moved as the offline AUC did.

    The difference is the change of clicks, positive where its sign is that of the offline difference. The confidence is
    the probability that the true signs agree: it is high only where both differences are sure.
    """
    known = None
    if offline is not None:
        known = Estimate(
            mean=offline.difference,
            sd=offline.sd,
            low=offline.low,
            high=offline.high,
            p_value=offline.p_value,
        )
    signs = [None if one is None else confidence(one) for one in (online, known)]
    difference = None if online is None or known is None else _turned(online, known.mean)
    sure = None
    if signs[0] is not None and signs[1] is not None:
        sure = signs[0] * signs[1] + (1 - signs[0]) * (1 - signs[1])
    elif difference is not None:  # how sure one of the two is, nobody knows
        difference = difference.model_copy(update={"p_value": None})
    return finding(
        "online:agrees",
        source=SOURCE,
        claim="Clicks change as the offline AUC says: the same sign, and both beyond doubt",
        paper="AUC +0.81 %, clicks +14.14 %",
        difference=difference,
        unit="rate",
        measured=""
        if online is None or known is None
        else f"{signed(100 * online.mean, 2)} %, AUC {signed(known.mean)}",
        ours=True,
        sure=sure,
    )


def offline_gain(results: Results, ubm: str, encoder: str) -> Comparison | None:
    """Return the offline comparison of Base+MIM with Base on all test impressions; None where there is none."""
    for one in results.comparisons:
        if (one.ubm, one.slice, one.minus_slice) != (ubm, "all", None):
            continue
        pair = Contender(one.variant, one.encoder), Contender(one.against, one.against_encoder)
        if pair == (Contender(MIM, encoder), NO_CONTENT):
            return one
    return None


def paper_gain(measure: Measure) -> str:
    """Return what the paper gained online, in words."""
    gains = ONLINE_CTR if measure == "ctr" else ONLINE_RPM
    each = ", ".join(f"{100 * one:.2f}" for one in gains)
    return f"{signed(100 * sum(gains), 2)} % in three releases ({each})"


def level_alone(estimate: Estimate) -> Estimate:
    """Return a level without its interval, which would only repeat how users differ: changes are paired."""
    return alone(estimate.mean, estimate.sd)


def _cells(online: Online, policy: str, ranking: Ranking) -> list[Cell]:
    found = online.outcome(policy, ranking)
    if found is None:
        return []
    of_mim = policy == MIM
    papers: dict[Measure, float | None] = {
        "ctr": sum(ONLINE_CTR) if of_mim and ranking == "probability" else None,
        "rpm": sum(ONLINE_RPM) if of_mim and ranking == "revenue" else None,
    }
    levels: dict[Measure, Estimate] = {"ctr": found.ctr, "rpm": found.rpm}
    cells = []
    for measure, value in levels.items():
        change = online.change(policy, online.base, measure, ranking=ranking)
        cells += [Cell(ours=level_alone(value)), Cell(ours=change, paper=papers[measure])]
    return cells


def _category_row(online: Online, name: str) -> TableRow:
    """Return what content adds in a category: clicks where they are ranked for, revenue likewise."""
    label = name.removeprefix(CATEGORY)
    paper = TABLE_7.get(label)
    by_clicks, by_revenue = (online.outcome(MIM, ranking, name) for ranking in GROUPS)
    cells = [
        Cell(ours=by_clicks and level_alone(by_clicks.ctr)),
        Cell(ours=_gain(online, "ctr", name), paper=paper and paper.ctr),
        Cell(ours=by_revenue and level_alone(by_revenue.rpm)),
        Cell(ours=_gain(online, "rpm", name), paper=paper and paper.rpm),
    ]
    return TableRow(
        label=label, group="Base+MIM by category: clicks and revenue each where ranked for", cells=cells
    )


def _gain(
    online: Online, measure: Measure, name: str = "all", *, minus: str | None = None
) -> Estimate | None:
    """Return what Base+MIM adds to Base, under the ranking that wants the most of the measure."""
    return online.change(MIM, online.base, measure, ranking=RANKED_FOR[measure], name=name, minus=minus)


def _ceiling(online: Online, measure: Measure, claim: str) -> Finding:
    """Return whether the true probabilities earn more than the best of all others."""
    best = _next_best(online, measure)
    return finding(
        f"online:ceiling_{measure}",
        source=SOURCE,
        claim=f"The true probabilities {claim} than {LABELS.get(best, best)}, the next best",
        difference=online.change(TRUTH, best, measure, ranking=RANKED_FOR[measure]),
        unit="rate",
        ours=True,
    )


def _next_best(online: Online, measure: Measure) -> str:
    """Return the best policy that does not know the truth."""
    ranking = RANKED_FOR[measure]
    others = {one.name: online.outcome(one.name, ranking) for one in online.policies if one.name != TRUTH}
    known = {name: getattr(one, measure).mean for name, one in others.items() if one is not None}
    return max(known, key=lambda name: known[name])


def _turned(estimate: Estimate, sign: float) -> Estimate:
    """Return the estimate, or its opposite where ``sign`` is negative."""
    if sign >= 0:
        return estimate
    low, high = (None if end is None else -end for end in (estimate.high, estimate.low))
    return Estimate(mean=-estimate.mean, sd=estimate.sd, low=low, high=high, p_value=estimate.p_value)


def _note(online: Online, ubm: str) -> str:
    seeds = ", ".join(map(str, online.policies[0].seeds))
    draws = len(online.config["click_seeds"])
    return (
        f"{online.num_sessions:,} sessions of {online.num_users:,} users in the test part of the {online.dataset}. "
        f"Every policy orders the same candidates, {online.candidates_per_session:.0f} a session on average, and "
        f"shows {online.shown_per_session:.0f}. Clicks fall by the true probability at the place shown, in {draws} "
        f"draws that all policies share. Models: {ubm}, seeds {seeds}. {DEVIATION} Changes are paired; 95 % "
        "intervals over users and seeds. The paper's totals are those of three releases, its categories those of one. "
        "Histories are the log's: nobody's later sessions change (docs/online.md)."
    )


def _reading(online: Online) -> list[str]:
    sentences = []
    ctr, rpm = (_gain(online, measure) for measure in RANKED_FOR)
    ceiling = online.change(TRUTH, online.base, "ctr", ranking="probability")
    if ctr is not None and rpm is not None:
        sentences.append(
            f"Content changes clicks by {signed(100 * ctr.mean, 2)} % where they are ranked for, and revenue by "
            f"{signed(100 * rpm.mean, 2)} % where that is."
        )
    if ctr is not None and ceiling is not None and ctr.mean > 0 and ceiling.mean > 0:
        share = percent(ctr.mean / ceiling.mean, 0)
        sentences.append(
            f"Of the clicks that knowing the true probabilities would add, content adds {share}."
        )
    if MIM in online.shared_with_base:
        share = percent(online.shared_with_base[MIM], 0)
        sentences.append(f"{share} of what Base+MIM shows, Base shows too.")
    return sentences
