"""``mimctr serve`` as users start it: it goes without losing a request, and holds out under too much."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from center.servers import free_ports, needs_redis, one_server, wait_for

from mimctr.center.center import Center
from mimctr.center.publish import bring_up_to_date
from mimctr.center.stores.redis import RedisStore
from serve.shops import open_scorer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module"),
]
MEGABYTE = 1 << 20
HEAVY = {
    "candidates": list(range(5000)),
    "history": [{"item_id": number, "time": 1_700_000_000 + number} for number in range(10)],
    "time": 1_800_000_000,
}
LIGHT = {"candidates": [1, 2, 3], "history": [], "time": 1_800_000_000}


class Process:
    """A running ``mimctr serve``."""

    def __init__(self, running: subprocess.Popen, port: int) -> None:
        self.running = running
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def gauge(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def resident(self) -> int:
        """Return the bytes of memory that the process holds."""
        pages = int(Path(f"/proc/{self.running.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def score(self, asked: dict, *, client: httpx.Client | None = None) -> httpx.Response:
        return (client or httpx).post(f"{self.url}/score", json=asked, timeout=60.0)

    def stop(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(30)


@contextlib.contextmanager
def started(folder: Path, *settings: str, center: Path) -> Iterator[Process]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mimctr", "serve", str(folder / "bundle"), "--center", str(center)]
    for one in (f"port={port}", *settings):
        command += ["--set", one]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    made = Process(running, port)

    def is_ready() -> bool:
        assert running.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{made.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(is_ready, "mimctr serve")
        yield made
    finally:
        running.kill()
        running.wait()


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory) -> tuple[Path, Path]:
    """A folder with a bundle, and the center that is active."""
    folder = tmp_path_factory.mktemp("trained")
    open_scorer(shop, folder, ubm="din", variant="mim")
    center = Center(shop / "center")
    center.seal(1, {}, min_coverage=0.0)
    center.log.generations.activate(1)
    return folder, shop / "center"


def test_what_was_taken_in_is_answered(trained):
    """SIGTERM with a full queue, and nobody is turned away; then nobody listens. Mutant: the queue is dropped."""
    folder, center = trained
    with started(folder, "deadline=60", "shutdown_seconds=30", center=center) as process:
        with ThreadPoolExecutor(30) as clients:
            asked = [clients.submit(process.score, HEAVY) for _ in range(30)]
            wait_for(lambda: process.gauge("mimctr_requests_in_flight") >= 20, "a queue")
            assert process.stop() == 0
            answers = Counter(one.result().status_code for one in asked if one.exception() is None)
        refused = [one.exception() for one in asked if one.exception() is not None]
        assert all(isinstance(one, httpx.ConnectError) for one in refused), refused  # never taken in
        assert set(answers) == {200}
        assert answers[200] >= 20
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{process.url}/health/live")


def test_load_balancers_see_it_first(trained):
    """While it drains it is not ready, yet answers; clients that go when they are told to lose nothing.

    Mutants: the listener closes at once; connections are kept open.
    """
    folder, center = trained
    failed: list[object] = []
    counts: Counter[str] = Counter()

    def client() -> None:
        with httpx.Client(timeout=30.0) as own:
            while True:
                try:
                    if own.get(f"{process.url}/health/ready").status_code == 503:
                        counts["told"] += 1
                        break
                    answer = own.post(f"{process.url}/score", json=LIGHT)
                except httpx.TransportError as error:
                    failed.append(error)
                    break
                counts[str(answer.status_code)] += 1

    with started(folder, "drain_seconds=3", "deadline=20", center=center) as process:
        threads = [threading.Thread(target=client) for _ in range(8)]
        for one in threads:
            one.start()
        wait_for(lambda: counts["200"] > 50, "answers")
        process.running.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{process.url}/health/ready").status_code == 503, "draining")
        late = process.score(LIGHT)
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert httpx.get(f"{process.url}/health/live").status_code == 200
        assert httpx.get(f"{process.url}/v2/health/ready").status_code == 503
        for one in threads:
            one.join()
        assert process.running.wait(30) == 0
    assert not failed
    assert set(counts) == {"200", "told"}
    assert counts["told"] == 8


def test_it_goes_in_time_with_half_a_request_open(trained):
    """A client that never finishes holds the process no longer than the setting says."""
    folder, center = trained
    with started(folder, "shutdown_seconds=1", center=center) as process, socket.socket() as half:
        half.connect(("127.0.0.1", process.port))
        half.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        process.score(LIGHT)
        assert process.stop() == 0


def test_too_much_is_refused_and_nothing_grows(trained):
    """Five times as many clients as may wait, in a closed loop: answers and refusals, nothing else."""
    folder, center = trained
    with started(folder, "max_waiting=4", "deadline=20", center=center) as process:
        counts: Counter[int] = Counter()
        again: set[str | None] = set()

        def client(_: int) -> None:
            with httpx.Client(timeout=60.0) as own:
                for _ in range(60):
                    answer = process.score(LIGHT | {"candidates": list(range(500))}, client=own)
                    counts[answer.status_code] += 1
                    if answer.status_code == 429:
                        again.add(answer.headers.get("retry-after"))

        with ThreadPoolExecutor(20) as clients:
            list(clients.map(client, range(20)))
            before = process.resident()
            list(clients.map(client, range(20)))
        assert set(counts) == {200, 429}
        assert again == {"1"}
        assert counts[200] >= 2 * 60  # somebody always goes on
        assert process.resident() < before + 64 * MEGABYTE
        assert process.gauge("mimctr_requests_in_flight") == 0


@needs_redis
def test_a_store_that_does_not_answer_is_told_and_waited_for(trained, tmp_path):
    """SIGSTOP to Redis: 503 or 504, never another; it goes on, and so does the service."""
    folder, center = trained
    with one_server(tmp_path / "redis") as redis:
        opened, store = Center(center), RedisStore(redis.url)
        bring_up_to_date(opened.log, store, 1, lambda: opened.open_base(1))
        with started(folder, f"store={redis.url}", center=center) as process:
            expected = process.score(LIGHT).json()
            redis.pause()
            counts: Counter[int] = Counter(process.score(LIGHT).status_code for _ in range(4))
            assert set(counts) <= {503, 504}
            assert httpx.get(f"{process.url}/health/live").status_code == 200
            redis.go_on()
            wait_for(lambda: process.score(LIGHT).status_code == 200, "an answer")
            assert process.score(LIGHT).json() == expected
            assert process.stop() == 0


def send(port: int, head: str, parts: Iterator[bytes]) -> int:
    """Return the status of the answer to a request that is sent whole, or until the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as open_socket:
        open_socket.sendall(head.encode())
        with contextlib.suppress(ConnectionError):  # it hangs up while we still send
            for part in parts:
                open_socket.sendall(part)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in answer and (more := open_socket.recv(1000)):
                answer += more
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize("path", ["/score", "/v2/models/mimctr/infer", "/health/live"])
def test_a_hundred_megabytes_are_refused(trained, path):
    """Whether the request says how large it is or not. Mutant: only what it says is looked at."""
    folder, center = trained
    with started(folder, center=center) as process:
        process.score(LIGHT)
        before = process.resident()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        status = send(
            process.port,
            f"{head}Content-Length: {100 * MEGABYTE}\r\n\r\n",
            (b"x" * MEGABYTE for _ in range(100)),
        )
        assert status == 413
        if path != "/health/live":  # its body is never read
            chunk = b"100000\r\n" + b"x" * MEGABYTE + b"\r\n"
            status = send(
                process.port, f"{head}Transfer-Encoding: chunked\r\n\r\n", (chunk for _ in range(100))
            )
            assert status == 413
        assert process.resident() < before + 40 * MEGABYTE
        assert process.score(LIGHT).status_code == 200


def test_half_requests_hold_nothing(trained):
    """Three hundred clients that send a byte now and then: others are answered, and nothing waits for a thread."""
    folder, center = trained
    body = json.dumps(LIGHT).encode()
    with started(folder, center=center) as process, contextlib.ExitStack() as held:
        halves = []
        for number in range(300):
            half = held.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            whole = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            whole += b"Content-Length: %d\r\n\r\n" % len(body) + body
            cut = 20 if number % 2 else len(whole) - 5
            half.sendall(whole[:cut])
            halves.append((half, whole[cut:]))
        for _ in range(20):
            assert process.score(LIGHT).status_code == 200
        assert process.gauge("mimctr_requests_in_flight") == 0
        for half, _ in halves[2:]:
            half.close()
        for half, rest in halves[:2]:  # the patient ones are answered too
            half.sendall(rest)
            assert half.recv(100).startswith(b"HTTP/1.1 200")
