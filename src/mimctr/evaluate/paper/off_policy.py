"""What the paper measured online, estimated from a log with propensities: ``off_policy.json`` as table and findings."""

from collections.abc import Mapping

from mimctr.evaluate.compare import BASE, MIM
from mimctr.evaluate.encoder_results import alone
from mimctr.evaluate.off_policy import OffPolicy, Support, Wrong
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.lookup import DEVIATION
from mimctr.evaluate.paper.online import LABELS, SOURCE, agreement, level_alone, paper_gain
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Table, TableRow
from mimctr.evaluate.results import Comparison
from mimctr.evaluate.written import interval, percent, signed

TITLE = "Clicks on ranking policies, estimated from the log's propensities"


def off_policy_table(found: OffPolicy, names: Mapping[str, str]) -> Table:
    """Return the estimated clicks of every policy.

    Args:
        found: What a log says of policies.
        names: How user behavior models are written.
    """
    depths = _depths(found)
    columns = []
    for depth in depths:
        columns += [
            Column(name=_place(depth), unit="share", note=f"clicks per impression {_where(depth)}"),
            Column(name="over Base", unit="rate"),
        ]
    columns += [
        Column(name="weight", unit="number", note="mean, 1 where the log supports the policy"),
        Column(name="worth", unit="count", note="as many impressions of equal weight say as much"),
    ]
    return Table(
        key="online",
        title=TITLE,
        columns=columns,
        rows=[_row(found, policy.name, depths) for policy in found.policies],
        note=_note(found, names.get(found.ubm, found.ubm)),
        reading=_reading(found),
    )


def off_policy_findings(found: OffPolicy, offline: Comparison | None) -> list[Finding]:
    """Return what the paper claims of MIM online, and whether the estimate agrees with the offline gain.

    Args:
        found: What a log says of policies.
        offline: Base+MIM against Base on all test impressions, of the same user behavior model; None where that was not
            measured.
    """
    first, whole = (found.change(MIM, BASE, depth) for depth in (_depths(found)[0], None))
    return [
        finding(
            "online:ctr_first",
            source=SOURCE,
            claim=f"Ordered by Base+MIM, more is clicked {_where(_depths(found)[0])} than ordered by Base",
            paper=paper_gain("ctr"),
            difference=first,
            unit="rate",
        ),
        finding(
            "online:ctr",
            source=SOURCE,
            claim="Ordered by Base+MIM, more is clicked on the page than ordered by Base",
            paper=paper_gain("ctr"),
            difference=whole,
            unit="rate",
        ),
        agreement(first, offline),
    ]


def _depths(found: OffPolicy) -> list[int | None]:
    return list(dict.fromkeys(one.depth for one in found.outcomes)) or [None]


def _place(depth: int | None) -> str:
    if depth is None:
        return "page"
    return "first place" if depth == 1 else f"first {depth}"


def _where(depth: int | None) -> str:
    if depth is None:
        return "on the page"
    return "in the first place" if depth == 1 else f"in the first {depth} places"


def _row(found: OffPolicy, policy: str, depths: list[int | None]) -> TableRow:
    support = next(one for one in found.support if one.policy == policy)
    label = LABELS.get(policy, policy)
    if not support.supported:
        wrong = _wrong(support)
        return TableRow(
            label=label,
            not_run=f"the log does not support this order: its weights{_there(wrong)} have the mean "
            f"{wrong.mean_weight:.2f}, where true propensities give 1",
        )
    cells = []
    for depth in depths:
        outcome = found.outcome(policy, depth)
        cells += [
            Cell(ours=outcome and level_alone(outcome.ctr)),
            Cell(ours=found.change(policy, found.base, depth)),
        ]
    return TableRow(
        label=label,
        cells=[
            *cells,
            Cell(ours=level_alone(support.mean_weight)),
            Cell(ours=alone(support.effective_impressions)),
        ],
    )


def _note(found: OffPolicy, ubm: str) -> str:
    seeds = ", ".join(map(str, next(one.seeds for one in found.policies if one.name == found.base)))
    left = ", ".join(f"{number:,} with {reason}" for reason, number in found.left_out.items())
    return (
        f"{found.num_pages:,} pages of {found.num_users:,} users in the test part of {found.dataset}, "
        f"{found.num_impressions:,} impressions{f'; left out: {left}' if left else ''}. Every policy orders the items "
        "that a page showed. A click counts where the log put an item where the policy would have, divided by the "
        f"propensity, normalized at each place (SNIPS). Models: {ubm}, seeds {seeds}. {DEVIATION} Changes are paired; "
        f"95 % intervals over users and seeds. No other items than those shown are considered (docs/online.md)."
    )


def _wrong(support: Support) -> Wrong:
    """Return where the log does not support a policy; of the page as a whole where that is not told."""
    return support.wrong or Wrong(place=None, mean_weight=support.mean_weight.mean)


def _there(wrong: Wrong) -> str:
    """Return the place, to go behind a noun."""
    if wrong.place is None:
        return ""
    return " in the first place" if wrong.place == 1 else f" in place {wrong.place}"


def _why_nothing(support: Support) -> str:
    """Return from where on the log does not support a policy, and why."""
    wrong = _wrong(support)
    whom = LABELS.get(support.policy, support.policy)
    if wrong.place is not None and wrong.place > 1:
        whom += f" from place {wrong.place} on"
    if not wrong.mean_weight:
        return f"The log says nothing of {whom}: it never drew such orders."
    why = ", so the propensities are wrong" if wrong.mean_weight > 1 else ""
    return (
        f"The log says nothing of {whom}: its weights{_there(wrong)} have the mean {wrong.mean_weight:.2f} where true "
        f"propensities give 1{why}."
    )


def _reading(found: OffPolicy) -> list[str]:
    sentences = [_why_nothing(one) for one in found.support if one.wrong or not one.supported]
    if not all(one.supported for one in found.support):
        return sentences
    for depth in dict.fromkeys((_depths(found)[0], None)):
        change = found.change(MIM, BASE, depth)
        if change is not None:
            gain = f"Content changes clicks {_where(depth)} by {signed(100 * change.mean, 1)} %"
            if change.low is not None and change.high is not None:
                gain += f" ({interval(100 * change.low, 100 * change.high, 1)}, 95 %)"
            sentences.append(f"{gain}.")
    for support in found.support:
        if support.policy == MIM:
            share = percent(support.matched_impressions / found.num_impressions, 0)
            sentences.append(f"{share} of the impressions stood where Base+MIM would have put them.")
    return sentences
