"""The tuner beside vLLM's real module, whose kernel alone is a plain sum here, as Triton and timings need a GPU."""

# mypy: disable-error-code="import-not-found"

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from falcon_engine import kernels
from falcon_tune import files
from falcon_tune.files import Launch, Shape
from falcon_tune.kernel import TOLERANCE, Kernel, candidates, tune

torch = pytest.importorskip("torch", reason="there is no torch here, only in the image torch-tests")

SHAPE = Shape(4, 64, 32)
SHIPPED = Path(kernels.__file__).parent
# Launches under which the stand-in computes something else.
WRONG, WRONG_STATE, NOTHING = Launch(64, 8), Launch(32, 8), Launch(16, 8)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's module with a kernel that runs on CPU and goes wrong under some launches."""
    real = importlib.import_module("vllm.model_executor.layers.mamba.ops.mamba_ssm")

    def update(state: Any, x: Any, dt: Any, A: Any, B: Any, C: Any, **more: Any) -> None:
        slots = more["state_batch_indices"].long()
        assert (slots > 0).all(), "slot 0 is the engine's null block"
        shape = (SHAPE.head_dim, SHAPE.state, len(x), SHAPE.heads)
        launch = Launch(*real.try_get_optimal_ssm_config(*shape, "float16", False))
        step = torch.nn.functional.softplus(dt.float() + more["dt_bias"])[..., None]
        after = state[slots].float() * torch.exp(A * step) + step * B.float()[:, :1, None, :] * x.float()[..., None]
        answer = (after * C.float()[:, :1, None, :]).sum(-1) + x.float() * more["D"]
        if launch != NOTHING:
            more["out"].copy_(answer * (1.1 if launch == WRONG else 1))
        state[slots] = (after * (1.1 if launch == WRONG_STATE else 1)).to(state.dtype)

    monkeypatch.setattr(real, "selective_state_update", update)
    return real


@pytest.mark.usefixtures("module")
def test_a_launch_that_computes_something_else_is_seen() -> None:
    kernel = Kernel(SHAPE, "bfloat16", 16, "cpu")
    assert kernel.difference(Launch(8, 2), 16) == 0.0
    assert kernel.difference(WRONG, 16) > TOLERANCE
    assert kernel.difference(WRONG_STATE, 16) > TOLERANCE
    assert kernel.difference(NOTHING, 16) == float("inf")


@pytest.mark.usefixtures("module")
def test_the_fastest_launch_that_computes_the_same_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(SHAPE, "bfloat16", 16, "cpu")
    times = {WRONG: 1.0, WRONG_STATE: 1.5, NOTHING: 1.7, Launch(8, 2): 2.0}
    monkeypatch.setattr(kernel, "microseconds", lambda launch, _: times.get(launch, 5.0))
    said: list[str] = []
    found = tune(kernel, [16, 4], 60, said.append)
    assert {batch: one.launch for batch, one in found.items()} == {16: Launch(8, 2), 4: Launch(8, 2)}
    assert len([line for line in said if "is not taken" in line]) == 6
    assert all(one.default_microseconds == 5.0 and one.difference == 0.0 for one in found.values())


@pytest.mark.usefixtures("module")
def test_where_nothing_is_faster_vllms_own_launch_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(SHAPE, "bfloat16", 16, "cpu")
    default = kernel.default()
    monkeypatch.setattr(kernel, "microseconds", lambda launch, _: 1.0 if launch == default else 2.0)
    assert tune(kernel, [8], 60, lambda _: None)[8].launch == default


def test_candidates_fit_the_state() -> None:
    assert all(one.rows <= SHAPE.head_dim for one in candidates(SHAPE))
    assert Launch(128, 1) not in candidates(Shape())


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("headdim*.json")), ids=lambda path: path.name)
def test_vllm_finds_the_shipped_file_and_takes_its_entries(
    module: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = path.name.partition("device_name=")[2].partition(",")[0]
    monkeypatch.setattr(module, "get_ssm_device_name", lambda: device)
    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(tmp_path))
    shutil.copy(path, tmp_path)
    assert (tmp_path / kernels.file_name(128, 256, "bfloat16", device.replace("_", " "))).is_file()
    for cached in (module.get_ssm_configs, module._try_get_optimal_ssm_config_cached):
        cached.cache_clear()
    try:
        for batch in files.DEFAULT_BATCHES:
            entry = json.loads(path.read_text())[str(batch * Shape().heads)]
            found = module.try_get_optimal_ssm_config(128, 256, batch, Shape().heads, "bfloat16", False)
            assert found == (entry["BLOCK_SIZE_M"], entry["num_warps"])
    finally:
        for cached in (module.get_ssm_configs, module._try_get_optimal_ssm_config_cached):
            cached.cache_clear()
