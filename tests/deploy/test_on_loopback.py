"""The steps of the compose file as processes on loopback: its own commands, with ports and folders of this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from center.servers import RedisCluster, RedisServer, free_ports, needs_redis
from encoders.small import TITLES, item_encoder, shake

from deploy.files import ROOT, TOKEN, Image, command_of, read_compose
from mimctr.data.prepare import prepare_tables
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.embed import content_folder
from mimctr.recipes.train import main as train

pytestmark = [pytest.mark.slow, needs_redis]
SERVICES = read_compose()["services"]
NUM_ITEMS, SECONDS = 20, 300.0
"""Seconds are a bound for a machine that does much else."""


class ComposeServer(RedisServer):
    """A server with the words of the compose file; port and folder are this machine's."""

    def __init__(self, folder: Path, port: int, words: list[str]) -> None:
        super().__init__(folder, port)
        self.words = words

    def command(self) -> list[str]:
        words = list(self.words)
        for name, value in (("--port", str(self.port)), ("--dir", str(self.folder))):
            words[words.index(name) + 1] = value
        return [*words, "--bind", "127.0.0.1"]


class Machines:
    """Everything that the compose file says, on one loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [name for name in SERVICES if name.startswith("redis-")]
        self.cluster = RedisCluster(folder)
        self.cluster.servers = [
            ComposeServer(folder / name, port, SERVICES[name]["command"])
            for name, port in zip(names, free_ports(len(names)), strict=True)
        ]
        self.ports = dict(zip(("scorer-1", "scorer-2", "rim"), free_ports(3), strict=True))
        self.scorers = ("scorer-1", "scorer-2")
        # What a name or address of the compose file is here.
        self.here = {
            f"{SERVICES[name]['networks']['vectors']['ipv4_address']}:6379": f"127.0.0.1:{server.port}"
            for name, server in zip(names, self.cluster.servers, strict=True)
        }
        first = self.cluster.servers[0].port
        self.here |= {
            "-h 172.30.7.11 -p 6379": f"-p {first}",
            "vectors:6379": f"127.0.0.1:{first}",
            "0.0.0.0": "127.0.0.1",
            **{f"/{name}": str(folder / name) for name in ("center", "bundles", "inputs")},
        }

    def words(self, name: str) -> list[str]:
        """Return the words of a service's command, as they are here."""
        found = []
        for word in command_of(SERVICES[name]):
            for there, here in self.here.items():
                if not there.startswith("/"):
                    word = word.replace(there, here)
                elif word == there or word.startswith(f"{there}/"):
                    word = here + word[len(there) :]
            found.append(word)
        return found

    def make_cluster(self) -> None:
        """Start the servers and run the step that makes a cluster of them."""
        for server in self.cluster.servers:
            server.start()
        made = subprocess.run(self.words("cluster"), capture_output=True, text=True, timeout=SECONDS)
        assert made.returncode == 0, made.stdout + made.stderr
        wait_for(self.cluster.is_whole, "a cluster of six")

    def run(self, name: str, *more: str, stdin: str | None = None) -> str:
        """Run a step that ends; return what it prints."""
        words = [sys.executable, "-m", "mimctr", *self.words(name), *more]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run what goes on for ever; it is killed if the test fails."""
        words = [sys.executable, "-m", "mimctr", *self.words(name)]
        if name in self.ports:
            words[words.index("port=8080")] = f"port={self.ports[name]}"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | TOKEN)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def ask(
        self, name: str, path: str, body: object = None, method: str | None = None, **headers: str
    ) -> dict:
        """Return what a scorer, or RIM, answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[name]}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def is_healthy(self, name: str) -> bool:
        """Run the image's own health check against a scorer."""
        (check,) = Image().values("HEALTHCHECK")
        _, *words = json.loads(check[check.index("[") :])
        words = [word.replace("127.0.0.1:8080", f"127.0.0.1:{self.ports[name]}") for word in words]
        return subprocess.run([sys.executable, *words], capture_output=True).returncode == 0


