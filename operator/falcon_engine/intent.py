"""What the resource asks of the engine, as the operator hands it to the launcher: one JSON object in one variable."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

VARIABLE = "FALCON_INTENT"
# Where the engine listens, for those who run the image without an operator; what the operator writes has no such.
PORT_VARIABLE = "FALCON_PORT"

DEVICES = ("cuda", "cpu")
SOURCE_KINDS = ("baked", "volume", "oci", "huggingFace")
CHECKPOINT_MODES = ("Repair", "Check", "AsIs")
FITS = ("Clamp", "Refuse")
COMPUTE_FORMATS = ("Auto", "NVFP4", "FP8", "BF16")


class IntentError(ValueError):
    """The intent is not one: the sentence names the field, what it holds, and what it should hold."""


@dataclass(frozen=True)
class Source:
    """Where the weights come from."""

    kind: str = "baked"
    path: str | None = None
    repository: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Intent:
    """Everything the launcher needs to know to serve."""

    device: str
    version: str | None
    names: tuple[str, ...]
    port: int
    source: Source
    checkpoint: str
    max_model_len: int
    max_num_seqs: int
    fit: str
    gpu_memory_utilization: float
    kv_cache_dtype: str
    prefix_caching: bool
    compute_format: str
    cuda_graph_mode: str
    reasoning_parser: str | None
    tool_call_parser: str | None
    queue_requests: int | None
    queue_tokens: int | None
    gpu_resource: str | None
    tensor_parallel_size: int
    canary: bool
    drain_timeout_seconds: int
    extra_args: tuple[str, ...]

    def to_json(self) -> str:
        """Compact JSON with a fixed order of keys, so that the same intent is always the same text."""
        return json.dumps({_camel(k): v for k, v in asdict(self).items()}, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def from_environ(environ: Mapping[str, str]) -> "Intent":
        """The intent of a container's variables. Raises `IntentError`."""
        intent = Intent.from_json(environ.get(VARIABLE, ""))
        port = environ.get(PORT_VARIABLE)
        if not port:
            return intent
        if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise IntentError(f"{PORT_VARIABLE} must be 1 to 65535, not {_shown(port)}")
        return replace(intent, port=int(port))

    @staticmethod
    def from_json(text: str) -> "Intent":
        """Read an intent; refuse, in one sentence, what is not exactly one."""
        if not text:
            raise IntentError(f"there is no intent: {VARIABLE} is empty or not set")
        try:
            raw = json.loads(text)
        except ValueError as e:
            raise IntentError(f"the intent is not JSON: {e}") from None
        values = _checked(raw, "intent", _INTENT)
        values["source"] = Source(**_checked(values["source"], "intent.source", _SOURCE))
        intent = Intent(**values)
        _check_values(intent)
        return intent


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


# field -> (check, what to say that it should be)
def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_STRING = (lambda v: isinstance(v, str), "a string")
_STRING_OR_NULL = (lambda v: v is None or isinstance(v, str), "a string or null")
_STRINGS = (lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v), "a list of strings")
_INTEGER = (_is_int, "an integer")
_INTEGER_OR_NULL = (lambda v: v is None or _is_int(v), "an integer or null")
_NUMBER = (lambda v: _is_int(v) or isinstance(v, float), "a number")
_BOOLEAN = (lambda v: isinstance(v, bool), "true or false")
_OBJECT = (lambda v: isinstance(v, dict), "an object")

_INTENT: dict[str, Any] = {
    "device": _STRING,
    "version": _STRING_OR_NULL,
    "names": _STRINGS,
    "port": _INTEGER,
    "source": _OBJECT,
    "checkpoint": _STRING,
    "max_model_len": _INTEGER,
    "max_num_seqs": _INTEGER,
    "fit": _STRING,
    "gpu_memory_utilization": _NUMBER,
    "kv_cache_dtype": _STRING,
    "prefix_caching": _BOOLEAN,
    "compute_format": _STRING,
    "cuda_graph_mode": _STRING,
    "reasoning_parser": _STRING_OR_NULL,
    "tool_call_parser": _STRING_OR_NULL,
    "queue_requests": _INTEGER_OR_NULL,
    "queue_tokens": _INTEGER_OR_NULL,
    "gpu_resource": _STRING_OR_NULL,
    "tensor_parallel_size": _INTEGER,
    "canary": _BOOLEAN,
    "drain_timeout_seconds": _INTEGER,
    "extra_args": _STRINGS,
}
_SOURCE: dict[str, Any] = {f.name: _STRING if f.name == "kind" else _STRING_OR_NULL for f in fields(Source)}


def _checked(raw: object, where: str, checks: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one JSON object under their Python names, every one present and of the right type."""
    if not isinstance(raw, dict):
        raise IntentError(f"{where} must be an object, not {_shown(raw)}")
    names = {_camel(name): name for name in checks}
    for key in raw:
        if key not in names:
            raise IntentError(f"{where} has an unknown field {key!r}; known are {', '.join(names)}")
    values: dict[str, Any] = {}
    for key, name in names.items():
        if key not in raw:
            raise IntentError(f"{where} lacks the field {key!r}")
        value = raw[key]
        fits, wanted = checks[name]
        if not fits(value):
            raise IntentError(f"{where}.{key} must be {wanted}, not {_shown(value)}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _check_values(intent: Intent) -> None:
    for key, value, allowed in (
        ("device", intent.device, DEVICES),
        ("source.kind", intent.source.kind, SOURCE_KINDS),
        ("checkpoint", intent.checkpoint, CHECKPOINT_MODES),
        ("fit", intent.fit, FITS),
        ("computeFormat", intent.compute_format, COMPUTE_FORMATS),
    ):
        if value not in allowed:
            raise IntentError(f"intent.{key} must be one of {', '.join(allowed)}, not {_shown(value)}")
    if not intent.names:
        raise IntentError("intent.names must hold at least one served name")
    if not 1 <= intent.port <= 65535:
        raise IntentError(f"intent.port must be 1 to 65535, not {intent.port}")
    for key, number in (
        ("maxModelLen", intent.max_model_len),
        ("maxNumSeqs", intent.max_num_seqs),
        ("tensorParallelSize", intent.tensor_parallel_size),
    ):
        if number < 1:
            raise IntentError(f"intent.{key} must be at least 1, not {number}")
    if intent.drain_timeout_seconds < 0:
        raise IntentError(f"intent.drainTimeoutSeconds must not be negative, not {intent.drain_timeout_seconds}")
    if intent.source.kind == "huggingFace" and not intent.source.repository:
        raise IntentError("intent.source.repository is needed where intent.source.kind is huggingFace")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
