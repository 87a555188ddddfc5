"""Fixtures of the unit tests."""

import pytest
from tests.unit.charts import Helm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what renders the chart: each rendering is made once in a process."""
    for item in items:
        if {"helm", "helm3"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("helm"))


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(4)


@pytest.fixture(scope="session")
def helm3() -> Helm:
    return Helm(3)
