"""What was measured to be faster is set for the engine, on the GPUs that it was measured on, never over the user's."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.engine.launching import Container, intent
from tests.engine.test_engine_launch_gpus import LINE, nvidia_smi

from falcon_engine import flags, kernels, profiles, tuned
from falcon_engine.gpus import Gpu

H200 = Gpu("NVIDIA H200", 143771, "9.0", "580.159.04")
FILE = "headdim=128,dstate=256,device_name=NVIDIA_H200,cache_dtype=float16.json"
SHIPPED = Path(kernels.__file__).parent


def settings(tmp_path: Path, version: str = "0.26.0", gpu: Gpu = H200, **more: Any) -> tuned.Settings:
    environ = {"HOME": str(tmp_path), **more.pop("environ", {})}
    profile, _ = profiles.select(version)
    return tuned.settings(intent(**more), profile, version, (gpu,), environ)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("headdim*.json")), ids=lambda path: path.name)
def test_shipped_files_are_what_vllm_reads(path: Path) -> None:
    parts = re.fullmatch(r"headdim=128,dstate=256,device_name=([\w-]+),cache_dtype=(float16|float32)\.json", path.name)
    assert parts
    content = json.loads(path.read_text())
    assert isinstance(content.pop("triton_version"), str)
    assert content
    for batch, launch in content.items():
        assert int(batch) % 24 == 0
        assert set(launch) == {"BLOCK_SIZE_M", "num_warps"}
        assert all(value in (1, 2, 4, 8, 16, 32, 64, 128) for value in launch.values())


def test_the_shipped_file_is_laid_out_for_the_gpu_it_was_made_on(tmp_path: Path) -> None:
    folder = Path(settings(tmp_path).environ[tuned.FOLDER_VARIABLE])
    assert folder.is_relative_to(tmp_path)
    assert (folder / FILE).read_bytes() == (SHIPPED / FILE).read_bytes()
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_a_file_of_the_users_own_wins(tmp_path: Path) -> None:
    own = tmp_path / "cache" / "tuned"
    own.mkdir(parents=True)
    (own / FILE).write_text("{}")
    found = settings(tmp_path, environ={"FALCON_CACHE_DIR": str(tmp_path / "cache")})
    assert found.environ[tuned.FOLDER_VARIABLE] == str(own)


@pytest.mark.parametrize(
    ("version", "gpu", "more"),
    [
        ("0.20.2", H200, {}),
        ("0.26.0", Gpu("NVIDIA B300", capability="10.3"), {}),
        ("0.26.0", H200, {"extra_args": ("--mamba-ssm-cache-dtype", "float32")}),
        ("0.26.0", H200, {"extra_args": ("--mamba_cache_dtype=float32",)}),
        ("0.26.0", H200, {"device": "cpu"}),
        ("0.26.0", H200, {"environ": {tuned.FOLDER_VARIABLE: "/mine"}}),
    ],
    ids=["old", "not-measured", "wider", "wider-too", "cpu", "the-users"],
)
def test_nothing_is_set_where_it_does_not_belong(tmp_path: Path, version: str, gpu: Gpu, more: dict[str, Any]) -> None:
    assert tuned.FOLDER_VARIABLE not in settings(tmp_path, version, gpu, **more).environ


def test_without_a_place_to_write_the_engine_starts_untuned(tmp_path: Path) -> None:
    (tmp_path / ".falcon").write_text("in the way")
    found = settings(tmp_path)
    assert tuned.FOLDER_VARIABLE not in found.environ
    assert any("stays untuned" in note for note in found.notes)


def test_the_sampler_is_not_built_but_used_where_it_is(tmp_path: Path) -> None:
    assert settings(tmp_path).environ[tuned.SAMPLER_VARIABLE] == "0"
    assert tuned.SAMPLER_VARIABLE not in settings(tmp_path, "0.20.2").environ
    assert tuned.SAMPLER_VARIABLE not in settings(tmp_path, environ={tuned.SAMPLER_VARIABLE: "1"}).environ
    built = tmp_path / ".cache" / "flashinfer" / "0.6.14" / "90a" / "cached_ops" / "sampling"
    built.mkdir(parents=True)
    (built / "sampling.so").touch()
    assert tuned.SAMPLER_VARIABLE not in settings(tmp_path).environ


WINNERS = {
    "families": [
        {
            "capabilities": ["9.0"],
            "versions": ["0.26"],
            "winners": [
                {"flag": "--stream-interval", "value": "4", "source": "a test"},
                {"flag": "--not-a-flag", "value": "1", "source": "a test"},
                {"variable": "SOME_VARIABLE", "value": "x", "source": "a test"},
            ],
        }
    ]
}


@pytest.fixture
def winners(monkeypatch: pytest.MonkeyPatch) -> None:
    read = tuned.data

    def data(name: str) -> bytes | None:
        return json.dumps(WINNERS).encode() if name == "winners.json" else read(name)

    monkeypatch.setattr(tuned, "data", data)


@pytest.mark.usefixtures("winners")
def test_winners_are_defaults_of_their_family_alone(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.arguments == ("--stream-interval", "4")
    assert found.environ["SOME_VARIABLE"] == "x"
    assert settings(tmp_path, gpu=Gpu("NVIDIA L40S", capability="8.9")).arguments == ()
    assert settings(tmp_path, "0.26.1").arguments == ("--stream-interval", "4")
    for version in ("0.25.0", "0.32.0", "0.3.0"):
        assert settings(tmp_path, version).arguments == ()
    profile, _ = profiles.select("0.26.0")
    two = tuned.settings(intent(tensor_parallel_size=2), profile, "0.26.0", (H200, H200), {"HOME": str(tmp_path)})
    assert two.arguments == ()
    assert tuned.FOLDER_VARIABLE in two.environ


@pytest.mark.usefixtures("winners")
def test_the_users_word_wins(tmp_path: Path) -> None:
    found = settings(tmp_path, extra_args=("--stream_interval=1",), environ={"SOME_VARIABLE": "mine"})
    assert found.arguments == ()
    assert "SOME_VARIABLE" not in found.environ


def sizes(tmp_path: Path, *extra_args: str, **asked: Any) -> list[int]:
    """The batches that are to be captured as CUDA graphs; none where the engine decides."""
    arguments = settings(tmp_path, extra_args=extra_args, **asked).arguments
    if "--cudagraph-capture-sizes" not in arguments:
        return []
    following = arguments[arguments.index("--cudagraph-capture-sizes") + 1 :]
    return [int(text) for text in itertools.takewhile(str.isdigit, following)]


def test_fewer_graphs_are_captured_and_no_larger_ones_than_before(tmp_path: Path) -> None:
    usual = sizes(tmp_path)
    assert len(usual) == 31
    assert usual[-1] == 512
    assert sizes(tmp_path, max_num_seqs=1024) == usual
    assert sizes(tmp_path, max_num_seqs=100) == [size for size in usual if size <= 200]
    assert sizes(tmp_path, "--max-num-seqs", "4") == [1, 2, 4, 8]
    own = [
        "--cudagraph-capture-sizes=1",
        "--max-cudagraph-capture-size=8",
        "--compilation-config={}",
        "--enforce-eager",
    ]
    for argument in (*own, "-cc.cudagraph_capture_sizes=[1]"):
        assert sizes(tmp_path, argument) == []
    assert sizes(tmp_path, cuda_graph_mode="NONE") == []


@pytest.mark.parametrize(
    ("mode", "own", "found"),
    [
        (0o755, {}, {"VLLM_USE_MEGA_AOT_ARTIFACT": "1", "TRITON_PTXAS_PATH": "{torch}/bin/ptxas"}),
        (0o755, {"TRITON_PTXAS_PATH": "/mine"}, {"VLLM_USE_MEGA_AOT_ARTIFACT": "1"}),
        (0o755, {"VLLM_USE_MEGA_AOT_ARTIFACT": "0"}, {}),
        (0o644, {}, {}),
    ],
    ids=["as Inductor finds it", "the user's assembler", "not with one artifact", "nothing to assemble with"],
)
def test_what_is_compiled_is_one_artifact_where_kernels_keep_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, own: dict[str, str], found: dict[str, str]
) -> None:
    torch = tmp_path / "site" / "torch"
    (torch / "bin").mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "bin" / "ptxas").touch(mode)
    monkeypatch.syspath_prepend(torch.parent)
    told = settings(tmp_path, environ=own).environ
    named = ("VLLM_USE_MEGA_AOT_ARTIFACT", "TRITON_PTXAS_PATH")
    assert {name: told[name] for name in named if name in told} == {
        name: value.format(torch=torch) for name, value in found.items()
    }


def test_without_torch_beside_the_launcher_it_stays_in_pieces(tmp_path: Path) -> None:
    assert not {"VLLM_USE_MEGA_AOT_ARTIFACT", "TRITON_PTXAS_PATH"} & settings(tmp_path).environ.keys()


def test_the_winners_that_are_shipped_are_flags_of_some_version_and_have_a_source() -> None:
    shipped = json.loads((SHIPPED / "winners.json").read_text())
    known = {name for version in profiles.VERSIONS for name in profiles.load(version).flags}
    for family in shipped["families"]:
        assert all(re.fullmatch(r"\d+\.\d", capability) for capability in family["capabilities"])
        assert all(profiles.parse(version) for version in family["versions"])
        for winner in family["winners"]:
            assert winner["source"]
            assert ("variable" in winner) != ("flag" in winner)
            assert winner.get("flag", "--port") in known
            assert all(name.startswith("-") for name in winner.get("unless", ()))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), None),
        (("--max-num-seqs", "3"), "3"),
        (("--max_num_seqs=3", "--max-num-seqs", "4"), "4"),
        (("--other", "--max-num-seqs"), ""),
    ],
)
def test_the_value_of_an_extra_argument(arguments: tuple[str, ...], found: str | None) -> None:
    assert flags.value(intent(extra_args=arguments), "--max-num-seqs") == found


def test_the_launcher_sets_it_for_the_engine(tmp_path: Path) -> None:
    container = Container(tmp_path, vllm="0.26.0", profile="0.26")
    nvidia_smi(container, f'echo "{LINE}"')
    container.environment["HOME"] = str(tmp_path / "home")
    with container.running(device="cuda", canary=False) as process:
        container.wait_until_served()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (engine,) = (pid for pid in children if b"vllm.entrypoints" in Path(f"/proc/{pid}/cmdline").read_bytes())
        environ = Path(f"/proc/{engine}/environ").read_bytes().decode().split("\0")
    assert f"{tuned.FOLDER_VARIABLE}={tmp_path / 'home/.falcon/tuned'}" in environ
    assert f"{tuned.SAMPLER_VARIABLE}=0" in environ
    assert "the state update is tuned for NVIDIA H200" in container.log
