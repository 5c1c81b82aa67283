"""Real Redis servers on loopback for the tests, one or a cluster of three primaries and three replicas."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mimctr.center.stores.interface import ParameterStore

Open = Callable[[], ParameterStore]
"""Opens the store under test as a new process would."""
HAS_REDIS = shutil.which("redis-server") is not None and shutil.which("redis-cli") is not None
SECONDS = 20.0
"""How long a server may take for anything."""


def free_ports(count: int) -> list[int]:
    """Return free ports whose cluster bus (port + 10,000) is free too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port > 50_000:
                port -= 20_000
            pair = [held.enter_context(socket.socket()), held.enter_context(socket.socket())]
            with contextlib.suppress(OSError):
                for one, number in zip(pair, (port, port + 10_000), strict=True):
                    one.bind(("127.0.0.1", number))
                found.append(port)
    return found


def wait_for(what: Callable[[], bool], told: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SECONDS
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"{told}: not within {SECONDS} s")
        time.sleep(0.02)


class RedisServer:
    """One server; what it acknowledged is on its disk (``appendfsync always``)."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """What runs it."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [*command, "--save", "", "--appendonly", "yes", "--appendfsync", "always", *self.options]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        wait_for(lambda: self.ask("ping") == "PONG", f"redis-server on {self.port}")

    def ask(self, *command: str) -> str:
        """Return what ``redis-cli`` prints."""
        asked = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command], capture_output=True, text=True, timeout=SECONDS
        )
        return asked.stdout.strip()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: it takes connections and never answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


class RedisCluster:
    """Three primaries, each with a replica."""

    def __init__(self, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendfsync", "everysec")
        self.servers = [
            RedisServer(folder / str(port), port, *options, "--cluster-config-file", f"{folder}/{port}.conf")
            for port in free_ports(6)
        ]

    @property
    def url(self) -> str:
        return ",".join(f"redis+cluster://127.0.0.1:{server.port}" for server in self.servers[:1])

    def start(self) -> None:
        for server in self.servers:
            server.start()
        nodes = [f"127.0.0.1:{server.port}" for server in self.servers]
        made = subprocess.run(
            ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        wait_for(self.is_whole, "a cluster of six")

    def is_whole(self) -> bool:
        """Whether all slots are served, and every primary has a replica in step."""
        running = [server for server in self.servers if server.process is not None]
        if not all("cluster_state:ok" in server.ask("cluster", "info") for server in running):
            return False
        roles = [server.ask("info", "replication") for server in running]
        up = [role for role in roles if "role:slave" in role and "master_link_status:up" in role]
        return len([role for role in roles if "role:master" in role]) == 3 and len(up) == len(running) - 3

    def primaries(self) -> list[RedisServer]:
        """Return the servers that are primaries now."""
        return [
            server
            for server in self.servers
            if server.process is not None and "role:master" in server.ask("info", "replication")
        ]

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


@contextlib.contextmanager
def one_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server."""
    server = RedisServer(folder, free_ports(1)[0], *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def cluster_of_six(folder: Path) -> Iterator[RedisCluster]:
    """Run a cluster."""
    cluster = RedisCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


needs_redis = pytest.mark.skipif(
    not HAS_REDIS, reason="redis-server is not installed: apt-get install redis-server"
)
STORES = [
    pytest.param("local"),
    pytest.param("redis", marks=[needs_redis, pytest.mark.slow]),
    pytest.param("cluster", marks=[needs_redis, pytest.mark.slow]),
]
"""The stores that keep rows themselves."""
