"""How vLLM is run. Fields that are flags carry the flag's name."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, SecretKeyRef
from falcon_operator.api.markers import CEL, ListMap, Matches


class Device(StrEnum):
    """What the engine computes on."""

    CUDA = "cuda"
    CPU = "cpu"


class KVCacheDtype(StrEnum):
    """Number format of the KV cache."""

    FP8 = "fp8"
    AUTO = "auto"


class ComputeFormat(StrEnum):
    """Number format that the GPU computes with."""

    AUTO = "Auto"
    NVFP4 = "NVFP4"
    FP8 = "FP8"
    BF16 = "BF16"


class CudaGraphMode(StrEnum):
    """How much of a step is captured in CUDA graphs, in vLLM's names."""

    NONE = "NONE"
    PIECEWISE = "PIECEWISE"
    FULL = "FULL"
    FULL_DECODE_ONLY = "FULL_DECODE_ONLY"
    FULL_AND_PIECEWISE = "FULL_AND_PIECEWISE"


# Flags that the operator sets itself, that open the server, that load code, or that
# read any other flag from a file. Underscores count as dashes, as in vLLM.
DENIED_FLAGS = (
    "model",
    "served-model-name",
    "host",
    "port",
    "uds",
    "config",
    "api-key",
    "middleware",
    "tool-parser-plugin",
    "reasoning-parser-plugin",
)
DENIED_FLAG_PREFIXES = ("ssl-", "otlp-")


def _dashes(flag: str) -> str:
    return flag.replace("-", "[-_]")


_FLAGS = [*map(_dashes, DENIED_FLAGS), *(f"{_dashes(prefix)}[^=. ]*" for prefix in DENIED_FLAG_PREFIXES)]
DENIED_ARG_PATTERN = f"^--({'|'.join(_FLAGS)})([=. ](?s:.*))?$"

DENIED_ENV = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "VLLM_SERVER_DEV_MODE")
DENIED_ENV_PREFIXES = ("VLLM_ALLOW_", "FALCON_")
DENIED_ENV_PATTERN = "^(" + "|".join([*DENIED_ENV, *(f"{prefix}.*" for prefix in DENIED_ENV_PREFIXES)]) + ")$"

Parser = Annotated[
    str,
    Field(max_length=64),
    Matches("[A-Za-z0-9][A-Za-z0-9_-]*", '{path} is "{self}", which cannot be the name of one of vLLM\'s parsers'),
]

Arg = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    CEL(
        f"!self.matches(r'{DENIED_ARG_PATTERN}')",
        '{path} has "{self}": the operator sets or forbids this flag; use the field of the resource, or leave it out',
    ),
]


class EnvVarSource(Base):
    """Where a variable's value is read from."""

    secret_key_ref: SecretKeyRef = Field(description="Key of a Secret in the same namespace.")


class EnvVar(Base):
    """An environment variable of the engine's container."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!(has(self.value) && has(self.valueFrom))",
            '{path} sets both value and valueFrom for "{self.name}": set one of them',
        ),
    )

    name: Annotated[
        str,
        Field(max_length=128),
        Matches(
            "[A-Za-z_][A-Za-z0-9_]*",
            '{path} is "{self}", which cannot be a variable: use letters, digits and _, not starting with a digit',
        ),
        CEL(
            f"!self.matches('{DENIED_ENV_PATTERN}')",
            '{path} is "{self}": this variable is refused because it loads code, weakens the engine, '
            "or belongs to the operator",
        ),
    ] = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=4096)] | None = Field(default=None, description="The value.")
    value_from: EnvVarSource | None = Field(default=None, description="Where the value is read from.")


class QueueLimit(Base):
    """How much may wait before requests are turned away with 503 and Retry-After."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL("has(self.requests) || has(self.tokens)", "{path} is empty: set requests, tokens or both"),
    )

    requests: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="Most requests that may wait."
    )
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Most prompt tokens that may wait."
    )


class Engine(Base):
    """How vLLM is run."""

    version: (
        Annotated[
            str,
            Field(max_length=32),
            Matches(
                r"[0-9]+\.[0-9]+(\.[0-9]+)?([.+-]?[a-z][a-z0-9.]*)?",
                '{path} is "{self}": write a version of vLLM such as 0.33.0',
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="vLLM's version in the image; picks the profile of flags. Unset: read from the image's tag or, "
        "at start, from the image itself.",
    )
    device: Device = Field(
        default=Device.CUDA,
        description="What the engine computes on. cpu is for development: it has no NVFP4 kernels.",
    )
    max_model_len: Annotated[int, Field(ge=1, le=1_048_576)] = Field(
        default=65536, description="Most tokens of one sequence, prompt and answer together."
    )
    max_num_seqs: Annotated[int, Field(ge=1, le=8192)] = Field(
        default=256, description="Most sequences in one step; lowered or refused by `fit` where the GPU holds fewer."
    )
    gpu_memory_utilization: Annotated[float, Field(ge=0.1, le=0.98)] = Field(
        default=0.88, description="Share of the GPU's memory that the engine takes."
    )
    kv_cache_dtype: KVCacheDtype = Field(default=KVCacheDtype.FP8, description="Number format of the KV cache.")
    prefix_caching: bool = Field(default=True, description="Whether prompts that start alike share their KV cache.")
    compute_format: ComputeFormat = Field(
        default=ComputeFormat.AUTO,
        description="Number format that the GPU computes with. Auto takes the fastest that fits; "
        "the checkpoint stays NVFP4.",
    )
    cuda_graph_mode: CudaGraphMode = Field(
        default=CudaGraphMode.FULL_AND_PIECEWISE,
        description="How much of a step is captured in CUDA graphs, in vLLM's names. NONE is eager.",
    )
    reasoning_parser: Parser | None = Field(
        default=None, description="vLLM's parser that separates reasoning from the answer."
    )
    tool_call_parser: Parser | None = Field(
        default=None, description="vLLM's parser for tool calls; setting it turns automatic tool choice on."
    )
    queue_limit: QueueLimit | None = Field(
        default=None, description="Beyond it, requests are answered with 503 and Retry-After. Unset: no limit."
    )
    extra_args: Annotated[tuple[Arg, ...], Field(max_length=64)] = Field(
        default=(),
        description="More arguments for `vllm serve`, one item each. Flags that the operator sets are refused.",
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListMap("name")] = Field(
        default=(), description="More environment variables of the engine."
    )
