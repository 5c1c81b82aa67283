"""A light client for ``POST /score``: ready-made requests over raw sockets, kept open, one asyncio loop.

Closed loop: as many requests in flight as connections. Open loop: requests leave when they are due, whether or not
earlier ones have come back, and a request's time counts from when it was due.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np


class Connection(asyncio.Protocol):
    """One request at a time over one connection; calls ``done(connection, status, body)``."""

    def __init__(self, done: Any) -> None:
        self.done = done
        self.received = bytearray()
        self.transport: Any = None
        self.due = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.received.clear()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.received[:end]).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self.received) >= end + 4 + length:
            self.done(self, int(head[9:12]), bytes(self.received[end + 4 :]))


def as_http(body: dict[str, Any], path: str) -> bytes:
    """Return the bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


async def closed_loop(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float
) -> dict[str, float]:
    """Return requests a second with every connection always busy."""
    loop, finished, wrong, number = asyncio.get_running_loop(), [], [], 0
    end = time.perf_counter() + seconds

    def done(one: Connection, status: int, _: bytes) -> None:
        nonlocal number
        now = time.perf_counter()
        finished.append(now - one.due)
        if status != 200:
            wrong.append(status)
        if now < end:
            number += 1
            one.ask(requests[number % len(requests)], now)

    opened = [
        (await loop.create_connection(lambda: Connection(done), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    begun = time.perf_counter()
    for place, one in enumerate(opened):
        one.ask(requests[place % len(requests)], begun)
    await asyncio.sleep(seconds)
    spent = time.perf_counter() - begun
    count = len(finished)
    await asyncio.sleep(0.5)
    for one in opened:
        one.transport.close()
    return {"per_second": count / spent, "wrong": len(wrong)}


async def open_loop(
    port: int, requests: Sequence[bytes], *, rate: float, seconds: float, poisson: bool, connections: int = 60
) -> dict[str, float]:
    """Return the milliseconds of requests that arrive at a rate."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    wrong: list[int] = []
    idle: deque[Connection] = deque()
    waiting: deque[tuple[bytes, float]] = deque()

    def done(one: Connection, status: int, _: bytes) -> None:
        times.append(time.perf_counter() - one.due)
        if status != 200:
            wrong.append(status)
        if waiting:
            one.ask(*waiting.popleft())
        else:
            idle.append(one)

    for _ in range(connections):
        idle.append((await loop.create_connection(lambda: Connection(done), "127.0.0.1", port))[1])
    opened = list(idle)
    gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)) if poisson else None
    due = time.perf_counter() + 0.01
    for number in range(int(rate * seconds)):
        due += 1 / rate if gaps is None else gaps[number]
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left - 0.0015 if left > 0.002 else 0)
        request = requests[number % len(requests)]
        if idle:
            idle.popleft().ask(request, due)
        else:
            waiting.append((request, due))
    last = time.perf_counter() + 5
    while len(times) < int(rate * seconds) and time.perf_counter() < last:
        await asyncio.sleep(0.01)
    for one in opened:
        one.transport.close()
    p50, p99, p999 = 1000 * np.quantile(times, [0.5, 0.99, 0.999])
    lost = int(rate * seconds) - len(times)
    return {"p50_ms": p50, "p99_ms": p99, "p99_9_ms": p999, "wrong": len(wrong), "lost": lost}


def main() -> None:
    """Measure one server; print one line of JSON."""
    settings = json.loads(sys.argv[1])
    with open(settings["bodies"], encoding="utf-8") as file:
        requests = [as_http(body, settings["path"]) for body in json.load(file)]
    port, seconds = settings["port"], settings["seconds"]
    asyncio.run(closed_loop(port, requests, connections=4, seconds=seconds / 3))  # warm
    peak = asyncio.run(closed_loop(port, requests, connections=4, seconds=seconds))
    results: dict[str, Any] = {"peak": peak}
    for name, poisson in (("even", False), ("poisson", True)):
        rate = settings.get("rate") or peak["per_second"] / 2
        results[name] = asyncio.run(open_loop(port, requests, rate=rate, seconds=seconds, poisson=poisson))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
