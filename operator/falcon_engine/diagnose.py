"""From an exit code and last log lines to a diagnosis. The table holds what is known of vLLM's last words."""

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from falcon_engine.signatures import CONFIGURATION_EXIT, DEATH_EXIT, START_EXIT, Diagnosis

TAIL_LINES = 20
# What one process of the engine says when another one has failed.
_CONSEQUENCES = r"EngineDeadError|Engine core initialization failed|cannot schedule new futures|CancelledError"


@dataclass(frozen=True)
class Signature:
    """A line that tells why; `message` and `hint` may use its named groups."""

    reason: str
    pattern: str
    message: str
    hint: str
    exit_code: int = START_EXIT


# The first signature that is found wins: causes before their consequences, exact before general.
SIGNATURES = (
    Signature(
        "FlagUnknown",
        r"error: unrecognized arguments: (?P<flag>.+)",
        "The engine does not know the argument {flag}.",
        "Correct or remove it in spec.engine.extraArgs; the names differ between versions of vLLM.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"error: argument (?P<flag>[^:]+): invalid choice: (?P<value>.+?) \(choose from (?P<choices>.*)\)",
        "The engine refuses {value} for {flag}; it takes {choices}.",
        "Set one of these values in the field of spec.engine, or in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"error: argument (?P<flag>[^:]+): (?P<what>.+)",
        "The engine refuses the value of {flag}: {what}.",
        "Correct it in the field of spec.engine, or in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"(?:invalid (?P<kind>tool call|reasoning) parser: |Reasoning parser ')(?P<value>[^\s']+)",
        "This engine has no parser {value}.",
        "Correct spec.engine.toolCallParser or spec.engine.reasoningParser.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"max_model_len \((?P<value>\d+)\) is greater than the derived max_model_len \((?P<derived>[^)]*\d)",
        "maxModelLen {value} is more than the checkpoint allows ({derived}).",
        "Lower spec.engine.maxModelLen to what the checkpoint allows.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "QuantizationRefused",
        r"Cannot find the config file for (?P<method>modelopt\w*)",
        "The engine was told {method}, but the checkpoint is not quantized.",
        "Remove --quantization from spec.engine.extraArgs, or serve the NVFP4 checkpoint.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"validation errors? for (?P<config>\w+)\n(?:(?:.*[ )])?(?P<field>\w+)\n)?"
        r".*?(?:Value error, )?(?P<what>(?:(?<=Value error, )|Input should be )[^\[\n]+)",
        "The engine refuses its configuration ({config} {field}): {what}.",
        "Correct the field of spec.engine that this is about, or spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
        "The model's {heads} attention heads cannot be divided among {size} GPUs.",
        "Set spec.gpu.count to a divisor of the number of heads.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "FlagValueRefused",
        r"--kv-cache-dtype (?P<value>\S+) is not supported (?P<where>by .+)",
        "The KV cache type {value} is not supported {where}",
        "Set spec.engine.kvCacheDtype to auto.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "SequencesExceedMemory",
        r"max_num_seqs \((?P<wanted>\d+)\) exceeds available Mamba cache blocks \((?P<blocks>\d+)\)",
        "{wanted} sequences do not fit: the GPU holds {blocks} Mamba states.",
        "Set spec.engine.maxNumSeqs to at most {blocks}.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "SequencesExceedMemory",
        r"max seq len \((?P<length>\d+)\).{0,200}larger than the available KV cache memory",
        "One sequence of {length} tokens does not fit into the memory that is left for the cache.",
        "Lower spec.engine.maxModelLen, or give the cache more: spec.engine.gpuMemoryUtilization, on CPU "
        "--kv-cache-memory-bytes in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "SequencesExceedMemory",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the cache.",
        "Raise spec.engine.gpuMemoryUtilization, or use a GPU with more memory.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "GPUMemoryTaken",
        r"Free memory on device .* is less than desired",
        "Something else holds the GPU's memory: a previous engine that still ends, or another tenant.",
        "It passes if a previous engine is ending; otherwise lower spec.engine.gpuMemoryUtilization.",
    ),
    Signature(
        "QuantizationRefused",
        r"Quantization method specified in the model config \((?P<config>[^)]*)\) does not match .*\((?P<flag>[^)]*)\)",
        "The checkpoint calls its quantization {config}, the engine was told {flag}.",
        "Correct quantization_config in the checkpoint's config.json: quant_method must be modelopt.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "QuantizationRefused",
        r"Unknown (?:quantization method|ModelOpt quant algo): (?P<method>\S+)",
        "This engine does not know the checkpoint's quantization {method}.",
        "Correct quantization_config in the checkpoint's config.json, or use an image with vLLM 0.22 or newer.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "QuantizationRefused",
        r"weight_scale\b.* was never loaded",
        "The engine expects NVFP4 weights where the checkpoint has none.",
        "The checkpoint's exclude list does not name layers as vLLM does; patterns such as *in_proj* match.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "QuantizationRefused",
        r"(?P<what>(?:quantization method|The quantization method) \S+ is not supported for the current GPU.*)",
        "{what}",
        "Use a GPU that this quantization supports.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "DriverTooOld",
        r"driver (?:version is insufficient|on your system is too old)|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        r"|no kernel image is available",
        "The GPU or its driver does not run this image's CUDA.",
        "CUDA 13 images need driver 580 or newer; otherwise use an image that was built for this GPU.",
    ),
    Signature(
        "EngineStartFailed",
        r"No CUDA GPUs are available|Failed to infer device type|libcuda\.so\.1: cannot open",
        "The engine sees no GPU.",
        "Check the device plugin and spec.scheduling.runtimeClassName, or set spec.engine.device to cpu to develop.",
    ),
    Signature(
        "OutOfMemory",
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "The GPU ran out of memory.",
        "Lower spec.engine.gpuMemoryUtilization, maxNumSeqs or maxModelLen.",
    ),
    Signature(
        "OutOfMemory",
        r"less than requested memory for kv",
        "Less memory is free than the cache would take.",
        "Lower --kv-cache-memory-bytes in spec.engine.extraArgs.",
    ),
    Signature(
        "OutOfMemory",
        r"std::bad_alloc|Cannot allocate memory|DefaultCPUAllocator: can't allocate memory",
        "The container ran out of memory.",
        "Raise spec.resources' memory, or lower --kv-cache-memory-bytes in spec.engine.extraArgs.",
    ),
    Signature(
        "DiskFull",
        r"No space left on device|Disk quota exceeded",
        "A disk is full.",
        "Enlarge spec.cache or the model's volume.",
    ),
    Signature(
        "CheckpointUnusable",
        r"SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer|InvalidHeaderDeserialization",
        "A weight file is damaged.",
        "Copy the checkpoint again.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "CheckpointNotFound",
        r"(?P<what>(?:401|403|429) Client Error|GatedRepoError|RepositoryNotFoundError|RevisionNotFoundError"
        r"|LocalEntryNotFoundError|couldn't connect to '?https?://\S*huggingface)",
        "The model could not be fetched: {what}.",
        "Check spec.model.source.huggingFace: repository, revision, tokenSecretRef, and the way to the hub.",
    ),
    Signature(
        "CheckpointUnusable",
        r"Model architectures \[(?P<what>[^]]*)\] are not supported",
        "This engine does not know the model's architecture {what}.",
        "Use an image with a newer vLLM.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "EngineStartFailed",
        r"(?P<what>(?:Read-only file system|Permission denied): \S+)",
        "The engine could not write or read: {what}.",
        "The image may need spec.security.readOnlyRootFilesystem: false or another spec.security.runAsUser.",
    ),
    Signature(
        "StartInterrupted",
        r"KeyboardInterrupt: terminated",
        "The engine was told to stop before it served.",
        "If nobody wanted that, the startup probe did: raise spec.startup.budget.",
    ),
)


