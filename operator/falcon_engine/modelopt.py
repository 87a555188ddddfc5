"""What a version of vLLM reads in ModelOpt's quantization config, and what in it that version refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from falcon_engine.profiles import Profile
from falcon_engine.safetensors import BESIDE, CONFIG

GROUP_SIZE = 16
# The values of kv_cache_quant_algo that vLLM has a cache for.
KV_ALGORITHMS = ("FP8", "NVFP4")
_METHODS = ("modelopt", "modelopt_fp4")
_NESTED_KEYS = ("group_size", "kv_cache_quant_algo", "exclude_modules")


@dataclass(frozen=True)
class Rules:
    """How one version reads the config; the names are those of the profile's fact `quantizationConfig`.

    `algorithms`: values of quant_algo for FP4. `nested_algorithms`: those that it takes where the config has the form
    of hf_quant_config.json and names its producer. `any_case`: also in lower case. `maps_names`: excluded names go
    through the model's map of weight names first, which turns `mamba` into `mamba.mamba`. `weight_only_groups`: NVFP4
    is W4A16 where no config group has input activations. `kv_scales`: the model has a place for k_scale and v_scale.
    `always_weight_only`: NVFP4 is W4A16 whatever else is said, as with this project's loader in old versions.
    """

    version: str
    algorithms: tuple[str, ...]
    nested_algorithms: tuple[str, ...]
    any_case: bool
    maps_names: bool
    weight_only_groups: bool
    kv_scales: bool
    always_weight_only: bool = False

    @staticmethod
    def of(profile: Profile, plugin: bool = False) -> "Rules":
        """Those of a profile; `plugin`: with this project's loader, which knows W4A16_NVFP4 everywhere."""
        fact = profile.fact("quantizationConfig")
        algorithms = tuple(fact["algorithms"])
        lacks = "W4A16_NVFP4" not in algorithms
        return Rules(
            profile.version,
            (*algorithms, "W4A16_NVFP4") if plugin and lacks else algorithms,
            tuple(fact["nestedAlgorithms"]),
            fact["anyCase"],
            fact["mapsNames"],
            fact["weightOnlyGroups"],
            fact["kvScales"],
            plugin and lacks,
        )


@dataclass(frozen=True)
class Refused:
    """One thing in a config that the engine does not take; `what` is a sentence without its end."""

    code: str
    what: str


@dataclass(frozen=True)
class Reading:
    """What the engine makes of a config. `file` is the one it reads, and `refused` what it does not take there.

    `algorithm` is `NVFP4` (W4A4), `W4A16_NVFP4`, another one of ModelOpt's, or empty; `kv` is in upper case, or None.
    """

    file: str
    algorithm: str
    excluded: tuple[str, ...]
    kv: str | None
    refused: tuple[Refused, ...] = ()

    @property
    def fp4(self) -> bool:
        """Whether it announces FP4 weights, in whatever spelling."""
        return "FP4" in self.algorithm.upper()

    def excludes(self, layer: str, shards: Sequence[str], rules: Rules) -> bool | None:
        """Whether the engine leaves a layer in BF16. None where it refuses, since only some of its shards are named.

        `layer` is vLLM's name of it, such as `model.layers.0.qkv_proj`; `shards` are its parts' names in the same
        place, such as `model.layers.0.q_proj`, or none where it is not fused.
        """
        patterns = _mapped(self.excluded) if rules.maps_names else self.excluded
        named = [shard in patterns for shard in shards] or [layer in patterns]
        if any(named) and not all(named):
            return None
        return all(named) or any(
            (pattern in layer and pattern != layer) or fnmatchcase(layer, pattern) for pattern in patterns
        )


def read(config: Mapping[str, Any] | None, beside: Mapping[str, Any] | None, rules: Rules) -> Reading | None:
    """What the engine reads of config.json and hf_quant_config.json; None where neither speaks of a quantization."""
    own = (config or {}).get("quantization_config")
    if own is None and beside is None:
        return None
    return parse(CONFIG if own is not None else BESIDE, beside if own is None else own, rules)


