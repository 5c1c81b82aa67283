"""Write checked tables as a dataset: sort by time, split, index, store."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.batch import FIRST_INDEX
from mimctr.data.arrays import create_array, save_array
from mimctr.data.blobs import MISSING
from mimctr.data.catalogue import write_counts, write_items
from mimctr.data.checksums import checksum_files
from mimctr.data.histories import Histories, build_histories, history_ends
from mimctr.data.ingest import Events, Items, Raw
from mimctr.data.manifest import SCHEMA_VERSION, Fields, Manifest
from mimctr.data.pairs import PairRule, finish_pairs, pairs_from_behaviors
from mimctr.data.problems import Problems
from mimctr.data.split import PARTS, Split, SplitRule, split_times
from mimctr.data.units import UNIT_NAMES, time_unit
from mimctr.data.vocabulary import (
    Factorized,
    build_vocabulary,
    count_vocabulary,
    encode_codes,
    factorize,
    write_vocabularies,
)
from mimctr.errors import ConfigError, DataError
from mimctr.files import write_json, write_table

SEARCH_RULE = "searches: query = the image that was searched with"
TEXT_SEARCH_RULE = "searches: query = the image, or where there is none the text, that was searched with"


def write_dataset(
    raw: Raw,
    folder: Path,
    *,
    split_rule: SplitRule,
    pair_rule: PairRule,
    min_count: int,
    problems: Problems,
    source_hash: str,
) -> Manifest:
    """Write every file of the dataset but the summary (and the images, which are there); return its manifest."""
    users = _all_users([raw.impressions, raw.behaviors, raw.searches])
    order = np.flatnonzero(raw.impressions.keep)
    order = order[np.argsort(raw.impressions.time[order], kind="stable")]
    impressions = _settle(raw.impressions, order, users)
    behaviors = None if raw.behaviors is None else _settle(raw.behaviors, None, users)
    searches = None if raw.searches is None else _settle(raw.searches, None, users)
    split = split_times(impressions.time, split_rule)

    kinds, histories = _histories(behaviors, impressions, num_users=len(users))
    latency = 0 if behaviors is None else _latency(behaviors.time, impressions.time, problems)
    ends = history_ends(histories, user=impressions.user, time=impressions.time - latency)
    _check_histories(histories, impressions, ends, problems, given=behaviors is not None)
    _note_one_class(impressions, split, problems)
    num_queries, queries, search_queries = _write_queries(folder / "queries", raw, impressions, searches)
    _write_log(folder, impressions, queries, histories, ends)
    train = split.rows(impressions.time, "train")
    fields = _write_fields(
        folder, raw, impressions, order, train=train, num_users=len(users), min_count=min_count
    )
    item_fields, item_sizes = write_items(folder, raw.items, [impressions, behaviors, searches])
    raw.item_images.finish(raw.items.images)
    write_counts(folder, impressions, histories, split, num_items=len(raw.items.frame), num_users=len(users))
    write_table(folder / "users.parquet", users.select(user_index="index", user_id="value"))
    if searches is None:
        pairs, rule = (
            _pairs_by_rule(histories, kinds, raw.items, item_fields, pair_rule, split),
            str(pair_rule),
        )
    else:
        pairs = _pairs_from_searches(searches, search_queries, split)
        all_images = searches.query_image is not None and (searches.query_image != MISSING).all()
        rule = SEARCH_RULE if all_images else TEXT_SEARCH_RULE
    write_table(folder / "pairs.parquet", pairs)
    if not len(pairs):
        _note_no_pairs(problems, "behaviors" if searches is None else "searches")

    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        counts={
            "items": len(raw.items.frame),
            "item_images": int((raw.items.images != MISSING).sum()),
            "users": len(users),
            "impressions": len(order),
            **{part: len(split.rows(impressions.time, part)) for part in PARTS},
            "behaviors": len(histories.time),
            "queries": num_queries,
            "pairs": len(pairs),
        },
        fields=Fields(item=item_sizes, **fields),
        kinds=kinds,
        **split._asdict(),
        behaviors_from="impressions" if behaviors is None else "behaviors",
        pair_rule=rule,
        source_hash=source_hash,
        problem_counts=problems.counts(),
        checksums=checksum_files(folder),
    )
    write_json(folder / "manifest.json", manifest.model_dump())
    return manifest


def _all_users(tables: list[Events | None]) -> pl.DataFrame:
    """Return ``value`` (raw id) and ``index`` of every user in a good row, sorted by id."""
    columns = [
        Factorized(events.user_ids, events.user[events.keep]) for events in tables if events is not None
    ]
    return build_vocabulary(pl.concat([count_vocabulary(column)["value"] for column in columns]))


def _settle(events: Events, rows: Int[ndarray, "rows"] | None, users: pl.DataFrame) -> Events:
    """Return some rows of the events (None: every good one) with user indices."""
    taken = events.take(np.flatnonzero(events.keep) if rows is None else rows)
    return replace(taken, user=encode_codes(Factorized(events.user_ids, taken.user), users))


def _latency(
    behaviors: Int[ndarray, "behaviors"], impressions: Int[ndarray, "impressions"], problems: Problems
) -> int:
    """Return for how many seconds after its time a behavior may not have been: to the end of the day it is known to.

    A purchase known to the day has the time of its midnight, before the very impression that led to it.
    """
    unit, finer = time_unit(behaviors), time_unit(impressions)
    if unit <= finer:
        return 0
    name = UNIT_NAMES[unit]
    problems.add(
        "coarse-time",
        f"all {len(behaviors):,} times are known to the {name}, those of impressions to the {UNIT_NAMES[finer]}. A "
        f"behavior is in no history before the end of its {name}: it may have come of the impression. Give seconds, if "
        "there are any.",
        table="behaviors",
        column="time",
        severity="warning",
        count=len(behaviors),
        total=len(behaviors),
    )
    return unit - 1


def _histories(
    behaviors: Events | None, impressions: Events, *, num_users: int
) -> tuple[list[str], Histories]:
    """Return the names of the kinds, and every user's behaviors: those of the table, else the clicks."""
    if behaviors is None:
        assert impressions.click is not None, "a required column is missing without a problem"
        behaviors = impressions.take(np.flatnonzero(impressions.click))
        behaviors.kind = Factorized(pl.Series(["click"]), np.zeros(len(behaviors.time), dtype=np.int32))
    assert behaviors.kind is not None, "a required column is missing without a problem"
    kinds = count_vocabulary(behaviors.kind)
    histories = build_histories(
        user=behaviors.user,
        item=behaviors.item,
        time=behaviors.time,
        kind=encode_codes(behaviors.kind, kinds),
        num_users=num_users,
    )
    return kinds["value"].to_list(), histories


