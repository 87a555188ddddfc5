"""What stands between a checkpoint and a version of vLLM, from its metadata alone; each finding with its way out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from falcon_engine import modelopt, profiles, quantization, scales, shape
from falcon_engine.finding import COPY, QUANTIZE, REFUSED, WARNING, Finding
from falcon_engine.modelopt import Reading, Rules
from falcon_engine.profiles import Profile
from falcon_engine.quantization import Layer
from falcon_engine.safetensors import BESIDE, CONFIG, INDEX, Files, Trouble

PERMISSIONS = "Make the files readable for everybody, or set spec.security.runAsUser to their owner."
LOADERS = ("stock", "plugin", "patched")
_REPAIR = "falcon-operator repair-model writes it anew from what the weights are."
# Marlin's tile, and the remark on the versions that do not pad to it.
_TILE, _UNPADDED = 64, "marlin-unpadded"
_UNQUANTIZED_MLP = "falcon-h1-mlp-unquantized"


@dataclass(frozen=True)
class Loader:
    """What the engine's Falcon-H1 can load: NVFP4 in the MLP, KV scales, weights without input scales, all sizes.

    `name` is `stock` (the version's own), `plugin` (this project's, for versions that need one) or `patched` (the
    image's, whose checkpoint is made for it).
    """

    name: str
    mlp: bool = True
    kv_scales: bool = True
    weight_only: bool = True
    padded: bool = True

    @staticmethod
    def of(name: str, profile: Profile, device: str = "cuda") -> "Loader":
        """The loader of that name with a version of vLLM. On a CPU no GPU kernel has its say."""
        if name != "stock":
            return Loader(name)
        rules, known = Rules.of(profile), {remark["id"] for remark in profile.fact("knownBad")}
        return Loader(
            name,
            mlp=_UNQUANTIZED_MLP not in known,
            kv_scales=rules.kv_scales,
            weight_only=device == "cpu" or "W4A16_NVFP4" in rules.algorithms,
            padded=device == "cpu" or _UNPADDED not in known,
        )


def check(files: Files, profile: Profile, loader: Loader) -> tuple[Finding, ...]:
    """Everything that is found, what the engine refuses first. Never raises, whatever the files hold."""
    found = [*_files(files)]
    if files.config is not None and not any(t.file != BESIDE for t in files.troubles):
        found += _model(files, profile, loader)
    return tuple(sorted(dict.fromkeys(found), key=lambda f: f.severity != REFUSED))


def is_falcon_h1(files: Files) -> bool:
    """Whether config.json names the architecture that this operator is made for."""
    named = (files.config or {}).get("architectures")
    kind = (files.config or {}).get("model_type")
    return shape.ARCHITECTURE in named if isinstance(named, list) and named else kind == shape.MODEL_TYPE


def _files(files: Files) -> Iterator[Finding]:
    for trouble in files.troubles:
        yield _trouble(files, trouble)
    for name, file in list(files.elsewhere.items())[:1]:
        is_there = all(each in files.tensors for each in files.elsewhere)
        more = f" ({len(files.elsewhere) - 1} more are like it)" if len(files.elsewhere) > 1 else ""
        # The engine reads whatever the files hold, so that alone stops nothing: what it misses is told by name.
        yield Finding(
            "index",
            INDEX,
            f"It says that {name} is in {file}, where it is not{more}.",
            "repair-model writes the index anew." if is_there else COPY,
            is_there,
            WARNING,
            "CheckpointUnusable",
        )
    for name, tensor in list(files.twice.items())[:1]:
        first = files.tensors[name]
        more = f" ({len(files.twice) - 1} more are like it)" if len(files.twice) > 1 else ""
        same = (first.dtype, first.shape) == (tensor.dtype, tensor.shape)
        yield Finding(
            "twice",
            tensor.file,
            f"{name} is in {first.file} too{more}, and which copy counts is left to chance.",
            "Remove the file that does not belong to the checkpoint.",
            severity=WARNING if same else REFUSED,
            reason="CheckpointUnusable",
        )


def _trouble(files: Files, trouble: Trouble) -> Finding:
    if trouble.kind == "permission":
        return Finding(
            "permission", trouble.file, f"The checkpoint {trouble.what}.", PERMISSIONS, reason="CheckpointUnusable"
        )
    own = (files.config or {}).get("quantization_config")
    if trouble.file == BESIDE and trouble.kind == "damaged":
        # The engine reads it only where config.json says nothing; what it should say is in the weights.
        severity = WARNING if own is not None else REFUSED
        return Finding("beside", BESIDE, f"The checkpoint {trouble.what}.", _REPAIR, True, severity)
    fix = "Fetch the files themselves: git lfs pull." if trouble.kind == "pointer" else COPY
    code = {"pointer": "pointer", "damaged": "damaged", "index": "index"}.get(trouble.kind, "absent")
    return Finding(code, trouble.file, f"The checkpoint {trouble.what}.", fix, reason="CheckpointUnusable")


def _model(files: Files, profile: Profile, loader: Loader) -> Iterator[Finding]:
    if not is_falcon_h1(files):
        named = (files.config or {}).get("architectures") or (files.config or {}).get("model_type") or "no architecture"
        text = ", ".join(map(str, named)) if isinstance(named, list) else str(named)
        sentence = f"It is of another model: it names {text[:80]}, and this operator is made for {shape.ARCHITECTURE}."
        yield Finding("architecture", CONFIG, sentence, "Name another directory.", reason="ArchitectureUnknown")
        return
    try:
        sizes = shape.from_config({**(files.config or {}), "quantization_config": None})
    except shape.ShapeError as e:
        yield Finding("shape", CONFIG, f"It is no config of a Falcon-H1: {e}.", COPY, reason="CheckpointUnusable")
        return
    if sizes.layers > len(files.tensors):
        sentence = f"It says num_hidden_layers {sizes.layers}, and there are {len(files.tensors)} tensors in all."
        yield Finding("weights", CONFIG, sentence, COPY, reason="WeightsMismatch")
        return
    layers = quantization.layers(sizes)
    if _is_foreign(files):
        return
    yield from scales.check(files, sizes, layers)
    rules = Rules.of(profile, loader.name == "plugin")
    packed = quantization.any_packed(layers, files.tensors)
    if packed and (other := quantization.otherwise(layers, files.tensors)):
        sentence = f"{other} is quantized in another way than others, which was not looked at."
        yield Finding("mixed", _file(files), sentence, "If the engine refuses it: " + QUANTIZE, severity=WARNING)
        return
    reading = modelopt.read(files.config, files.beside, rules)
    if packed:
        yield from _config(files, reading, rules)
        yield from _kernels(files, layers, reading, rules, loader)
    if reading and (packed or reading.fp4):
        yield from _excluded(files, layers, reading, rules)
        yield from _cache(files, sizes, reading, rules, loader)


def _is_foreign(files: Files) -> bool:
    """Whether the weights are quantized by a method with layouts of its own, such as bitsandbytes."""
    own = (files.config or {}).get("quantization_config")
    method = own.get("quant_method") if isinstance(own, dict) else None
    named = isinstance(method, str) and method.lower() not in ("", "nvfp4", "modelopt", "modelopt_fp4")
    return named and not any(name.endswith(".weight_scale_2") for name in files.tensors)


def _config(files: Files, reading: Reading | None, rules: Rules) -> Iterator[Finding]:
    """Whether the config of FP4 weights is one that the version reads."""
    if reading is None:
        sentence = "It says nothing of a quantization, and the weights are FP4."
        yield Finding("config-absent", CONFIG, sentence, _REPAIR, True)
        return
    for refused in reading.refused:
        sentence = f"{_capital(refused.what)}: vLLM {rules.version} refuses that."
        yield Finding(f"config-{refused.code}", reading.file, sentence, _REPAIR, True)
    if not reading.refused and not reading.fp4:
        sentence = f"It announces {reading.algorithm[:40]}, and the weights are FP4."
        yield Finding("config-algorithm", reading.file, sentence, _REPAIR, True)
    if reading.file == CONFIG and files.beside is not None:
        other = modelopt.parse(BESIDE, files.beside, rules)
        stated = (other.algorithm.upper(), other.kv) != (reading.algorithm.upper(), reading.kv)
        routed = other.algorithm.upper() == "NVFP4" and reading.algorithm == "W4A16_NVFP4" and other.kv == reading.kv
        if stated and not routed:
            sentence = (
                f"It says {other.algorithm[:40] or 'nothing'} with a KV cache of {other.kv or 'no quantization'}, "
                f"{CONFIG} says {reading.algorithm[:40] or 'nothing'} with {reading.kv or 'none'}; the engine reads "
                f"{CONFIG} alone."
            )
            yield Finding("contradiction", BESIDE, sentence, _REPAIR, True, WARNING)


def _excluded(files: Files, layers: Sequence[Layer], reading: Reading, rules: Rules) -> Iterator[Finding]:
    """Whether the layers that the config keeps out are those whose weights are not FP4."""
    unnamed: list[Layer] = []
    packed: list[Layer] = []
    split: list[Layer] = []
    for layer in layers:
        excluded = reading.excludes(layer.name, layer.shards, rules)
        is_packed = quantization.is_packed(layer.modules[0], files.tensors)
        if excluded is None:
            split.append(layer)
        elif excluded and is_packed:
            packed.append(layer)
        elif not excluded and quantization.is_plain(layer.modules[0], files.tensors):
            unnamed.append(layer)
    if len(unnamed) == len(layers):
        sentence = "It announces FP4, and no weight of the layers is FP4."
        yield Finding("config-superfluous", reading.file, sentence, "repair-model takes it away.", True)
        return
    for code, found, what in (
        ("exclude-missing", unnamed, "is BF16 in the weights, and no excluded name matches what vLLM calls it"),
        ("exclude-packed", packed, "is FP4 in the weights, and an excluded name matches what vLLM calls it"),
        (
            "exclude-split",
            split,
            "is one layer in vLLM, of which only some parts are excluded: what vLLM calls it is",
        ),
    ):
        if found:
            first, more = found[0], f" ({len(found)} such layers)" if len(found) > 1 else ""
            yield Finding(
                code, reading.file, f"{first.modules[0]} {what}, {first.name}{more}.", _REPAIR, True,
                reason="WeightsMismatch",
            )  # fmt: skip


def _cache(files: Files, sizes: shape.ModelShape, reading: Reading, rules: Rules, loader: Loader) -> Iterator[Finding]:
    """Whether the KV cache's quantization is one that there is, and fits the scales."""
    have = quantization.kv_scales(sizes, files.tensors)
    if reading.kv and reading.kv not in modelopt.KV_ALGORITHMS:
        sentence = f"It says {reading.kv[:60]} for the KV cache, which vLLM does not have and ignores."
        yield Finding("kv-algorithm", reading.file, sentence, _REPAIR, True, WARNING)
    elif reading.kv is None and have != "none" and not reading.refused:
        sentence = "The weights have scales for an FP8 KV cache, and the config does not announce one."
        yield Finding("kv-unannounced", reading.file, sentence, _REPAIR, True, WARNING)
    if have == "some":
        sentence = "Only some layers have scales for the KV cache; the others get 1.0."
        yield Finding("kv-scales", _file(files), sentence, QUANTIZE, severity=WARNING, reason="WeightsMismatch")
    if have != "none" and not loader.kv_scales:
        sentence = f"vLLM {rules.version} has no place for the KV cache's scales in a Falcon-H1."
        yield Finding("loader-kv-scales", _file(files), sentence, _loader(rules, "0.18"), reason="WeightsMismatch")


def _kernels(
    files: Files, layers: Sequence[Layer], reading: Reading | None, rules: Rules, loader: Loader
) -> Iterator[Finding]:
    """Whether the version has a model and kernels for these weights."""
    packed = [layer for layer in layers if quantization.is_packed(layer.modules[0], files.tensors)]
    if any(layer.kind == "mlp" for layer in packed) and not loader.mlp:
        sentence = f"The MLP is FP4, and vLLM {rules.version} builds that of a Falcon-H1 in BF16."
        yield Finding("loader-mlp", _file(files), sentence, _loader(rules, "0.18"), reason="WeightsMismatch")
    inputs = quantization.input_scales(layers, files.tensors)
    declared = reading.algorithm if reading and reading.fp4 and not reading.refused else None
    weight_only = inputs != "all" or declared == "W4A16_NVFP4"
    if weight_only and not loader.weight_only:
        sentence = (
            f"The weights have no input scales, without which vLLM {rules.version} multiplies with numbers from "
            "nowhere on GPUs that compute in FP4."
        )
        yield Finding("loader-weight-only", _file(files), sentence, _loader(rules, "0.24"))
    elif inputs != "all" and declared == "NVFP4" and not rules.always_weight_only and loader.weight_only:
        sentence = (
            f"It announces quantized activations (W4A4), and {inputs} of the layers have the input scales for it."
        )
        yield Finding("algorithm", reading.file if reading else CONFIG, sentence, _REPAIR, True)
    odd = [layer for layer in packed if sum(layer.rows) % _TILE]
    if odd and not loader.padded:
        sentence = (
            f"{odd[0].modules[0]} is FP4 with {sum(odd[0].rows)} rows, and the Marlin kernel of vLLM {rules.version} "
            f"takes multiples of {_TILE} only."
        )
        severity = REFUSED if weight_only else WARNING
        yield Finding("loader-rows", _file(files), sentence, _loader(rules, "0.24"), severity=severity)


def _loader(rules: Rules, since: str) -> str:
    of_operator = (profiles.parse(rules.version) or (0, 0)) < (0, 24)
    return f"Use vLLM {since} or newer" + (", or the loader that this operator brings." if of_operator else ".")


def _file(files: Files) -> str:
    """Where the weights are, for a finding on many of them."""
    named = {t.file for t in files.tensors.values()}
    return named.pop() if len(named) == 1 else "*.safetensors"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
