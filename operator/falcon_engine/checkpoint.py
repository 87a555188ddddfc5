"""Finds the checkpoint in the image or on a volume, and refuses one whose files are not whole."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from falcon_engine import safetensors
from falcon_engine.intent import Source
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

ARCHITECTURE = "FalconH1ForCausalLM"
MOUNT = "/var/falcon/source"
# Variables in which images name their model.
VARIABLES = ("MODEL", "MODEL_PATH", "MODEL_DIR", "MODEL_ID", "MODEL_NAME", "VLLM_MODEL", "VLLM_MODEL_PATH")
# Where images keep it.
ROOTS = (
    "/models",
    "/model",
    "/workspace",
    "/opt/models",
    "/opt/model",
    "/mnt/models",
    "/app",
    "/data",
    "/vllm-workspace",
)
# models--owner--name/snapshots/revision below a Hugging Face cache is three levels down.
MAX_DEPTH = 4
MAX_DIRECTORIES = 20_000
MAX_SECONDS = 20.0
_SKIPPED = ("site-packages", "dist-packages", "node_modules", "blobs", "proc", "sys", "__pycache__")


@dataclass(frozen=True)
class Checkpoint:
    """A directory that the engine can load, and what is to be said about it.

    `source` and `repaired` are of a directory with new metadata: that of the weights, and the codes of what was wrong.
    """

    path: str
    nvfp4: bool
    warnings: tuple[str, ...] = ()
    source: str | None = None
    repaired: tuple[str, ...] = ()
    files: safetensors.Files | None = field(default=None, compare=False, repr=False)


def find(source: Source, environ: Mapping[str, str], roots: tuple[str, ...] = ROOTS) -> Checkpoint:
    """The checkpoint of a source that is in the container already; raises `Refusal` with what to do."""
    if source.kind == "baked" and source.path is None:
        return _search(environ, roots)
    base = Path(source.path or "") if source.kind == "baked" else Path(MOUNT, source.path or "")
    field = f"spec.model.source.{source.kind}.path"
    if not _exists(base):
        raise _refusal("CheckpointNotFound", f"There is no {base} in the container.", f"Correct {field}.")
    if _is_candidate(base) or source.kind == "baked":
        return _checked(base, field)
    found, _ = _candidates([str(base)])
    if not found:
        return _checked(base, field)
    return _checked(_preferred(found), field, _others(found))


def cached(repository: str, revision: str, environ: Mapping[str, str]) -> Checkpoint | None:
    """A repository's snapshot in the cache of the Hugging Face Hub; None where it is not there with all its files."""
    home = environ.get("HF_HOME") or os.path.join(
        environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/", ".cache"), "huggingface"
    )
    hub = Path(environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"), f"models--{repository.replace('/', '--')}")
    with suppress(OSError):  # there is none of that name where the revision is a commit's own id
        revision = (hub / "refs" / revision).read_text().strip()
    directory = hub / "snapshots" / revision
    files = safetensors.read(directory)
    if files.config is None or files.troubles:
        return None
    return Checkpoint(str(directory), is_nvfp4(directory, files.config), files=files)


def _search(environ: Mapping[str, str], roots: tuple[str, ...]) -> Checkpoint:
    named = [environ[v] for v in VARIABLES if environ.get(v, "").startswith("/")]
    caches = [environ[v] + tail for v, tail in (("HF_HUB_CACHE", ""), ("HF_HOME", "/hub")) if environ.get(v)]
    places = list(dict.fromkeys([*named, *roots, *caches]))
    found, looked = _candidates(places)
    if not found:
        raise _refusal(
            "CheckpointNotFound",
            f"No checkpoint (config.json with *.safetensors) in the image; looked in {'; '.join(looked)}.",
            "Name its directory in spec.model.source.baked.path, or use another spec.model.source.",
        )
    return _checked(_preferred(found), "spec.model.source.baked.path", _others(found))


def _candidates(places: list[str]) -> tuple[list[Path], list[str]]:
    """Directories that look like a checkpoint, in the order of the places, and what became of each place."""
    found: list[Path] = []
    looked: list[str] = []
    deadline = time.monotonic() + MAX_SECONDS
    for place in places:
        root = Path(place)
        if not _exists(root):
            looked.append(f"{place} (absent)")
        elif not os.access(root, os.R_OK | os.X_OK):
            looked.append(f"{place} (not readable for uid {os.getuid()})")
        else:
            found += [d for d in _walk(root, deadline) if _is_candidate(d)]
            looked.append(place)
    return list(dict.fromkeys(found)), looked


def _walk(root: Path, deadline: float) -> Iterator[Path]:
    level, seen = [root], 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for directory in level:
            seen += 1
            if seen > MAX_DIRECTORIES or time.monotonic() > deadline:
                return
            yield directory
            try:
                below += sorted(d for d in directory.iterdir() if d.is_dir() and _worth(d.name))
            except OSError:
                continue
        level = below


def _worth(name: str) -> bool:
    return not name.startswith(".") and name not in _SKIPPED


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a parent that may not be entered
        return False


def _is_candidate(directory: Path) -> bool:
    try:
        names = {entry.name for entry in directory.iterdir()}
    except OSError:
        return False
    return "config.json" in names and any(n.endswith(".safetensors") or n == safetensors.INDEX for n in names)


def _preferred(found: list[Path]) -> Path:
    return next((d for d in found if ARCHITECTURE in _architectures(_config(d))), found[0])


def _others(found: list[Path]) -> tuple[str, ...]:
    rest = [str(d) for d in found if d != _preferred(found)]
    return (f"other checkpoints are there too: {', '.join(rest[:5])}",) if rest else ()


def _config(directory: Path) -> dict[str, Any]:
    """config.json, or nothing where it cannot be read."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _architectures(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [str(n) for n in names] if isinstance(names, list) else []


def _checked(directory: Path, field: str, warnings: tuple[str, ...] = ()) -> Checkpoint:
    if not directory.is_dir():
        raise _refusal("CheckpointNotFound", f"{directory} is not a directory.", f"Correct {field}.")
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        found, _ = _candidates([str(directory)])
        below = f"{found[0]} looks like one: name that in {field}." if found else f"Correct {field}."
        raise _refusal("CheckpointNotFound", f"There is no config.json in {directory}.", below) from None
    except PermissionError:
        raise _refusal("CheckpointUnusable", f"User {os.getuid()} may not read {file}.", _PERMISSIONS) from None
    except (OSError, ValueError) as e:
        raise _refusal("CheckpointUnusable", f"{file} cannot be read: {e}.", "Copy the checkpoint again.") from None
    if not isinstance(config, dict):
        raise _refusal("CheckpointUnusable", f"{file} is not a JSON object.", "Copy the checkpoint again.")
    files = safetensors.read(directory)
    if trouble := files.weights_trouble:
        hint = _PERMISSIONS if trouble.kind == "permission" else "Copy the checkpoint again, all files of it."
        raise _refusal("CheckpointUnusable", f"The checkpoint {directory} {trouble.what}.", hint)
    architectures = _architectures(config)
    if ARCHITECTURE not in architectures:
        named = ", ".join(architectures) or "no architecture"
        warnings = (*warnings, f"{file} names {named}; this operator is made for {ARCHITECTURE}")
    return Checkpoint(str(directory), is_nvfp4(directory, config), warnings, files=files)


_PERMISSIONS = "Make the files readable for everybody, or set spec.security.runAsUser to their owner."


def is_nvfp4(directory: Path, config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint calls itself FP4, in either of the two places where checkpoints do."""
    try:
        beside = (directory / "hf_quant_config.json").read_text()
    except OSError:
        beside = ""
    return "fp4" in (json.dumps(config.get("quantization_config")) + beside).lower()


def _refusal(reason: str, message: str, hint: str) -> Refusal:
    return Refusal(Diagnosis(reason, message, hint, CONFIGURATION_EXIT))
