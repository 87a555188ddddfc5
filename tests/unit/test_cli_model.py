"""`falcon-operator check-model` and `repair-model`: what they print, and their exit statuses."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.engine import checkpoints
from tests.engine.checkpoints import beside, exported, tensors
from tests.unit.charts import ROOT

from falcon_operator.cli import main

CARD = {"quant_method": "nvfp4", "format": "nvfp4", "quant_algo": "NVFP4", "ignore": ["lm_head"]}


@pytest.fixture
def right(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "right", tensors(), exported(), beside())


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "card", tensors(), CARD)


@pytest.fixture
def hopeless(tmp_path: Path) -> Path:
    content = tensors()
    del content["model.layers.1.mamba.out_proj.weight_scale"]
    return checkpoints.write(tmp_path / "hopeless", content, exported())


def test_a_checkpoint_that_loads(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", str(right)]) == 0
    assert capsys.readouterr() == ("vLLM 0.33.0 loads it.\n", "")


def test_a_finding_is_a_line(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", str(card), "--engine-version", "0.26.0"]) == 1
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "refused  config.json: It has quant_method nvfp4, and the weights are modelopt's: vLLM 0.26.0 refuses that. "
        "falcon-operator repair-model writes it anew from what the weights are."
    )
    assert verdict == "vLLM 0.26.0 refuses it, and repair-model makes it load."


def test_a_version_that_is_not_known_is_the_nearest(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", str(card), "--engine-version", "0.99"]) == 1
    assert "vLLM 0.33.0 (the nearest that is known) refuses it" in capsys.readouterr().out


def test_json(card: Path, right: Path, hopeless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for directory, status, verdict in ((right, 0, "loads"), (card, 1, "repairable"), (hopeless, 3, "unusable")):
        assert main(["check-model", str(directory), "--json"]) == status
        found = json.loads(capsys.readouterr().out)
        assert (found["verdict"], found["directory"]) == (verdict, str(directory))
        assert bool(found["findings"]) is (status != 0)
        for finding in found["findings"]:
            assert set(finding) == {"code", "file", "sentence", "fix", "repairable", "severity", "reason"}


def test_the_loader_and_the_device_count(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", str(right), "--engine-version", "0.18"]) == 3
    assert "Use vLLM 0.24 or newer, or the loader that this operator brings." in capsys.readouterr().out
    assert main(["check-model", str(right), "--engine-version", "0.18", "--loader", "plugin"]) == 0
    assert main(["check-model", str(right), "--engine-version", "0.22", "--device", "cpu"]) == 0


def test_repair(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["repair-model", str(card), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: new config.json; the rest are links to {card}.\n"
    assert main(["repair-model", str(card), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: new config.json; the rest are links to {card}, as it was.\n"
    assert main(["check-model", str(out)]) == 0


def test_nothing_to_repair(right: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["repair-model", str(right), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: nothing to repair; the rest are links to {right}.\n"
    assert (out / "config.json").read_bytes() == (right / "config.json").read_bytes()


def test_what_cannot_be_repaired(hopeless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair-model", str(hopeless), "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err == (
        "falcon-operator: New metadata does not help. *.safetensors: model.layers.1.mamba.out_proj.weight_scale is in "
        "none of the files, and its weight is FP4. Quantize the BF16 model again with falcon-quantize.\n"
    )
    assert not (tmp_path / "out").exists()


def test_repair_in_place_is_refused(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair-model", str(card), "--out", str(card)]) == 1
    assert "is in the checkpoint itself" in capsys.readouterr().err


def test_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["check-model"], ["repair-model", "--out", str(tmp_path / "out")]):
        assert main([*command, str(tmp_path / "no")]) == 3
        printed = capsys.readouterr()
        assert printed == ("", f"falcon-operator: {tmp_path / 'no'} is no directory: name that of a checkpoint.\n")
    (tmp_path / "empty").mkdir()
    assert main(["check-model", str(tmp_path / "empty")]) == 3
    assert "The checkpoint holds no config.json." in capsys.readouterr().out


def test_the_statuses_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check-model", "repair-model"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "Exit status: 0 where" in " ".join(capsys.readouterr().out.split())


def test_the_page_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Falcon-H1R-7B-NVFP4"
    old = {**CARD, "group_size": 16, "ignore": ["lm_head", "model.embed_tokens"]}
    checkpoints.write(tmp_path / name, tensors(), old, beside("NVFP4", kv_cache_quant_algo="INT8"), shards=2)
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs/checkpoints.md").read_text(), re.S | re.M)
    shown = re.findall(r"^\$ falcon-operator (.*)\n((?:[^$].*\n)*)", block, re.M)
    assert [line.split()[0] for line, _ in shown] == ["check-model", "repair-model", "check-model"]
    for line, printed in shown:
        main(shlex.split(line))
        assert capsys.readouterr().out.replace(str(tmp_path), "/data") == printed
