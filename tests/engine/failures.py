"""The logs of engines that failed, one for each signature, with what users are to be told of each."""

from dataclasses import dataclass
from pathlib import Path

LOGS = Path(__file__).parent / "logs"


@dataclass(frozen=True)
class Failure:
    """One log, how its engine ends, and the diagnosis: reason, the launcher's exit code, words of message and hint."""

    log: str
    reason: str
    code: int
    words: tuple[str, ...]
    engine_code: int = 1
    served: bool = False

    @property
    def origin(self) -> str:
        """The first line of the log: whether an engine wrote it."""
        return (LOGS / f"{self.log}.log").read_text().partition("\n")[0]

    @property
    def text(self) -> str:
        """What the engine prints."""
        return (LOGS / f"{self.log}.log").read_text().partition("\n")[2]


def _refused(log: str, reason: str, *words: str, engine_code: int = 1) -> Failure:
    """A restart would end the same way."""
    return Failure(log, reason, 2, words, engine_code)


def _failed(log: str, reason: str, *words: str, engine_code: int = 1) -> Failure:
    return Failure(log, reason, 1, words, engine_code)


def _died(log: str, reason: str, *words: str) -> Failure:
    """vLLM ends with exit code 0 where one of its processes dies while it serves."""
    return Failure(log, reason, 70, words, engine_code=0, served=True)