def _write_queries(
    folder: Path, raw: Raw, impressions: Events, searches: Events | None
) -> tuple[int, Int[ndarray, "impressions"], Int[ndarray, "searches"]]:
    """Store each different (text, image) once; return their number and the query index of each row."""
    tables = [impressions] if searches is None else [impressions, searches]
    texts = [events.query_text.distinct for events in tables if events.query_text is not None]
    vocabulary = build_vocabulary(pl.concat(texts) if texts else pl.Series([], dtype=pl.String))
    num_images = raw.query_images.num_blobs + 1  # 0 is no image
    keys = []
    for events in tables:
        key = np.zeros(len(events.time), dtype=np.int64)
        if events.query_text is not None:
            key += encode_codes(events.query_text, vocabulary).astype(np.int64) * num_images
        if events.query_image is not None:
            key += events.query_image + 1
        keys.append(key)
    together = pl.Series(np.concatenate(keys))
    distinct, codes = factorize(together.set(together == 0, None))  # 0 is no query
    text = distinct // num_images - FIRST_INDEX
    table = pl.DataFrame(
        {
            "query_index": np.arange(1, len(distinct) + 1),
            "text": vocabulary["value"].gather(text.set(text < 0, None)),
        }
    )
    write_table(folder / "queries.parquet", table)
    raw.query_images.finish((distinct % num_images - 1).to_numpy())
    queries = codes + 1
    return len(distinct), queries[: len(keys[0])], queries[len(keys[0]) :]


def _write_log(
    folder: Path,
    impressions: Events,
    queries: Int[ndarray, "impressions"],
    histories: Histories,
    ends: Int[ndarray, "impressions"],
) -> None:
    """Write the behaviors, and the impressions with the end of their history."""
    for name in ("offsets", "item", "time", "kind"):
        save_array(folder / "behaviors" / f"{name}.npy", getattr(histories, name))
    arrays = {
        "target": impressions.item,
        "time": impressions.time,
        "click": impressions.click,
        "query": queries.astype(np.int32),
        "end": ends,
        "true_probability": impressions.true_probability,
        "bid": impressions.bid,
        "position": impressions.position,
        "propensity": impressions.propensity,
    }
    for name, array in arrays.items():
        if array is not None:
            save_array(folder / "impressions" / f"{name}.npy", array)


