"""What a profile's file may hold. Anything else is refused with the file, the key and what is known there."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from falcon_engine.profiles import capability

# A check of one value: the key's path for the message, then the value.
Check = Callable[[str, Any], None]
# How a source begins that a person has not looked at yet: `tools/extract_flags.py --write` leaves it.
UNREVIEWED = "to be reviewed: "


class ProfileError(ValueError):
    """A profile's file is not as it must be, or lacks the fact that was asked for. Says file, key and what is known."""


def _is(*types: type) -> Check:
    words = {"NoneType": "null", "str": "a text", "bool": "true or false", "int": "a whole number", "float": "a number"}
    names = " or ".join(words[t.__name__] for t in types)

    def check(key: str, value: Any) -> None:
        if type(value) not in types:  # not isinstance: a bool is no int here
            raise ProfileError(f"{key} must be {names}, not {value!r}")

    return check


def _text(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ProfileError(f"{key} must be a text that is not empty, not {value!r}")


def _one_of(*known: str | None) -> Check:
    def check(key: str, value: Any) -> None:
        if value not in known:
            raise ProfileError(f"{key} is {value!r}; known are {', '.join(map(str, known))}")

    return check


def _capabilities(key: str, value: Any) -> None:
    _text(key, value)
    try:
        capability.words(value)
    except ValueError as error:
        raise ProfileError(f"{key}: {error}") from None


def _list(member: Check, *, empty: bool = True) -> Check:
    def check(key: str, value: Any) -> None:
        if not isinstance(value, list) or not (value or empty):
            raise ProfileError(f"{key} must be a list{'' if empty else ' that is not empty'}, not {value!r}")
        for index, item in enumerate(value):
            member(f"{key}[{index}]", item)

    return check


def _or_null(check: Check) -> Check:
    return lambda key, value: None if value is None else check(key, value)


def _record(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these keys and no others."""
    known = {**needed, **(optional or {})}

    def check(key: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ProfileError(f"{key or 'the file'} must be an object, not {value!r}")
        within = f"{key}." if key else ""
        for name in value:
            if name not in known:
                raise ProfileError(f"{within}{name} is not a known key; known are {', '.join(known)}")
        for name in needed:
            if name not in value:
                raise ProfileError(f"{within}{name} is missing")
        for name, item in value.items():
            known[name](f"{within}{name}", item)

    return check


def _mapping(member: Check) -> Check:
    """An object with any keys, not empty."""

    def check(key: str, value: Any) -> None:
        if not isinstance(value, dict) or not value:
            raise ProfileError(f"{key} must be an object that is not empty, not {value!r}")
        for name, item in value.items():
            member(f"{key}.{name}", item)

    return check


def _digest(key: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ProfileError(f"{key} must be a SHA-256 in hexadecimal, not {value!r}")


def _anything(_key: str, _value: Any) -> None:
    return None


def _source(key: str, value: Any) -> None:
    _text(key, value)
    if value.startswith(UNREVIEWED):
        raise ProfileError(f"{key} says {value!r}: check the value in this version's source and say where it stands")


def _fact(value: Check) -> Check:
    return _record({"value": value, "source": _source})


_COUNT = _is(int)
_SWITCH = _is(bool)
_METRIC_NAMES = _list(_text)
# `fixedIn`: the first version known to be without it; null where none is known.
_REMARK = {"id": _text, "what": _text, "fixedIn": _or_null(_text)}

# What every file says.
FACTS: dict[str, Check] = {
    # What `--quantization` must say for an NVFP4 checkpoint; null: the engine sees it in the checkpoint's config.
    "nvfp4Quantization": _is(str, type(None)),
    # Whether the engine caches prefixes of a hybrid model without being asked.
    "prefixCachingDefault": _SWITCH,
    # The Mamba cache mode to ask for with prefix caching on a GPU; null: what the engine chooses.
    "mambaCacheMode": _one_of("align", None),
    # Whether prefix caching works on CPU.
    "cpuPrefixCaching": _SWITCH,
    # What /health says between SIGTERM and the exit: still 200, or no connection; null: not known.
    "whileDraining": _one_of("answers", "refuses", None),
    # Short name -> the metric's names in this version, the one to use first; empty where it has none.
    "metrics": _record(
        dict.fromkeys(
            (
                "running",
                "waiting",
                "waiting_by_reason",
                "kv_cache_usage",
                "prefix_cache_hits",
                "prefix_cache_queries",
                "prompt_tokens",
                "generation_tokens",
                "ttft",
                "inter_token_latency",
                "request_success",
                "preemptions",
                "cache_config_info",
            ),
            _METRIC_NAMES,
        )
    ),
    # Whether `--shutdown-timeout` exists, and whether SIGTERM then lets running requests finish.
    "shutdown": _record({"flag": _SWITCH, "drains": _SWITCH}),
    # What this version does wrong, and for whom: compute capabilities as in `kernels`, or null for all.
    "knownBad": _list(_record({**_REMARK, "when": _or_null(_capabilities)})),
    # Published vulnerabilities.
    "advisories": _list(_record(_REMARK)),
    # Which NVFP4 kernel runs: the first entry that matches checkpoint and compute capability.
    "kernels": _list(
        _record(
            {
                "checkpoint": _one_of("W4A16", "W4A4"),
                "capabilities": _list(_capabilities, empty=False),
                "kernel": _text,
                "tier": _one_of("native", "weight-only", "emulation"),
            }
        ),
        empty=False,
    ),
    # What stock code does with an NVFP4 checkpoint of Falcon-H1; `falcon_engine.loader` says what follows.
    # quantConfig: parts of the model that are told how they are quantized; algorithms: the values of `quant_algo` that
    # it knows; weightsAlone: layers load without scales of activations; wholeScales: parts that come as one tensor all
    # get its scale; marlinPads: Marlin takes any number of columns; cpuKernel: the choice of a kernel can be taken over
    # on CPU; stock: SHA-256 of falcon_h1.py by release.
    "loader": _record(
        {
            "quantConfig": _list(_one_of("mlp", "attention", "mamba", "kvScales")),
            "algorithms": _list(_one_of("NVFP4", "W4A16_NVFP4")),
            "weightsAlone": _SWITCH,
            "wholeScales": _SWITCH,
            "marlinPads": _SWITCH,
            "cpuKernel": _SWITCH,
            "stock": _mapping(_digest),
        }
    ),
    # GPU architectures that the wheel's kernels are compiled for.
    "architectures": _list(_text, empty=False),
    # Least major version of the NVIDIA driver.
    "driverFloor": _COUNT,
    # Least compute capability of an NVFP4 checkpoint.
    "minimumCapability": _capabilities,
    # How the cache is cut and counted; `falcon_engine.blocks` and `falcon_engine.gpu_memory` say what each means.
    "blockRules": _record(
        {
            "prefixCachingMode": _one_of("all", "align"),
            "modes": _list(_one_of("all", "align"), empty=False),
            "stateBlocks": _record({"none": _COUNT, "align": _COUNT}),
            "alignment": _record({"cuda": _COUNT, "cpu": _COUNT}),
            "blockSizeAligns": _SWITCH,
            "tokens": _one_of("concurrency", "blocks"),
            "nullBlockReserved": _SWITCH,
            "sequencesNeedBlocks": _SWITCH,
            "cudaGraphsCounted": _SWITCH,
            "batchedTokens": _list(_list(_COUNT, empty=False), empty=False),
            "checkpointKVDtype": _SWITCH,
        }
    ),
    # How ModelOpt's quantization config of a checkpoint is read; `falcon_engine.modelopt` says what each means.
    "quantizationConfig": _record(
        {
            "algorithms": _list(_text, empty=False),
            "nestedAlgorithms": _list(_text, empty=False),
            "anyCase": _SWITCH,
            "mapsNames": _SWITCH,
            "weightOnlyGroups": _SWITCH,
            "kvScales": _SWITCH,
        }
    ),
}

_FLAG = _record(
    {"kind": _one_of("value", "values", "optional", "flag", "switch")},
    {
        "type": _one_of("int", "float", "json"),
        "choices": _list(_is(str, int, float, bool, type(None)), empty=False),
        "default": _anything,
        "also": _list(_text, empty=False),
    },
)


def _flags(key: str, value: Any) -> None:
    _mapping(_FLAG)(key, value)
    for name in value:
        if not name.startswith("-"):
            raise ProfileError(f"{key}.{name} is not a flag's name")


_FILE = _record(
    {
        "version": _text,
        "flagsComplete": _SWITCH,
        "flagsSource": _source,
        "facts": _record({name: _fact(check) for name, check in FACTS.items()}),
        "flags": _flags,
    }
)


def check(file: str, content: Any) -> None:
    """Refuse a file's content that is not a profile's.

    Raises `ProfileError` with the file's name, the key and what is known.
    """
    try:
        _FILE("", content)
    except ProfileError as error:
        raise ProfileError(f"{file}: {error}") from None
