"""What a first start would otherwise wait for: kernels that a process beside the engine compiles, and a model class."""

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine.launching import Container, descendants, intent, wait_for
from tests.engine.test_engine_launch_gpus import LINE, nvidia_smi

from falcon_engine import ahead, kernels, model_info, profiles
from falcon_engine.gpus import Gpu, visible
from falcon_engine.locate import Engine

H200 = Gpu("NVIDIA H200", 143771, "9.0", "580.159.04")
SHIPPED = Path(kernels.__file__).parent
MODULE_INFO = "vllm-model_executor-models-falcon_h1-FalconH1ForCausalLM.json"
# Writes down what it was started with, as the Python of an engine.
PYTHON = """#!/bin/sh
printf '%s\\n' "$@" > {folder}/arguments
env > {folder}/environment
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return Engine((str(python), "-P", "-c", "the engine"), "0.26.0")


@pytest.fixture
def begun(tmp_path: Path, engine: Engine) -> Any:
    def begin(version: str = "0.26.0", gpus: tuple[Gpu, ...] = (H200,), **changes: Any) -> int | None:
        environ = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "triton")}
        child = ahead.begin(intent(**changes), version, gpus, engine, "/models/falcon", said.append, environ)
        if child is not None:
            assert os.waitpid(child, 0)[1] == 0
        return child

    said: list[str] = []
    return begin


def test_it_is_told_the_gpu_the_launches_and_where_the_kernels_belong(tmp_path: Path, begun: Any) -> None:
    assert begun() is not None
    arguments = (tmp_path / "arguments").read_text().splitlines()
    told = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert arguments[:2] == ["-m", "falcon_tune.ahead"]
    assert told["--capability"] == "9.0"
    assert told["--model"] == "/models/falcon"
    assert told["--state-dtype"] == "bfloat16"
    assert Path(told["--mark"]).parent == tmp_path / "triton"
    assert json.loads(told["--launches"]) == ahead.known("0.26.0", (H200,))
    environ = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert environ["CUDA_VISIBLE_DEVICES"] == ""  # the GPU's memory is the engine's
    assert str(Path(ahead.__file__).parents[1]) in environ["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize(
    ("version", "gpus", "changes"),
    [
        ("0.25.1", (H200,), {}),
        ("0.32.0", (H200,), {}),
        (None, (H200,), {}),
        ("0.26.0", (Gpu("NVIDIA L40S", capability="8.9"),), {}),
        ("0.26.0", (Gpu("NVIDIA H200"),), {}),
        ("0.26.0", (H200, H200), {}),
        ("0.26.0", (), {}),
        ("0.26.0", (H200,), {"device": "cpu"}),
    ],
)
def test_nothing_is_compiled_where_the_launches_were_not_measured(
    begun: Any, version: str, gpus: tuple[Gpu, ...], changes: dict[str, Any]
) -> None:
    assert begun(version, gpus, **changes) is None


def test_nothing_is_compiled_twice(tmp_path: Path, begun: Any) -> None:
    mark = ahead.mark("0.26.0", H200, intent(), {"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    mark.parent.mkdir()
    mark.touch()
    assert begun() is None
    assert begun(extra_args=("--mamba-ssm-cache-dtype", "float32")) is not None  # other kernels


def test_an_engine_whose_python_cannot_be_started_starts_without(tmp_path: Path) -> None:
    said: list[str] = []
    engine = Engine((str(tmp_path / "gone"), "-c", "the engine"), "0.26.0")
    assert ahead.begin(intent(), "0.26.0", (H200,), engine, None, said.append, {"HOME": str(tmp_path)}) is None
    assert re.fullmatch(r"warning: no kernels are compiled ahead: .*gone cannot be started \(No such file.*\)", said[0])


def test_without_what_it_needs_it_says_so_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environ = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    python = Engine((sys.executable, "-c", "the engine"), "0.26.0")  # a Python without torch
    child = ahead.begin(intent(), "0.26.0", (H200,), python, None, print, environ)
    assert child is not None
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["falcon: warning: kernels are not compiled ahead (ModuleNotFoundError: No module named 'torch')"]


def test_the_launches_that_are_shipped_are_numbers_and_have_a_source() -> None:
    for family in json.loads((SHIPPED / "chunk_scan.json").read_text())["families"]:
        assert family["source"]
        assert all(re.fullmatch(r"\d+\.\d", capability) for capability in family["capabilities"])
        assert all(profiles.parse(version) for version in family["versions"])
        values = [value for launch in family["launches"].values() for value in launch.values()]
        assert values
        assert all(type(value) is int for value in values)


def test_the_model_class_is_known_to_a_new_cache(tmp_path: Path) -> None:
    said: list[str] = []
    environ = {"VLLM_CACHE_ROOT": str(tmp_path / "vllm")}
    model_info.put("0.26.0", environ, said.append)
    file = tmp_path / "vllm" / "modelinfos" / MODULE_INFO
    told = json.loads(file.read_text())
    assert told["modelinfo"]["architecture"] == "FalconH1ForCausalLM"
    assert told["modelinfo"]["is_hybrid"]
    assert re.fullmatch(r"[0-9a-f]{32}", told["hash"])
    file.write_text("what vLLM found out for itself")
    model_info.put("0.26.0", environ, said.append)
    assert file.read_text() == "what vLLM found out for itself"
    assert not said


@pytest.mark.parametrize("version", [None, "0.26.1", "0.33.0"])
def test_of_another_version_nothing_is_said(tmp_path: Path, version: str | None) -> None:
    model_info.put(version, {"HOME": str(tmp_path)}, print)
    assert not list(tmp_path.iterdir())


def test_without_a_place_to_write_vllm_finds_out_itself(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / ".cache").touch()
    model_info.put("0.26.0", {"HOME": str(tmp_path)}, said.append)
    assert re.fullmatch(r"warning: .*cannot be written \(Not a directory\), so that vLLM looks .*", said[0])


def test_the_launcher_begins_it_beside_the_engine(tmp_path: Path) -> None:
    container = Container(tmp_path, vllm="0.26.0", profile="0.26")
    nvidia_smi(container, f'echo "{LINE}"')
    container.environment["HOME"] = str(tmp_path / "home")
    with container.running(device="cuda", canary=False):
        container.wait_until_served()
        log = tmp_path / "serve.log"
        wait_for(lambda: "not compiled ahead (ModuleNotFoundError" in log.read_text(), "its line in the log")
    assert "falcon: kernels for prompts and sampling are compiled while the engine imports" in container.log
    assert (tmp_path / "home" / ".cache" / "vllm" / "modelinfos" / MODULE_INFO).exists()


def test_it_compiles_with_the_assembler_that_the_engine_is_given(tmp_path: Path) -> None:
    container = Container(tmp_path, vllm="0.26.0", profile="0.26")
    nvidia_smi(container, f'echo "{LINE}"')
    torch = tmp_path / "site" / "torch"
    (torch / "bin").mkdir(parents=True)
    (torch / "bin" / "ptxas").touch(0o755)
    (torch / "__init__.py").write_text(
        "import os, sys; print('with', os.environ['TRITON_PTXAS_PATH'], file=sys.stderr)"
    )
    container.environment["HOME"] = str(tmp_path / "home")
    with container.running(device="cuda", canary=False) as process:
        container.wait_until_served()
        log = tmp_path / "serve.log"
        wait_for(lambda: f"with {torch}/bin/ptxas" in log.read_text(), "what it was given, in the log")
        started = (Path(f"/proc/{pid}") for pid in descendants(process.pid))
        (engine,) = (path for path in started if b"vllm.entrypoints" in (path / "cmdline").read_bytes())
        assert f"TRITON_PTXAS_PATH={torch}/bin/ptxas" in (engine / "environ").read_bytes().decode().split("\0")


@pytest.mark.parametrize(
    ("devices", "seen"),
    [("", "ab"), ("0", "a"), ("1", "b"), ("1,0", "ba"), ("2", "ab"), ("-1", "ab"), ("0,9", "ab"), ("GPU-4f", "ab")],
)
def test_gpus_that_are_hidden_from_cuda_do_not_count(devices: str, seen: str) -> None:
    assert "".join(gpu.name for gpu in visible((Gpu("a"), Gpu("b")), devices)) == seen
