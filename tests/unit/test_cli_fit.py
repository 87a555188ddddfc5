"""`falcon-operator fit`: the fit of a resource for people and programs, without a cluster."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.charts import ROOT

from falcon_engine import compute_format
from falcon_engine.profiles import VERSIONS
from falcon_operator import gpus
from falcon_operator.api import names
from falcon_operator.cli import main

KEYS = (
    "block_tokens",
    "blocks",
    "tokens",
    "max_concurrency",
    "sequences",
    "weights_gib",
    "kv_available_gib",
    "max_num_seqs",
    "verdict",
    "compute_format",
)


def manifest(**spec: Any) -> str:
    return yaml.safe_dump(
        {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "web"}, "spec": spec}
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A resource with the model card's settings on vLLM 0.26."""
    file = tmp_path / "web.yaml"
    file.write_text(manifest(engine={"version": "0.26.0"}))
    return file


def figures(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    assert main(["fit", *arguments, "--json"]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict[str, Any] = json.loads(printed.out)
    assert tuple(found) == KEYS
    return found


def test_given_the_available_memory_the_figures_are_the_engines(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, str(spec), "--kv-available", "112.27")
    printed = {
        "block_tokens": 3120,
        "tokens": 4_683_093,
        "max_concurrency": pytest.approx(71.46, abs=0.005),
    }  # by vLLM 0.26.0 on an H200
    assert {name: found[name] for name in printed} == printed


def test_the_engines_own_cache_mode_can_be_asked_for(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(manifest(engine={"version": "0.26.0", "extraArgs": ["--mamba-cache-mode=all"]}))
    found = figures(capsys, str(spec), "--kv-available", "115.91")
    assert found == {
        "block_tokens": 3328,
        "blocks": 1660,
        "tokens": 2_719_744,
        "max_concurrency": 41.5,
        "sequences": {"1024": 829, "4096": 414, "16384": 165, "65536": 41},
        "weights_gib": 5.19,
        "kv_available_gib": 115.91,
        "max_num_seqs": 256,
        "verdict": "Fits",
        "compute_format": "NVFP4",
    }


def test_a_gpus_name_stands_for_its_memory(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(manifest(engine={"version": "0.26.0", "computeFormat": "NVFP4"}))
    assert figures(capsys, str(spec), "--gpu", "NVIDIA H200") == figures(capsys, str(spec), "--gpu-memory", "139.8")


@pytest.mark.parametrize(
    ("gpu", "changes", "form", "gib"),
    [
        ("H200", {"computeFormat": "BF16"}, "BF16", 14.26),
        ("H200", {"computeFormat": "FP8"}, "FP8", 8.78),
        ("B200", {}, "NVFP4", 5.19),
        ("L4", {}, "NVFP4", 5.19),
        ("L4", {"computeFormat": "BF16"}, "BF16", 14.26),
    ],
)
def test_the_format_that_weights_are_computed_in_counts(
    spec: Path, capsys: pytest.CaptureFixture[str], gpu: str, changes: dict[str, Any], form: str, gib: float
) -> None:
    spec.write_text(manifest(engine={"version": "0.26.0", **changes}))
    found = figures(capsys, str(spec), "--gpu", gpu)
    assert (found["compute_format"], found["weights_gib"]) == (form, pytest.approx(gib, abs=0.02))


def test_auto_takes_what_was_measured_to_be_fastest_where_the_cache_has_room(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        r for w in compute_format.winners() for r in w["rows"] if (w["device"], r["sequences"]) == ("NVIDIA H200", 250)
    ]
    row = rows[-1]  # of several measurements of one device the last counts
    fastest = max({"NVFP4", "FP8", "BF16"} & row.keys(), key=lambda form: float(row[form]))
    assert fastest != "NVFP4"
    for size, form in (("16Gi", fastest), ("9Gi", "NVFP4")):
        spec.write_text(manifest(engine={"version": "0.26.0"}, cache={"size": size}))
        assert main(["fit", str(spec), "--gpu", "H200"]) == 0
        assert f"computed in   {form}: {fastest} " in capsys.readouterr().out
    assert main(["fit", str(spec), "--gpu", "H200"]) == 0
    assert "but the cache has 9.0 of 9.0 GiB free" in capsys.readouterr().out


def test_the_version_can_be_given_and_the_spec_can_be_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = io.TextIOWrapper(io.BytesIO(manifest().encode()))
    monkeypatch.setattr("sys.stdin", text)
    assert figures(capsys, "-", "--gpu", "H200", "--engine-version", "v0.33.0")["block_tokens"] == 3120


def test_extra_arguments_count(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(manifest(engine={"version": "0.33.0", "prefixCaching": False, "extraArgs": [
        "--kv-cache-memory-bytes=20G", "--max-num-seqs", "64", "--mamba-ssm-cache-dtype=float32"]}))  # fmt: skip
    found = figures(capsys, str(spec))
    assert (found["block_tokens"], found["kv_available_gib"], found["max_num_seqs"]) == (6192, 20, 64)


def test_another_model_comes_from_its_config(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "architectures": ["FalconH1ForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 36,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 2048,
        "mamba_d_ssm": 1536, "mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_chunk_size": 128,
        "vocab_size": 32784, "max_position_embeddings": 65536}))  # fmt: skip
    found = figures(capsys, str(spec), "--gpu", "L4", "--model-config", str(config))
    assert found["weights_gib"] == pytest.approx(1.02, abs=0.05)
    config.write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert main(["fit", str(spec), "--gpu", "L4", "--model-config", str(config)]) == 1
    assert "another model: it names LlamaForCausalLM" in capsys.readouterr().err


def test_fit_says_clamp_or_refuse(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, str(spec), "--gpu", "T4")
    assert (found["verdict"], found["max_num_seqs"]) == ("Clamped", found["blocks"])
    spec.write_text(manifest(engine={"version": "0.26.0"}, fit="Refuse"))
    assert figures(capsys, str(spec), "--gpu", "T4", status=3)["verdict"] == "Refused"


def test_for_people_there_is_a_table_with_the_verdict_in_a_sentence(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(manifest(engine={"version": "0.26.0", "computeFormat": "NVFP4"}))
    assert main(["fit", str(spec), "--gpu", "H200"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "H200, of which vLLM sees 139.80 GiB",
        "0.26.0",
        "256 sequences of up to 65,536 tokens, prefix caching on",
        "NVFP4: engine.computeFormat says NVFP4.",
        "5.19 GiB",
        "3,120 tokens",
        "73.75x of 65,536 tokens",
        "221 sequences of 16,384 tokens",
        "Fits",
        "1,770 blocks of 3,120 tokens hold",
    ):
        assert words in printed


def test_an_unknown_version_is_computed_as_the_nearest_older_and_that_is_said(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(spec), "--gpu", "H200", "--engine-version", "0.27.1"]) == 0
    assert "0.27.1, computed as 0.26" in capsys.readouterr().out
    spec.write_text(manifest())
    assert main(["fit", str(spec), "--gpu", "H200"]) == 0
    assert f"not told; computed as {VERSIONS[-1]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ["not YAML"]),
        ("", ["one resource", "not 0"]),
        (manifest() + "---\n" + manifest(), ["one resource", "not 2"]),
        ("kind: Pod", ["not a FalconNVFP4Deployment"]),
        (manifest(engine={"maxNumSeqs": 0}), ["spec.engine.maxNumSeqs", "0"]),
        (manifest(engine={"kvCacheDtype": "int3"}), ["spec.engine.kvCacheDtype", '"int3"']),
        (manifest(engine=3), ["spec.engine", "3"]),
    ],
)
def test_a_wrong_resource_is_named(spec: Path, text: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(text)
    assert main(["fit", str(spec), "--gpu", "H200"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(word in printed.err for word in words)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b" " * (9 << 20)])
def test_what_is_no_text_is_named(spec: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_bytes(data)
    for command in (["fit", str(spec), "--gpu", "H200"], ["render", str(spec)]):
        assert main(command) == 1
        assert str(spec) in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(tmp_path / "none.yaml"), "--gpu", "H200"]) == 1
    assert "none.yaml cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "one of --gpu, --gpu-memory and --kv-available is needed"),
        (["--gpu", "H200", "--gpu-memory", "80"], "not allowed with"),
        (["--gpu-memory", "many"], "'many' is not a number of GiB"),
        (["--gpu-memory", "-1"], "'-1' is not a number of GiB"),
        (["--kv-available", "nan"], "'nan' is not a number of GiB"),
        (["--gpu", "H200", "--engine-version", "latest"], "'latest' is not a version of vLLM"),
    ],
)
def test_wrong_usage_exits_with_two(
    spec: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["fit", str(spec), *arguments])
    assert raised.value.code == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("h200", "H200"),
        ("NVIDIA-H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA-H100-NVL", "H100 NVL"),
        ("nvidia-a100-sxm4-40gb", "A100 40GB"),
        ("A100-PCIE-80GB", "A100 80GB"),
        ("Tesla-T4", "T4"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "RTX PRO 6000"),
        ("NVIDIA-GB10", "GB10"),
        ("gb200", "GB200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA-L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("A10G", "A10"),
    ],
)
def test_a_gpu_is_known_by_any_usual_name(name: str, product: str) -> None:
    assert gpus.visible_gib(name) == gpus.VISIBLE_GIB[product]


def test_an_unknown_gpu_is_answered_with_those_that_are_known(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(spec), "--gpu", "H20"]) == 1
    said = capsys.readouterr().err
    assert "no GPU 'H20' is known here" in said
    assert all(product in said for product in gpus.VISIBLE_GIB)
    for name in ("", "MI300X", "\N{SNOWMAN}" * 100):
        with pytest.raises(gpus.UnknownGPUError):
            gpus.visible_gib(name)


def test_the_page_shows_what_the_command_prints_and_knows_the_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    page = Path("docs/fit.md").read_text()
    _, _, rest = page.partition("```console\n$ falcon-operator ")
    command, _, shown = rest.partition("\n")
    assert main(command.split()) == 0
    assert shown.startswith(capsys.readouterr().out + "```")
    assert f"however you write it: {', '.join(gpus.VISIBLE_GIB)} |" in page
