"""The engine's command line: what the resource asks for, in the words of the version that runs."""

import difflib
import json
from itertools import zip_longest

from falcon_engine import profiles
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

# Probes and scrapes would be most of the access log.
QUIET_ENDPOINTS = "/health,/metrics"
# vLLM sizes its cache on CPU by the node's memory, not by the container's: too much for a pod with a limit.
CPU_CACHE_BYTES = 1 << 30


def argv(intent: Intent, profile: Profile, model: str, *, nvfp4: bool = True) -> list[str]:
    """`serve MODEL --flags...`, the resource's extra arguments last, so that they win.

    `model` is the checkpoint's directory, or the repository for a Hugging Face source. `nvfp4` says whether the
    checkpoint's own config calls it FP4. Raises `Refusal` where the version lacks what the resource asks for.
    """
    cpu = intent.device == "cpu"
    args = ["serve", model, "--served-model-name", *intent.names]
    args += ["--host", "0.0.0.0", "--port", str(intent.port)]
    if model == intent.source.repository and intent.source.revision:
        args += ["--revision", intent.source.revision, "--tokenizer-revision", intent.source.revision]
    args += ["--max-model-len", str(intent.max_model_len), "--max-num-seqs", str(intent.max_num_seqs)]
    if intent.tensor_parallel_size > 1:
        args += ["--tensor-parallel-size", str(intent.tensor_parallel_size)]
    args += (_cpu if cpu else _cuda)(intent, profile, nvfp4)
    if intent.reasoning_parser:
        args += ["--reasoning-parser", intent.reasoning_parser]
    if intent.tool_call_parser:
        args += ["--enable-auto-tool-choice", "--tool-call-parser", intent.tool_call_parser]
    args += _queue(intent, profile)
    if profile.has("--shutdown-timeout"):
        args += ["--shutdown-timeout", str(intent.drain_timeout_seconds)]
    # The resource does not ask for this one: it is not worth the risk where the version is unknown.
    if profile.flags_complete and profile.has("--disable-access-log-for-endpoints"):
        args += ["--disable-access-log-for-endpoints", QUIET_ENDPOINTS]
    return [*args, *intent.extra_args]


def notes(intent: Intent, profile: Profile) -> list[str]:
    """What the engine is not told although the resource says it, each with its reason."""
    said = []
    if intent.device == "cpu":
        if intent.kv_cache_dtype != "auto":
            said.append(f"kvCacheDtype {intent.kv_cache_dtype} has no effect: not every CPU has the kernels for it")
        if intent.prefix_caching and not profile.fact("cpuPrefixCaching"):
            said.append(f"prefixCaching is off on CPU: {profile.facts['cpuPrefixCaching']['source']}")
        if not given(intent, "--kv-cache-memory-bytes"):
            said.append(f"the cache takes {CPU_CACHE_BYTES >> 20} MiB; extraArgs --kv-cache-memory-bytes changes that")
    elif intent.cuda_graph_mode != "NONE" and given(intent, "--compilation-config", "-cc"):
        said.append("cudaGraphMode yields to the --compilation-config in extraArgs")
    if profile.flags_complete:
        said += _foreign_parsers(intent, profile)
    if not profile.has("--shutdown-timeout"):
        said.append(f"vLLM {profile.version} cannot drain by itself: requests that still run at the end are aborted")
    return said


def _foreign_parsers(intent: Intent, profile: Profile) -> list[str]:
    said = []
    for field, flag, parser in (
        ("reasoningParser", "--reasoning-parser", intent.reasoning_parser),
        ("toolCallParser", "--tool-call-parser", intent.tool_call_parser),
    ):
        own = [str(name) for name in profile.flags[flag].choices]
        if parser is None or parser in own:
            continue
        near = "".join(f" (the nearest is {name})" for name in difflib.get_close_matches(parser, own, n=1))
        said.append(f"{field} {parser} is none of vLLM {profile.version}{near}: a plugin in the image must bring it")
    return said


def _cuda(intent: Intent, profile: Profile, nvfp4: bool) -> list[str]:
    args = ["--gpu-memory-utilization", f"{intent.gpu_memory_utilization:g}"]
    args += ["--kv-cache-dtype", intent.kv_cache_dtype]
    args += ["--enable-prefix-caching" if intent.prefix_caching else "--no-enable-prefix-caching"]
    if intent.prefix_caching and profile.fact("mambaCacheMode") and not given(intent, "--mamba-cache-mode"):
        args += ["--mamba-cache-mode", profile.fact("mambaCacheMode")]
    quantization = profile.fact("nvfp4Quantization")
    if quantization and nvfp4 and not given(intent, "--quantization", "-q"):
        args += ["--quantization", quantization]
    if intent.cuda_graph_mode == "NONE":
        args += ["--enforce-eager"]
    elif given(intent, "--compilation-config.", "-cc."):
        # vLLM puts the dotted form of one argument together and drops its JSON form.
        args += ["--compilation-config.cudagraph_mode", intent.cuda_graph_mode]
    else:
        args += ["--compilation-config", json.dumps({"cudagraph_mode": intent.cuda_graph_mode})]
    return args


def cpu_cache_dtype(nvfp4: bool) -> str:
    """The cache's number format on CPU: what a checkpoint asks for, but not the FP8 of an NVFP4 one."""
    return "bfloat16" if nvfp4 else "auto"


def _cpu(intent: Intent, profile: Profile, nvfp4: bool) -> list[str]:
    caching = intent.prefix_caching and profile.fact("cpuPrefixCaching")
    # With auto the cache would be what such a checkpoint asks for: FP8.
    args = ["--kv-cache-dtype", cpu_cache_dtype(nvfp4), "--enforce-eager"]
    args += ["--enable-prefix-caching" if caching else "--no-enable-prefix-caching"]
    if not given(intent, "--kv-cache-memory-bytes"):
        args += ["--kv-cache-memory-bytes", str(CPU_CACHE_BYTES)]
    return args


def _queue(intent: Intent, profile: Profile) -> list[str]:
    args = []
    for field, flag, limit in (
        ("requests", "--max-num-queued-reqs", intent.queue_requests),
        ("tokens", "--max-num-queued-tokens", intent.queue_tokens),
    ):
        if limit is None:
            continue
        if not profile.has(flag):
            lacks = f"vLLM {profile.version} has no {flag}"
            if not profile.flags_complete:
                lacks = f"it is not known whether this vLLM has {flag}"
            first = next(v for v in profiles.VERSIONS if profiles.load(v).has(flag))
            raise Refusal(
                Diagnosis(
                    reason="FlagUnknown",
                    message=f"spec.engine.queueLimit.{field} is {limit}, but {lacks}.",
                    hint=f"Remove spec.engine.queueLimit.{field}, or use an image with vLLM {first} or newer.",
                    exit_code=CONFIGURATION_EXIT,
                )
            )
        args += [flag, str(limit)]
    return args


def given(intent: Intent, *names: str) -> bool:
    """Whether the extra arguments hold one of these; a name that ends in a dot stands for its dotted forms."""
    for argument in intent.extra_args:
        name = argument.partition("=")[0]
        name = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
        if any(name.startswith(n) if n.endswith(".") else name == n for n in names):
            return True
    return False


def value(intent: Intent, name: str) -> str | None:
    """What the extra arguments give a flag, the last one of them; None where they do not have it."""
    found = None
    for argument, following in zip_longest(intent.extra_args, intent.extra_args[1:], fillvalue=""):
        stated, equals, text = argument.partition("=")
        if stated.startswith("--") and "--" + stated[2:].replace("_", "-") == name:
            found = text if equals else following
    return found
