"""An expansion appears whole or not at all, whatever happens while it is made."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from falcon_engine import expanded, safetensors, tensors
from falcon_weights import expand as command
from falcon_weights.plan import ExpandError

sys.path.insert(0, str(Path(__file__).parent))
import nvfp4_checkpoint
from nvfp4_checkpoint import LINEARS

# Ends, or tells to end, its own process at the k-th call of one function of the system.
CHILD = """
import os, sys
from falcon_weights import expand
function, k, number, *arguments = sys.argv[1:]
real, calls = getattr(os, function), 0
def counted(*given, **named):
    global calls
    calls += 1
    if calls == int(k):
        os.kill(os.getpid(), int(number))
    return real(*given, **named)
setattr(os, function, counted)
sys.exit(expand.main([*arguments, "--device", "cpu", "--workers", "2"]))
"""
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[1])}
FORMS = pytest.mark.parametrize("form", expanded.FORMATS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made: Path = nvfp4_checkpoint.write(tmp_path / "source")
    return made


def contents(directory: Path) -> dict[str, bytes]:
    """All files but the report, which has the seconds that it took."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != tensors.REPORT}


def loaded(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in tensors.shards(directory):
        with safe_open(file, "pt") as stream:
            found |= {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (it is no mapping)
    return found


def left_of(out: Path) -> list[str]:
    return sorted(p.name for p in out.parent.iterdir() if p.name.startswith(out.name) and p.name != f"{out.name}.lock")


@FORMS
@pytest.mark.parametrize("files", [1, 3])
def test_every_tensor_is_there_in_its_format(tmp_path: Path, form: str, files: int) -> None:
    source, out = nvfp4_checkpoint.write(tmp_path / "source", files=files), tmp_path / "out"
    report = command.expand(source, out, form, "cpu")
    packed, got = loaded(source), loaded(out)
    for layer in range(2):
        for name, shape in LINEARS.items():
            full = f"model.layers.{layer}.{name}"
            exact = nvfp4_checkpoint.decoded(
                *(packed.pop(f"{full}.{t}") for t in ("weight", "weight_scale", "weight_scale_2"))
            )
            weight = got.pop(f"{full}.weight")
            assert weight.shape == shape
            if form == "fp8" and not name.endswith("in_proj"):
                scale = got.pop(f"{full}.weight_scale")
                assert (weight.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, torch.float32, (shape[0], 1))
                error = (weight.double() * scale.double() - exact).norm() / exact.norm()
                assert error < 0.025, name
            else:
                assert torch.equal(weight, exact.float().bfloat16()), name
    assert packed.keys() == got.keys()
    for name, tensor in packed.items():
        assert tensor.dtype == got[name].dtype
        assert torch.equal(tensor, got[name]), name
    assert safetensors.read(out).weights_trouble is None
    beside = {"chat_template.jinja", "config.json", "tokenizer.json", tensors.MANIFEST, tensors.REPORT}
    index = {safetensors.INDEX} if files > 1 else set()
    assert {p.name for p in out.iterdir()} == beside | index | {p.name for p in tensors.shards(source)}
    kinds = {name.rpartition(".")[2] for name in LINEARS}
    assert report["loss"].keys() == kinds
    assert json.loads((out / tensors.REPORT).read_text()) == report


def test_the_config_names_what_vllm_is_to_do(tmp_path: Path, source: Path) -> None:
    for form in expanded.FORMATS:
        command.expand(source, tmp_path / form, form, "cpu")
    bf16, fp8 = (json.loads((tmp_path / form / "config.json").read_text()) for form in expanded.FORMATS)
    # The scales of the KV cache are read only where a quantization is named.
    assert bf16["quantization_config"]["ignore"] == ["re:.*"]
    assert bf16["quantization_config"]["config_groups"] == {}
    group = fp8["quantization_config"]["config_groups"]["group_0"]
    assert (group["weights"]["strategy"], group["input_activations"]["strategy"]) == ("channel", "token")
    ignored = fp8["quantization_config"]["ignore"]
    assert "lm_head" in ignored
    assert any(re.match(pattern.removeprefix("re:"), "model.3.mixer.in_proj") for pattern in ignored)
    for config in (bf16, fp8):
        assert config["quantization_config"]["kv_cache_scheme"]["num_bits"] == 8
        assert {k: v for k, v in config.items() if k != "quantization_config"} == {
            k: v for k, v in nvfp4_checkpoint.CONFIG.items() if k != "quantization_config"
        }


@pytest.mark.parametrize("kv", [None, 1.0])
def test_scales_of_the_kv_cache_that_say_nothing_need_no_quantization(tmp_path: Path, kv: float | None) -> None:
    source = nvfp4_checkpoint.write(tmp_path / "source", kv=kv)
    command.expand(source, tmp_path / "out", "bf16", "cpu")
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert not [name for name in loaded(tmp_path / "out") if name.endswith(("k_scale", "v_scale"))]


@pytest.mark.parametrize(
    ("function", "k"),
    [("pwrite", 1), ("pwrite", 17), ("pwrite", 40), ("rename", 1)],
    ids=["first write", "first shard", "second shard", "before it is there"],
)
def test_killed_and_run_again_it_has_the_same_bytes(tmp_path: Path, source: Path, function: str, k: int) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    command.expand(source, whole, "fp8", "cpu")
    child = [sys.executable, "-c", CHILD, function, str(k), str(int(signal.SIGKILL)), str(source), str(out)]
    ended = subprocess.run([*child, "--format", "fp8"], env=ENVIRON, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not out.exists()
    assert len(left_of(out)) == 1
    assert command.expand(source, out, "fp8", "cpu")
    assert left_of(out) == ["out"]
    assert contents(out) == contents(whole)


def test_a_stop_signal_leaves_nothing(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    child = [sys.executable, "-c", CHILD, "pwrite", "20", str(int(signal.SIGTERM)), str(source), str(out)]
    ended = subprocess.run([*child, "--format", "bf16"], env=ENVIRON, capture_output=True, text=True)
    assert ended.returncode == 143, ended.stderr
    assert "stopped as asked" in ended.stderr
    assert left_of(out) == []


def test_two_at_once_make_one(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        sys.executable,
        "-m",
        "falcon_weights.expand",
        str(source),
        str(out),
        "--format",
        "bf16",
        "--device",
        "cpu",
    ]
    both = [subprocess.Popen(arguments, env=ENVIRON, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("is there already" in text for text in said) == [False, True]
    assert left_of(out) == ["out"]
    assert expanded.judge(out, source, tensors.fingerprint(source), "bf16").whole


def test_what_is_there_whole_is_left_alone(tmp_path: Path, source: Path) -> None:
    command.expand(source, tmp_path / "out", "bf16", "cpu")
    before = (tmp_path / "out/config.json").stat()
    assert command.expand(source, tmp_path / "out", "bf16", "cpu") == {}
    assert (tmp_path / "out/config.json").stat() == before


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("how", ["a byte", "cut", "a file", "tokenizer", "no manifest", "another format"])
def test_a_damaged_one_is_made_again(tmp_path: Path, source: Path, how: str) -> None:
    out = tmp_path / "out"
    command.expand(source, out, "bf16", "cpu")
    whole = contents(out)
    file = tensors.shards(out)[1]
    if how == "a byte":
        flip(file, file.stat().st_size - 3)
    elif how == "cut":
        os.truncate(file, file.stat().st_size - 1)
    elif how == "a file":
        file.unlink()
    elif how == "tokenizer":
        (out / "tokenizer.json").write_text("{}")
    elif how == "no manifest":
        (out / tensors.MANIFEST).unlink()
    else:
        shutil.rmtree(out)
        command.expand(source, out, "fp8", "cpu")
    verdict = expanded.judge(out, source, tensors.fingerprint(source), "bf16")
    assert not verdict.whole
    assert verdict.why
    assert command.expand(source, out, "bf16", "cpu")
    assert contents(out) == whole


def test_a_source_of_another_time_is_read_and_one_of_other_weights_expanded_again(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    command.expand(source, out, "bf16", "cpu")
    file = tensors.shards(source)[0]
    os.utime(file, ns=(1, 1))
    assert command.expand(source, out, "bf16", "cpu") == {}
    assert json.loads((out / tensors.MANIFEST).read_text())["source"]["stamps"][file.name][1] == 1
    whole = contents(out)
    weight = next(t for t in tensors.header(file) if t.dtype == "U8")
    flip(file, weight.begin)
    assert command.expand(source, out, "bf16", "cpu")
    assert contents(out) != whole


def test_a_source_that_changes_meanwhile_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, file = os.fsync, tensors.shards(source)[0]

    def touch(descriptor: int) -> None:
        os.utime(file, ns=(1, 1))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", touch)
    with pytest.raises(ExpandError, match="was written to meanwhile"):
        command.expand(source, tmp_path / "out", "bf16", "cpu")
    assert left_of(tmp_path / "out") == []


def test_a_disk_that_gives_back_something_else_is_noticed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def damage(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith("00001-of-00002.safetensors"):
            flip(Path(name), os.path.getsize(name) - 1)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(ExpandError, match="reads otherwise"):
        command.expand(source, tmp_path / "out", "bf16", "cpu")
    assert left_of(tmp_path / "out") == []


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_while_it_is_written(tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with no_file_longer_than(100_000):
        code = command.main([str(source), str(out), "--format", "bf16", "--device", "cpu"])
    assert code == command.NO_ROOM_EXIT
    assert "no room" in capfd.readouterr().err
    assert left_of(out) == []


def test_no_room_before_it_starts(tmp_path: Path, source: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mount = f"mount -t tmpfs -o size=1m none {volume} && mkdir {volume}/old && echo > {volume}/old/{tensors.MANIFEST}"
    can = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if can.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {can.stderr.strip()}")
    command_line = f"{sys.executable} -m falcon_weights.expand {source} {volume}/out --format bf16 --device cpu"
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && {command_line}"], env=ENVIRON, capture_output=True, text=True
    )
    assert ended.returncode == command.NO_ROOM_EXIT
    assert "GiB free" in ended.stderr
    assert "remove old there" in ended.stderr


def test_no_permission(tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    nobody = 65534
    for path in (tmp_path, *tmp_path.parents[:2], *tmp_path.rglob("*")):
        if path != closed:
            path.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(nobody)
    try:
        code = command.main([str(source), str(closed / "out"), "--format", "bf16", "--device", "cpu"])
    finally:
        if root:
            os.seteuid(0)
    assert code == command.NO_PERMISSION_EXIT
    assert re.search(r"User \d+ may not use .*closed", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("no directory", "no config.json"),
        ("cut", "has a cut weight file"),
        ("bf16", "nothing to expand"),
        ("no scales", "weight_scale_2, which should be F32, is missing"),
        ("nan", "decodes to numbers that are none"),
    ],
)
def test_bad_sources_are_told_in_a_sentence(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str], spoil: str, said: str
) -> None:
    file = tensors.shards(source)[0]
    if spoil == "no directory":
        source = tmp_path / "nowhere"
    elif spoil == "cut":
        os.truncate(file, file.stat().st_size - 1)
    elif spoil in ("bf16", "no scales"):
        for shard in tensors.shards(source):
            data = shard.read_bytes()
            # Names and types of the same length leave the header as long as it was.
            shard.write_bytes(
                data.replace(b'"U8"', b'"I8"') if spoil == "bf16" else data.replace(b"scale_2", b"scale_3")
            )
    else:
        for shard in tensors.shards(source):
            for t in tensors.header(shard):
                if t.dtype == "F8_E4M3":
                    with shard.open("r+b") as stream:
                        stream.seek(t.begin)
                        stream.write(b"\x7f")
    assert command.main([str(source), str(tmp_path / "out"), "--format", "fp8", "--device", "cpu"]) == 1
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert left_of(tmp_path / "out") == []