@pytest.fixture
def machines(tmp_path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    try:
        yield made
    finally:
        made.cluster.kill()


def write_inputs(folder: Path) -> None:
    """Write a catalogue and an encoder of it."""
    (folder / "tables").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {
            "item_id": np.arange(NUM_ITEMS),
            "title": [f"{TITLES[n % len(TITLES)]} {n}" for n in range(NUM_ITEMS)],
            "category": [("bags", "hats")[n % 2] for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, 300),
            "item_id": rng.integers(0, NUM_ITEMS, 300),
            "time": 1_600_000_000 + 3_600 * np.arange(300),
            "click": rng.integers(0, 2, 300),
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    prepare_tables(folder / "tables", folder / "dataset")
    torch.manual_seed(0)
    encoder = item_encoder()
    shake(encoder)
    encoder.save(folder / "encoder")


def write_model(machines: Machines) -> None:
    """Train on the center and export, as ``/bundles/current``: a link to the newest."""
    small = Config(
        ubm="sim", variant="mim", embedding_dim=4, field_dim=2, hidden_dims=(8,), batch_size=64, max_length=8,
        device="cpu", epochs=1, sim_k=4,
    )  # fmt: skip
    dataset, bundles = machines.folder / "inputs" / "dataset", machines.folder / "bundles"
    train(dataset, content_folder(machines.folder / "center"), machines.folder / "model", small)
    bundles.mkdir()
    export(machines.folder / "model", dataset, bundles / "first", onnx=False)
    (bundles / "current").symlink_to("first")


def wait_for(what: Callable[[], bool], told: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end, told
        time.sleep(0.2)


def wait_until_ready(machines: Machines, name: str, process: subprocess.Popen[bytes]) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, (machines.folder / f"{name}.log").read_text()
        return machines.is_healthy(name)

    wait_for(is_ready, f"{name} is ready")


def states(machines: Machines, key: int) -> list[str]:
    """Return what each scorer knows of an item's vector."""
    body = {"candidates": [key], "history": [], "time": 1_800_000_000}
    answers = [machines.ask(name, "/score", body) for name in machines.scorers]
    assert all(0 < one["scores"][0]["probability"] < 1 for one in answers)
    assert {(one["bundle"], one["generation"]) for one in answers} == {("first", 1)}
    return [one["scores"][0]["vector"] for one in answers]


def forget_the_name(machines: Machines) -> None:
    """Run the runbook's script: only behaviors are left on the cluster, which are no vectors."""

    def names() -> list[str]:
        scanned = [server.ask("--scan") for server in machines.cluster.primaries()]
        return [line for part in scanned for line in part.splitlines()]

    assert len(names()) > NUM_ITEMS
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    script = runbook.split("cat > forget.py <<'END'\n")[1].split("END\n")[0]
    center, store = machines.here["/center"], f"redis+cluster://{machines.here['vectors:6379']}"
    words = [sys.executable, "-", center, store, "mimctr"]
    subprocess.run(words, input=script, text=True, check=True, timeout=SECONDS)
    assert [name.partition("{")[2][0] for name in names()] == ["h"]


def test_from_nothing_to_a_new_item_that_both_scorers_know(machines):
    """Every step of the compose file, in its order."""
    write_inputs(machines.folder / "inputs")
    machines.make_cluster()
    for server in machines.cluster.servers:
        assert server.ask("config", "get", "appendonly").split() == ["appendonly", "yes"]
        assert server.ask("config", "get", "maxmemory-policy").split()[1] == "noeviction"
    again = subprocess.run(machines.words("cluster"), capture_output=True, text=True, timeout=SECONDS)
    assert (again.returncode, again.stdout) == (0, ""), "a cluster that is there is left alone"

    machines.run("center-init")
    machines.run("center-build", "--set", "device=cpu", "--set", "num_workers=1")
    assert "num_vectors  20" in machines.run("center-seal")
    machines.run("center-activate")
    write_model(machines)
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(machines.running(name))
            for name in ("publisher", "scorer-1", "scorer-2")
        }
        for name in machines.scorers:
            wait_until_ready(machines, name, processes[name])
        assert states(machines, 3) == ["hit", "hit"]
        assert states(machines, 500) == ["miss", "miss"]
        told = machines.run("ingest", stdin='{"item_id": 500, "title": "a red hat of leather"}\n')
        assert "num_items" in told
        wait_for(lambda: states(machines, 500) == ["hit", "hit"], "a new item on both scorers")
        machines.run("ingest", stdin='{"item_id": 500, "deleted": true}\n')
        wait_for(lambda: states(machines, 500) == ["deleted", "deleted"], "a deletion on both scorers")

        # RIM, the service: whoever begins last is the center's producer.
        processes["rim"] = stack.enter_context(machines.running("rim"))
        wait_until_ready(machines, "rim", processes["rim"])
        bearer = {"Authorization": f"Bearer {TOKEN['MIMCTR_TOKEN']}"}
        content = {"title": "a green hat of wool"}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            machines.ask("rim", "/items/501?id_type=integer", content, "PUT")
        assert machines.ask("rim", "/items/501?id_type=integer", content, "PUT", **bearer)["version"] == 1
        wait_for(lambda: states(machines, 501) == ["hit", "hit"], "an item of RIM on both scorers")

        # Behaviors are on the cluster, too: told to one scorer, known to the other; with the token only.
        event = {"user": 3, "item_id": 7, "time": 1_700_000_000}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            machines.ask("scorer-1", "/events", {"events": [event]})
        assert machines.ask("scorer-1", "/events", {"events": [event]}, **bearer) == {"num_events": 1}
        scored = machines.ask("scorer-2", "/score", {"user": 3, "candidates": [1], "time": 1_800_000_000})
        assert (scored["num_behaviors"], scored["num_known"]) == (1, 1)

        check = SERVICES["publisher"]["healthcheck"]["test"][2:]
        asked = [word.replace("vectors:6379", machines.here["vectors:6379"]) for word in check]
        asked = [word.replace("/center", machines.here["/center"]) for word in asked]
        told = subprocess.run([sys.executable, "-m", "mimctr", *asked], capture_output=True, text=True)
        assert (told.returncode, "active" in told.stdout) == (0, True), told.stderr

        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in processes.items():
            assert process.wait(SECONDS) == 0, (name, (machines.folder / f"{name}.log").read_text())
    forget_the_name(machines)
    for server in machines.cluster.servers:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0
        server.process = None
