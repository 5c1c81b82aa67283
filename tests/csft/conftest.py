from pathlib import Path

import pytest

from csft.shop import write_encoders, write_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of the minuscule shop."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained encoders."""
    return write_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="session")
def shop_of_behaviors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of the same shop without visual search: an earlier purchase asks for a later one."""
    return write_shop(tmp_path_factory.mktemp("shop_of_behaviors"), searches=False)
