"""The tool that reads a profile's flags from vLLM's source, on a small source of the same make."""

import json
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falcon_engine.profiles import load, read
from falcon_engine.profiles.schema import ProfileError

TOOL = Path(__file__).parents[2] / "tools" / "extract_flags.py"

SOURCE = {
    "config/__init__.py": "from vllm.config.cache import CacheConfig\nfrom vllm.config.vllm import VllmConfig\n",
    "config/cache.py": """
from typing import Literal, Optional
from .compression import Compression
DType = Literal["auto", "fp8"]
More = Literal[DType, "nvfp4"]

@config
class CacheConfig:
    dtype: DType = "auto"
    more: Optional[More] = None
    open_ended: DType | str = "auto"
    caching: bool = True
    utilization: float = Field(default=0.92, gt=0)
    sizes: list[int] | None = None
    token: bool | str | None = None
    compression: Compression | None = None
    overrides: dict[str, int] | None = None
    either: dict | str = "auto"
    traces: list[Literal["a", "b"]] | None = None
    width: Literal[16, 32] = 16
""",
    "config/compression.py": "@config\nclass Compression:\n    level: int = 0\n",
    "config/vllm.py": """
@config
class Compilation:
    level: int = 0

@config
class VllmConfig:
    compilation: Compilation = field(default_factory=Compilation)
""",
    "engine/arg_utils.py": """
from vllm.config import CacheConfig, VllmConfig

def add_cli_args(parser):
    cache_kwargs = get_kwargs(CacheConfig)
    group.add_argument("--dtype", **cache_kwargs["dtype"])
    group.add_argument("--more", **cache_kwargs["more"])
    group.add_argument("--open-ended", **cache_kwargs["open_ended"])
    group.add_argument("--enable-caching", **{**cache_kwargs["caching"], "default": None})
    group.add_argument("--utilization", "--share", dest="utilization", **cache_kwargs["utilization"])
    group.add_argument("--sizes", "-s", **cache_kwargs["sizes"])
    group.add_argument("--token", **cache_kwargs["token"])
    group.add_argument("--compression", **cache_kwargs["compression"])
    group.add_argument("--overrides", **cache_kwargs["overrides"])
    group.add_argument("--either", **cache_kwargs["either"])
    group.add_argument("--traces", **cache_kwargs["traces"])
    group.add_argument("--width", **cache_kwargs["width"])
    whole = get_kwargs(VllmConfig)["compilation"]
    group.add_argument("--compilation", "-cc", **whole)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--backend", choices=["a", "b"], default=None)
    parser.add_argument("--fail", action=argparse.BooleanOptionalAction, default=False)
""",
    "entrypoints/openai/cli_args.py": """
class BaseArgs:
    chat_template: str | None = None
    reasoning_parser: str = ""

class FrontendArgs(BaseArgs):
    port: int = 8000
    origins: list[str] = field(default_factory=list)

    def customize(kwargs):
        del kwargs["origins"]["nargs"]
        kwargs["origins"]["type"] = json.loads

def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--config")
""",
    "reasoning/__init__.py": '_REASONING_PARSERS_TO_REGISTER = {"qwen": ("file", "Class"), "deep": ("f", "C")}\n',
    "utils/argparse_utils.py": "",
}

