"""Fixtures of the unit tests."""

import pytest
from tests.unit.charts import Helm


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(4)


@pytest.fixture(scope="session")
def helm3() -> Helm:
    return Helm(3)
