"""The service on Ray Serve, as ``serve run`` starts it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from center.servers import free_ports

from mimctr.center.center import Center
from serve.shops import RawLog, open_scorer
from serve.test_app import body

pytestmark = [
    pytest.mark.needs_extras,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: 'make test-extras' runs this"),
    pytest.mark.slow,
    pytest.mark.parametrize("shop", ["integers"], indirect=True),
]
SECONDS = 180.0


class Cluster:
    """Ray on this machine with one application; told apart from others by a mark in the environment."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.mark = f"MIMCTR_TEST={uuid.uuid4()}"
        self.log = folder / "serve.log"
        port, dashboard = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        code = (
            "import ray; from ray import serve; from ray.serve.scripts import cli; "
            f"ray.init(num_cpus=2, include_dashboard=False, dashboard_port={dashboard}, "
            f"_temp_dir={str(self.temporary)!r}, object_store_memory=100_000_000); "
            f"serve.start(http_options={{'host': '127.0.0.1', 'port': {port}}}); cli()"
        )
        words = ["run", "mimctr.recipes.serve_ray:build", *arguments]
        name, value = self.mark.split("=")
        env = os.environ | {name: value, "MIMCTR_TOKEN": "secret", "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *words], stdout=log, stderr=log, env=env
            )

    @property
    def temporary(self) -> Path:
        """Where Ray's sockets lie: their paths may not be long."""
        return Path("/tmp") / f"ray-{self.mark[-8:]}"

    def processes(self, title: str) -> list[int]:
        """Return the processes of this cluster whose title begins so."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    named = (entry / "cmdline").read_bytes().decode(errors="replace")
                    found += [int(entry.name)] if named.startswith(title) else []
        return sorted(found)

    def replicas(self) -> list[int]:
        return self.processes("ray::ServeReplica")

    def score(self, asked: dict) -> dict:
        request = urllib.request.Request(
            f"{self.url}/score", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def answers(self) -> bool:
        """Whether it says that it is ready."""
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.url}/health/ready", timeout=10).status == 200
        return False

    def wait(self, what, told: str) -> None:
        end = time.monotonic() + SECONDS
        while not what():
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            assert time.monotonic() < end, f"{told}: {self.log.read_text()[-5000:]}"
            time.sleep(0.2)


@pytest.fixture
def asked_of(shop, tmp_path) -> Iterator[tuple[Cluster, object]]:
    """A cluster of two replicas, and the scorer of this process on the same bundle."""
    scorer = open_scorer(shop, tmp_path, ubm="sim", variant="mim")
    center = Center(shop / "center")
    center.seal(1, {}, min_coverage=0.0)
    center.log.generations.activate(1)
    cluster = Cluster(
        tmp_path,
        f"bundle={tmp_path / 'bundle'}",
        f"center={shop / 'center'}",
        "num_replicas=2",
        "deadline=30",
    )
    try:
        yield cluster, scorer
    finally:
        for pid in [cluster.process.pid, *cluster.processes("")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cluster.process.wait()
        shutil.rmtree(cluster.temporary, ignore_errors=True)


def test_two_replicas_answer_as_the_scorer_does(shop, asked_of):
    """Scores to 1e-6; one replica is killed, and requests go on; told to stop, nothing is left."""
    cluster, scorer = asked_of
    cluster.wait(lambda: cluster.answers() and len(cluster.replicas()) == 2, "two replicas")
    log = RawLog(shop)
    for row in range(800, 820):
        found = cluster.score(body(shop, row, [1, 2, 3]))
        exact = scorer.score(log.request(row, [1, 2, 3])).probabilities.tolist()
        assert [one["probability"] for one in found["scores"]] == pytest.approx(exact, abs=1e-6)

    first, second = cluster.replicas()
    os.kill(first, signal.SIGKILL)
    asked, failures = body(shop, 850, [5]), 0
    end = time.monotonic() + SECONDS
    while len(alive := cluster.replicas()) < 2 or first in alive:
        assert time.monotonic() < end, "the replica was not replaced"
        try:
            assert 0 < cluster.score(asked)["scores"][0]["probability"] < 1
        except urllib.error.HTTPError:  # it was with the one that was killed
            failures += 1
        time.sleep(0.05)
    assert failures <= 2
    assert second in cluster.replicas()

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(
            urllib.request.Request(f"{cluster.url}/admin/reload", b"{}", method="POST"), timeout=30
        )
    cluster.process.send_signal(signal.SIGINT)
    cluster.process.wait(60)
    end = time.monotonic() + 60
    while cluster.replicas():
        assert time.monotonic() < end, "replicas are left"
        time.sleep(0.2)
