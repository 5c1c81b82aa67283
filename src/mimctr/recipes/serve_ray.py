"""The scoring service on Ray Serve: the same application, so many times over as one asks for.

serve run mimctr.recipes.serve_ray:build bundle=/models/bundle center=/data/center store=redis+cluster://vectors:6379
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve

from mimctr.recipes.serve import Config, make_service, read_token
from mimctr.serve.app import create_app


class Arguments(Config):
    """What ``serve run`` takes as ``name=value``: the settings of ``mimctr serve``, and these.

    Ray's proxy listens, not the service (``serve start --http-host --http-port``): ``port`` is not looked at, and
    ``host`` says who can reach that proxy, so that a token is asked for.
    """

    bundle: str = Field(
        description="Folder written by 'mimctr export' that every machine sees, or store:LABEL of 'mimctr push'."
    )
    center: Path | None = Field(None, description="Folder of the center; Base needs none.")
    num_replicas: int = Field(2, ge=1, description="Processes, on any machines of the Ray cluster.")
    host: str = Field("0.0.0.0", description="What Ray's proxy listens on.")


def build(arguments: Arguments) -> serve.Application:
    """Return the application for ``serve run`` or a Serve config file.

    Each replica has a service of its own. What it refuses it refuses as the process of ``mimctr serve`` does; Ray
    keeps as many requests again in its own queue, and answers 503 beyond.
    """

    def make_app() -> FastAPI:
        return create_app(
            make_service(arguments.bundle, arguments.center, arguments),
            token=read_token(arguments),
            num_threads=arguments.num_threads,
            max_waiting=arguments.max_waiting,
            deadline=arguments.deadline,
        )

    deployment = serve.deployment(
        serve.ingress(make_app)(Replica),
        name="mimctr",
        num_replicas=arguments.num_replicas,
        max_ongoing_requests=2 * arguments.max_waiting,
        max_queued_requests=arguments.max_waiting,
        graceful_shutdown_timeout_s=arguments.shutdown_seconds,
        ray_actor_options={"num_cpus": arguments.num_threads},
    )
    return deployment.bind()


class Replica:
    """What Ray asks of a replica beside requests."""

    app: FastAPI
    """Put there by Ray."""

    async def check_health(self) -> None:
        """Let Ray replace a replica that says three times that it is not ready.

        Raises:
            RuntimeError: ``/health/ready`` does not answer 200.
        """
        status, told = await ask(self.app, "/health/ready")
        if status != 200:
            raise RuntimeError(f"/health/ready answers {status}: {told.decode()}")


async def ask(app: FastAPI, path: str) -> tuple[int, bytes]:
    """Return what an application answers to GET, without a connection."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    (status,) = [one["status"] for one in sent if one["type"] == "http.response.start"]
    return status, b"".join(one.get("body", b"") for one in sent if one["type"] == "http.response.body")