def diagnose(
    exit_code: int, lines: Sequence[str], *, served: bool, engine_version: str | None, memory_kills: int = 0
) -> Diagnosis:
    """Why an unwanted end happened. `exit_code` is negative for a signal, as Python's subprocess has it."""
    tail = tuple(line for line in lines if line.strip())[-TAIL_LINES:]
    ended = _ended(exit_code)
    if memory_kills or (exit_code == -signal.SIGKILL and not served):
        how = "The kernel killed a process of the engine at the container's memory limit"
        return Diagnosis(
            "OutOfMemory",
            f"{how if memory_kills else 'The engine was killed (SIGKILL), most likely for its memory'}; {ended}.",
            "Raise the memory in spec.resources, or lower --kv-cache-memory-bytes where the device is cpu.",
            DEATH_EXIT if served else START_EXIT,
            engine_version,
            tail,
        )
    for signature, words in _found(lines):
        message = signature.message.format(**words)
        return Diagnosis(
            signature.reason,
            f"{message} The engine died while it served; {ended}." if served else message,
            signature.hint.format(**words),
            DEATH_EXIT if served else signature.exit_code,
            engine_version,
            tail,
        )
    cause = _cause(lines)
    said = f" Its last error: {cause.rstrip('.')}." if cause else ""
    if served:
        return Diagnosis(
            "EngineDied",
            f"The engine ended by itself while it served; {ended}.{said}",
            "The container restarts. If it happens again, look at the log before the end.",
            DEATH_EXIT,
            engine_version,
            tail,
        )
    return Diagnosis(
        "EngineStartFailed",
        f"The engine ended before it served; {ended}.{said}",
        "Look at the log's last lines, and at what was changed last in spec.engine or spec.image.",
        START_EXIT,
        engine_version,
        tail,
    )


def _found(lines: Sequence[str]) -> Iterator[tuple[Signature, dict[str, str]]]:
    text = "\n".join(lines)
    for signature in SIGNATURES:
        match = re.search(signature.pattern, text)
        if match:
            yield signature, {k: (v or "").strip() for k, v in match.groupdict().items()}


def _ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"its exit code was {exit_code}"
    try:
        return f"it was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"it was ended by signal {-exit_code}"


def _cause(lines: Sequence[str]) -> str | None:
    """The last line that names an exception, without the log's prefix; a consequence only where nothing else is."""
    found = None
    for line in reversed(lines):
        match = re.search(r"\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)", line)
        if match and not re.search(_CONSEQUENCES, line):
            return match[1].strip()[:300]
        if match and not found:
            found = match[1].strip()[:300]
    return found
