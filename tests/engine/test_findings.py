"""What the headers alone show, one mistake at a time; and that no file whatever makes the check fail."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine import checkpoints
from tests.engine.checkpoints import HIDDEN, VOCABULARY, Tensors, beside, exported, tensors

from falcon_engine import modelopt, profiles, quantization, safetensors, shape
from falcon_engine.finding import COPY, REFUSED, Finding, curable, refuses
from falcon_engine.findings import Loader, check
from falcon_engine.modelopt import Rules
from falcon_engine.quantization import Layer
from falcon_engine.safetensors import Tensor

NEWEST = profiles.load(profiles.VERSIONS[-1])
STOCK = Loader.of("stock", NEWEST)
LAYER = "model.layers.1"


def found(directory: Path, version: str = profiles.VERSIONS[-1], device: str = "cuda") -> tuple[Finding, ...]:
    profile = profiles.load(version)
    return check(safetensors.read(directory), profile, Loader.of("stock", profile, device))


def _without(name: str) -> Callable[[Tensors], Any]:
    return lambda t: t.pop(name)


def _with(name: str, dtype: str, *shape: int) -> Callable[[Tensors], Any]:
    return lambda t: t.update({name: (dtype, shape)})


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (_without(f"{LAYER}.mamba.in_proj.weight_scale"), "scales-missing", "is in none of the files, and its weight"),
        (_without(f"{LAYER}.self_attn.q_proj.weight_scale_2"), "scales-missing", "q_proj.weight_scale_2 is in none"),
        (_with(f"{LAYER}.mamba.out_proj.weight_scale", "BF16", 64, 4), "scales-wrong", "is BF16, and must be F8_E4M3"),
        (_with(f"{LAYER}.mamba.out_proj.weight_scale", "F8_E4M3", 128, 4), "scales-wrong", "must have [64, 4]"),
        (_with(f"{LAYER}.mamba.out_proj.weight_scale_2", "F32", 64), "scales-wrong", "must have one number"),
        (_with(f"{LAYER}.self_attn.k_proj.k_scale", "F32", 2), "scales-wrong", "must be one number in F32"),
        (_with(f"{LAYER}.mamba.out_proj.weight", "U8", 64, 64), "weights-shape", "is [64, 32] as FP4 by config.json"),
        (_with("lm_head.weight", "U8", VOCABULARY, HIDDEN // 2), "kept-quantized", "lm_head.weight is quantized (FP4)"),
        (_with("model.embed_tokens.weight", "U8", 8), "kept-quantized", "embed_tokens.weight is quantized (FP4)"),
        (_with(f"{LAYER}.mamba.conv1d.weight", "U8", 124, 2), "conv1d-quantized", "conv1d.weight is quantized (FP4)"),
        (_with(f"{LAYER}.mamba.conv1d.weight_scale", "F8_E4M3", 124), "conv1d-quantized", "is quantized (BF16)"),
        (_with(f"{LAYER}.mamba.A_log", "U8", 4), "kept-quantized", "A_log is quantized"),
        (_without(f"{LAYER}.mamba.D"), "weights-missing", "mamba.D is in none of the files"),
        (_without(f"{LAYER}.feed_forward.up_proj.weight"), "weights-missing", "up_proj.weight is in none of the files"),
        (_without("lm_head.weight"), "weights-missing", "lm_head.weight is in none of the files"),
        (_with("lm_head.weight", "BF16", 7, HIDDEN), "weights-shape", "has shape [7, 64], and is [96, 64]"),
        (_with(f"{LAYER}.self_attn.k_proj.weight", "BF16", 32, 64), "fused", "which vLLM computes as one"),
        (_with(f"{LAYER}.mamba.out_proj.weight", "BF16", 64, 64), "scales-orphaned", "that is not quantized (BF16)"),
    ],
)
def test_a_mistake_in_the_tensors(change: Callable[[Tensors], Any], code: str, words: str, tmp_path: Path) -> None:
    content = tensors()
    change(content)
    findings = found(checkpoints.write(tmp_path / "m", content, exported()))
    [mine] = [f for f in findings if f.code == code]
    assert words in mine.sentence
    assert (mine.repairable, mine.severity, mine.reason) == (False, REFUSED, "WeightsMismatch")
    assert mine.fix == (COPY if code.startswith("weights-") else "Quantize the BF16 model again with falcon-quantize.")
    assert not curable(findings)


def test_the_same_mistake_everywhere_is_one_finding(tmp_path: Path) -> None:
    content = {n: t for n, t in tensors().items() if not n.endswith("_scale_2")}
    [finding] = found(checkpoints.write(tmp_path / "m", content, exported()))
    assert finding.sentence.endswith("and its weight is FP4 (17 more are like it).")


def test_some_scales_of_the_cache_are_a_warning(tmp_path: Path) -> None:
    content = tensors()
    del content[f"{LAYER}.self_attn.v_proj.v_scale"]
    [finding] = found(checkpoints.write(tmp_path / "m", content, exported()))
    assert (finding.code, finding.severity) == ("kv-scales", "warning")


def test_a_cast_cache_has_no_scales_and_that_is_right(tmp_path: Path) -> None:
    assert found(checkpoints.write(tmp_path / "m", tensors(kv=False), exported(), beside())) == ()


def test_weight_only_by_choice_stays(tmp_path: Path) -> None:
    assert found(checkpoints.write(tmp_path / "m", tensors(inputs=True), exported())) == ()


def test_tied_embeddings_need_no_head(tmp_path: Path) -> None:
    content = tensors()
    del content["lm_head.weight"]
    assert found(checkpoints.write(tmp_path / "m", content, exported(), tie_word_embeddings=True)) == ()


def test_other_quantizations_are_left_alone(tmp_path: Path) -> None:
    fp8 = {n: ("F8_E4M3" if s[0] == "BF16" and "_proj." in n else s[0], s[1]) for n, s in tensors((), kv=False).items()}
    method = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    assert found(checkpoints.write(tmp_path / "fp8", fp8, method)) == ()
    gptq = {n.replace("_proj.weight", "_proj.qweight"): s for n, s in tensors((), kv=False).items()}
    assert found(checkpoints.write(tmp_path / "gptq", gptq, {"quant_method": "gptq"})) == ()
    packed = {n: ("U8", (s[1][0] * 32, 1)) if "_proj." in n else s for n, s in tensors((), kv=False).items()}
    assert found(checkpoints.write(tmp_path / "bnb", packed, {"quant_method": "bitsandbytes"})) == ()
    mixed = {**tensors(), f"{LAYER}.mamba.in_proj.weight": ("F8_E4M3", (192, 64))}
    [finding] = found(checkpoints.write(tmp_path / "mixed", mixed, exported(quant_algo="MIXED_PRECISION")))
    assert (finding.code, finding.severity) == ("mixed", "warning")


def test_rows_that_marlin_did_not_take(tmp_path: Path) -> None:
    content = tensors()
    for name, (dtype, size) in content.items():
        if ".mamba.in_proj." in name and size:
            content[name] = (dtype, (size[0] + 4, *size[1:]))
    source = checkpoints.write(tmp_path / "m", content, exported(), mamba_d_state=32)
    [finding] = found(source, "0.22")
    assert finding.code == "loader-rows"
    assert "has 196 rows" not in finding.sentence
    assert "with 196 rows, and the Marlin kernel of vLLM 0.22" in finding.sentence
    assert refuses([finding])
    assert [*found(source, "0.22", "cpu"), *found(source, "0.24")] == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "architecture", "it names LlamaForCausalLM"),
        ({"architectures": None, "model_type": "llama"}, "architecture", "it names llama"),
        ({"hidden_size": "wide"}, "shape", "hidden_size is"),
        ({"num_hidden_layers": 1 << 20}, "weights", "It says num_hidden_layers 1048576"),
        ({"hidden_size": 128}, "weights-shape", "by config.json"),
    ],
)
def test_a_config_of_something_else(change: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    findings = found(checkpoints.write(tmp_path / "m", tensors(), exported(), **change))
    [mine] = [f for f in findings if f.code == code]
    assert words in mine.sentence
    assert not curable(findings)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", POINTER, "pointer"),
        ("tokenizer.json", POINTER, "pointer"),
        ("config.json", "{", "damaged"),
        ("config.json", "[]", "damaged"),
        (safetensors.INDEX, "{", "index"),
        (safetensors.INDEX, '{"weight_map": {"a": "../b.safetensors"}}', "index"),
        (safetensors.INDEX, '{"weight_map": {}}', "absent"),
    ],
)
def test_a_file_that_is_none(name: str, content: str, code: str, tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(), exported(), shards=2)
    (source / name).write_text(content)
    findings = found(source)
    assert [f.code for f in findings] == [code]
    assert (findings[0].file, refuses(findings), curable(findings)) == (name, True, False)


@pytest.mark.parametrize("own", [True, False])
def test_hf_quant_config_that_is_none(own: bool, tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(), exported() if own else None)
    (source / "hf_quant_config.json").write_text("{")
    findings = found(source)
    assert (refuses(findings), curable(findings)) == (not own, True)


def test_two_copies_of_a_tensor(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(), exported())
    checkpoints.shard(source / "z.safetensors", {"lm_head.weight": ("BF16", (VOCABULARY, HIDDEN))})
    [finding] = found(source)
    assert (finding.code, finding.file, finding.severity) == ("twice", "z.safetensors", "warning")
    checkpoints.shard(source / "z.safetensors", {"lm_head.weight": ("BF16", (1, HIDDEN))})
    assert refuses(found(source))


def test_an_index_that_names_what_is_nowhere(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(), exported(), shards=2)
    index = json.loads((source / safetensors.INDEX).read_text())
    index["weight_map"]["model.more.weight"] = "model-00001-of-00002.safetensors"
    (source / safetensors.INDEX).write_text(json.dumps(index))
    [finding] = found(source)
    assert finding.sentence == (
        "It says that model.more.weight is in model-00001-of-00002.safetensors, where it is not."
    )
    assert (finding.severity, finding.repairable) == ("warning", False)


def test_a_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors(), exported())
    (source / "model.safetensors").unlink()
    os.mkfifo(source / "model.safetensors")
    os.mkfifo(source / "hf_quant_config.json")
    assert [f.sentence for f in found(source)] == ["The checkpoint holds no *.safetensors file."]


def test_a_directory_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user than root finds it: nothing in it can be asked for, and it cannot be listed."""
    source = checkpoints.write(tmp_path / "m", tensors(), exported())

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(os, "scandir", refused)
    findings = found(source)
    assert {f.code for f in findings} == {"permission"}
    assert all("spec.security.runAsUser" in f.fix for f in findings)


