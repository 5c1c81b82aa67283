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