def parse(file: str, content: object, rules: Rules) -> Reading:
    """What the engine makes of one quantization config."""
    if not isinstance(content, Mapping):
        return Reading(file, "", (), None, (Refused("form", "its quantization config is no JSON object"),))
    nested = content.get("quantization")
    inner: Mapping[str, Any] = nested if isinstance(nested, Mapping) else content
    refused = [*_method(content, inner, rules), *_fields(content, inner)]
    stated = inner.get("quant_algo")
    algorithm = stated if isinstance(stated, str) else ""
    upper = algorithm.upper() if rules.any_case else algorithm
    if not algorithm:
        refused.append(Refused("algorithm", "it names no quant_algo"))
    elif "FP4" in algorithm.upper() and upper not in rules.algorithms:
        refused.append(Refused("algorithm", f"it has quant_algo {_shown(algorithm)}, which is unknown there"))
    if upper == "NVFP4" and rules.weight_only_groups and _weight_only(content):
        upper = "W4A16_NVFP4"
    excluded = inner.get("exclude_modules" if "quantization" in content else "ignore")
    names = tuple(name for name in excluded if isinstance(name, str)) if isinstance(excluded, list) else ()
    return Reading(file, upper if upper in rules.algorithms else algorithm, names, _kv(content, inner), tuple(refused))


def _method(content: Mapping[str, Any], inner: Mapping[str, Any], rules: Rules) -> list[Refused]:
    """What the engine does not take of how the config names its method."""
    method, producer = content.get("quant_method"), content.get("producer")
    if "producer" in content and not isinstance(producer, Mapping):
        return [Refused("form", "its producer is no JSON object")]
    if "quantization" in content and not isinstance(content["quantization"], Mapping):
        return [Refused("form", "its quantization is no JSON object")]
    algorithm = inner.get("quant_algo")
    made_by_modelopt = isinstance(producer, Mapping) and producer.get("name") == "modelopt"
    if made_by_modelopt and inner is not content and algorithm is not None:
        said = str(algorithm).upper() if rules.any_case else str(algorithm)
        if "FP4" in said.upper() and said not in rules.nested_algorithms:
            return [
                Refused("nested", f"it has quant_algo {_shown(algorithm)} in the form of {BESIDE}, where it is unknown")
            ]
        return []
    if "quant_method" in content and not isinstance(method, str):
        return [Refused("method", f"it has quant_method {_shown(method)}")]
    if not method:
        return [Refused("method", "it names no quant_method")]
    if str(method).lower() not in _METHODS:
        return [Refused("method", f"it has quant_method {_shown(method)}, and the weights are modelopt's")]
    return []


def _fields(content: Mapping[str, Any], inner: Mapping[str, Any]) -> list[Refused]:
    """What the engine does not take of the further fields."""
    refused = []
    is_nested = "quantization" in content
    key = "exclude_modules" if is_nested else "ignore"
    if not isinstance(inner.get(key, []), list):
        refused.append(Refused("form", f"its {key} is no list"))
    elif not all(isinstance(name, str) for name in inner.get(key, [])):
        refused.append(Refused("form", f"its {key} has a member that is no text"))
    group = inner.get("group_size")
    if group is not None and not _is_integer(group):
        refused.append(Refused("form", f"it has group_size {_shown(group)}"))
    elif group is not None and int(group) != GROUP_SIZE:
        refused.append(Refused("group-size", f"it has group_size {group}, and NVFP4 has {GROUP_SIZE}"))
    if is_nested and "NVFP4" in str(inner.get("quant_algo")).upper():
        if missing := [name for name in _NESTED_KEYS if name not in inner]:
            refused.append(Refused("keys", f"its quantization lacks {', '.join(missing)}"))
        if not isinstance(inner.get("kv_cache_quant_algo"), str | None):
            refused.append(Refused("form", f"it has kv_cache_quant_algo {_shown(inner['kv_cache_quant_algo'])}"))
    return refused


def _is_integer(value: object) -> bool:
    try:
        int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, float) or value == int(value)


def _kv(content: Mapping[str, Any], inner: Mapping[str, Any]) -> str | None:
    """What the KV cache is announced to be, as `FP8`; the text of what is there where that is unknown."""
    stated: Any = None
    for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
        stated = stated or inner.get(key) or content.get(key)
    if isinstance(stated, Mapping):
        if [stated.get(key) for key in ("num_bits", "type", "dynamic")] == [8, "float", False]:
            return "FP8"
        if stated.get("num_bits") == 4 and stated.get("type") == "float":
            return "NVFP4"
        return _shown(dict(stated))
    return str(stated).upper() if stated else None


def _weight_only(content: Mapping[str, Any]) -> bool:
    groups = content.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        return False
    return all(isinstance(g, Mapping) and g.get("input_activations") is None for g in groups.values())


def _mapped(patterns: Sequence[str]) -> tuple[str, ...]:
    """The excluded names as a version with `maps_names` has them after its map."""
    split: list[str] = []
    for pattern in patterns:
        whole_tree = len(pattern) >= 2 and pattern[-1] == "*" and pattern[-2] != "."
        split += [pattern[:-1], f"{pattern[:-1]}.*"] if whole_tree else [pattern]
    return tuple(name.replace("A_log", "A", 1).replace("mamba", "mamba.mamba", 1) for name in split)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
