"""The tool that reads a profile's flags from vLLM's source, on a small source of the same make."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "extract_flags.py"

SOURCE = {
    "config/__init__.py": "from vllm.config.cache import CacheConfig\nfrom vllm.config.vllm import VllmConfig\n",
    "config/cache.py": """
from typing import Literal, Optional
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
""",
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
    whole = get_kwargs(VllmConfig)["compilation"]
    group.add_argument("--compilation", "-cc", **whole)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--backend", choices=["a", "b"], default=None)
    parser.add_argument("--fail", action=argparse.BooleanOptionalAction, default=False)
""",
    "entrypoints/openai/cli_args.py": """
class BaseArgs:
    chat_template: str | None = None

class FrontendArgs(BaseArgs):
    port: int = 8000
    origins: list[str] = field(default_factory=list)

    def customize(kwargs):
        del kwargs["origins"]["nargs"]

def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--config")
""",
    "utils/argparse_utils.py": "",
}

WANTED = {
    "--backend": {"kind": "value", "choices": ["a", "b"], "default": None},
    "--chat-template": {"kind": "value", "default": None},
    "--compilation": {"kind": "value", "also": ["-cc"]},
    "--config": {"kind": "value"},
    "--dtype": {"kind": "value", "choices": ["auto", "fp8"], "default": "auto"},
    "--enable-caching": {"kind": "switch", "default": None},
    "--fail": {"kind": "switch", "default": False},
    "--help": {"kind": "optional", "also": ["-h"]},
    "--more": {"kind": "value", "choices": ["auto", "fp8", "nvfp4"], "default": None},
    "--open-ended": {"kind": "value", "default": "auto"},
    "--origins": {"kind": "value"},
    "--port": {"kind": "value", "default": 8000},
    "--quiet": {"kind": "flag"},
    "--sizes": {"kind": "values", "default": None, "also": ["-s"]},
    "--token": {"kind": "optional", "default": None},
    "--utilization": {"kind": "value", "default": 0.92, "also": ["--share"]},
}


@pytest.fixture
def extract(tmp_path: Path) -> Callable[[dict[str, str]], Any]:
    def run(source: dict[str, str]) -> Any:
        for name, text in source.items():
            path = tmp_path / "vllm" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return json.loads(json.dumps(runpy.run_path(str(TOOL))["extract"](tmp_path)))

    return run


def test_flags_are_read_by_name_kind_choices_and_default(extract: Callable[[dict[str, str]], Any]) -> None:
    assert extract(SOURCE) == WANTED


def test_newer_versions_pair_enable_with_disable(extract: Callable[[dict[str, str]], Any]) -> None:
    newer = {**SOURCE, "utils/argparse_utils.py": "class EnableDisableAction: ...\n"}
    assert extract(newer)["--enable-caching"]["also"] == ["--disable-caching"]


def test_another_make_of_source_is_refused(extract: Callable[[dict[str, str]], Any]) -> None:
    with pytest.raises(SystemExit, match=r"no vllm package with entrypoints/common/cli_args\.py"):
        extract({k: v for k, v in SOURCE.items() if "cli_args" not in k})
