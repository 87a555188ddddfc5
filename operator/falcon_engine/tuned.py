"""What was measured to be faster on the GPU that is there: kernel files, variables, flags; never over the user's."""

import json
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from falcon_engine import flags, profiles
from falcon_engine.gpus import Gpu
from falcon_engine.intent import Intent
from falcon_engine.kernels import file_name
from falcon_engine.profiles import Profile

FOLDER_VARIABLE = "VLLM_TUNED_CONFIG_FOLDER"
SAMPLER_VARIABLE = "VLLM_USE_FLASHINFER_SAMPLER"
CACHE_VARIABLE = "FALCON_CACHE_DIR"
FOLDER = "tuned"
# vLLM 0.22 is the first that reads a tuned file of the state update, and the first that samples by FlashInfer on its
# own; 0.22 to 0.33 look the file up under one name and read one format (their sources, layers/mamba/ops/mamba_ssm.py).
SINCE = (0, 22)
HEAD_DIM, STATE = 128, 256  # of Falcon-H1R-7B
_PACKAGE = "falcon_engine.kernels"
_WINNERS = "winners.json"
_SIZES = "--cudagraph-capture-sizes"
_ARTIFACT, _ASSEMBLER = "VLLM_USE_MEGA_AOT_ARTIFACT", "TRITON_PTXAS_PATH"