def test_headers_alone_are_read(tmp_path: Path) -> None:
    """A hundred shards of a model of 5 GB: what is read of each is its header, or the first 64 KiB."""
    content = {f"blob.{i}": ("BF16", ((5 << 30) // 200,)) for i in range(100)}
    source = checkpoints.write(tmp_path / "m", {**tensors(), **content}, exported(), shards=100)
    files = safetensors.read(source)
    assert len({tensor.file for tensor in files.tensors.values()}) == 100
    assert check(files, NEWEST, STOCK) == ()
    weights = sum(f.stat().st_size for f in source.glob("*.safetensors"))
    texts = sum(f.stat().st_size for f in source.glob("*.json"))
    assert files.bytes_read <= 100 * (1 << 16) + texts < weights


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["quant_method", "quant_algo", "ignore", "config_groups", "kv_cache_scheme", "kv_cache_quant_algo", "producer",
     "quantization", "exclude_modules", "group_size", "name", "architectures", "num_hidden_layers", "format"]
)  # fmt: skip
WORDS = st.sampled_from(["modelopt", "NVFP4", "W4A16_NVFP4", "nvfp4", "FP8", "*in_proj*", "model.layers.0.mamba*", ""])
CONFIGS = st.dictionaries(KEYS, JSON | WORDS | st.dictionaries(KEYS, JSON | WORDS, max_size=6), max_size=8)
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(own=CONFIGS | JSON, other=CONFIGS | JSON, version=st.sampled_from(profiles.VERSIONS))
def test_no_config_makes_the_check_fail(own: Any, other: Any, version: str) -> None:
    rules = Rules.of(profiles.load(version))
    modelopt.parse("config.json", own, rules)
    own = own if isinstance(own, dict) else {}
    reading = modelopt.read({"quantization_config": own}, other if isinstance(other, dict) else None, rules)
    assert reading is not None
    assert reading.excludes("model.layers.0.qkv_proj", ("model.layers.0.q_proj",), rules) in (True, False, None)


@QUICK
@given(own=CONFIGS | JSON, other=CONFIGS | JSON, top=CONFIGS)
def test_no_directory_makes_the_check_fail(tmp_path: Path, own: Any, other: Any, top: dict[str, Any]) -> None:
    directory = tmp_path / "m"
    checkpoints.write(directory, tensors(("mlp",)), own, other, **{k: v for k, v in top.items() if k != "quantization"})
    for finding in check(safetensors.read(directory), NEWEST, STOCK):
        assert str(finding).strip()
        assert finding.severity in ("refused", "warning")


SIZES = shape.from_config(checkpoints.CONFIG)
LAYERS = quantization.layers(SIZES)


@QUICK
@given(plain=st.sets(st.sampled_from(LAYERS)), version=st.sampled_from(profiles.VERSIONS), inputs=st.booleans())
def test_what_is_written_excludes_exactly_what_is_not_packed(plain: set[Layer], version: str, inputs: bool) -> None:
    stored = {name: Tensor(dtype, sizes, "f") for name, (dtype, sizes) in tensors(inputs=inputs).items()}
    for layer in plain:
        for module, rows in zip(layer.modules, layer.rows, strict=True):
            stored[f"{module}.weight"] = Tensor("BF16", (rows, layer.columns), "f")
    for plugin in (False, True):
        rules = Rules.of(profiles.load(version), plugin)
        written = quantization.config(SIZES, stored, None, rules)
        for content in (written, quantization.beside(written, None)):
            reading = modelopt.parse("config.json", {"quant_method": "modelopt", **content}, rules)
            for layer in LAYERS:
                assert reading.excludes(layer.name, layer.shards, rules) is (layer in plain)
        assert modelopt.parse("config.json", written, rules).refused == ()


@QUICK
@given(
    config=st.binary(max_size=60),
    weights=st.binary(max_size=60) | JSON.map(lambda v: _framed(json.dumps(v).encode())),
    entry=st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), JSON, max_size=3),
)
def test_no_bytes_make_the_check_fail(tmp_path: Path, config: bytes, weights: bytes, entry: dict[str, Any]) -> None:
    directory = tmp_path / "m"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_bytes(config)
    (directory / "a.safetensors").write_bytes(weights)
    (directory / "b.safetensors").write_bytes(_framed(json.dumps({"w": entry}).encode()))
    assert refuses(check(safetensors.read(directory), NEWEST, STOCK))


def _framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header
