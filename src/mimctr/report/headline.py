"""The report's first sentences: what content interest gained, in plain words and no more certain than it is."""

from typing import NamedTuple

from mimctr.evaluate.compare import BASE, Contender
from mimctr.evaluate.results import Comparison
from mimctr.evaluate.variants import split_ablated
from mimctr.evaluate.written import interval, probability, signed
from mimctr.report.summary import MIM, Summary
from mimctr.report.wording import listing, ubm_name, variant_name

SURE = 0.05
"""A p-value below this is called a difference."""


class Figure(NamedTuple):
    """One number at the top of the page."""

    label: str
    value: str
    note: str


def headline(summary: Summary) -> str:
    """Return the main finding in one sentence."""
    gain = summary.overall_gain("all")
    if gain is None:
        return "This run has no content interest beside a Base model of one UBM and seed: there is no gain to show."
    ubms = [ubm_name(ubm) for ubm in summary.main_ubms]
    where = f"on average over {listing(ubms)}" if len(ubms) > 1 else f"over {ubms[0]}"
    named = "Content interest" + (f" ({details})" if (details := _details(summary)) else "")
    if not _is_sure(gain):
        return (
            f"{named} did not measurably change the test AUC {where}: {signed(gain.difference)}"
            f"{_within(gain)}."
        )
    verb = "raised" if gain.difference > 0 else "lowered"
    return f"{named} {verb} the test AUC {where} by {signed(gain.difference)}{_within(gain)}."


def remarks(summary: Summary) -> list[str]:
    """Return what else belongs to the main finding: new items, the ceiling, the leak control, one seed."""
    gain = summary.overall_gain("all")
    if gain is None:
        return []
    found = [_new_items(summary), _ceiling(summary, gain), _leak(summary)]
    if len(gain.seeds) == 1:
        found.append("Only one seed was trained: the intervals are over users alone and too narrow.")
    return [sentence for sentence in found if sentence]


def figures(summary: Summary) -> list[Figure]:
    """Return the numbers at the top of the page: the gain on the slices of the main table, and the ceiling."""
    labels = {
        "all": "gain, all items",
        "age:S1": "gain, newest items (S1)",
        "item:unseen": "gain, items unseen in training",
    }
    found = []
    for name in summary.table_slices:
        gain = summary.overall_gain(name)
        if gain:
            found.append(Figure(labels[name], signed(gain.difference), interval(gain.low, gain.high)))
    ceiling = summary.ceiling("all")
    if ceiling is not None:
        found.append(Figure("ceiling AUC", f"{ceiling:.4f}", "of the true probabilities"))
    return found


def _details(summary: Summary) -> str:
    """Return what ``content`` is where it is not plainly Base+MIM; empty where it is."""
    content = summary.content
    if content is None:
        return ""
    names = [variant_name(content.variant)] if content.variant != MIM else []
    return ", ".join(filter(None, [*names, summary.vectors(content)]))


def _is_sure(gain: Comparison) -> bool:
    return gain.p_value is not None and gain.p_value < SURE


def _within(gain: Comparison) -> str:
    return f" (95 % interval {interval(gain.low, gain.high)})" if gain.low is not None else " (no interval)"


def _new_items(summary: Summary) -> str:
    places = [("age:S1", "on the newest items (S1)"), ("item:unseen", "on items that training never saw")]
    parts = []
    for name, words in places:
        gain = summary.overall_gain(name)
        if gain:
            parts.append(f"{signed(gain.difference)} {words}{'' if _is_sure(gain) else ' (not significant)'}")
    if not parts:
        return ""
    contrast = summary.overall_gain("age:S1", minus="age:S10")
    tail = ""
    if contrast and _is_sure(contrast):
        word = "more" if contrast.difference > 0 else "less"
        tail = f"; the newest items gain {abs(contrast.difference):.4f} {word} than the oldest"
    return f"The difference is {listing(parts)}{tail}."


def _ceiling(summary: Summary, gain: Comparison) -> str:
    ceiling, base = summary.ceiling("all"), summary.mean_over_ubms(Contender(BASE, None), "all")
    if ceiling is None or base is None or ceiling <= base:
        return ""
    words = (
        f"The clicks here were generated with known probabilities, whose AUC, {ceiling:.4f}, is the best that can be "
        "reached"
    )
    if gain.difference <= 0 or not _is_sure(gain):
        return f"{words}; Base has {base:.4f}."
    share = 100 * gain.difference / (ceiling - base)
    return f"{words}: content closes {share:.0f} % of the distance from Base ({base:.4f}) to it."


def _leak(summary: Summary) -> str:
    controls = [item for item in summary.contenders if split_ablated(item.variant)[0] == "mim_permuted"]
    control = min(
        controls,
        key=lambda item: summary.content is None or item.encoder != summary.content.encoder,
        default=None,
    )
    gain = summary.overall_gain("all", control) if control else None
    if gain is None or gain.p_value is None:
        return ""
    measured = f"{signed(gain.difference)}{_within(gain)}, {probability(gain.p_value)}"
    if not _is_sure(gain):
        return f"Leak control: with vectors permuted within category there is no measurable gain, {measured}."
    if gain.difference < 0:
        return f"Leak control: with vectors permuted within category nothing is gained, {measured}."
    return (
        f"Caution: with vectors permuted within category the gain is still {measured}. Part of the gain is not due "
        "to content."
    )
