"""What vLLM, torch and NCCL say of the GPU, its memory and its driver."""

from falcon_engine.signatures import CONFIGURATION_EXIT, Signature

_OUT_OF_MEMORY = r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA error: out of memory"
_MEMORY_DETAILS = (
    (r"Tried to allocate (?P<wanted>[\d.]{1,12} [KMGT]iB)", "It asked for {wanted} more."),
    (
        r"total capacity of (?P<all>[\d.]{1,12} [KMGT]iB) of which (?P<free>[\d.]{1,12} (?:bytes|[KMGT]iB)) is free",
        "Of the GPU's {all}, {free} was free.",
    ),
)
_DRIVER_HINT = "Update the node's NVIDIA driver (CUDA 13 needs 580 or newer), or use an image for an older CUDA."

GPU = (
    Signature(
        "sequences",
        "SequencesExceedMemory",
        r"max_num_seqs \((?P<wanted>\d{1,9})\) exceeds available Mamba cache blocks \((?P<blocks>\d{1,9})\)",
        "{wanted} sequences do not fit: the GPU holds {blocks} Mamba states.",
        "Set spec.engine.maxNumSeqs to at most {blocks}, or raise spec.engine.gpuMemoryUtilization.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "context",
        "ContextExceedsMemory",
        r"max seq len \((?P<length>\d{1,12})\), \((?P<needed>[\d.]{1,12}) GiB KV cache is needed, which is larger than "
        r"the available KV cache memory \((?P<there>[\d.]{1,12}) GiB\)",
        "One sequence of {length} tokens takes {needed} GiB, and {there} GiB is left for the cache.",
        "Lower spec.engine.maxModelLen, or give the cache more: spec.engine.gpuMemoryUtilization, on CPU "
        "--kv-cache-memory-bytes in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
        ((r"estimated maximum model length is (?P<most>\d{1,12})", "At most {most} tokens fit."),),
    ),
    Signature(
        "no-cache-memory",
        "WeightsExceedMemory",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the cache.",
        "Raise spec.engine.gpuMemoryUtilization, or ask for a GPU with more memory in spec.gpu.memoryAtLeast.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "memory-taken",
        "GPUMemoryTaken",
        r"Free memory on device(?: \S{1,20})? \((?P<free>[\d.]{1,12})/(?P<all>[\d.]{1,12}) GiB\) on startup is less "
        r"than desired GPU memory utilization \((?P<share>[\d.]{1,12}), (?P<wanted>[\d.]{1,12}) GiB\)",
        "Something else holds the GPU's memory: {free} of {all} GiB is free, and {wanted} GiB was asked for.",
        "It passes where a previous engine is ending; where another tenant stays, lower "
        "spec.engine.gpuMemoryUtilization ({share} now).",
    ),
    Signature(
        "memory-changed",
        "GPUMemoryTaken",
        r"Error in memory profiling\. Initial free memory (?P<before>[\d.]{1,12}) GiB, current free memory "
        r"(?P<after>[\d.]{1,12}) GiB",
        "While the engine measured the GPU's memory, somebody else gave some back: {before} GiB was free, then "
        "{after} GiB.",
        "It passes where a previous engine is ending; GPUs that several pods share need "
        "spec.engine.gpuMemoryUtilization and patience.",
    ),
    Signature(
        "driver-too-old",
        "DriverTooOld",
        r"NVIDIA driver on your system is too old \(found version (?P<major>\d{1,3})0(?P<minor>\d)\d\)",
        "The node's driver runs CUDA {major}.{minor} at most, and the image needs a newer one.",
        _DRIVER_HINT,
        CONFIGURATION_EXIT,
    ),
    Signature(
        "driver-insufficient",
        "DriverTooOld",
        r"CUDA driver version is insufficient for CUDA runtime version|forward compatibility was attempted on non "
        r"supported HW|provided PTX was compiled with an unsupported toolchain",
        "The node's driver is older than the image's CUDA.",
        _DRIVER_HINT,
        CONFIGURATION_EXIT,
    ),
    Signature(
        "driver-mismatch",
        "DriverMismatch",
        r"system has unsupported display driver / cuda driver combination|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH|"
        r"Driver/library version mismatch|LibRmVersionMismatch",
        "The driver's libraries in the container and its kernel module on the node are of different versions.",
        "Reboot the node after a driver update, or let its NVIDIA runtime mount its own libraries: an image's "
        "compat libraries must not come first (LD_LIBRARY_PATH in spec.engine.env).",
    ),
    Signature(
        "no-kernel-image",
        "GPUNotSupported",
        r"no kernel image is available for execution|cudaErrorNoKernelImageForDevice|CUDA_ERROR_NO_BINARY_FOR_GPU",
        "The image holds no kernels for this GPU.",
        "Use an image that was built for it in spec.image.reference, or let spec.gpu.products choose other GPUs.",
        CONFIGURATION_EXIT,
        (
            (
                r"(?P<gpu>[^\n]{1,80}?) with CUDA capability (?P<sm>sm_\w{2,5}) is not compatible",
                "The GPU is {sm}.",
            ),
            (
                r"install supports CUDA capabilities (?P<archs>(?:(?:sm|compute)_\w{2,5} ?){1,20})",
                "The image is built for {archs}.",
            ),
        ),
    ),
    Signature(
        "out-of-memory-serving",
        "GPUOutOfMemory",
        _OUT_OF_MEMORY,
        "The GPU ran out of memory.",
        "Lower spec.engine.gpuMemoryUtilization so that more is left beside the cache, or --max-num-batched-tokens in "
        "spec.engine.extraArgs.",
        more=_MEMORY_DETAILS,
        served=True,
    ),
    Signature(
        "out-of-memory",
        "GPUOutOfMemory",
        _OUT_OF_MEMORY,
        "The GPU ran out of memory while the engine started.",
        "Lower spec.engine.gpuMemoryUtilization or maxNumSeqs, or ask for a larger GPU in spec.gpu.memoryAtLeast.",
        more=_MEMORY_DETAILS,
    ),
    Signature(
        "gpu-fault",
        "GPUFault",
        r"CUDA error: (?P<what>an illegal memory access was encountered|unspecified launch failure|"
        r"uncorrectable ECC error encountered|device-side assert triggered|misaligned address|"
        r"an illegal instruction was encountered|the launch timed out and was terminated|hardware stack error)|"
        r"(?P<xid>GPU has fallen off the bus|GPU is lost)",
        "The GPU reported a fault: {what}{xid}.",
        "If it happens on one node only, take the node out and look for Xid in its kernel log; on every node it is "
        "the engine's: use another vLLM in spec.image.reference.",
    ),
    Signature(
        "no-gpu",
        "GPUNotVisible",
        r"No CUDA GPUs are available|Failed to infer device type|libcuda\.so\.1: cannot open|no CUDA-capable device is "
        r"detected|Found no NVIDIA driver on your system|CUDA driver initialization failed",
        "The engine sees no GPU in its container.",
        "Check the node's device plugin and spec.scheduling.runtimeClassName, or set spec.engine.device to cpu to "
        "develop.",
    ),
    Signature(
        "shared-memory",
        "SharedMemoryTooSmall",
        r"Error while creating shared memory segment (?P<file>\S{1,100}) \(size (?P<size>\d{1,15})\)|"
        r"unable to (?:allocate|open|resize|mmap|write to) shared memory|out of shared memory|"
        r"No space left on device: '/(?:dev/shm/|psm_)",
        "/dev/shm is too small for what the engine's processes share.",
        "The pod's /dev/shm has 1 GiB: ask for fewer GPUs in spec.gpu.count, or set NCCL_SHM_DISABLE=1 in "
        "spec.engine.env.",
        more=((r"shared memory segment \S{1,100} \(size (?P<size>\d{1,15})\)", "One segment has {size} bytes."),),
    ),
    Signature(
        "nccl",
        "NCCLFailed",
        r"NCCL error:? (?:in: [^\n,]{1,200}, )?(?P<what>[^\n(]{1,120})|(?P<backend>ncclUnhandledCudaError|"
        r"ncclSystemError|ncclInternalError|ncclRemoteError)",
        "The GPUs of the pod cannot talk to each other (NCCL): {what}{backend}.",
        "Set NCCL_DEBUG=INFO in spec.engine.env to see why; NCCL_P2P_DISABLE=1 or spec.gpu.count 1 goes around it.",
        more=((r"Last error:\n[^\n]{0,60}?(?P<last>\w[^\n]{5,200})", "Its last error is: {last}."),),
    ),
)