WANTED = {
    "--backend": {"kind": "value", "choices": ["a", "b"], "default": None},
    "--chat-template": {"kind": "value", "default": None},
    "--compilation": {"kind": "value", "type": "json", "also": ["-cc"]},
    "--compression": {"kind": "value", "type": "json", "default": None},
    "--config": {"kind": "value"},
    "--depth": {"kind": "value", "type": "int"},
    "--dtype": {"kind": "value", "choices": ["auto", "fp8"], "default": "auto"},
    "--either": {"kind": "value", "default": "auto"},
    "--enable-caching": {"kind": "switch", "default": None},
    "--fail": {"kind": "switch", "default": False},
    "--help": {"kind": "optional", "also": ["-h"]},
    "--more": {"kind": "value", "choices": ["auto", "fp8", "nvfp4"], "default": None},
    "--open-ended": {"kind": "value", "default": "auto"},
    "--origins": {"kind": "value", "type": "json"},
    "--overrides": {"kind": "value", "type": "json", "default": None},
    "--port": {"kind": "value", "type": "int", "default": 8000},
    "--quiet": {"kind": "flag"},
    "--reasoning-parser": {"kind": "value", "choices": ["deep", "qwen"], "default": ""},
    "--sizes": {"kind": "values", "type": "int", "default": None, "also": ["-s"]},
    "--token": {"kind": "optional", "default": None},
    "--traces": {"kind": "values", "choices": ["a", "b"], "default": None},
    "--utilization": {"kind": "value", "type": "float", "default": 0.92, "also": ["--share"]},
    "--width": {"kind": "value", "type": "int", "choices": [16, 32], "default": 16},
}


def _tool(name: str) -> Any:
    return runpy.run_path(str(TOOL))[name]


@pytest.fixture
def extract(tmp_path: Path) -> Callable[[dict[str, str]], Any]:
    def run(source: dict[str, str]) -> Any:
        for name, text in source.items():
            path = tmp_path / "vllm" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return json.loads(json.dumps(_tool("extract")(tmp_path)))

    return run


def test_flags_are_read_by_name_kind_choices_and_default(extract: Callable[[dict[str, str]], Any]) -> None:
    assert extract(SOURCE) == WANTED


def test_newer_versions_pair_enable_with_disable(extract: Callable[[dict[str, str]], Any]) -> None:
    newer = {**SOURCE, "utils/argparse_utils.py": "class EnableDisableAction: ...\n"}
    assert extract(newer)["--enable-caching"]["also"] == ["--disable-caching"]


def test_another_make_of_source_is_refused(extract: Callable[[dict[str, str]], Any]) -> None:
    with pytest.raises(SystemExit, match=r"no vllm package with entrypoints/common/cli_args\.py"):
        extract({k: v for k, v in SOURCE.items() if "cli_args" not in k})


def test_a_wheel_is_read_and_a_new_profile_must_be_reviewed(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm-9.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in SOURCE.items():
            archive.writestr(f"vllm/{name}", text)
        archive.writestr("vllm-9.1.2.dist-info/METADATA", "Name: vllm")
    with _tool("unpacked")(wheel) as root:
        version, flags = _tool("version_in")(root), _tool("extract")(root)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for older, fact in (("0.26", "old"), ("0.33", "vllm 0.33.0 source")):
        facts = {name: {**content, "source": fact} for name, content in load("0.33").facts.items()}
        (profiles / f"{older}.json").write_text(json.dumps({"version": older, "facts": facts, "flags": {}}))

    new = _tool("write_profile")("9.1", version, flags, profiles)
    content = json.loads(new.read_text())
    assert (new.name, content["version"], content["flags"]) == ("9.1.json", "9.1.2", WANTED)
    assert content["facts"]["whileDraining"]["source"] == "to be reviewed: in 0.33 it is from vllm 0.33.0 source"
    with pytest.raises(
        ProfileError, match=r"9\.1\.json: facts\.\w+\.source says 'to be reviewed: in 0\.33 it is from "
    ):
        read(new.name, new.read_bytes())

    content["facts"]["whileDraining"]["source"] = "vllm 9.1.2 source"
    new.write_text(json.dumps({**content, "flags": {}}))
    again = json.loads(_tool("write_profile")("9.1", version, flags, profiles).read_text())
    assert (again["facts"], again["flags"]) == (content["facts"], WANTED)


def test_a_profile_of_another_version_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"0\.34 is not the minor version of this source, which is 9\.1\.2"):
        _tool("write_profile")("0.34", "9.1.2", {}, tmp_path)
    with pytest.raises(SystemExit, match=r"there is no profile older than 9\.1"):
        _tool("write_profile")("9.1", "9.1.2", {}, tmp_path)
    assert list(tmp_path.iterdir()) == []
