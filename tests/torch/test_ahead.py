"""vLLM's kernels compiled by the real Triton for a GPU that is not there, those for prompts found by its own search."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from falcon_engine import kernels

pytest.importorskip("torch", reason="there is no torch here, only in the image torch-tests")

TRITON = "/opt/triton"
# This vLLM calls itself one for CPU and would do without Triton; the kernels' files are the same. Its own library, that
# for the CPU which nobody looked at, is not loaded: it needs AVX-512.
AS_ON_A_GPU = """
import importlib.metadata, sys
sys.modules["vllm._C"] = None
version = importlib.metadata.version
importlib.metadata.version = lambda name: version(name).partition("+")[0]
from falcon_tune.ahead import main
sys.exit(main(sys.argv[1:]))
"""
LAUNCHES = json.loads((Path(kernels.__file__).parent / "chunk_scan.json").read_text())["families"][0]["launches"]


def ahead(
    cache: Path, launches: Mapping[str, Any] = LAUNCHES, *more: str, code: str = AS_ON_A_GPU
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([TRITON, os.environ.get("PYTHONPATH", ""), *sys.path])
    command = [sys.executable, "-c", code, "--capability", "9.0", "--launches", json.dumps(launches)]
    return subprocess.run(
        [*command, *more],
        env={**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(cache), "CUDA_VISIBLE_DEVICES": "",
             "TRITON_CACHE_AUTOTUNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    done = ahead(folder, LAUNCHES, "--mark", str(folder / "mark"))
    assert done.returncode == 0, done.stderr
    assert "10 kernels were compiled ahead" in done.stderr
    return folder


def test_each_launch_is_machine_code_for_the_gpu(compiled: Path) -> None:
    assert (compiled / "mark").exists()
    binaries = sorted(path.stem for path in compiled.glob("*/*.cubin"))
    # Two of them with states to begin with, and without.
    prompts = [*LAUNCHES, "_chunk_scan_fwd_kernel", "_state_passing_fwd_kernel"]
    # With top-k, with top-p, with both: this vLLM has the same form for any number of sequences.
    assert binaries == sorted([*prompts, *["_topk_topp_kernel"] * 3])
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in compiled.glob("*/*.cubin"))


def test_the_search_has_the_given_launch_for_the_fastest(compiled: Path) -> None:
    found = {path.name.removesuffix(".autotune.json"): path for path in compiled.glob("*/*.autotune.json")}
    assert set(found) == set(LAUNCHES)
    for kernel, path in found.items():
        timed = json.loads(path.read_text())["configs_timings"]
        best, _ = min(timed, key=lambda pair: pair[1][0])
        values = {**best["kwargs"], "num_warps": best["num_warps"], "num_stages": best["num_stages"]}
        assert len(timed) > 1
        assert values.items() >= LAUNCHES[kernel].items()


def test_another_gpu_gets_kernels_of_its_own(compiled: Path, tmp_path: Path) -> None:
    done = ahead(tmp_path, LAUNCHES, "--capability", "8.9")
    assert done.returncode == 0, done.stderr
    names = {path.parent.name for path in tmp_path.glob("*/*.cubin")}
    assert names
    assert not names & {path.parent.name for path in compiled.glob("*/*.cubin")}


def test_a_launch_that_the_kernel_does_not_have_is_one_line(tmp_path: Path) -> None:
    done = ahead(
        tmp_path, {**LAUNCHES, "_chunk_scan_fwd_kernel": {"BLOCK_SIZE_M": 12345}}, "--mark", str(tmp_path / "m")
    )
    assert done.returncode == 1
    assert "_chunk_scan_fwd_kernel has no launch {'BLOCK_SIZE_M': 12345}" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_vllm_without_triton_has_nothing_compiled(tmp_path: Path) -> None:
    code = "import sys; from falcon_tune.ahead import main; sys.exit(main(sys.argv[1:]))"
    done = ahead(tmp_path, LAUNCHES, "--mark", str(tmp_path / "m"), code=code)
    assert done.returncode == 1
    assert "kernels are not compiled ahead (TuneError: vLLM does without Triton here)" in done.stderr
    assert not (tmp_path / "m").exists()
