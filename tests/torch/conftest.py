"""Tests of code that uses torch run in the image `torch-tests`, the only place where torch is."""

from importlib.util import find_spec

import pytest

HAS_TORCH = find_spec("torch") is not None
collect_ignore_glob = [] if HAS_TORCH else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and how to run it."""
    if not HAS_TORCH:
        terminalreporter.line(
            "tests/torch left out, since there is no torch: testbed/images/run torch-tests pytest tests/torch"
        )
