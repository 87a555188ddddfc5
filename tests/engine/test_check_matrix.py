"""What each version of vLLM makes of each form of a quantization config, and that a repair leaves nothing to say."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.engine import checkpoints
from tests.engine.checkpoints import beside, exported, tensors

from falcon_engine import profiles, repair, safetensors
from falcon_engine.finding import REFUSED, Finding, curable, refuses
from falcon_engine.findings import Loader, check

NEW = tuple(v for v in profiles.VERSIONS if (profiles.parse(v) or (0, 0)) >= (0, 22))
OLD = tuple(v for v in profiles.VERSIONS if v not in NEW)
CARD = {"quant_method": "nvfp4", "format": "nvfp4", "quant_algo": "NVFP4", "ignore": ["lm_head"], "group_size": 16}
HF_NAMES = [*checkpoints.KEPT, *(f"model.layers.{i}.mamba.{p}_proj" for i in range(2) for p in ("in", "out"))]


@dataclass(frozen=True)
class Row:
    """A config, the weights beside it, and the codes of what is found: by versions from 0.22 on, and before."""

    quantization: Any = None
    hf_quant: Any = None
    weights: Mapping[str, Any] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


W4A4 = {"inputs": True}
WITHOUT_MAMBA = {"packed": ("attention", "mlp")}
MLP_ALONE = {"packed": ("mlp",)}
ROWS = {
    "as modelopt exports it": Row(exported(), beside()),
    "method modelopt_fp4": Row(exported(quant_method="modelopt_fp4")),
    "flat nvfp4 of the card": Row(CARD, beside(kv_cache_quant_algo="INT8"), new=("config-method",),
                                  old=("config-method",), warnings=("contradiction", "kv-unannounced?")),
    "flat nvfp4 without quant_algo": Row({"quant_method": "nvfp4", "format": "nvfp4", "ignore": ["lm_head"]},
                                         new=("config-method", "config-algorithm"),
                                         old=("config-method", "config-algorithm")),
    "nested, method rewritten": Row({"quant_method": "nvfp4", **beside("NVFP4")}, weights=W4A4),
    "nested, weight-only named W4A4": Row({"quant_method": "nvfp4", **beside("NVFP4")}, new=("algorithm",)),
    "nested W4A16": Row({"quant_method": "modelopt", **beside()}, new=("config-nested",),
                        old=("config-nested",)),
    "nested without its keys": Row(
        {"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, weights={**W4A4, "kv": False},
        new=("config-keys",), old=("config-keys",)),
    "hf_quant_config.json alone, W4A16": Row(None, beside(), new=("config-nested",),
                                             old=("config-nested",)),
    "hf_quant_config.json alone, NVFP4": Row(None, beside("NVFP4"), weights=W4A4),
    "hf_quant_config.json alone, no producer": Row(None, {"quantization": beside("NVFP4")["quantization"]},
                                                   weights=W4A4, new=("config-method",), old=("config-method",)),
    "flat NVFP4 of quantized activations": Row(exported("NVFP4"), weights=W4A4),
    "flat NVFP4 of a part of the activations": Row(exported("NVFP4"), new=("algorithm",)),
    "kv_cache_quant_algo in place of the scheme": Row(
        exported(kv_cache_scheme=None, kv_cache_quant_algo="FP8")),
    "INT8 for the KV cache": Row(exported("NVFP4", kv_cache_scheme=None, kv_cache_quant_algo="INT8"), weights=W4A4,
                                 warnings=("kv-algorithm",)),
    "KV scales and no word of them": Row(exported("NVFP4", kv_cache_scheme=None), weights=W4A4,
                                         warnings=("kv-unannounced",)),
    "the two files contradict each other": Row(exported("NVFP4"), beside("NVFP4", kv_cache_quant_algo=None),
                                               weights=W4A4, warnings=("contradiction",)),
    "excluded by the checkpoint's names": Row(exported("NVFP4", ignore=HF_NAMES), weights={**W4A4, **WITHOUT_MAMBA},
                                              new=("exclude-missing",), old=("exclude-missing",)),
    "excluded by whole trees": Row(
        exported("NVFP4", ignore=[*checkpoints.KEPT, "model.layers.0.mamba*", "model.layers.1.mamba*",
                                  "model.layers.0.self_attn*", "model.layers.1.self_attn*"]),
        weights={**W4A4, **MLP_ALONE}, new=("exclude-missing",), old=("exclude-missing",)),
    "excluded by wildcards": Row(
        exported("NVFP4", ignore=[*checkpoints.KEPT, "*in_proj*", "*out_proj*"]), weights={**W4A4, **WITHOUT_MAMBA}),
    "excluded mixers": Row(exported("NVFP4", ignore=[*checkpoints.KEPT, "*mixer*"]),
                           weights={**W4A4, **WITHOUT_MAMBA}),
    "excluded attention by wildcards": Row(
        exported("NVFP4", ignore=[*checkpoints.KEPT, "*mixer*", "*q_proj", "*k_proj", "*v_proj", "*o_proj"]),
        weights={**W4A4, **MLP_ALONE}),
    "MLP excluded by full names": Row(
        exported("NVFP4", ignore=[*checkpoints.KEPT, *(f"model.layers.{i}.{m}" for i in range(2)
                                                       for m in checkpoints.PARTS["mlp"])]),
        weights={**W4A4, "packed": ("attention", "mamba")}),
    "excluded and packed": Row(exported("NVFP4", ignore=[*checkpoints.KEPT, "*o_proj"]), weights=W4A4,
                               new=("exclude-packed",), old=("exclude-packed",)),
    "a part of a fused layer excluded": Row(
        exported("NVFP4", ignore=[*checkpoints.KEPT, "model.layers.0.feed_forward.gate_proj"]), weights=W4A4,
        new=("exclude-split",), old=("exclude-split",)),
    "nothing announced": Row(None, new=("config-absent",), old=("config-absent",)),
    "announced and not there": Row(exported("NVFP4"), weights={"packed": ()}, new=("config-superfluous",),
                                   old=("config-superfluous",)),
    "FP8 announced": Row(exported("NVFP4", quant_algo="FP8"), weights=W4A4, new=("config-algorithm",),
                         old=("config-algorithm",)),
    "a group size of 32": Row(exported("NVFP4", group_size=32), weights=W4A4, new=("config-group-size",),
                              old=("config-group-size",)),
    "an ignore that is no list": Row(exported("NVFP4", ignore="lm_head"), weights=W4A4, new=("config-form",),
                                     old=("config-form",)),
    "BF16": Row(weights={"packed": (), "kv": False}),
    "some layers alone": Row(exported("NVFP4"), weights={**W4A4, "layers": (1,)}, new=("exclude-missing",),
                             old=("exclude-missing",)),
}  # fmt: skip
CASES = [pytest.param(row, v, id=f"{v}: {name}") for name, row in ROWS.items() for v in profiles.VERSIONS]


def codes(found: tuple[Finding, ...], severity: str) -> set[str]:
    return {f.code for f in found if f.severity == severity}


def loader_for(version: str) -> Loader:
    """As the launcher has it: this project's loader where the version's own cannot."""
    return Loader.of("plugin" if version in OLD else "stock", profiles.load(version))


@pytest.mark.parametrize(("row", "version"), CASES)
def test_what_a_version_refuses_and_what_a_repair_makes_of_it(row: Row, version: str, tmp_path: Path) -> None:
    profile, loader = profiles.load(version), loader_for(version)
    source = checkpoints.write(tmp_path / "source", tensors(**row.weights), row.quantization, row.hf_quant)
    before = {f.name: hashlib.sha256(f.read_bytes()).digest() for f in source.iterdir()}
    files = safetensors.read(source)
    found = check(files, profile, loader)
    assert codes(found, REFUSED) == set(row.old if version in OLD else row.new)
    for code in row.warnings:
        assert code.endswith("?") or code in {f.code for f in found}
    assert curable(found)
    out = tmp_path / "out"
    assert repair.overlay(files, repair.plan(files, found, profile, loader), found, out)
    assert check(safetensors.read(out), profile, loader) == ()
    assert (out / "model.safetensors").resolve() == source / "model.safetensors"
    assert {f.name: hashlib.sha256(f.read_bytes()).digest() for f in source.iterdir()} == before
    if not found:
        assert (out / "config.json").is_symlink()


@pytest.mark.parametrize("version", OLD)
def test_what_an_old_version_cannot_load_whatever_the_metadata(version: str, tmp_path: Path) -> None:
    profile = profiles.load(version)
    source = checkpoints.write(tmp_path / "m", tensors(), exported("NVFP4"))
    found = check(safetensors.read(source), profile, Loader.of("stock", profile))
    expected = {"loader-weight-only"} | ({"loader-mlp", "loader-kv-scales"} if version == "0.13" else set())
    assert codes(found, REFUSED) == expected
    assert refuses(found)
    assert not curable(found)
    assert all("Use vLLM 0." in f.fix for f in found if f.code in expected)


@pytest.mark.parametrize("version", profiles.VERSIONS)
def test_nvfp4_whose_groups_have_no_activations_is_weight_only_from_some_version_on(
    version: str, tmp_path: Path
) -> None:
    written = {**exported("NVFP4"), "config_groups": exported()["config_groups"]}
    source = checkpoints.write(tmp_path / "m", tensors(), written, beside("NVFP4"))
    found = check(safetensors.read(source), profiles.load(version), loader_for(version))
    routed = profiles.load(version).fact("quantizationConfig")["weightOnlyGroups"]
    assert [f.code for f in found] == ([] if routed or version in OLD else ["algorithm"])


@pytest.mark.parametrize("version", OLD)
def test_an_old_version_does_not_know_weight_only_by_itself(version: str, tmp_path: Path) -> None:
    profile = profiles.load(version)
    loader = Loader.of("stock", profile, "cpu")
    source = checkpoints.write(tmp_path / "m", tensors(("attention",), kv=False), exported(kv_cache_scheme=None))
    files = safetensors.read(source)
    found = check(files, profile, loader)
    assert codes(found, REFUSED) == {"config-algorithm", "exclude-missing"}
    written = repair.plan(files, found, profile, loader).written["config.json"]
    assert json.loads(written)["quantization_config"]["quant_algo"] == "NVFP4"
