"""From the spec to what the launcher is told."""

from __future__ import annotations

import re

from falcon_engine.intent import Intent
from falcon_engine.intent import Source as IntentSource
from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.desired import quantized
from falcon_operator.desired.volumes import SOURCE_DIRECTORY

# A tag that starts with a version of vLLM, as in vllm/vllm-openai:v0.33.0-cu130.
_VERSION_TAG = re.compile(r"v?(0\.[0-9]+\.[0-9]+)(?:[.+-].*)?")


def intent(spec: Spec, image: str) -> Intent:
    """The intent of every pod of one spec."""
    engine = spec.engine
    return Intent(
        device=engine.device.value,
        version=engine.version or version_of_tag(image),
        names=spec.model.names,
        port=names.ENGINE_PORT,
        source=_source(spec),
        checkpoint=spec.model.checkpoint.value,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        fit=spec.fit.value,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        kv_cache_dtype=engine.kv_cache_dtype.value,
        prefix_caching=engine.prefix_caching,
        compute_format=engine.compute_format.value,
        cuda_graph_mode=engine.cuda_graph_mode.value,
        reasoning_parser=engine.reasoning_parser,
        tool_call_parser=engine.tool_call_parser,
        queue_requests=engine.queue_limit.requests if engine.queue_limit else None,
        queue_tokens=engine.queue_limit.tokens if engine.queue_limit else None,
        gpu_resource=spec.gpu.effective_resource_name if spec.effective_gpu_count else None,
        tensor_parallel_size=spec.effective_gpu_count or 1,
        canary=spec.startup.canary,
        drain_timeout_seconds=spec.rollout.drain_timeout_seconds,
        extra_args=engine.extra_args,
    )


def version_of_tag(image: str) -> str | None:
    """The engine's version as an image's tag states it; None for a tag that is something else."""
    last = image.partition("@")[0].rpartition("/")[2]
    _, colon, tag = last.partition(":")
    match = _VERSION_TAG.fullmatch(tag) if colon else None
    return match[1] if match else None


def _source(spec: Spec) -> IntentSource:
    source = spec.model.source
    if (made := quantized.directory(spec)) is not None:
        return IntentSource(kind="volume", path=made)
    if source.volume is not None:
        return IntentSource(kind="volume", path=_below_source(source.volume.path))
    if source.oci is not None:
        return IntentSource(kind="oci", path=_below_source(None))
    if source.hugging_face is not None:
        remote = source.hugging_face
        return IntentSource(kind="huggingFace", repository=remote.repository, revision=remote.revision)
    return IntentSource(kind="baked", path=source.baked.path if source.baked else None)


def _below_source(path: str | None) -> str:
    return f"{SOURCE_DIRECTORY}/{path.strip('/')}" if path else SOURCE_DIRECTORY
