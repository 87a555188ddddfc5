"""Which vLLM plugins an engine gets, whose code loads the model, and how plugins are found in the archive."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engine import checkpoints
from tests.engine.launching import Container, intent

from falcon_engine import loader, plugins, profiles
from falcon_engine.archive import FILE_NAME, build
from falcon_engine.locate import Engine
from falcon_engine.signatures import Refusal
from falcon_vllm import entry

BROKEN = ("0.13", "0.18", "0.20", "0.22")
SOUND = ("0.24", "0.25", "0.26", "0.30", "0.32", "0.33")


def prepare(version: str, nvfp4: bool | None, device: str, package: str | None, **present: str) -> tuple[object, str]:
    """What the launcher sets, and what it says."""
    said: list[str] = []
    engine = Engine(("vllm",), version, package)
    given = plugins.prepare(intent(device=device), profiles.load(version), engine, nvfp4, present, said.append)
    return given, "\n".join(said)


def package(folder: Path, content: bytes) -> str:
    """vLLM's folder with this falcon_h1.py."""
    file = folder / loader.MODEL
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return str(folder)


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vLLM whose falcon_h1.py every profile knows: the sources themselves are not in this repository."""
    content = b"class FalconH1ForCausalLM: ..."
    digest = hashlib.sha256(content).hexdigest()
    for version in profiles.VERSIONS:
        known = {**profiles.load(version).fact("loader")["stock"], "9.9.9": digest}
        monkeypatch.setitem(profiles.load(version).facts["loader"]["value"], "stock", known)
    return package(tmp_path / "vllm", content)


def test_every_profile_is_either_sound_or_broken() -> None:
    assert {*BROKEN, *SOUND} == set(profiles.VERSIONS)


@pytest.mark.parametrize("version", SOUND)
def test_stock_vllm_loads_it_and_is_left_alone(version: str, stock: str) -> None:
    assert loader.obstacles(profiles.load(version)) == ()
    assert loader.state(profiles.load(version), stock) == "stock"
    assert prepare(version, True, "cuda", stock) == ({}, "")


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (
            "0.13",
            (
                "does not tell the MLP and the KV cache's scales how they are quantized",
                "does not know quant_algo W4A16_NVFP4",
                "multiplies by scales of activations, which the checkpoint does not have",
                "leaves four of the five scales of Mamba's in_proj as memory was, and takes the largest",
                "has Marlin take multiples of 64 columns alone, and Mamba's in_proj has 6680",
            ),
        ),
        ("0.22", ("has Marlin take multiples of 64 columns alone, and Mamba's in_proj has 6680",)),
    ],
)
def test_why_stock_vllm_does_not_load_it(version: str, why: tuple[str, ...]) -> None:
    assert loader.obstacles(profiles.load(version)) == why


@pytest.mark.parametrize("version", BROKEN)
@pytest.mark.parametrize("nvfp4", [True, None])
def test_the_loader_is_given_where_stock_vllm_does_not_load_it(version: str, nvfp4: bool | None, stock: str) -> None:
    given, said = prepare(version, nvfp4, "cuda", stock)
    assert given == {"FALCON_PLUGINS": "falcon_h1_loader", "PYTHONPATH": str(Path(plugins.__file__).parents[1])}
    assert said.startswith(f"this project's plugin loads the model, since vLLM {version}")


@pytest.mark.parametrize("version", BROKEN)
def test_a_patched_image_is_left_alone_and_that_is_said(version: str, stock: str, tmp_path: Path) -> None:
    patched = package(tmp_path / "patched", b"class FalconH1ForCausalLM: unpacks_nvfp4 = True")
    assert loader.state(profiles.load(version), patched) == "patched"
    assert prepare(version, True, "cuda", patched) == (
        {},
        f"{patched}/{loader.MODEL} is patched by the image: left alone",
    )
    assert prepare(version, False, "cuda", patched) == ({}, "")


@pytest.mark.parametrize("version", BROKEN)
def test_nothing_is_given_where_the_model_cannot_be_read(version: str, tmp_path: Path) -> None:
    assert loader.state(profiles.load(version), None) == "stock"
    assert loader.state(profiles.load(version), str(tmp_path)) == "stock"


@pytest.mark.parametrize("version", profiles.VERSIONS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_checkpoint_that_is_no_nvfp4_gets_nothing(version: str, device: str, stock: str) -> None:
    assert prepare(version, False, device, stock) == ({}, "")


@pytest.mark.parametrize("version", ["0.30", "0.32", "0.33"])
@pytest.mark.parametrize("nvfp4", [True, None])
def test_a_cpu_gets_the_plugin_that_multiplies_nvfp4(version: str, nvfp4: bool | None) -> None:
    given, said = prepare(version, nvfp4, "cpu", None, PYTHONPATH="/opt/site")
    ours = Path(plugins.__file__).parents[1]
    assert given == {"FALCON_PLUGINS": "falcon_nvfp4_on_cpu", "PYTHONPATH": f"{ours}:/opt/site"}
    assert "become BF16 in memory" in said


def test_nvfp4_on_the_cpu_of_an_older_vllm_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        prepare("0.26", True, "cpu", None)
    assert refused.value.diagnosis.reason == "CheckpointUnusable"
    assert "vLLM 0.26" in refused.value.diagnosis.message
    assert prepare("0.26", None, "cpu", None) == ({}, "")


@pytest.mark.parametrize(
    ("present", "given"),
    [
        ({}, None),
        ({"VLLM_PLUGINS": ""}, "falcon_nvfp4_on_cpu"),
        ({"VLLM_PLUGINS": "theirs"}, "theirs,falcon_nvfp4_on_cpu"),
    ],
)
def test_a_list_of_allowed_plugins_is_added_to_and_none_is_begun(present: dict[str, str], given: str | None) -> None:
    assert plugins.variables((plugins.NVFP4_ON_CPU,), present, "/a.pyz").get("VLLM_PLUGINS") == given


def test_the_names_are_those_of_functions_and_the_variable_is_the_one_they_read() -> None:
    assert entry.VARIABLE == plugins.VARIABLE
    for name in plugins.NAMES:
        assert callable(getattr(entry, name))


def test_the_launcher_starts_the_engine_with_them(tmp_path: Path) -> None:
    container = Container(tmp_path)
    checkpoints.write(container.model, checkpoints.tensors(), checkpoints.exported())
    with container.running():
        container.wait_until_served()
        environ = Path(f"/proc/{container.core_pid()}/environ").read_text().split("\0")
    assert "FALCON_PLUGINS=falcon_nvfp4_on_cpu" in environ
    assert f"PYTHONPATH={container.launcher}:{container.environment['PYTHONPATH']}" in environ
    assert "--kv-cache-dtype bfloat16" in " ".join(container.engine_argv())
    assert "this project's plugin on CPU" in container.log


# As vLLM does it: the entry points of the group, each loaded, then called.
LOAD = """
import importlib.metadata, multiprocessing, sys
def load(_=None):
    found = importlib.metadata.entry_points(group="vllm.general_plugins")
    ours = {p.name: p.load() for p in found if p.name.startswith("falcon_")}
    for function in ours.values():
        function()
    return sorted(ours), sorted(m for m in sys.modules if m.startswith(("falcon_engine", "torch", "vllm")))
if __name__ == "__main__":
    print(load())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(load, [None]))
"""


def pythons() -> list[str]:
    """This interpreter, and those of the other versions that serving images have, where they are here."""
    other = [shutil.which(f"python3.{minor}") for minor in (10, 11, 12, 13)]
    works = [p for p in other if p and subprocess.run([p, "-c", ""], capture_output=True, check=False).returncode == 0]
    return [sys.executable, *works]


@pytest.mark.parametrize("python", pythons())
def test_python_finds_them_in_the_archive_also_in_processes_that_are_spawned(tmp_path: Path, python: str) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(build())
    script = tmp_path / "loads.py"
    script.write_text(LOAD)
    variables = plugins.variables((), {}, str(file))
    done = subprocess.run(
        [python, str(script)],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = str((sorted(plugins.NAMES), []))
    assert done.stdout.splitlines() == [expected, expected], done.stderr
