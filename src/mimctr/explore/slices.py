"""Metrics by slice, and impressions of a slice on which content helped or harmed."""

import numpy as np

from mimctr.evaluate.compare import BASE, Contender
from mimctr.explore.catalogue import NotThere, card, hit, user_id
from mimctr.explore.opened import OpenedRun
from mimctr.explore.schemas import Example, Number, RunView, SliceRow, SliceView
from mimctr.report.headline import figures, headline, remarks
from mimctr.report.summary import MIM, Summary
from mimctr.report.wording import slice_name, ubm_name, variant_name

NUM_ITEMS, NUM_EXAMPLES = 12, 6
SMALLEST = 1e-12


def view_run(run: OpenedRun) -> RunView:
    """Return what the run is, and its main finding."""
    summary = None if run.results is None else Summary(run.results)
    models = (
        {}
        if run.results is None
        else {(model.ubm, model.variant, model.encoder): 0 for model in run.results.models}
    )
    for model in run.results.models if run.results else ():
        models[(model.ubm, model.variant, model.encoder)] += 1
    return RunView(
        name=run.name,
        headline=headline(summary) if summary else None,
        remarks=remarks(summary) if summary else [],
        figures=[Number(**one._asdict()) for one in figures(summary)] if summary else [],
        counts=run.data.manifest.counts,
        pair_rule=run.data.manifest.pair_rule,
        models=[
            f"{ubm_name(ubm)} {variant_name(variant)}{f' ({encoder})' if encoder else ''}, {count} seeds"
            for (ubm, variant, encoder), count in models.items()
        ],
        encoders=list(run.generations),
        asks=list(run.asks),
        some_user=user_id(run, run.test.start) if len(run.test) else None,
        missing=run.missing,
    )


def slice_rows(run: OpenedRun) -> list[SliceRow]:
    """Return AUC on every slice, averaged over UBMs and seeds, and the gain of content; none without results."""
    if run.results is None:
        return []
    summary = Summary(run.results)
    named = dict.fromkeys(row.slice for row in run.results.rows)
    found = []
    for name in named:
        sizes = next(row for row in run.results.rows if row.slice == name)
        gain = summary.overall_gain(name)
        content = summary.content
        found.append(
            SliceRow(
                slice=name,
                name=slice_name(name),
                num_impressions=sizes.num_impressions,
                num_clicks=sizes.num_clicks,
                base=summary.mean_over_ubms(Contender(BASE, None), name),
                content=summary.mean_over_ubms(content, name) if content else None,
                gain=gain.difference if gain else None,
                low=gain.low if gain else None,
                high=gain.high if gain else None,
                p_value=gain.p_value if gain else None,
                ceiling=summary.ceiling(name),
            )
        )
    return found


def view_slice(run: OpenedRun, name: str) -> SliceView:
    """Return the items that a slice shows most, and impressions on which content and IDs disagree.

    Raises:
        NotThere: there is no such slice.
    """
    if name not in run.slices:
        raise NotThere(f"there is no slice {name[:100]!r} in this run")
    places = np.flatnonzero(run.slices[name])
    targets = np.asarray(run.data.impressions.target)[run.test.start + places]
    items, counts = np.unique(targets, return_counts=True)
    most = items[np.lexsort((items, -counts))][:NUM_ITEMS]
    helped, harmed = [], []
    base, content = run.scores.mean(BASE), run.scores.mean(MIM)
    if base is not None and content is not None:
        clicked = np.asarray(run.data.impressions.click)[run.test.start + places] == 1
        gains = _log_likelihood(content[places], clicked) - _log_likelihood(base[places], clicked)
        order = np.argsort(-gains, kind="stable")
        helped = list(places[order[gains[order] > 0][:NUM_EXAMPLES]])
        harmed = list(places[order[gains[order] < 0][::-1][:NUM_EXAMPLES]])

    def example(place: int) -> Example:
        assert base is not None
        assert content is not None
        row = run.test.start + int(place)
        return Example(
            row=row,
            user_id=user_id(run, row),
            item=card(run, int(run.data.impressions.target[row])),
            clicked=bool(run.data.impressions.click[row]),
            base=float(base[place]),
            content=float(content[place]),
        )

    return SliceView(
        slice=name,
        name=slice_name(name),
        num_impressions=len(places),
        items=[hit(run, int(item)) for item in most],
        helped=[example(place) for place in helped],
        harmed=[example(place) for place in harmed],
    )


def _log_likelihood(probability: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.where(clicked, probability, 1.0 - probability), SMALLEST, None))
