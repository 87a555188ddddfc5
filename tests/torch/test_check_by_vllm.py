"""What vLLM's own code makes of the configs that the check judges and the repair writes: the two must agree."""

# mypy: disable-error-code="import-not-found"
# (vLLM is only in the image)

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine import checkpoints
from tests.engine.checkpoints import exported, tensors
from tests.engine.test_check_matrix import MLP_ALONE, ROWS, W4A4, WITHOUT_MAMBA, Row

from falcon_engine import modelopt, profiles, quantization, repair, safetensors, shape
from falcon_engine.finding import refuses
from falcon_engine.findings import Loader, check
from falcon_engine.modelopt import Rules

vllm = pytest.importorskip("vllm", reason="vLLM is only in the image of torch tests")
PROFILE, EXACT = profiles.select(vllm.__version__)
LOADER, RULES = Loader.of("stock", PROFILE), Rules.of(PROFILE)
# What the config alone does not show: vLLM finds it out when it reads the weights.
BY_WEIGHTS = {
    "algorithm", "config-absent", "config-algorithm", "config-superfluous", "exclude-missing", "exclude-packed",
    "config-group-size",
}  # fmt: skip


def engine_config(directory: Path, flag: str | None = None) -> Any:
    """vLLM's configuration for a checkpoint, which reads its quantization; raises as `vllm serve` would."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.weight_utils import get_quant_config

    given = EngineArgs(model=str(directory), max_model_len=256, quantization=flag, skip_tokenizer_init=True)
    model = given.create_model_config()
    if model.quantization is None:
        return model, None
    found = get_quant_config(model, given.create_load_config())
    from vllm.model_executor.models.falcon_h1 import FalconH1ForCausalLM

    if hasattr(FalconH1ForCausalLM, "hf_to_vllm_mapper"):
        found.apply_vllm_mapper(FalconH1ForCausalLM.hf_to_vllm_mapper.get_rename_mapper())
    found.packed_modules_mapping = FalconH1ForCausalLM.packed_modules_mapping
    return model, found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("rows")
    written = {}
    for number, (name, row) in enumerate(ROWS.items()):
        written[name] = checkpoints.write(at / str(number), tensors(**row.weights), row.quantization, row.hf_quant)
    return written


def test_the_profile_is_that_of_this_vllm() -> None:
    assert EXACT


@pytest.mark.parametrize("name", ROWS)
def test_vllm_takes_what_is_not_refused_and_refuses_what_is(name: str, rows: dict[str, Path]) -> None:
    row: Row = ROWS[name]
    codes = set(row.new)
    refused_by_config = codes - BY_WEIGHTS
    refused, found = "", None
    try:
        _, found = engine_config(rows[name])
        layers(found, rows[name])
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        refused = str(error)
    if refused:
        assert codes, f"vLLM refuses it ({refused}), and nothing was found"
    else:
        # No method: the weights are taken for BF16, which shows when they are read.
        assert not refused_by_config or (found is None and refused_by_config == {"config-method"})


def layers(found: Any, directory: Path) -> dict[str, bool]:
    """Which layers vLLM excludes, by its name of them."""
    sizes = shape.from_config(json.loads((directory / "config.json").read_text()) | {"quantization_config": None})
    if found is None:
        return {}
    return {layer.name: found.is_layer_excluded(layer.name) for layer in quantization.layers(sizes)}


@pytest.mark.parametrize("name", ROWS)
def test_vllm_excludes_the_layers_that_are_said_to_be_excluded(name: str, rows: dict[str, Path]) -> None:
    files = safetensors.read(rows[name])
    reading = modelopt.read(files.config, files.beside, RULES)
    if reading is None or reading.refused:
        return
    _, found = engine_config(rows[name])
    sizes = shape.from_config({**(files.config or {}), "quantization_config": None})
    for layer in quantization.layers(sizes):
        mine = reading.excludes(layer.name, layer.shards, RULES)
        if mine is None:
            with pytest.raises(ValueError, match="some but not all shards"):
                found.is_layer_excluded(layer.name)
        else:
            assert found.is_layer_excluded(layer.name) is mine, layer.name


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("flag", [None, "modelopt_fp4", "modelopt"])
def test_vllm_takes_what_the_repair_writes(name: str, flag: str | None, rows: dict[str, Path], tmp_path: Path) -> None:
    files = safetensors.read(rows[name])
    found = check(files, PROFILE, LOADER)
    out = tmp_path / "out"
    repair.overlay(files, repair.plan(files, found, PROFILE, LOADER), found, out)
    sizes = shape.from_config({**(files.config or {}), "quantization_config": None})
    all_layers = quantization.layers(sizes)
    if not quantization.any_packed(all_layers, files.tensors):
        model, config = engine_config(out)
        assert (model.quantization, config) == (None, None)
        return
    model, config = engine_config(out, flag)
    assert model.quantization == config.get_name() == "modelopt_fp4"
    inputs = quantization.input_scales(all_layers, files.tensors)
    assert config.quant_method == ("NVFP4" if inputs == "all" else "W4A16_NVFP4")
    for layer in all_layers:
        packed = quantization.is_packed(layer.modules[0], files.tensors)
        assert config.is_layer_excluded(layer.name) is not packed, layer.name


def test_the_kv_cache_becomes_fp8_where_the_repair_says_so(tmp_path: Path) -> None:
    from vllm.utils.torch_utils import get_kv_cache_quant_algo_string

    source = checkpoints.write(tmp_path / "m", tensors(), {"quant_method": "nvfp4", "format": "nvfp4"})
    files = safetensors.read(source)
    found = check(files, PROFILE, LOADER)
    assert refuses(found)
    repair.overlay(files, repair.plan(files, found, PROFILE, LOADER), found, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert get_kv_cache_quant_algo_string(written) == "fp8_e4m3"


@pytest.mark.parametrize("weights", [{}, WITHOUT_MAMBA, MLP_ALONE, {"packed": ("mamba",)}, {"layers": (1,)}, W4A4])
def test_vllm_excludes_exactly_what_is_not_packed(weights: dict[str, Any], tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(**weights), exported(quant_method="nvfp4"))
    files = safetensors.read(source)
    found = check(files, PROFILE, LOADER)
    repair.overlay(files, repair.plan(files, found, PROFILE, LOADER), found, tmp_path / "out")
    excluded = layers(engine_config(tmp_path / "out")[1], source)
    sizes = shape.from_config({**(files.config or {}), "quantization_config": None})
    for layer in quantization.layers(sizes):
        assert excluded[layer.name] is not quantization.is_packed(layer.modules[0], files.tensors)


def test_the_names_of_layers_are_vllms(tmp_path: Path) -> None:
    """vLLM builds the model on no device and tells what it called each linear layer."""
    source = checkpoints.write(tmp_path / "m", tensors((), kv=False))
    script = Path(__file__).with_name("names_of_layers.py")
    done = subprocess.run([sys.executable, str(script), str(source)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = shape.from_config(json.loads((source / "config.json").read_text()))
    assert set(json.loads(done.stdout.splitlines()[-1])) == {layer.name for layer in quantization.layers(sizes)}
