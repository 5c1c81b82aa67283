"""results.json and its pictures -> one HTML page that needs nothing else."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mimctr.errors import RunError
from mimctr.evaluate import written
from mimctr.evaluate.compare import BASE, Contender
from mimctr.evaluate.results import POOLED, Comparison, Results, Search
from mimctr.evaluate.variants import split_ablated
from mimctr.report import wording
from mimctr.report.curves import ctr_curves, encoder_curves
from mimctr.report.headline import figures, headline, remarks
from mimctr.report.plots import auc_by_age, auc_by_category, gain_by_age, gain_by_category
from mimctr.report.reliability import reliability_plots
from mimctr.report.summary import TABLE_SLICES, Summary

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def render_page(results: Results, pictures: Path) -> str:
    """Return the report as HTML: style, plots and pictures inside, no address of anything outside.

    Args:
        results: What is shown.
        pictures: Folder that the files of ``results.pictures`` are relative to.

    Raises:
        RunError: a picture is missing, or neither PNG nor JPEG.
    """
    summary = Summary(results)
    environment = Environment(
        loader=PackageLoader("mimctr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        day=wording.day,
        duration=written.duration,
        machine=wording.machine_words,
        memory=written.memory,
        metric_words=wording.metric_words,
        signed=written.signed,
        slice_name=wording.slice_name,
        ubm_name=wording.ubm_name,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )
    plots = [gain_by_age(summary), auc_by_age(summary), gain_by_category(summary), auc_by_category(summary)]
    return environment.get_template("report.html.jinja").render(
        results=results,
        summary=summary,
        headline=headline(summary),
        remarks=remarks(summary),
        figures=figures(summary),
        slice_plots=[plot for plot in plots if plot],
        reliability_plots=reliability_plots(summary),
        ctr_plots=ctr_curves(summary),
        encoder_plots=encoder_curves(summary),
        other_comparisons=other_comparisons(results.comparisons),
        searches=in_order_of_training([item for item in results.searches if item.slice in SEARCH_SLICES]),
        search_metrics=list(dict.fromkeys(name for item in results.searches for name in item.metrics)),
        sheets=[(sheet, data_address(pictures / sheet.file)) for sheet in results.pictures],
        variants={split_ablated(contender.variant)[0] for contender in summary.contenders},
        has_ablations=any(split_ablated(contender.variant)[1] for contender in summary.contenders),
        whole=next(row for row in results.rows if row.slice == "all"),
        grouped=[name for name in GROUPED if any(getattr(row, name) is not None for row in results.rows)],
        grouped_names=GROUPED,
        short_names=wording.SHORT_NAMES,
        written=written,
        Contender=Contender,
    )


GROUPED = {
    "gauc": "GAUC",
    "gauc_unweighted": "GAUC, unweighted",
    "query_gauc": "GAUC by query",
    "query_gauc_unweighted": "by query, unweighted",
}
"""Metrics within users and within queries, and what their columns are called."""
SEARCH_SLICES = ("all", "item:unseen")
"""What the table of searches shows; results.json has every category, too."""


def other_comparisons(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return what the main table does not show: pooled gains, gains between slices, other variants than Base."""
    return [
        item
        for item in comparisons
        if item.minus_slice is not None
        or (item.slice in TABLE_SLICES and (item.ubm == POOLED or item.against != BASE))
    ]


def in_order_of_training(searches: Sequence[Search]) -> list[Search]:
    """Return search metrics by encoder, as they were made; those from before C-SFT ahead of those after it."""
    encoders = list(dict.fromkeys(item.encoder for item in searches))
    return sorted(
        searches, key=lambda item: (encoders.index(item.encoder), not item.part.endswith("_before"))
    )


def data_address(path: Path) -> str:
    """Return a picture as an address that holds it.

    Raises:
        RunError: it is missing, or neither PNG nor JPEG.
    """
    if not path.is_file():
        raise RunError(f"{path}: a picture of results.json is missing. Run 'mimctr evaluate' again.")
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None:
        raise RunError(f"{path}: neither PNG nor JPEG. Run 'mimctr evaluate' again.")
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{media_type};base64,{content}"
