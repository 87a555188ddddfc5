"""Condition types, and the one list of reasons that conditions and events may carry."""

from enum import StrEnum


class ConditionType(StrEnum):
    """The types in `status.conditions`."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    MODEL_SERVED = "ModelServed"
    GPU_COMPATIBLE = "GPUCompatible"
    FITS = "Fits"
    ENGINE_SUPPORTED = "EngineSupported"
    UP_TO_DATE = "UpToDate"
    AUTOSCALING_ACTIVE = "AutoscalingActive"
    GATEWAY_READY = "GatewayReady"


# Present from the first status on, in this order; the last two of the enum appear only where they are used.
STANDING_CONDITIONS: tuple[ConditionType, ...] = (
    ConditionType.READY,
    ConditionType.RECONCILING,
    ConditionType.STALLED,
    ConditionType.AVAILABLE,
    ConditionType.PROGRESSING,
    ConditionType.MODEL_SERVED,
    ConditionType.GPU_COMPATIBLE,
    ConditionType.FITS,
    ConditionType.ENGINE_SUPPORTED,
    ConditionType.UP_TO_DATE,
)


class Reason(StrEnum):
    """Why a condition has its status, or why an event was sent."""

    # Before and beside any outcome.
    PENDING = "Pending"
    NOT_EVALUATED = "NotEvaluated"
    NOT_OBSERVED = "NotObserved"
    NOT_STALLED = "NotStalled"

    # Summary.
    READY = "Ready"
    STARTING = "Starting"
    RECONCILED = "Reconciled"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    SCALING = "Scaling"

    # What only a change of the spec, or of the cluster by a person, can resolve.
    INVALID_SPEC = "InvalidSpec"
    NOT_YET_IMPLEMENTED = "NotYetImplemented"
    POLICY_REFUSED = "PolicyRefused"
    NAME_TAKEN = "NameTaken"
    REFUSED = "Refused"

    # Available and the rollout.
    MINIMUM_REPLICAS_AVAILABLE = "MinimumReplicasAvailable"
    MINIMUM_REPLICAS_UNAVAILABLE = "MinimumReplicasUnavailable"
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    ROLLOUT_COMPLETE = "RolloutComplete"
    ROLLOUT_STALLED = "RolloutStalled"
    ROLLED_BACK = "RolledBack"

    # The Job that quantizes the model before the first pod.
    QUANTIZING = "Quantizing"
    QUANTIZED = "Quantized"
    QUANTIZE_FAILED = "QuantizeFailed"

    # Pods, from outside the container.
    UNSCHEDULABLE = "Unschedulable"
    PODS_SCHEDULED = "PodsScheduled"
    COMPATIBLE_NODES = "CompatibleNodes"
    NO_COMPATIBLE_NODE = "NoCompatibleNode"
    NODE_LABELS_MISSING = "NodeLabelsMissing"
    NODES_NOT_READABLE = "NodesNotReadable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CANNOT_START = "ContainerCannotStart"
    STARTUP_BUDGET_EXCEEDED = "StartupBudgetExceeded"
    EVICTED = "Evicted"

    # Fits, before and after the start.
    FIT_PREDICTED = "FitPredicted"
    CLAMPED = "Clamped"

    # The engine: what the launcher writes into the termination message.
    ENGINE_STARTED = "EngineStarted"
    ENGINE_FAILED = "EngineFailed"
    ENGINE_START_FAILED = "EngineStartFailed"
    ENGINE_DIED = "EngineDied"
    ENGINE_KILLED = "EngineKilled"
    ENGINE_READY_TIMEOUT = "EngineReadyTimeout"
    ENGINE_VERSION_UNKNOWN = "EngineVersionUnknown"
    CANARY_FAILED = "CanaryFailed"
    CHECKPOINT_NOT_FOUND = "CheckpointNotFound"
    CHECKPOINT_UNUSABLE = "CheckpointUnusable"
    WEIGHTS_MISMATCH = "WeightsMismatch"
    TOKENIZER_UNUSABLE = "TokenizerUnusable"
    ARCHITECTURE_UNKNOWN = "ArchitectureUnknown"
    REMOTE_CODE_REFUSED = "RemoteCodeRefused"
    QUANTIZATION_REFUSED = "QuantizationRefused"
    HUB_UNAUTHORIZED = "HubUnauthorized"
    HUB_FORBIDDEN = "HubForbidden"
    HUB_RATE_LIMITED = "HubRateLimited"
    HUB_UNREACHABLE = "HubUnreachable"
    FLAG_UNKNOWN = "FlagUnknown"
    FLAG_VALUE_REFUSED = "FlagValueRefused"
    CONFIGURATION_REFUSED = "ConfigurationRefused"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    GPU_MEMORY_TAKEN = "GPUMemoryTaken"
    START_INTERRUPTED = "StartInterrupted"
    SEQUENCES_EXCEED_MEMORY = "SequencesExceedMemory"
    CONTEXT_EXCEEDS_MEMORY = "ContextExceedsMemory"
    WEIGHTS_EXCEED_MEMORY = "WeightsExceedMemory"
    SHARED_MEMORY_TOO_SMALL = "SharedMemoryTooSmall"
    DISK_FULL = "DiskFull"
    READ_ONLY_FILESYSTEM = "ReadOnlyFilesystem"
    PERMISSION_DENIED = "PermissionDenied"
    PORT_TAKEN = "PortTaken"
    IMAGE_UNUSABLE = "ImageUnusable"
    DRIVER_TOO_OLD = "DriverTooOld"
    DRIVER_MISMATCH = "DriverMismatch"
    GPU_NOT_SUPPORTED = "GPUNotSupported"
    GPU_NOT_VISIBLE = "GPUNotVisible"
    GPU_FAULT = "GPUFault"
    NCCL_FAILED = "NCCLFailed"

    # ModelServed.
    MODEL_SERVED = "ModelServed"
    NOT_SERVING = "NotServing"
    MODEL_MISMATCH = "ModelMismatch"

    # EngineSupported.
    PROFILE_FOUND = "ProfileFound"
    NEAREST_PROFILE = "NearestProfile"
    KNOWN_ISSUES = "KnownIssues"
    DEVELOPMENT_DEVICE = "DevelopmentDevice"

    # GatewayReady.
    GATEWAY_READY = "GatewayReady"
    GATEWAY_NOT_READY = "GatewayNotReady"
    API_MISSING = "APIMissing"

    # AutoscalingActive.
    SCALING_ACTIVE = "ScalingActive"
    SCALED_EXTERNALLY = "ScaledExternally"
    METRICS_UNKNOWN = "MetricsUnknown"
    SCALING_PAUSED = "ScalingPaused"

    # UpToDate.
    UP_TO_DATE = "UpToDate"
    ADOPTION_AVAILABLE = "AdoptionAvailable"
