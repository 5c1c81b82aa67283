"""From what was made to ``reproduction.json``: each group of models evaluated, its tables, figures and findings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mimctr.data.dataset import CtrDataset
from mimctr.data.manifest import Manifest
from mimctr.distributed import is_main
from mimctr.errors import DataError
from mimctr.evaluate.cost import read_cost
from mimctr.evaluate.encoder_results import EncoderResults
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.off_policy import read_off_policy
from mimctr.evaluate.online import read_online
from mimctr.evaluate.paper.calibration import calibration_table
from mimctr.evaluate.paper.cost import cost_findings, cost_tables
from mimctr.evaluate.paper.data import figure_profile, table_1
from mimctr.evaluate.paper.encoder_findings import encoder_findings
from mimctr.evaluate.paper.encoders import Encoders, figure_5, figure_exchange, table_3, table_4, table_5
from mimctr.evaluate.paper.extensions import figure_pairs, table_extensions
from mimctr.evaluate.paper.lookup import Lookup
from mimctr.evaluate.paper.off_policy import off_policy_findings, off_policy_table
from mimctr.evaluate.paper.online import no_online_table, offline_gain, online_findings, online_table
from mimctr.evaluate.paper.peers import PeerResults, peers_table, read_peers
from mimctr.evaluate.paper.schema import Figure, Finding, Gallery, Reproduction, Step, Table
from mimctr.evaluate.paper.slices import (
    figure_6,
    figure_6_findings,
    figure_support,
    figure_support_auc,
    table_7,
    table_7_findings,
)
from mimctr.evaluate.paper.ubms import table_2, table_2_by_category, ubm_findings
from mimctr.evaluate.results import Results, read_results
from mimctr.evaluate.searches import measure
from mimctr.recipes import cost as cost_recipe
from mimctr.recipes import off_policy as off_policy_recipe
from mimctr.recipes import online as online_recipe
from mimctr.recipes import stages
from mimctr.recipes.encoder_recipe import made_with
from mimctr.recipes.encoder_rows import AFTER_DMA, MIM
from mimctr.recipes.encoder_tables import read_searched, row_result
from mimctr.recipes.galleries import draw_galleries
from mimctr.recipes.neighbors import AFTER, BEFORE, Encoded
from mimctr.recipes.plan import Step as PlanStep
from mimctr.recipes.reproduction.recipe import extension_models, rows_of, share_row
from mimctr.recipes.reproduction.steps import COST, EMBED, OF_ENCODERS, OF_SLICES, ONLINE, Planned
from mimctr.recipes.reproduction.steps import Reproduction as Planning
from mimctr.recipes.statistics import count_dataset
from mimctr.report.wording import UBM_NAMES
from mimctr.train.stage import read_record

EVALUATE = "evaluate"
PEERS = "peers.json"
"""Where it lies in the run folder (``benchmarks/bench_peers_data.py``), the report shows other libraries too."""


class Made(NamedTuple):
    """A plan as far as there was time for it."""

    planning: Planning
    reasons: Mapping[Path, str]
    """Why steps were not made."""
    seeds: list[int]
    """That the tables are about."""


class Parts(NamedTuple):
    """What the experiments found."""

    tables: list[Table]
    figures: list[Figure]
    findings: list[Finding]


def assemble(planning: Planning, reasons: Mapping[Path, str], *, command: str) -> Reproduction:
    """Return everything that was found.

    Args:
        planning: What was planned, and made as far as there was time.
        reasons: Why steps were not made.
        command: That goes on.
    """
    recipe, made = planning.recipe, Made(planning, reasons, whole_seeds(planning, reasons))
    parts = Parts([], [], [])
    if "table 1" in planning.wanted:
        facts = count_dataset(CtrDataset.open(planning.out / "dataset"))
        parts.tables.append(table_1(facts))
        parts.figures.append(figure_profile(facts))
    _add_ubms(parts, made)
    _add_encoders(parts, made)
    _add_cost(parts, made)
    _add_online(parts, made)
    _add_extensions(parts, made)
    if (peers := read_peers_of(planning.out)) is not None:
        parts.tables.append(peers_table(peers))
    return Reproduction(
        dataset=recipe.name,
        seeds=made.seeds,
        tables=parts.tables,
        figures=parts.figures,
        findings=parts.findings,
        galleries=_galleries(made),
        lacking=_lacking(parts, planning.wanted),
        steps=[_describe(step, planning, reasons) for step in planning.plan],
        command=command,
        versions=describe_versions(),
        machine=describe_machine(),
        data=Manifest.read(planning.out / "dataset").data_hash(),
        settings=recipe.settings(),
    )


def _lacking(parts: Parts, wanted: Sequence[str]) -> list[str]:
    """Return the experiments of which there is neither a table nor a figure."""
    keys = {table.key for table in parts.tables} | {figure.key for figure in parts.figures}
    return [name for name in wanted if name not in keys]


def _add_ubms(parts: Parts, made: Made) -> None:
    planning = made.planning
    asked = [name for name in OF_SLICES if name in planning.wanted]
    results = _evaluate(made, "ubms", planning.groups.ubms) if asked else None
    if results is None:
        return
    found = Lookup(results)
    if "table 2" in asked:
        parts.tables.extend([table_2(found, UBM_NAMES, MIM), table_2_by_category(found, UBM_NAMES, MIM)])
        parts.tables.append(calibration_table(found, UBM_NAMES, MIM))
        parts.findings.extend(ubm_findings(found, UBM_NAMES, MIM))
    if "figure 6" in asked:
        parts.figures.extend(
            [figure_6(found, MIM), figure_support(found, MIM), figure_support_auc(found, MIM)]
        )
        parts.findings.extend(figure_6_findings(found, MIM))
    if "table 7" in asked:
        parts.tables.append(table_7(found, MIM))
        parts.findings.extend(table_7_findings(found, MIM))


def _add_encoders(parts: Parts, made: Made) -> None:
    planning = made.planning
    asked = [name for name in OF_ENCODERS if name in planning.wanted]
    results = _evaluate(made, "encoders", planning.groups.encoders) if asked else None
    if results is None:
        return
    encoders = Encoders(Lookup(results), _search(made), planning.recipe.ubm)
    for name, write in (("table 3", table_3), ("table 4", table_4), ("table 5", table_5)):
        if name in asked:
            parts.tables.append(write(encoders.only(rows_of(planning.recipe)[name])))
    if "figure 5" in asked:
        others = [(name, f"{MIM}, {name}") for name in planning.recipe.others]
        parts.figures.append(figure_5(encoders, [("the recipe's", MIM), *others]))
    if "pairs" in asked:
        shares = [(share, share_row(share).name) for share in sorted(planning.recipe.pair_shares)]
        parts.figures.append(figure_pairs(encoders, [(0.0, AFTER_DMA), *shares, (1.0, MIM)]))
    of_shares = {
        share_row(share).name: f"{100 * share:g} % of the pairs" for share in planning.recipe.pair_shares
    }
    parts.figures.append(figure_exchange(encoders, of_shares))
    sources = {name.capitalize() for name in asked}
    parts.findings.extend(one for one in encoder_findings(encoders) if one.source in sources)


def _add_cost(parts: Parts, made: Made) -> None:
    planning = made.planning
    folder = planning.out / COST
    if "table 6" in planning.wanted and folder not in made.reasons:
        cost = read_cost(folder / cost_recipe.RECORD)
        parts.tables.extend(cost_tables(cost))
        parts.findings.extend(cost_findings(cost))


def _add_online(parts: Parts, made: Made) -> None:
    planning = made.planning
    if ONLINE not in planning.wanted:
        return
    if planning.not_ranked is not None:
        parts.tables.append(no_online_table(planning.not_ranked))
    elif (folder := planning.out / ONLINE) not in made.reasons:
        # All seeds rank, also those that lack something else.
        results = _evaluate(made._replace(seeds=planning.recipe.seeds), ONLINE, planning.groups.online)
        offline = None if results is None else offline_gain(results, planning.recipe.ubm, MIM)
        if planning.is_bazaar:
            online = read_online(folder / online_recipe.RECORD)
            parts.tables.append(online_table(online, UBM_NAMES))
            parts.findings.extend(online_findings(online, offline))
        else:
            estimated = read_off_policy(folder / off_policy_recipe.RECORD)
            parts.tables.append(off_policy_table(estimated, UBM_NAMES))
            parts.findings.extend(off_policy_findings(estimated, offline))


def _add_extensions(parts: Parts, made: Made) -> None:
    planning = made.planning
    if "extensions" not in planning.wanted:
        return
    results = _evaluate(made, "extensions", planning.groups.extensions)
    if results is not None:
        labels = [model.label for model in extension_models(planning.recipe) if model.label]
        parts.tables.append(table_extensions(Lookup(results), planning.recipe.ubm, labels))


def read_peers_of(out: Path) -> PeerResults | None:
    """Return what other libraries reached on the dataset of a run; None where nobody has measured it.

    Raises:
        DataError: it does not follow its schema, or was measured on other data.
    """
    path = out / PEERS
    if not path.exists():
        return None
    peers, ours = read_peers(path), CtrDataset.open(out / "dataset").manifest
    for part, number in peers.num_impressions.items():
        if number != (own := ours.counts.get(part, 0)):
            raise DataError(
                f"{path}: {number:,} {part} impressions, this run's dataset has {own:,}: measured on other data. "
                "Measure again (docs/peers.md), or take the file away."
            )
    if peers.source_hash != ours.source_hash:
        raise DataError(
            f"{path}: measured on tables {peers.source_hash[:12]}, this run's dataset was made from "
            f"{ours.source_hash[:12]}: other data. Measure again (docs/peers.md), or take the file away."
        )
    return peers


def _galleries(made: Made) -> list[Gallery]:
    """Draw what content changed in the main user behavior model of the first seed; none where it was not made."""
    planning, reasons = made.planning, made.reasons
    recipe, out, first = planning.recipe, planning.out, planning.recipe.seeds[0]
    folders = {
        one.model.variant: one
        for one in planning.groups.ubms
        if (one.model.ubm, one.seed) == (recipe.ubm, first)
    }
    start, mim = (planning.entries[name].encoder(first) for name in (AFTER_DMA, MIM))
    needed = [one.folder for one in folders.values()] + [mim]
    if not is_main() or not folders or any(folder in reasons for folder in needed):
        return []
    content = folders["mim"].content
    assert content is not None, "Base+MIM reads vectors"
    encoders = {AFTER: Encoded(mim, content)}
    before = out / EMBED / f"{AFTER_DMA}-seed{first}"
    if not {start, before} & reasons.keys():
        encoders = {BEFORE: Encoded(start, before)} | encoders
    return draw_galleries(
        CtrDataset.open(out / "dataset"),
        content=content,
        base=folders["base"].folder,
        mim=folders["mim"].folder,
        encoders=encoders,
        out=out,
        num=recipe.num_pictures,
        seed=0,
    )


def whole_seeds(planning: Planning, reasons: Mapping[Path, str]) -> list[int]:
    """Return the seeds of which everything was made: all numbers of a table are of the same ones.

    Where there is none, it is the first, as far as it was made.
    """
    recipe = planning.recipe
    searches = [
        (seed, entry.search(made_with(entry, seed, recipe)))
        for entry in planning.searched()
        if entry.name not in planning.not_run
        for seed in recipe.seeds
    ]
    trainings = [(one.seed, one.folder) for group in planning.groups for one in group]
    lacking = {seed for seed, folder in (*searches, *trainings) if folder in reasons}
    return [seed for seed in recipe.seeds if seed not in lacking] or recipe.seeds[:1]


def _evaluate(made: Made, name: str, group: Sequence[Planned]) -> Results | None:
    """Evaluate the models of a group that were made; return what was found, or None where none was."""
    planning = made.planning
    there = [one for one in group if one.folder not in made.reasons and one.seed in made.seeds]
    if not there:
        return None
    out = planning.out / EVALUATE / name
    embeds = sorted({one.content.name for one in there if one.content is not None})
    config = planning.recipe.evaluate.model_copy(
        update={
            "dataset_name": planning.recipe.name,
            "models": tuple(sorted(one.folder.name for one in there)),
            "embeds": tuple(embeds),
        }
    )
    stages.evaluate(planning.out, out, config).run()
    return read_results(out / "results.json")


def _search(made: Made) -> EncoderResults:
    """Return how well every encoder searches; what was not made is not run."""
    planning, recipe = made.planning, made.planning.recipe
    folders = {
        entry.name: [entry.search(made_with(entry, seed, recipe)) for seed in made.seeds]
        for entry in planning.searched()
    }
    not_run = dict(planning.not_run)
    for name, searches in folders.items():
        cut = [made.reasons[folder] for folder in searches if folder in made.reasons]
        if cut and name not in not_run:
            not_run[name] = cut[0]
    searched = {
        name: [read_searched(folder) for folder in searches]
        for name, searches in folders.items()
        if name not in not_run
    }
    return EncoderResults(
        dataset=recipe.name,
        seeds=made.seeds,
        num_resamples=recipe.num_resamples,
        rows=[
            row_result(entry, recipe, not_run.get(entry.name), seeds=made.seeds)
            for entry in planning.searched()
        ],
        measures=measure(searched, base="plain", best=MIM, num_resamples=recipe.num_resamples),
    )


def _describe(step: PlanStep, planning: Planning, reasons: Mapping[Path, str]) -> Step:
    reason, seconds = reasons.get(step.folder), None
    if reason is None:  # the time of a copy is that of the try that it is a copy of
        seconds = 0.0 if step.copied_from is not None else read_record(step.folder).seconds
    return Step(
        name=step.folder.relative_to(planning.out).as_posix(),
        kind=step.kind,
        serves=planning.plan.serves(step.folder),
        seconds=seconds,
        not_run=reason,
    )
