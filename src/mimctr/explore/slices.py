"""Metrics by slice, and impressions of a slice on which content helped or harmed."""

from collections import Counter

import numpy as np

from mimctr.evaluate.compare import BASE, Contender
from mimctr.explore.catalogue import NotThere, card, hit, user_id
from mimctr.explore.opened import OpenedRun
from mimctr.explore.schemas import Example, Number, RunView, SliceRow, SliceView
from mimctr.explore.scores import model_name, model_order
from mimctr.report.headline import figures, headline, remarks
from mimctr.report.wording import counted, slice_name

NUM_ITEMS, NUM_EXAMPLES = 12, 6


def view_run(run: OpenedRun) -> RunView:
    """Return what the run is, and its main finding."""
    summary = run.summary
    trained = run.results.models if run.results else []
    models = Counter((model.ubm, model.variant, model.encoder) for model in trained)
    return RunView(
        name=run.name,
        headline=headline(summary) if summary else None,
        remarks=remarks(summary) if summary else [],
        figures=[Number(**one._asdict()) for one in figures(summary)] if summary else [],
        counts=run.data.manifest.counts,
        pair_rule=run.data.manifest.pair_rule,
        evaluation=run.evaluation,
        models=[
            f"{model_name(*kind)}, {counted(models[kind], 'seed')}"
            for kind in sorted(models, key=lambda kind: model_order(*kind))
        ],
        encoders=list(run.generations),
        asks=list(run.asks),
        some_user=user_id(run, run.test.start) if len(run.test) else None,
        missing=run.missing,
    )


def slice_rows(run: OpenedRun) -> list[SliceRow]:
    """Return AUC on every slice, averaged over UBMs and seeds, and the gain of content; none without results."""
    summary = run.summary
    if summary is None:
        return []
    named = dict.fromkeys(row.slice for row in summary.results.rows)
    found = []
    for name in named:
        sizes = next(row for row in summary.results.rows if row.slice == name)
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
    helped: list[int] = []
    harmed: list[int] = []
    compared = run.compared
    if compared is not None:
        base, content = compared
        clicked = np.asarray(run.data.impressions.click)[run.test.start + places] == 1
        nearer = np.where(clicked, 1.0, -1.0) * (content[places] - base[places])
        for kind in (clicked, ~clicked):
            own = np.flatnonzero(kind)
            own = own[np.argsort(-nearer[own], kind="stable")]
            helped += places[own[nearer[own] > 0][:NUM_EXAMPLES]].tolist()
            harmed += places[own[nearer[own] < 0][::-1][:NUM_EXAMPLES]].tolist()

    def example(place: int) -> Example:
        assert compared is not None
        base, content = compared
        row = run.test.start + place
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