def _write_fields(
    folder: Path,
    raw: Raw,
    impressions: Events,
    order: Int[ndarray, "impressions"],
    *,
    train: range,
    num_users: int,
    min_count: int,
) -> dict[str, dict[str, int]]:
    """Write the user, query and context fields, one column in memory at a time; return their vocabulary sizes."""
    sizes = {}
    for group, first in (("user", ["user"]), ("query", ["query_text"]), ("context", [])):
        names = first + [name for name in impressions.fields if name.startswith(f"{group}_")]
        path = folder / "impressions" / f"{group}_fields.npy"
        array = create_array(path, (len(order), len(names)), np.int32)
        vocabularies = {}
        for position, name in enumerate(names):
            if name == "user":
                array[:, position] = impressions.user
                continue
            if name == "query_text":
                nowhere = np.full(len(order), -1, dtype=np.int32)
                values = impressions.query_text or Factorized(pl.Series([], dtype=pl.String), nowhere)
            else:
                values = factorize(raw.impression_table.field(name)).take(order)
            known = values.take(slice(train.start, train.stop))
            vocabularies[name] = count_vocabulary(known, min_count=min_count)
            array[:, position] = encode_codes(values, vocabularies[name])
        written = write_vocabularies(folder / "vocabularies" / f"{group}.parquet", vocabularies)
        sizes[group] = ({"user": num_users + FIRST_INDEX} if group == "user" else {}) | written
    return sizes


def _pairs_by_rule(
    histories: Histories,
    kinds: list[str],
    items: Items,
    item_fields: Int[ndarray, "items fields"],
    rule: PairRule,
    split: Split,
) -> pl.DataFrame:
    group = None
    if rule.same_field is not None:
        if rule.same_field not in items.fields:
            known = ", ".join(items.fields)
            raise ConfigError(
                f"pairs.same_field: items have no field {rule.same_field!r}. Choose one of {known}."
            )
        group = item_fields[:, items.fields.index(rule.same_field)]
    has_image = np.concatenate([np.zeros(FIRST_INDEX, dtype=bool), items.images != MISSING])
    return pairs_from_behaviors(
        histories, kinds=kinds, has_image=has_image, group=group, rule=rule, split=split
    )


def _pairs_from_searches(searches: Events, queries: Int[ndarray, "searches"], split: Split) -> pl.DataFrame:
    assert searches.kind is not None, "a required column is missing without a problem"
    pairs = pl.DataFrame(
        {
            "query": queries,
            "query_item": np.zeros(len(queries), dtype=np.int64),
            "item": searches.item,
            "user": searches.user,
            "time": searches.time,
            "kind": searches.kind.distinct.gather(searches.kind.codes),
        }
    )
    return finish_pairs(pairs.sort("time", maintain_order=True), split)


def _check_histories(
    histories: Histories,
    impressions: Events,
    ends: Int[ndarray, "impressions"],
    problems: Problems,
    *,
    given: bool,
) -> None:
    """Refuse a table of behaviors that is wholly in the future; say where most of it is, or where nothing is seen.

    Args:
        histories: Every user's behaviors.
        impressions: Sorted by time.
        ends: Where the history of each impression ends.
        problems: Where objections go.
        given: Whether the behaviors are a table of their own, not clicks.

    Raises:
        DataError: a table of behaviors is given, and none of it is left, or all of it at or after the last impression.
    """
    last, total = int(impressions.time[-1]), len(histories.time)
    if given and not total:
        raise DataError(
            "behaviors: no row is left after dropping the bad ones. Correct the table, or leave it out."
        )
    num_late = int((histories.time >= last).sum())
    if given and num_late == total:
        raise DataError(
            f"behaviors.time: {total:,} of {total:,} rows are at or after the last impression, at {last}, so none is "
            f"in a history. First: {histories.time.min()}. Correct the times, or leave the table out: earlier clicks "
            "take its place."
        )
    if (ends == histories.offsets[impressions.user]).all():
        problems.add(
            "no-history",
            f"none of {total:,} behaviors is earlier than an impression of the same user. Kept; every interest is "
            "empty. Correct times and user ids, or add behaviors.",
            table="behaviors",
            severity="warning",
            count=total,
            total=total,
        )
    elif 2 * num_late > total:
        problems.add(
            "late-behavior",
            f"{num_late:,} of {total:,} rows are at or after the last impression, at {last}; they are in no history. "
            "Kept. Correct the times, or add later impressions.",
            table="behaviors",
            column="time",
            severity="warning",
            count=num_late,
            total=total,
        )


def _note_one_class(impressions: Events, split: Split, problems: Problems) -> None:
    """Say which parts have clicks only, or none: nothing is learned from such a part, and nothing ranked there."""
    assert impressions.click is not None, "a required column is missing without a problem"
    for part in PARTS:
        rows = split.rows(impressions.time, part)
        clicks = int(impressions.click[rows.start : rows.stop].sum())
        if clicks in (0, len(rows)):
            problems.add(
                "one-class",
                f"all {len(rows):,} impressions of the {part} part have the label {int(clicks > 0)}; clicks can "
                "neither be learned nor be ranked there. Correct the labels, or choose other lengths for the split.",
                table="impressions",
                column="click",
                severity="warning",
                count=len(rows),
                total=len(impressions.time),
            )


def _note_no_pairs(problems: Problems, table: str) -> None:
    problems.add(
        "no-pairs",
        "no interest pair for C-SFT comes out of it. Choose other kinds or a longer window for the pairs, or do "
        "without C-SFT.",
        table=table,
        severity="warning",
    )
