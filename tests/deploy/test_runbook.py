"""The runbook and the alerts name what there is: metrics, labels, alerts, commands; the backup is a backup."""

import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from deploy.files import DEPLOY, ROOT, parse, read_compose
from mimctr.center.center import Center
from mimctr.center.log import Change
from mimctr.center.record import encode
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.center.stores.local import LocalStore
from mimctr.recipes import serve
from mimctr.recipes.ctr_model import load_model
from mimctr.serve.app import create_app
from mimctr.serve.service import STATES, Service

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
LABELS = {
    "stage": {"wait", "history", "fetch", "dense"},
    "state": set(STATES.values()),
    "status": {"429", "500", "503", "504"},
    "outcome": {"accepted", "refused", "failed", "hit", "miss"},
}
(SCRAPED,) = re.findall(r"```\n(scrape_configs:.*?)```", RUNBOOK, re.DOTALL)
JOBS = {
    job["job_name"]: [target.rsplit(":", 1)[1] for one in job["static_configs"] for target in one["targets"]]
    for job in yaml.safe_load(SCRAPED)["scrape_configs"]
}
"""Job -> ports."""


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return every selector of an expression."""
    found: list[promql_parser.VectorSelector] = []

    def keep(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), keep)
    return found


def family(sample: str) -> str:
    """Return the name of a metric from the name of its sample."""
    return re.sub(r"_(total|bucket|count|sum)$", "", sample)


def named() -> set[str]:
    """Return all metrics that are named."""
    told = set(re.findall(r"\b(?:mimctr|process)_[a-z_]+\b", RUNBOOK))
    told |= {one.name for rule in ALERTS for one in selectors(rule["expr"])}
    return {family(one) for one in told} - {"up"}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory) -> set[str]:
    """What ``/metrics`` has before anything was asked."""
    folder = tmp_path_factory.mktemp("center")
    Center.create(folder / "center", num_partitions=1)
    with TestClient(create_app(Service(load_model, center=folder / "center"))) as client:
        text = client.get("/metrics").text
    return {family(one.name) for one in text_string_to_metric_families(text)}


@pytest.mark.parametrize("name", sorted(named()))
def test_every_metric_that_is_named_is_exposed(exposed, name):
    assert name in exposed


def test_every_metric_that_is_exposed_is_explained(exposed):
    """Mutant: a metric that nobody on call has heard of."""
    assert {one for one in exposed if one.startswith("mimctr_")} <= named()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_is_one_and_has_an_entry(rule):
    always = {"alert", "expr", "labels", "annotations"}
    assert always <= rule.keys() <= always | {"for"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert selectors(rule["expr"])
    (entry,) = re.findall(rf"^### {rule['alert']}\n\*(\w+)\.\*", RUNBOOK, re.MULTILINE)
    assert entry == rule["labels"]["severity"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_labels_that_there_are(rule):
    """Mutant: state="missing" never fires."""
    paths = set(create_app(Service(load_model)).openapi()["paths"])
    for one in selectors(rule["expr"]):
        for matcher in one.matchers.matchers:
            told = f"{one.name}{{{matcher.name}={matcher.value}}}"
            if matcher.name == "job":
                assert [job for job in JOBS if re.fullmatch(matcher.value, job)], told
            else:
                assert matcher.value in (paths if matcher.name == "route" else LABELS[matcher.name]), told


def test_what_scores_and_what_takes_items_in_are_jobs_of_their_own():
    """Mutants: rim is not scraped; it is among the scorers, whose generations then always differ."""
    services = read_compose()["services"]
    ports = {name: one["ports"][0].rsplit(":", 2)[1] for name, one in services.items() if "ports" in one}
    assert {
        "mimctr": [ports.pop("scorer-1"), ports.pop("scorer-2")],
        "mimctr-rim": [ports.pop("rim")],
    } == JOBS
    assert not ports
    asked = {rule["alert"]: selectors(rule["expr"]) for rule in ALERTS}
    for alert, job in (("MimctrDown", "mimctr.*"), ("MimctrGenerationsDiffer", "mimctr")):
        assert {matcher.value for one in asked[alert] for matcher in one.matchers.matchers} == {job}


def test_alerts_at_a_part_of_a_bound_are_below_it():
    """Mutant: more items than may wait have to wait."""
    thresholds = {rule["alert"]: rule["expr"].rsplit(" > ", 1)[-1] for rule in ALERTS}
    config = serve.Config()
    assert (config.items_waiting, thresholds["MimctrItemsWait"]) == (256, "128")
    assert (config.max_waiting, thresholds["MimctrQueue"]) == (64, "48")


def test_every_entry_of_an_alert_has_its_alert_and_every_link_its_entry():
    entries = re.findall(r"^###? (.+)$", RUNBOOK, re.MULTILINE)
    assert {one for one in entries if one.startswith("Mimctr")} == {rule["alert"] for rule in ALERTS}
    anchors = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in entries}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK))
    assert linked <= anchors


def commands() -> list[str]:
    """Return the ``mimctr`` commands of the runbook, in blocks and in lines."""
    blocks = re.findall(r"```\n(.*?)```", RUNBOOK, re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.split("\n")]
    lines += re.findall(r"`(mimctr center \w+ center[^`]*|mimctr center plan [^`]*)`", RUNBOOK)
    in_container = r"^docker compose run --rm (--volume=\S+ )?center-init center"
    lines = [re.sub(in_container, "mimctr center", line) for line in lines]
    return [line.strip() for line in lines if line.startswith("mimctr ")]


def test_every_command_parses():
    assert len(commands()) > 20
    assert sum(" /backup" in line or " /center" in line for line in commands()) == 2
    for line in commands():
        parse(shlex.split(line)[1:])


def change(key: int) -> Change:
    return Change(
        key=key, payloads={1: encode(np.full((1, 4), 1.0 + key, np.float32), "float16")[0].tobytes()}
    )


def run_block(title: str, place: int, folder: Path) -> None:
    """Run a block under a heading, without ``mimctr``, which is what is tested elsewhere.

    What compose would run in a container runs here, in its folders.
    """
    section = RUNBOOK.split(f"{title}\n", 1)[1]
    block = re.findall(r"```\n(.*?)```", section, re.DOTALL)[place]
    inside = re.sub(r"docker compose run --rm --entrypoint (\w+) --volume=\S+ center-init", r"\1", block)
    if inside != block:
        inside = re.sub(r"(?<![\w.])/(center|backup)\b", rf"{folder}/\1", inside)
    inside = re.sub(r"sudo install --directory (--\w+ \d+ )+", "mkdir -p ", inside).replace("sudo ", "")
    skipped = ("mimctr", "rsync", "docker compose run")
    lines = [line for line in inside.splitlines() if not line.startswith(skipped)]
    script = "\n".join(lines).replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(["bash", "-euc", script], cwd=folder, check=True)


@pytest.mark.parametrize("place", [0, 1], ids=["plain", "compose"])
def test_a_backup_while_items_come_in_is_restored_under_another_name(tmp_path, place):
    """The runbook's own steps. Mutant: center.sqlite is copied without its write-ahead log."""
    write_snapshot(tmp_path / "vectors", np.arange(5), np.ones((5, 4), np.float32), encoder="e")
    center = Center.create(tmp_path / "center", num_partitions=2)
    center.adopt(Snapshot.open(tmp_path / "vectors", encoder="e"))
    producer = center.log.take_over("before")
    center.log.append(producer, [change(key) for key in range(100, 110)])
    (tmp_path / "center" / "encoders").mkdir()
    done = threading.Event()

    def produce() -> None:
        log = Center(tmp_path / "center").log
        key = 1000
        while not done.is_set():
            log.append(producer, [change(key)])
            key += 1
        log.close()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        run_block("## Backup", place, tmp_path)
    finally:
        done.set()
        thread.join()
    if place == 0:  # in place of rsync
        for name in ("snapshots", "encoders"):
            (tmp_path / "center" / name).rename(tmp_path / "backup" / name)
    center.log.close()
    run_block("### Restoring the log", place, tmp_path)
    restored = Center(tmp_path / "center")
    assert set(range(100, 110)) <= set(restored.log.item_keys().tolist())
    fresh = LocalStore()
    restored.log.append(restored.log.take_over("after"), [change(key) for key in range(2000, 2010)])
    restored.verify({"fresh": fresh})
    space = restored.log.generations.space(1)
    assert fresh.fetch(space, np.array([0, 105, 2005])).known.all()
    restored.log.close()


def test_a_copy_of_the_log_is_all_that_a_scorer_on_a_store_reads(tmp_path):
    """What docs/serving.md says of scorers on other hosts: no snapshot, no encoder."""
    write_snapshot(tmp_path / "vectors", np.arange(5), np.ones((5, 4), np.float32), encoder="e")
    center = Center.create(tmp_path / "center", num_partitions=2)
    center.adopt(Snapshot.open(tmp_path / "vectors", encoder="e"))
    center.seal(1, {})
    center.log.generations.activate(1)
    run_block("## Backup", 0, tmp_path)
    copy = Center(tmp_path / "backup").log
    active = copy.generations.active()
    assert copy.generations.space(active.number) == center.log.generations.space(1)
    found = {path.name for path in (tmp_path / "backup").iterdir()}
    assert found <= {f"center.sqlite{end}" for end in ("", "-shm", "-wal")}