@dataclass(frozen=True)
class Settings:
    """Variables for the engine, flags that come before the resource's own, and a line on each for the log."""

    environ: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def settings(
    intent: Intent,
    profile: Profile,
    version: str | None,
    gpus: Sequence[Gpu],
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """All of it. Nothing on CPU, and nothing where the GPU is not known."""
    if intent.device != "cuda" or not gpus:
        return Settings({})
    arguments, variables, notes = defaults(intent, profile, version, gpus, environ)
    found = {
        **variables,
        **sampler(version, environ, notes.append),
        **kernel(intent, version, gpus, environ, notes.append),
    }
    return Settings(found, arguments, tuple(notes))


def kernel(
    intent: Intent, version: str | None, gpus: Sequence[Gpu], environ: Mapping[str, str], log: Callable[[str], None]
) -> dict[str, str]:
    """The folder with the tuned file for this GPU: the user's own in the cache, or the one that is shipped."""
    if environ.get(FOLDER_VARIABLE) or not _reads(version):
        return {}
    name = file_name(HEAD_DIM, STATE, state_dtype(intent), gpus[0].name)
    own = cache_folder(environ) / FOLDER
    if (own / name).is_file():
        log(f"the state update is tuned by {own / name}")
        return {FOLDER_VARIABLE: str(own)}
    shipped = data(name)
    if shipped is None:
        log(f"no tuned state update for {gpus[0].name}: `launch.pyz tune` makes one in under a minute")
        return {}
    folder = scratch(environ) / FOLDER
    try:
        put(folder / name, shipped)
    except OSError as e:
        log(f"warning: the state update stays untuned: {folder} cannot be written ({e.strerror})")
        return {}
    log(f"the state update is tuned for {gpus[0].name}")
    return {FOLDER_VARIABLE: str(folder)}


def sampler(version: str | None, environ: Mapping[str, str], log: Callable[[str], None]) -> dict[str, str]:
    """Sample by Triton where FlashInfer's sampler would have to be built first: 123 s of a start on an H200."""
    if environ.get(SAMPLER_VARIABLE) or not _reads(version) or _sampler_is_built(environ):
        return {}
    log("FlashInfer's sampler is not built here: vLLM's own one samples")
    return {SAMPLER_VARIABLE: "0"}


def defaults(
    intent: Intent, profile: Profile, version: str | None, gpus: Sequence[Gpu], environ: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    """Flags and variables that won on this GPU's family with this version, where the user does not have them.

    They were measured with one GPU an engine, and are left out where it has several.
    """
    arguments: list[str] = []
    variables: dict[str, str] = {}
    notes: list[str] = []
    for winner in _winners(version, gpus):
        value, source = str(winner["value"]), winner["source"]
        if "variable" in winner:
            with_it = assembler(environ) if winner["variable"] == _ARTIFACT else {}
            if not environ.get(winner["variable"]) and with_it is not None:
                variables |= {winner["variable"]: value, **with_it}
                notes.append(f"{winner['variable']}={value}: {source}")
        elif profile.has(winner["flag"]) and not flags.given(intent, winner["flag"], *winner.get("unless", ())):
            value = _captured(value, intent) if winner["flag"] == _SIZES else value
            if not value:
                continue
            arguments += [winner["flag"], *value.split()]
            notes.append(f"{winner['flag']} {value}: {source}")
    return tuple(arguments), variables, notes


def assembler(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The assembler that Inductor has Triton take, named from the beginning; None where there is none.

    Inductor names it at the first kernel that it loads, and Triton keeps kernels by its version. Where one artifact is
    all that is loaded, that is before Triton has looked at the version, otherwise after it: kernels that one start kept
    would be strange to the other, and those that are compiled ahead to both.
    """
    if environ.get(_ASSEMBLER):
        return {}
    spec = find_spec("torch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if os.access(path := Path(folder, "bin", "ptxas"), os.X_OK):
            return {_ASSEMBLER: str(path)}
    return None


def _captured(sizes: str, intent: Intent) -> str:
    """Of the batches that are captured as CUDA graphs those that vLLM captures at most: of twice the sequences."""
    if intent.cuda_graph_mode == "NONE":
        return ""
    stated = flags.value(intent, "--max-num-seqs")
    most = 2 * (int(stated) if stated and stated.isdigit() else intent.max_num_seqs)
    return " ".join(size for size in sizes.split() if int(size) <= most)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where what is worth keeping lies: the cache volume in a pod."""
    if stated := environ.get(CACHE_VARIABLE):
        return Path(stated)
    base = environ.get("XDG_CACHE_HOME")
    return Path(base, "falcon") if base else home(environ) / ".cache" / "falcon"


def scratch(environ: Mapping[str, str]) -> Path:
    """Where what one start needs lies."""
    return home(environ) / ".falcon"


def home(environ: Mapping[str, str]) -> Path:
    """The user's own folder."""
    return Path(environ.get("HOME") or "/tmp")


def _reads(version: str | None) -> bool:
    return (profiles.parse(version) or (0, 0)) >= SINCE


def state_dtype(intent: Intent) -> str:
    """The state's number format; the model's own is bfloat16."""
    wide = flags.value(intent, "--mamba-ssm-cache-dtype") or flags.value(intent, "--mamba-cache-dtype")
    return "float32" if wide == "float32" else "bfloat16"


def _sampler_is_built(environ: Mapping[str, str]) -> bool:
    """Whether FlashInfer has its sampler compiled: in its cache, or shipped with the image."""
    base = Path(environ.get("FLASHINFER_WORKSPACE_BASE") or home(environ))
    try:
        built = any((base / ".cache" / "flashinfer").glob("*/*/cached_ops/sampling/*.so"))
    except OSError:
        built = False
    return built or find_spec("flashinfer_jit_cache") is not None


def _winners(version: str | None, gpus: Sequence[Gpu]) -> list[Mapping[str, Any]]:
    return [winner for family in families(_WINNERS, version, gpus) for winner in family["winners"]]


def families(name: str, version: str | None, gpus: Sequence[Gpu]) -> list[Mapping[str, Any]]:
    """The entries of a file that are for this GPU and version; none where an engine has several GPUs."""
    raw = data(name)
    wanted = profiles.parse(version)
    return [
        family
        for family in (json.loads(raw)["families"] if raw and len(gpus) == 1 else ())
        if gpus[0].capability in family["capabilities"] and wanted in map(profiles.parse, family["versions"])
    ]


def data(name: str) -> bytes | None:
    """A file of the package, also out of a zip."""
    try:
        return pkgutil.get_data(_PACKAGE, name)
    except OSError:
        return None


def put(path: Path, data: bytes) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
