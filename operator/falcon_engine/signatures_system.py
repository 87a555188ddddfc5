"""What Python and the system say of files, ports, processes and time."""

from falcon_engine.signatures import CONFIGURATION_EXIT, Signature

SYSTEM = (
    Signature(
        "cpu-cache-memory",
        "OutOfMemory",
        r"Available memory on node \d{1,3} \((?P<free>[\d.]{1,12})/(?P<all>[\d.]{1,12}) GiB\) on (?:startup|kv cache "
        r"allocation) is less than (?:desired|requested)",
        "The container may take {free} of {all} GiB, which is less than the engine asks for.",
        "Raise spec.resources' memory, or lower --kv-cache-memory-bytes in spec.engine.extraArgs.",
    ),
    Signature(
        "host-memory",
        "OutOfMemory",
        r"std::bad_alloc|Cannot allocate memory|DefaultCPUAllocator: can't allocate memory|(?<!\w)MemoryError\b",
        "The container ran out of memory.",
        "Raise spec.resources' memory, or lower --kv-cache-memory-bytes in spec.engine.extraArgs.",
        more=((r"you tried to allocate (?P<wanted>\d{1,15}) bytes", "It asked for {wanted} bytes more."),),
    ),
    Signature(
        "quota",
        "DiskFull",
        r"Disk quota exceeded|Errno 122\]",
        "A disk quota is used up.",
        "Raise the quota of the volume behind spec.cache or spec.model.source.huggingFace.cache, or free some of it.",
        more=((r"Disk quota exceeded[^\n]{0,60}?'(?P<file>[^'\n]{1,200})", "It was writing {file}."),),
    ),
    Signature(
        "disk-full",
        "DiskFull",
        r"No space left on device|Not enough free disk space",
        "A disk is full.",
        "Enlarge spec.cache or spec.model.source.huggingFace.cache; without a claim they take the node's own disk.",
        more=(
            (r"No space left on device[^\n]{0,60}?'(?P<file>[^'\n]{1,200})", "It was writing {file}."),
            (
                r"The target location (?P<place>\S{1,200}) only has (?P<free>[\d.]{1,12}) MB free",
                "{place} has {free} MB left.",
            ),
        ),
    ),
    Signature(
        "port-taken",
        "PortTaken",
        r"[Aa]ddress already in use|EADDRINUSE",
        "The engine's port is taken by another process of the pod.",
        "Remove what else listens there: another container in the pod, or a server that the image starts itself; "
        "--port in spec.engine.extraArgs is not ours to change.",
        more=((r"bind on address \('?[^,\n]{0,60}, (?P<port>\d{1,5})\)", "The port is {port}."),),
    ),
    Signature(
        "ready-timeout",
        "EngineReadyTimeout",
        r"Timed out waiting for engine (?:core processes|cores?|processes)[^\n]{0,120}|"
        r"Did not receive response from front-end process within|did not start in time",
        "The engine's own patience with its start ran out.",
        "Set VLLM_ENGINE_READY_TIMEOUT_S in spec.engine.env to the seconds of spec.startup.budget, or keep compiled "
        "kernels and weights near: spec.cache.",
        more=((r"Waited (?P<waited>\d{1,6})s? ?\(configured", "It waited {waited} s."),),
    ),
    Signature(
        "worker-killed",
        "EngineKilled",
        r"Worker proc (?P<name>\S{1,60}) died unexpectedly \(exit code: -9\)",
        "A process of the engine was killed from outside: {name} got SIGKILL.",
        "If nobody did that, the node was short of memory: raise spec.resources.requests.memory.",
    ),
    Signature(
        "core-killed",
        "EngineKilled",
        r"Failed core proc\(s\): \{[^}\n]{0,200}'(?P<name>[^'\n]{1,60})': -9\b",
        "A process of the engine was killed from outside while it started: {name} got SIGKILL.",
        "If nobody did that, the node was short of memory: raise spec.resources.requests.memory.",
    ),
    Signature(
        "worker-died",
        "EngineDied",
        r"Worker proc (?P<name>\S{1,60}) died unexpectedly(?: \(exit code: (?P<code>-?\d{1,4}))?",
        "Worker process {name} ended by itself.",
        "The container restarts. If it happens again, look at the log before the end.",
        more=(
            (r"Worker proc \S{1,60} died unexpectedly \(exit code: (?P<code>-?\d{1,4})", "Its exit code was {code}."),
        ),
    ),
    Signature(
        "library",
        "ImageUnusable",
        r"ImportError: (?P<what>lib[^\n]{1,80}cannot open shared object file|[^\n]{0,200}undefined symbol[^\n]{0,120}|"
        r"[^\n]{0,120}version `[^'\n]{1,40}' not found)|ModuleNotFoundError: (?P<module>No module named '[\w.]{1,80}')",
        "The image lacks a part of the engine: {what}{module}.",
        "Use an official vLLM image in spec.image.reference, or rebuild this one with all that vLLM requires.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "compiler",
        "ImageUnusable",
        r"(?P<what>Could not find nvcc|nvcc: (?:command )?not found|Failed to find C compiler)",
        "The engine compiles kernels when it starts, and the image has no compiler: {what}.",
        "Use an official vLLM image in spec.image.reference, or keep compiled kernels of a former start in spec.cache.",
        CONFIGURATION_EXIT,
    ),
)

# Lines that a healthy engine may print as a warning too: only where nothing better was found.
SUSPECTS = (
    Signature(
        "read-only",
        "ReadOnlyFilesystem",
        r"Read-only file system",
        "The engine may not write where it wants to.",
        "Set spec.security.readOnlyRootFilesystem to false for this image, or point the variable that chooses this "
        "place to /tmp in spec.engine.env.",
        more=((r"Read-only file system: '?(?P<file>[^'\n]{1,200})", "It tried {file}."),),
    ),
    Signature(
        "permission",
        "PermissionDenied",
        r"(?:Permission denied: |PermissionError at )'?(?P<file>[^'\n\s]{1,200})",
        "The engine's user may not use {file}.",
        "Set spec.security.runAsUser and fsGroup to the owner of these files, or make them readable for everybody.",
    ),
    Signature(
        "interrupted",
        "StartInterrupted",
        r"KeyboardInterrupt: terminated",
        "The engine was told to stop before it served.",
        "If nobody wanted that, the startup probe did: raise spec.startup.budget.",
    ),
    Signature(
        "core-died",
        "EngineDied",
        r"Engine core proc (?P<name>\S{1,60}) died unexpectedly",
        "The engine's process {name} died.",
        "The container restarts. If it happens again, look at the log before the end.",
        served=True,
    ),
)
