"""How fast is POST /score, beside LitServe and beside FastAPI with eager PyTorch, with the same model?

    pip install --requirement benchmarks/peers/serve.txt
    python benchmarks/bench_serve.py --shop /tmp/shop

One user, 200 candidates, a history of 100: DIN and SIM with content (Base+MIM) of normal width, 100,000 items. Each
server runs on core 0, ours as ``mimctr serve``; benchmarks/load_generator.py on core 1. Scores are compared first.
Peak: 4 connections, always busy. Then half of that, evenly and at random (Poisson) times, from when a request was due.

Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from serve_shop import ENCODER, draw_requests, write_model, write_shop
from timing import machine, print_load

from mimctr.center.center import Center
from mimctr.center.snapshot import Snapshot

HERE = Path(__file__).parent
CANDIDATES, HISTORY, NUM_BODIES, TOLERANCE = 200, 100, 64, 1e-5


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shop", type=Path, required=True, help="folder, written where it is not there")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--models", nargs="+", default=["din", "sim"])
    parser.add_argument("--servers", nargs="+", default=["ours", "litserve", "fastapi"])
    parser.add_argument(
        "--switches", action="store_true", help="ours alone: again while generations and bundles are switched"
    )
    parser.add_argument("--set", nargs="*", default=[], help="settings of 'mimctr serve'")
    parser.add_argument(
        "--build-only", action="store_true", help="write the shop and its models, measure nothing"
    )
    args = parser.parse_args()
    if not args.shop.is_dir():
        write_shop(args.shop, num_items=args.items, content_dim=128)
    bundles = {name: args.shop / "bundles" / f"{name}-mim" for name in args.models}
    for name, bundle in bundles.items():
        if not bundle.is_dir():
            write_model(args.shop, name, "mim", max_length=HISTORY)
    if args.build_only:
        return
    load = print_load()
    bodies = draw_requests(NUM_BODIES, num_items=args.items, candidates=CANDIDATES, history=HISTORY)
    (args.shop / "bodies.json").write_text(json.dumps(bodies))
    results: dict[str, Any] = {}
    for name, bundle in bundles.items():
        said: dict[str, np.ndarray] = {}
        for server in args.servers:
            port = free_port()
            with served(command(server, bundle, args.shop, port, args.set), port):
                said[server] = np.array([ask(port, body) for body in bodies[:8]])
                apart = float(np.abs(said[server] - said[args.servers[0]]).max())
                assert apart <= TOLERANCE, f"{server} does not score as {args.servers[0]} does: {apart}"
                results[f"{name} {server}"] = measure(port, args.shop, args.seconds) | {"apart": apart}
                if args.switches:
                    steady = results[f"{name} {server}"]["peak"]["per_second"] / 2
                    for what in ("generations", "bundles"):
                        with switching(what, args.shop, bundle, port) as switches:
                            found = measure(port, args.shop, args.seconds, rate=steady)
                        assert len(switches) > args.seconds, f"{what}: {len(switches)} switches"
                        results[f"{name}, {what}"] = found | {"switches": len(switches)}
            print_row(f"{name} {server}", results[f"{name} {server}"])
            for what in ("generations", "bundles") if args.switches else ():
                print_row(f"{name}, {what}", results[f"{name}, {what}"])
    print(json.dumps({"load": load, **machine(), "results": results}))


def command(server: str, bundle: Path, shop: Path, port: int, settings: list[str]) -> list[str]:
    """Return how a server is started."""
    if server == "ours":
        mimctr = [sys.executable, "-m", "mimctr", "serve", str(bundle), "--center", str(shop / "center")]
        return [*mimctr, *(word for one in (f"port={port}", *settings) for word in ("--set", one))]
    peer = [sys.executable, str(HERE / "serve_peers.py"), server, str(bundle)]
    return [*peer, str(shop / "content" / "items"), str(port)]


@contextlib.contextmanager
def served(words: list[str], port: int) -> Iterator[None]:
    """Run a server on core 0 until the end of the block."""
    process = subprocess.Popen(["taskset", "-c", "0", *words], start_new_session=True)
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(words)}: did not start")
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(port: int, body: dict[str, Any]) -> list[float]:
    """Return the probabilities of one request; a server that has just begun to listen may need some tries."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/score", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
                break
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
    return answer.get("probabilities") or [one["probability"] for one in answer["scores"]]


@contextlib.contextmanager
def switching(what: str, shop: Path, bundle: Path, port: int) -> Iterator[list[float]]:
    """Activate two generations in turn, or load the bundle again and again; yield when, as it happens."""
    log, stop, when = Center(shop / "center").log, threading.Event(), list[float]()
    snapshot = Snapshot.open(shop / "content" / "items", encoder=ENCODER)
    while len(log.generations.all()) < 2:
        center = Center(shop / "center")
        center.seal(center.adopt(snapshot).number, {}, min_coverage=0.0)

    def run() -> None:
        generations = Center(shop / "center").log.generations
        while not stop.wait(0.5):
            if what == "generations":
                generations.activate(1 if generations.active().number == 2 else 2)  # type: ignore[union-attr]
            else:
                body = json.dumps({"bundle": bundle.name}).encode()
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/admin/reload", body, {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request, timeout=60).read()
            when.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    yield when
    stop.set()
    thread.join()


def measure(port: int, shop: Path, seconds: float, *, rate: float | None = None) -> dict[str, Any]:
    """Return what the load generator, on core 1, says of a server; at half of its peak, or at ``rate``."""
    settings = {"port": port, "path": "/score", "seconds": seconds, "bodies": str(shop / "bodies.json")}
    settings |= {"rate": rate}
    words = ["taskset", "-c", "1", sys.executable, str(HERE / "load_generator.py"), json.dumps(settings)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def print_row(name: str, found: dict[str, Any]) -> None:
    """Print one server's numbers."""
    even, poisson = found["even"], found["poisson"]
    print(
        f"{name:<16} peak {found['peak']['per_second']:7.1f}/s   at half, even: p50 {even['p50_ms']:6.2f} p99 "
        f"{even['p99_ms']:6.2f} ms   poisson: p50 {poisson['p50_ms']:6.2f} p99 {poisson['p99_ms']:6.2f} ms   "
        f"errors {even['wrong'] + poisson['wrong'] + found['peak']['wrong']} lost {even['lost'] + poisson['lost']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