FAILURES = (
    _refused("flag-unknown", "FlagUnknown", "--no-such-flag 3", "spec.engine.extraArgs", engine_code=2),
    _refused("flag-choice", "FlagValueRefused", "'fp3' for --kv-cache-dtype", "fp8_e5m2", engine_code=2),
    _refused(
        "flag-value", "FlagValueRefused", "--max-model-len: invalid human_readable_int_or_auto value", engine_code=2
    ),
    _refused("tool-parser", "FlagValueRefused", "no tool call parser nope", "qwen3_xml", "spec.engine.toolCallParser"),
    _refused("reasoning-parser", "FlagValueRefused", "parser nope", "deepseek_r1", "spec.engine.reasoningParser"),
    _refused("model-length", "FlagValueRefused", "9000000", "4096", "spec.engine.maxModelLen"),
    _refused("tensor-parallel", "FlagValueRefused", "12 attention heads", "5 GPUs", "spec.gpu.count"),
    _refused("kv-cache-dtype", "FlagValueRefused", "fp8 is not supported by the CPU", "spec.engine.kvCacheDtype"),
    _refused("configuration", "ConfigurationRefused", "(CacheConfig gpu_memory_utilization)", "greater than 0."),
    _refused("sequences", "SequencesExceedMemory", "1024 sequences", "480", "spec.engine.maxNumSeqs to at most 480"),
    _refused("context", "ContextExceedsMemory", "65536 tokens", "2.75 GiB", "1.02 GiB", "At most 21840 tokens fit."),
    _refused("no-cache-memory", "WeightsExceedMemory", "no memory for the cache", "spec.engine.gpuMemoryUtilization"),
    _failed("memory-taken", "GPUMemoryTaken", "38.15 of 79.18 GiB", "69.68 GiB", "(0.88 now)", "previous engine"),
    _failed("memory-changed", "GPUMemoryTaken", "20.11 GiB", "68.4 GiB", "previous engine"),
    _refused("driver-too-old", "DriverTooOld", "CUDA 12.8 at most", "580"),
    _refused("driver-insufficient", "DriverTooOld", "older than the image's CUDA", "580"),
    _failed("driver-mismatch", "DriverMismatch", "different versions", "LD_LIBRARY_PATH in spec.engine.env"),
    _refused(
        "no-kernel-image", "GPUNotSupported", "is sm_121.", "sm_80 sm_86 sm_90 sm_100 sm_120.", "spec.gpu.products"
    ),
    _failed("out-of-memory", "GPUOutOfMemory", "2.04 GiB", "79.18 GiB", "1.35 GiB", "spec.gpu.memoryAtLeast"),
    _died("out-of-memory-serving", "GPUOutOfMemory", "died while it served", "370.69 MiB", "--max-num-batched-tokens"),
    _died("gpu-fault", "GPUFault", "an illegal memory access was encountered", "Xid"),
    _failed("no-gpu", "GPUNotVisible", "sees no GPU", "spec.scheduling.runtimeClassName"),
    _failed("shared-memory", "SharedMemoryTooSmall", "33030528 bytes", "spec.gpu.count"),
    _failed("nccl", "NCCLFailed", "unhandled cuda error", "Cuda failure 101 'invalid device ordinal'", "NCCL_DEBUG"),
    _refused("hub-unauthorized", "HubUnauthorized", "(401)", "Falcon-H1R-7B/resolve/main", ".tokenSecretRef"),
    _refused("hub-gated", "HubForbidden", "gated", "Falcon-H1R-7B/resolve/main/config.json", ".tokenSecretRef"),
    _refused("hub-forbidden", "HubForbidden", "(403)", "fine-grained token settings", "right to read"),
    _refused("hub-repository", "CheckpointNotFound", "no such repository", "Falcon-H1R-7B", ".repository"),
    _refused("hub-revision", "CheckpointNotFound", "not its revision", "resolve/v9/config.json", ".revision"),
    _refused("hub-entry", "CheckpointUnusable", "lacks a file", "resolve/main/config.json"),
    _failed("hub-rate-limited", "HubRateLimited", "(429)", "wait 1 s", "spec.model.source.huggingFace.cache"),
    _failed("hub-unreachable", "HubUnreachable", "cannot be reached", "Name or service not known", "HTTPS_PROXY"),
    _refused("hub-offline", "CheckpointNotFound", "HF_HUB_OFFLINE", "spec.engine.env"),
    _refused("quantization-mismatch", "QuantizationRefused", "nvfp4, the engine was told modelopt_fp4", "quant_method"),
    _refused("quantization-algorithm", "QuantizationRefused", "W4A16_NVFP4", "0.22 or newer"),
    _refused("quantization-method", "QuantizationRefused", "method nvfp4.", "quant_method modelopt"),
    _refused("quantization-absent", "QuantizationRefused", "told modelopt_fp4, but", "--quantization"),
    _refused("quantization-gpu", "GPUNotSupported", "70", "75", "spec.gpu.products"),
    _refused("weight-scale", "WeightsMismatch", "model.layers.44.mixer.in_proj", "*in_proj*"),
    _refused("weight-shape", "WeightsMismatch", "torch.Size([130048, 3072])", "torch.Size([130049, 3072])"),
    _refused("weight-shape-parameter", "WeightsMismatch", "another shape", "copy the checkpoint again"),
    _refused("weight-packed", "WeightsMismatch", "6144", "12288", "exclude list"),
    _refused("weight-name", "WeightsMismatch", "model.extra", "0.20 or newer"),
    _refused("weight-missing", "WeightsMismatch", "lm_head.weight", "all files"),
    _refused("weights-none", "CheckpointUnusable", "no weight files in /models/falcon", "*.safetensors"),
    _refused("weights-damaged", "CheckpointUnusable", "incomplete metadata, file not fully covered", "Git LFS"),
    _refused("remote-code", "RemoteCodeRefused", "code of its own", "operator.allowTrustRemoteCode"),
    _refused("architecture-transformers", "ArchitectureUnknown", "falcon_h2", "spec.image.reference"),
    _refused("architecture", "ArchitectureUnknown", "FalconH2ForCausalLM", "spec.image.reference"),
    _refused("tokenizer", "TokenizerUnusable", "tokenizer cannot be loaded", "tokenizer.json"),
    _refused("model-config", "CheckpointUnusable", "/models/falcon/config.json is not JSON"),
    _failed("cpu-cache-memory", "OutOfMemory", "19.69 of 23.54 GiB", "--kv-cache-memory-bytes"),
    _failed("host-memory", "OutOfMemory", "1598029824 bytes", "spec.resources"),
    _failed("quota", "DiskFull", "quota", "/var/falcon/cache/vllm", "spec.cache"),
    _failed("disk-full", "DiskFull", "/var/falcon/model/hub", "812.44 MB", "spec.model.source.huggingFace.cache"),
    _failed("port-taken", "PortTaken", "another process of the pod", "server that the image starts"),
    _failed("ready-timeout", "EngineReadyTimeout", "600 s", "VLLM_ENGINE_READY_TIMEOUT_S in spec.engine.env"),
    _died("worker-killed", "EngineKilled", "VllmWorker-0", "SIGKILL", "spec.resources.requests.memory"),
    _failed("core-killed", "EngineKilled", "EngineCore got SIGKILL", "spec.resources.requests.memory"),
    _died("worker-died", "EngineDied", "VllmWorker-1", "exit code was -11"),
    _died("core-died", "EngineDied", "EngineCore died", "restarts"),
    _refused("library", "ImageUnusable", "libcudart.so.13", "spec.image.reference"),
    _refused("compiler", "ImageUnusable", "no compiler", "spec.cache"),
    _failed("read-only", "ReadOnlyFilesystem", "/.cache/flashinfer", "spec.security.readOnlyRootFilesystem"),
    _failed("permission", "PermissionDenied", "/.cache", "spec.security.runAsUser"),
    _failed("interrupted", "StartInterrupted", "told to stop", "spec.startup.budget"),
)
