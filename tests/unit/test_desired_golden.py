import pytest
from tests.unit.golden_cases import CASES, DIRECTORY, rendered


@pytest.mark.parametrize("name", CASES)
def test_the_objects_of_a_spec_are_as_they_were(name: str) -> None:
    kept = (DIRECTORY / f"{name}.yaml").read_text()
    assert rendered(CASES[name]) == kept, "if this is meant: python -m tests.unit.golden_cases --write"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.yaml")} == set(CASES)
