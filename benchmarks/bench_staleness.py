"""How long is a new item without its vector? From its arrival at PUT /items to a score that has seen it.

    make demo && python benchmarks/bench_staleness.py --run runs/demo --model sim-mim-csft-seed0

One process of ``mimctr serve`` takes items in and scores. First as many items as it can encode, eight at a time: the
capacity. Then half of that, each item at its own time; POST /score asks for each new item every 10 ms until its vector
is a hit. Arrival is when the request is sent. The limit is half a second for the window, and 0.1 s between two looks at
the log.

Prints a table, then one line of JSON with the same numbers.
"""

import argparse
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench_serve import free_port
from timing import machine, print_load

from mimctr.center.center import Center
from mimctr.data.dataset import CtrDataset
from mimctr.recipes import bundle, center_build, embed

FIRST_ID, SECONDS_BETWEEN, GIVEN_UP = 10**12, 0.01, 30.0


def main() -> None:
    """Build a center, serve, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="of 'mimctr run'")
    parser.add_argument("--model", required=True, help="a folder in RUN/train, with content")
    parser.add_argument("--encoder", default="csft", help="a folder in RUN")
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    load = print_load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_center(folder / "center", args.run / "dataset", args.run / args.encoder)
        bundle.main(args.run / "train" / args.model, args.run / "dataset", folder / "bundle")
        results = serve(folder, pictures(args.run / "dataset"), args.seconds)
    for what, value in results.items():
        print(f"{what:<50} {value:>10,.3f}")
    print(json.dumps({"load": load, **machine(), "results": results}))


def write_center(folder: Path, dataset: Path, encoder: Path) -> None:
    """Write a center whose catalogue is the run's."""
    opened = Center.create(folder)
    number = center_build.main(folder, dataset, encoder, embed.Config(device="cpu")).number
    opened.seal(number, {})
    opened.log.generations.activate(number)


def pictures(dataset: Path) -> list[tuple[str, bytes]]:
    """Return titles and pictures of the catalogue, to come again under new names."""
    data = CtrDataset.open(dataset)
    titles = data.items["title"].to_list()
    found = [(titles[row] or "", data.item_images.get(row)) for row in range(min(len(titles), 2_000))]
    return [(title, image) for title, image in found if image]


def serve(folder: Path, content: list[tuple[str, bytes]], seconds: float) -> dict[str, float]:
    """Return the capacity, and quantiles of staleness at half of it."""
    port = free_port()
    settings = [f"port={port}", "items=true", "disk_floor_mb=0", "item_deadline=60"]
    words = [sys.executable, "-m", "mimctr", "--quiet", "serve", str(folder / "bundle")]
    words += ["--center", str(folder / "center"), *(word for one in settings for word in ("--set", one))]
    process = subprocess.Popen(words)
    try:
        wait(port)
        shop = Shop(port, content)
        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: shop.put(), range(200)))
        capacity = len(taken) / (time.perf_counter() - start)
        rate, found = capacity / 2, []
        start = time.perf_counter()
        with ThreadPoolExecutor(64) as pool:
            for number in range(int(rate * seconds)):
                time.sleep(max(start + number / rate - time.perf_counter(), 0))
                found.append(pool.submit(shop.staleness))
            times = np.array([one.result() for one in found])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    staleness, acknowledged = times.T
    return {
        "capacity, items a second": capacity,
        "items at half of it": float(len(times)),
        "arrival to a changed score, p50, s": float(np.quantile(staleness, 0.5)),
        "arrival to a changed score, p99, s": float(np.quantile(staleness, 0.99)),
        "arrival to the acknowledgement, p50, s": float(np.quantile(acknowledged, 0.5)),
        "arrival to the acknowledgement, p99, s": float(np.quantile(acknowledged, 0.99)),
    }


class Shop:
    """Sends new items and asks for their scores; each thread has its own connection."""

    def __init__(self, port: int, content: list[tuple[str, bytes]]) -> None:
        self.port = port
        self.content = content
        self._own = threading.local()
        self._lock = threading.Lock()
        self._next = FIRST_ID

    def put(self) -> int:
        """Send a new item; return its id when it is acknowledged."""
        with self._lock:
            item = self._next
            self._next += 1
        title, image = self.content[item % len(self.content)]
        query = urllib.parse.urlencode({"id_type": "integer", "title": title})
        status, told = self.ask("PUT", f"/items/{item}?{query}", image, "application/octet-stream")
        assert status == 202, told
        return item

    def staleness(self) -> tuple[float, float]:
        """Return the seconds until a new item has a vector, and until it was acknowledged."""
        start = time.perf_counter()
        item = self.put()
        acknowledged = time.perf_counter() - start
        body = json.dumps({"candidates": [item], "history": []}).encode()
        while time.perf_counter() - start < GIVEN_UP:
            status, told = self.ask("POST", "/score", body, "application/json")
            if status == 200 and told["scores"][0]["vector"] == "hit":
                return time.perf_counter() - start, acknowledged
            time.sleep(SECONDS_BETWEEN)
        raise TimeoutError(f"item {item}: no vector after {GIVEN_UP} s")

    def ask(self, method: str, path: str, body: bytes, media_type: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._own.connection.request(method, path, body, {"Content-Type": media_type})
        answer = self._own.connection.getresponse()
        return answer.status, json.load(answer)


def wait(port: int) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("mimctr serve did not start")


if __name__ == "__main__":
    main()
