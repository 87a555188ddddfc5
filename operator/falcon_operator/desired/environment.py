"""The variables of the engine's container."""

from __future__ import annotations

from typing import Any

from falcon_engine.intent import PORT_VARIABLE, VARIABLE, Intent
from falcon_operator.api.engine import Device
from falcon_operator.api.spec import Spec
from falcon_operator.desired.volumes import CACHE_DIRECTORY, HOME_DIRECTORY, MODEL_DIRECTORY


def environment(spec: Spec, intent: Intent) -> list[dict[str, Any]]:
    """Ours first; a variable that the user names takes the place of ours, but for those that say what is asked."""
    own = {
        VARIABLE: intent.to_json(),
        # The user id has no entry in most images' passwd, and the image itself may be read-only.
        "HOME": HOME_DIRECTORY,
        "USER": "falcon",
        "FALCON_CACHE_DIR": f"{CACHE_DIRECTORY}/falcon",
        "XDG_CACHE_HOME": f"{CACHE_DIRECTORY}/xdg",
        "XDG_CONFIG_HOME": f"{HOME_DIRECTORY}/.config",
        "VLLM_CACHE_ROOT": f"{CACHE_DIRECTORY}/vllm",
        "TRITON_CACHE_DIR": f"{CACHE_DIRECTORY}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_DIRECTORY}/inductor",
        "FLASHINFER_WORKSPACE_BASE": f"{CACHE_DIRECTORY}/flashinfer",
        "CUDA_CACHE_PATH": f"{CACHE_DIRECTORY}/nv",
        "PYTHONUNBUFFERED": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    remote = spec.model.source.hugging_face
    if remote is not None and remote.quantize is not None:
        remote = None  # a Job has downloaded it
    if remote is None:
        own["HF_HUB_OFFLINE"] = "1"
    else:
        own["HF_HOME"] = MODEL_DIRECTORY
    if spec.engine.device is Device.CPU:
        # Without a route to anywhere the engine would not find an address of its own.
        own["VLLM_HOST_IP"] = "127.0.0.1"
    entries: dict[str, dict[str, Any]] = {name: {"name": name, "value": value} for name, value in own.items()}
    if remote is not None and remote.token_secret_ref is not None:
        secret = {"name": remote.token_secret_ref.name, "key": remote.token_secret_ref.key}
        entries["HF_TOKEN"] = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}
    for variable in spec.engine.env:
        if variable.name not in (VARIABLE, PORT_VARIABLE):
            entries[variable.name] = (
                {"value": "", **variable.manifest()} if _is_plain(variable) else variable.manifest()
            )
    return list(entries.values())


def _is_plain(variable: Any) -> bool:
    return variable.value_from is None
