"""Fixtures of the unit tests."""

import os
from pathlib import Path

import pytest
from tests.unit.charts import Helm


@pytest.fixture(scope="session")
def renderings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "renderings"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def helm(renderings: Path) -> Helm:
    return Helm(4, renderings)


@pytest.fixture(scope="session")
def helm3(renderings: Path) -> Helm:
    return Helm(3, renderings)
