"""Whether a Falcon-H1's tensors are there and shaped as its config says, and FP4 weights have their scales."""

import math
from collections.abc import Iterator, Mapping, Sequence

from falcon_engine.finding import COPY, QUANTIZE, Finding
from falcon_engine.modelopt import GROUP_SIZE
from falcon_engine.quantization import KV_SCALES, PACKED, Layer, is_packed, is_plain
from falcon_engine.safetensors import Files, Tensor
from falcon_engine.shape import ModelShape

_FLOATS = ("BF16", "F16", "F32")
# What each layer has beside its linears.
_STATE = ("mamba.A_log", "mamba.D", "mamba.dt_bias", "mamba.conv1d.weight")


def check(files: Files, sizes: ModelShape, layers: Sequence[Layer]) -> Iterator[Finding]:
    """What is wrong with the tensors, one finding for each kind of mistake."""
    problems = [*_linears(files.tensors, layers), *_kept(files.tensors, sizes)]
    for code, first in {code: (name, what) for code, name, what in reversed(problems)}.items():
        more = sum(code == other for other, _, _ in problems) - 1
        name, what = first
        file = files.tensors[name].file if name in files.tensors else "*.safetensors"
        sentence = f"{name} {what}" + (f" ({more} more are like it)." if more else ".")
        yield Finding(code, file, sentence, COPY if code in _OTHER_MODEL else QUANTIZE, reason="WeightsMismatch")


# These are not what a quantizer did.
_OTHER_MODEL = ("weights-missing", "weights-shape")


def _linears(tensors: Mapping[str, Tensor], layers: Sequence[Layer]) -> Iterator[tuple[str, str, str]]:
    """Code, tensor and the end of a sentence for each mistake in the linear layers."""
    for layer in layers:
        if any(f"{m}.weight" not in tensors and _others(m, tensors) for m in layer.modules):
            continue  # another method's names, such as qweight
        kinds = {is_packed(module, tensors) for module in layer.modules if f"{module}.weight" in tensors}
        if len(kinds) > 1:
            what = f"is FP4 and others of {', '.join(layer.modules)} are not, which vLLM computes as one"
            yield "fused", next(f"{m}.weight" for m in layer.modules if is_packed(m, tensors)), what
        for module, rows in zip(layer.modules, layer.rows, strict=True):
            yield from _linear(tensors, module, rows, layer.columns)


def _others(module: str, tensors: Mapping[str, Tensor]) -> bool:
    return any(f"{module}.{name}" in tensors for name in ("qweight", "weight_packed", "weight_q"))


def _linear(tensors: Mapping[str, Tensor], module: str, rows: int, columns: int) -> Iterator[tuple[str, str, str]]:
    name = f"{module}.weight"
    weight = tensors.get(name)
    if weight is None:
        yield "weights-missing", name, "is in none of the files"
    elif is_packed(module, tensors):
        if weight.shape != (rows, columns // 2):
            what = f"has shape {_shown(weight.shape)}, and is {_shown((rows, columns // 2))} as FP4 by config.json"
            yield "weights-shape", name, what
        elif columns % GROUP_SIZE:
            yield "weights-shape", name, f"has {columns} columns, which is no multiple of {GROUP_SIZE}"
        else:
            yield from _scale(tensors, f"{name}_scale", "F8_E4M3", (rows, columns // GROUP_SIZE))
            yield from _scale(tensors, f"{name}_scale_2", "F32", ())
            if f"{module}.input_scale" in tensors:
                yield from _scale(tensors, f"{module}.input_scale", "F32", ())
    elif weight.shape != (rows, columns):
        what = f"has shape {_shown(weight.shape)}, and is {_shown((rows, columns))} by config.json"
        yield "weights-shape", name, what
    elif is_plain(module, tensors) and f"{name}_scale" in tensors:
        yield "scales-orphaned", f"{name}_scale", f"is the scale of a weight that is not quantized ({weight.dtype})"


def _scale(
    tensors: Mapping[str, Tensor], name: str, dtype: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, str, str]]:
    scale = tensors.get(name)
    if scale is None:
        yield "scales-missing", name, "is in none of the files, and its weight is FP4"
    elif scale.dtype != dtype:
        yield "scales-wrong", name, f"is {scale.dtype[:20]}, and must be {dtype}"
    elif scale.shape != shape and (shape or math.prod(scale.shape) != 1):
        what = f"has shape {_shown(scale.shape)}, and must have {_shown(shape) if shape else 'one number'}"
        yield "scales-wrong", name, what


def _kept(tensors: Mapping[str, Tensor], sizes: ModelShape) -> Iterator[tuple[str, str, str]]:
    """What must not be quantized: embedding and head, convolutions and the state's parameters."""
    table = (sizes.vocab_size, sizes.hidden_size)
    for module in ("model.embed_tokens", *(() if sizes.tied_embeddings else ("lm_head",))):
        weight = tensors.get(f"{module}.weight")
        if weight is None:
            yield "weights-missing", f"{module}.weight", "is in none of the files"
        elif weight.dtype not in _FLOATS:
            what = f"is quantized ({_dtype(weight)}), and vLLM takes it in BF16 alone"
            yield "kept-quantized", f"{module}.weight", what
        elif weight.shape != table:
            what = f"has shape {_shown(weight.shape)}, and is {_shown(table)} by config.json"
            yield "weights-shape", f"{module}.weight", what
    for index in range(sizes.layers):
        for part in _STATE:
            name = f"model.layers.{index}.{part}"
            tensor = tensors.get(name)
            if tensor is None:
                yield "weights-missing", name, "is in none of the files"
            elif tensor.dtype not in _FLOATS or f"{name}_scale" in tensors:
                code = "conv1d-quantized" if "conv1d" in part else "kept-quantized"
                yield code, name, f"is quantized ({_dtype(tensor)}), and vLLM takes it in BF16 alone"
        for part in KV_SCALES:
            name = f"model.layers.{index}.{part}"
            tensor = tensors.get(name)
            if tensor and (tensor.dtype not in _FLOATS or math.prod(tensor.shape) != 1):
                what = f"is {_dtype(tensor)} of shape {_shown(tensor.shape)}, and must be one number in F32"
                yield "scales-wrong", name, what


def _dtype(tensor: Tensor) -> str:
    return "FP4" if tensor.dtype == PACKED else tensor.dtype[:20]


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape[:6]))}]"
