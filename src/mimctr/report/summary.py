"""What results.json says, looked up by what a reader asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import NamedTuple

from mimctr.evaluate.compare import BASE, UNTRAINED, Contender, Key
from mimctr.evaluate.results import POOLED, Comparison, ContentUse, Results, Row
from mimctr.evaluate.variants import split_ablated
from mimctr.report.wording import UBM_NAMES, in_order, listing, ubm_name, variant_name, variants_in_order

TABLE_SLICES = ("all", "age:S1", "item:unseen")
"""Columns of the main table: overall, the newest items, the items that training never saw."""
MIM = "mim"
TUNED = ("csft", "mim")
"""Encoders after C-SFT, as 'mimctr run' and as 'mimctr reproduce' name them."""


class MeanSd(NamedTuple):
    """Over seeds; ``sd`` is None for one seed."""

    mean: float
    sd: float | None
    num_seeds: int


class Cell(NamedTuple):
    """One contender on one slice."""

    auc: MeanSd | None
    gain: Comparison | None
    """Over Base; None for Base itself."""


class SliceLine(NamedTuple):
    """One slice, mean over the UBMs and seeds that Base and the contender with content both have."""

    name: str
    num_impressions: int
    num_clicks: int
    num_users: int
    base: float | None
    content: float
    gain: Comparison | None
    ceiling: float | None


class ContentLine(NamedTuple):
    """Whether one contender of one UBM has content vectors, and uses them."""

    ubm: str
    label: str
    targets: float | None
    """Share of the test targets with a vector; None where it was not counted."""
    behaviors: float | None
    """Share of the behaviors before them."""
    use: ContentUse


class RatePoint(NamedTuple):
    """One bin of a reliability plot, mean over seeds."""

    predicted: float
    observed: float


class TableRow(NamedTuple):
    """One contender of one UBM on the slices of the table."""

    ubm: str
    contender: Contender
    label: str
    cells: list[Cell]


def shared_models(models: Iterable[Key], contenders: Sequence[Contender]) -> list[tuple[str, int]]:
    """Return which models to average, as (UBM, seed), so that the means of several contenders can be compared.

    They are those behind the pooled gain: every UBM of which all contenders have a model of one seed, in the paper's
    order, and the seeds that all these UBMs have. Where the UBMs have no seed in common nothing is pooled: the first
    one stands alone. Empty where the contenders share no model.

    Args:
        models: UBM, contender and seed of each model; repeats are allowed.
        contenders: Base and the one with content, say.
    """
    there = dict.fromkeys(models)
    seeds: dict[str, set[int]] = {}
    for ubm, _, seed in there:
        if all((ubm, contender, seed) in there for contender in contenders):
            seeds.setdefault(ubm, set()).add(seed)
    common = set.intersection(*seeds.values()) if seeds else set[int]()
    ubms = in_order(seeds, UBM_NAMES)
    return [(ubm, seed) for ubm in (ubms if common else ubms[:1]) for seed in sorted(common or seeds[ubm])]


@dataclass(frozen=True)
class Summary:
    """Views of one ``results.json``."""

    results: Results

    @cached_property
    def ubms(self) -> list[str]:
        """Every UBM, in the paper's order."""
        return in_order((row.ubm for row in self.results.rows if row.variant != UNTRAINED), UBM_NAMES)

    @cached_property
    def contenders(self) -> list[Contender]:
        """Every variant and encoder, in the order of the table."""
        variants = variants_in_order(row.variant for row in self.results.rows)
        found = dict.fromkeys(Contender(row.variant, row.encoder) for row in self.results.rows)
        return [contender for variant in variants for contender in found if contender.variant == variant]

    @cached_property
    def content(self) -> Contender | None:
        """The contender that the report is about: Base+MIM on the vectors of C-SFT, else on the first there are; an
        ablation of it only where there is no other."""
        found = [contender for contender in self.contenders if contender.variant == MIM]
        found = found or [item for item in self.contenders if split_ablated(item.variant)[0] == MIM]
        preferred = [contender for contender in found if contender.encoder in TUNED]
        return next(iter(preferred + found), None)

    @cached_property
    def main_contenders(self) -> list[Contender]:
        """Base and ``content``, those that there are; ``content`` alone where they share no UBM and seed."""
        return self._main[0]

    @cached_property
    def main_ubms(self) -> list[str]:
        """The UBMs that the means of the main contenders are over."""
        return list(dict.fromkeys(ubm for ubm, _ in self._main[1]))

    @cached_property
    def _main(self) -> tuple[list[Contender], list[tuple[str, int]]]:
        models = [(row.ubm, Contender(row.variant, row.encoder), row.seed) for row in self.results.rows]
        content = [self.content] if self.content else []
        base = [contender for contender in self.contenders if contender.variant == BASE]
        for contenders in ([*base, *content], content):
            shared = shared_models(models, contenders)
            if shared:
                break
        return contenders, shared

    @cached_property
    def table_slices(self) -> list[str]:
        """Those of ``TABLE_SLICES`` that were measured."""
        there = {row.slice for row in self.results.rows}
        return [name for name in TABLE_SLICES if name in there]

    @cached_property
    def _rows(self) -> dict[tuple[str, Contender, str], list[Row]]:
        found: dict[tuple[str, Contender, str], list[Row]] = {}
        for row in self.results.rows:
            found.setdefault((row.ubm, Contender(row.variant, row.encoder), row.slice), []).append(row)
        return found

    def slices_of(self, kind: str) -> list[str]:
        """Return the measured slices of one kind (``age``, ``category`` ...), in the order of the results."""
        return list(dict.fromkeys(row.slice for row in self.results.rows if row.slice.startswith(f"{kind}:")))

    def rows(self, ubm: str, contender: Contender, name: str) -> list[Row]:
        """Return the rows of one contender on one slice, one per seed."""
        return self._rows.get((ubm, contender, name), [])

    def mean(self, ubm: str, contender: Contender, name: str, metric: str = "auc") -> MeanSd | None:
        """Return a metric over seeds; None where it was not measured or means nothing.

        The untrained cosine depends on no seed, so it has no deviation.
        """
        values = [getattr(row, metric) for row in self.rows(ubm, contender, name)]
        values = values[:1] if contender.variant == UNTRAINED else values
        if not values or None in values:
            return None
        return MeanSd(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def gain(
        self, ubm: str, contender: Contender, name: str, *, against: str = BASE, minus: str | None = None
    ) -> Comparison | None:
        """Return the comparison of one contender with another variant; None where there is none."""
        wanted = (ubm, *contender, against, name, minus)
        return next((item for item in self.results.comparisons if _identity(item) == wanted), None)

    def overall_gain(
        self, name: str, contender: Contender | None = None, *, minus: str | None = None
    ) -> Comparison | None:
        """Return the gain over Base of a contender (default: ``content``), pooled where there are several UBMs."""
        contender = contender or self.content
        if contender is None:
            return None
        for ubm in (POOLED, *self.ubms):
            found = self.gain(ubm, contender, name, minus=minus)
            if found:
                return found
        return None

    def ceiling(self, name: str) -> float | None:
        """Return the AUC of the true probabilities on a slice; None where they are unknown."""
        return next((row.ceiling_auc for row in self.results.rows if row.slice == name), None)

    def label(self, contender: Contender) -> str:
        """Return a contender's name, with its vectors where another contender differs by nothing else."""
        name, vectors = variant_name(contender.variant), self.vectors(contender)
        return f"{name} ({vectors})" if vectors else name

    def vectors(self, contender: Contender) -> str:
        """Return whose vectors a contender reads; empty where no other contender differs by nothing else."""
        alike = [other for other in self.contenders if other.variant == contender.variant]
        return f"{contender.encoder} vectors" if len(alike) > 1 else ""

    def table(self) -> list[TableRow]:
        """Return the main table: per UBM every contender; the untrained cosine last and once, with an empty UBM."""
        rows = []
        for ubm in self.ubms:
            for contender in self.contenders:
                if contender.variant != UNTRAINED and self.rows(ubm, contender, self.table_slices[0]):
                    rows.append(self._table_row(ubm, contender, ubm))
        for contender in self.contenders:
            if contender.variant == UNTRAINED:
                rows.append(self._table_row(self.untrained_ubm(), contender, ""))
        return rows

    def mean_over_ubms(self, contender: Contender, name: str) -> float | None:
        """Return the AUC of one of the main contenders on a slice, mean over the models that both have; else None."""
        if contender not in self.main_contenders:
            return None
        shared = self._main[1]
        found = [
            row.auc
            for ubm in self.main_ubms
            for row in self.rows(ubm, contender, name)
            if (ubm, row.seed) in shared
        ]
        return fmean(found) if found else None

    @cached_property
    def mean_words(self) -> str:
        """What :meth:`mean_over_ubms` is over, in words."""
        names = [ubm_name(ubm) for ubm in self.main_ubms]
        return (
            f"{names[0]}, mean over seeds"
            if len(names) == 1
            else f"Mean over {listing(names)} and over seeds"
        )

    def all_slices(self) -> list[SliceLine]:
        """Return every slice with the AUC of Base and of ``content``; nothing without ``content``."""
        lines: dict[str, SliceLine] = {}
        for row in self.results.rows:
            if row.slice in lines or self.content is None:
                continue
            level = self.mean_over_ubms(self.content, row.slice)
            if level is not None:
                lines[row.slice] = SliceLine(
                    row.slice,
                    row.num_impressions,
                    row.num_clicks,
                    row.num_users,
                    self.mean_over_ubms(Contender(BASE, None), row.slice),
                    level,
                    self.overall_gain(row.slice),
                    row.ceiling_auc,
                )
        return list(lines.values())

    def content_lines(self) -> list[ContentLine]:
        """Return a line per contender with content, in the order of the table; none where nothing was shuffled."""
        shares = {(item.encoder, item.of): item.known / item.total for item in self.results.coverage}
        use = {(item.ubm, Contender(item.variant, item.encoder)): item for item in self.results.content_use}
        lines = []
        for row in self.table():
            found = use.get((row.ubm or self.untrained_ubm(), row.contender))
            if found:
                encoder = found.encoder or ""
                targets, behaviors = (shares.get((encoder, f"test {of}")) for of in ("targets", "behaviors"))
                lines.append(ContentLine(row.ubm, row.label, targets, behaviors, found))
        return lines

    def reliability(self, ubm: str, contender: Contender) -> list[RatePoint]:
        """Return predicted and observed click rate by bin, mean over seeds; empty where there are none."""
        found = [
            item
            for item in self.results.reliability
            if (item.ubm, item.variant, item.encoder) == (ubm, *contender)
        ]
        predicted = zip(*(item.predicted for item in found), strict=True)
        observed = zip(*(item.observed for item in found), strict=True)
        return [RatePoint(fmean(a), fmean(b)) for a, b in zip(predicted, observed, strict=True)]

    def untrained_ubm(self) -> str:
        """Return the name under which the untrained cosine stands in the results; empty where there is none."""
        return next((row.ubm for row in self.results.rows if row.variant == UNTRAINED), "")

    def _table_row(self, ubm: str, contender: Contender, shown: str) -> TableRow:
        cells = []
        for name in self.table_slices:
            gain = self.gain(ubm, contender, name) if shown else self.overall_gain(name, contender)
            cells.append(Cell(self.mean(ubm, contender, name), gain))
        return TableRow(shown, contender, self.label(contender), cells)


def _identity(item: Comparison) -> tuple[str, str, str | None, str, str, str | None]:
    return (item.ubm, item.variant, item.encoder, item.against, item.slice, item.minus_slice)
