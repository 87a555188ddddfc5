"""From an exit code and last log lines to a diagnosis."""

import re
import signal
from collections.abc import Iterator, Sequence
from itertools import islice

from falcon_engine.signatures import CONFIGURATION_EXIT, DEATH_EXIT, START_EXIT, Diagnosis, Signature
from falcon_engine.signatures_checkpoint import CHECKPOINT
from falcon_engine.signatures_flags import CONFIGURATION, FLAGS
from falcon_engine.signatures_gpu import GPU
from falcon_engine.signatures_hub import HUB
from falcon_engine.signatures_system import SUSPECTS, SYSTEM

# The first one that is found wins: causes before their consequences, exact before general.
SIGNATURES: tuple[Signature, ...] = (*FLAGS, *GPU, *HUB, *CHECKPOINT, *CONFIGURATION, *SYSTEM, *SUSPECTS)

TAIL_LINES = 20
# What is looked at, whatever is handed in: a traceback through three processes has about 200 lines.
_LINES = 400
_LINE_CHARACTERS = 1000
# Of one line: words that look like an exception's name, and the characters of a name with its modules.
_LOOKED_AT = 20
_NAME_CHARACTERS = 200
# What one process of the engine says when another one has failed.
_CONSEQUENCES = (
    r"EngineDeadError|(?:Engine core|WorkerProc) initialization failed|cannot schedule new futures|CancelledError"
)
# Lines that may name an exception without one having been raised.
_NO_ERROR = r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d "


def diagnose(
    exit_code: int, lines: Sequence[str], *, served: bool, engine_version: str | None, memory_kills: int = 0
) -> Diagnosis:
    """Why an unwanted end happened. `exit_code` is negative for a signal, as Python's subprocess has it."""
    lines = [line[:_LINE_CHARACTERS] for line in lines[-_LINES:]]
    tail = tuple(line for line in lines if line.strip())[-TAIL_LINES:]
    ended = _ended(exit_code)

    def said(reason: str, message: str, hint: str, code: int) -> Diagnosis:
        return Diagnosis(reason, message, hint, DEATH_EXIT if served else code, engine_version, tail)

    if memory_kills:
        return said(
            "OutOfMemory",
            f"The kernel killed a process of the engine at the container's memory limit; {ended}.",
            "Raise the memory in spec.resources, or lower --kv-cache-memory-bytes where the device is cpu.",
            START_EXIT,
        )
    for signature, words in _found(lines, served):
        message = signature.message.format(**words)
        message = " ".join((message.replace("..", ".").strip(), *_more(signature, lines)))
        return said(
            signature.reason,
            f"{message} The engine died while it served; {ended}." if served else message,
            signature.hint.format(**words),
            signature.exit_code,
        )
    if exit_code == -signal.SIGKILL:
        return said(
            "EngineKilled",
            f"The engine was killed from outside; {ended}.",
            "If nobody did that, the node was short of memory: raise spec.resources.requests.memory.",
            START_EXIT,
        )
    if exit_code == -signal.SIGBUS:
        return said(
            "SharedMemoryTooSmall",
            f"The engine wrote to memory that is not there, as happens when /dev/shm is full; {ended}.",
            "The pod's /dev/shm has 1 GiB: ask for fewer GPUs in spec.gpu.count.",
            START_EXIT,
        )
    if exit_code == -signal.SIGILL:
        return said(
            "ImageUnusable",
            f"The engine used an instruction that this processor does not have; {ended}.",
            "Use an image that was built for the node's processor, or choose other nodes in spec.scheduling.",
            CONFIGURATION_EXIT,
        )
    cause = _cause(lines)
    last = f" Its last error: {cause.rstrip('.')}." if cause else ""
    if served:
        return said(
            "EngineDied",
            f"The engine ended by itself while it served; {ended}.{last}",
            "The container restarts. If it happens again, look at the log before the end.",
            DEATH_EXIT,
        )
    return said(
        "EngineStartFailed",
        f"The engine ended before it served; {ended}.{last}",
        "Look at the log's last lines, and at what was changed last in spec.engine or spec.image.",
        START_EXIT,
    )


def _found(lines: Sequence[str], served: bool) -> Iterator[tuple[Signature, dict[str, str]]]:
    text = "\n".join(lines)
    for signature in SIGNATURES:
        if signature.served not in (None, served):
            continue
        match = re.search(signature.pattern, text)
        if match:
            yield signature, {k: (v or "").strip() for k, v in match.groupdict().items()}


def _more(signature: Signature, lines: Sequence[str]) -> Iterator[str]:
    text = "\n".join(lines) + "\n"
    for pattern, sentence in signature.more:
        match = re.search(pattern, text)
        if match:
            yield sentence.format(**{k: (v or "").strip() for k, v in match.groupdict().items()})


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
        said = None if re.search(_NO_ERROR, line) else _exception(line)
        if said and not re.search(_CONSEQUENCES, line):
            return said
        found = found or said
    return found


def _exception(line: str) -> str | None:
    """From the name of an exception on, such as `torch.OutOfMemoryError: ...`."""
    for match in islice(re.finditer(r"(?:Error|Exception|Interrupt)(?=[:\s]|$)", line), _LOOKED_AT):
        begin = match.start()
        while (
            begin
            and match.start() - begin < _NAME_CHARACTERS
            and (line[begin - 1].isalnum() or line[begin - 1] in "._")
        ):
            begin -= 1
        name = line[begin : match.end()].rpartition(".")[2]
        if name[0].isupper():
            return line[begin:][:300].strip()
    return None
