"""Shape checks for the tensor packages, one thread, no network; timm and the peers where they are installed."""

import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(
    ["mimctr.batch", "mimctr.ubm", "mimctr.csft", "mimctr.pretrain", "mimctr.encoders", "mimctr.center"],
    "beartype.beartype",
)

import pytest
import torch
from center.servers import RedisCluster, RedisServer, cluster_of_six, one_server

from mimctr import precision

torch.set_num_threads(1)
HAS_TIMM = find_spec("timm") is not None
THREADS = {"realtime", "missing", "follower"}
"""Those that mimctr itself starts."""


def _declare_torchvision_operators() -> torch.library.Library | None:
    """Let torchvision be imported although it was built for another PyTorch; timm calls none of its operators."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


OPERATORS = _declare_torchvision_operators() if HAS_TIMM else None  # they live as long as this does


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs timm, or the peers, where they are not installed."""
    for marker, package, target in (
        ("needs_timm", "timm", "test-timm"),
        ("needs_peers", "fuxictr", "test-peers"),
    ):
        if find_spec(package) is None:
            skip = pytest.mark.skip(reason=f"{package} is not installed: 'make {target}' runs this")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """A thread that outlives its test works in the next one's time, and on its random numbers."""
    before = set(threading.enumerate())
    yield
    left = sorted(thread.name for thread in set(threading.enumerate()) - before if thread.name in THREADS)
    assert not left, f"the test left threads running: {', '.join(left)}; close what started them"


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in bfloat16 also on a CPU that has no instructions for them: slow, and the same numbers."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with one_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with cluster_of_six(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
