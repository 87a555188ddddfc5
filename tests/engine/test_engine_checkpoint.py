"""Finding a checkpoint, and saying no to one that would fail later."""

import json
import os
from pathlib import Path

import pytest
from tests.engine.launching import safetensors, write_checkpoint

from falcon_engine import checkpoint
from falcon_engine import safetensors as headers
from falcon_engine.checkpoint import Checkpoint, find
from falcon_engine.intent import Source
from falcon_engine.signatures import Diagnosis, Refusal


def _refused(source: Source, environ: dict[str, str] | None = None, roots: tuple[str, ...] = ()) -> Diagnosis:
    with pytest.raises(Refusal) as refused:
        find(source, environ or {}, roots)
    assert refused.value.diagnosis.exit_code == 2
    return refused.value.diagnosis


def test_an_explicit_path(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m", quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4"})
    assert find(Source("baked", str(model)), {}) == Checkpoint(str(model), nvfp4=True)


def test_the_quantization_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m")
    assert not find(Source("baked", str(model)), {}).nvfp4
    (model / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "W4A16_NVFP4"}}')
    assert find(Source("baked", str(model)), {}).nvfp4


def test_an_images_variable_comes_first(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "root" / "a")
    mine = write_checkpoint(tmp_path / "mine")
    found = find(Source(), {"VLLM_MODEL": str(mine), "MODEL": "owner/name"}, (str(tmp_path / "root"),))
    assert found.path == str(mine)


def test_the_models_architecture_is_preferred(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", architecture="LlamaForCausalLM")
    mine = write_checkpoint(tmp_path / "b" / "c")
    found = find(Source(), {}, (str(tmp_path),))
    assert found.path == str(mine)
    assert found.warnings == (f"other checkpoints are there too: {tmp_path / 'a'}",)


def test_a_hugging_face_cache(tmp_path: Path) -> None:
    blobs = write_checkpoint(tmp_path / "hub" / "models--o--n" / "blobs")
    snapshot = tmp_path / "hub" / "models--o--n" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(blobs / name)
    assert find(Source(), {"HF_HOME": str(tmp_path)}, ()).path == str(snapshot)


def test_another_architecture_is_a_warning(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m", architecture="LlamaForCausalLM")
    (warning,) = find(Source("baked", str(model)), {}).warnings
    assert "LlamaForCausalLM" in warning


def test_none_found_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = _refused(Source(), {}, (str(tmp_path / "empty"), "/no/such"))
    assert said.reason == "CheckpointNotFound"
    assert f"looked in {tmp_path / 'empty'}; /no/such (absent)." in said.message
    assert "spec.model.source.baked.path" in said.hint


def test_the_search_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "a" / "b" / "c" / "d" / "e")
    assert _refused(Source(), {}, (str(tmp_path),)).reason == "CheckpointNotFound"
    write_checkpoint(tmp_path / "z")
    assert find(Source(), {}, (str(tmp_path),)).path == str(tmp_path / "z")
    monkeypatch.setattr(checkpoint, "MAX_SECONDS", -1.0)
    assert _refused(Source(), {}, (str(tmp_path),)).reason == "CheckpointNotFound"


def test_a_volume_may_hold_it_further_down(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "v" / "deep" / "er")
    assert find(Source("volume", str(tmp_path / "v")), {}).path == str(model)


def test_a_baked_path_is_taken_at_its_word(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "v" / "deep")
    said = _refused(Source("baked", str(tmp_path / "v")))
    assert said.message == f"There is no config.json in {tmp_path / 'v'}."
    assert said.hint == f"{model} looks like one: name that in spec.model.source.baked.path."


def test_no_weights(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path / "m") / "model.safetensors").unlink()
    said = _refused(Source("baked", str(tmp_path / "m")))
    assert said.reason == "CheckpointUnusable"
    assert "holds no *.safetensors file" in said.message


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path / "m") / "config.json").write_text("{")
    assert _refused(Source("baked", str(tmp_path / "m"))).reason == "CheckpointUnusable"


def _sharded(directory: Path, names: tuple[str, ...]) -> Path:
    model = write_checkpoint(directory)
    (model / "model.safetensors").unlink()
    (model / headers.INDEX).write_text(json.dumps({"weight_map": {f"w{n}": n for n in names}}))
    for name in names:
        (model / name).write_bytes(safetensors())
    return model


def test_shards(tmp_path: Path) -> None:
    model = _sharded(tmp_path / "m", ("a.safetensors", "b.safetensors", "c.safetensors"))
    assert find(Source("baked", str(model)), {}).path == str(model)
    (model / "b.safetensors").unlink()
    said = _refused(Source("baked", str(model)))
    assert f"lacks 1 of the 3 files that {headers.INDEX} names, b.safetensors first" in said.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (safetensors()[:-1], "cut weight file: model.safetensors has"),
        (safetensors() + b"x", "cut weight file"),
        (b"", "does not begin with a safetensors header"),
        (b"\xff" * 200, "does not begin with a safetensors header"),
        ((8).to_bytes(8, "little") + b"not json", "unreadable safetensors header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_damaged_weights(tmp_path: Path, content: bytes, words: str) -> None:
    (write_checkpoint(tmp_path / "m") / "model.safetensors").write_bytes(content)
    said = _refused(Source("baked", str(tmp_path / "m")))
    assert said.reason == "CheckpointUnusable"
    assert words in said.message


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_this_user_may_not_read(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_checkpoint(tmp_path / "m")
    (model / file).chmod(0)
    if os.getuid() == 0:  # root reads everything: let the file refuse as it would refuse another user
        plain = Path.open

        def guarded(self: Path, *args: object, **kwargs: object) -> object:
            if self.exists() and not self.stat().st_mode & 0o444:
                raise PermissionError(13, "Permission denied", str(self))
            return plain(self, *args, **kwargs)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", guarded)
    said = _refused(Source("baked", str(model)))
    assert said.reason == "CheckpointUnusable"
    assert file in said.message
    assert "spec.security.runAsUser" in said.hint
