"""Names that more than one part of the operator must agree on: the API, labels, annotations, managers, children."""

GROUP = "serving.falcon-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FalconNVFP4Deployment"
PLURAL = "falconnvfp4deployments"
SINGULAR = "falconnvfp4deployment"
SHORT_NAME = "fnd"
CATEGORY = "falcon"
CRD_NAME = f"{PLURAL}.{GROUP}"

# Longest resource name: with "-" and a revision hash it still fits a label's 63 characters.
MAX_NAME_LENGTH = 50

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_UID = f"{GROUP}/uid"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_LAUNCHER = f"{GROUP}/launcher"

APP_NAME = "falcon-nvfp4"
OPERATOR_NAME = "falcon-operator"
COMPONENT_ENGINE = "engine"
COMPONENT_GATEWAY = "gateway"
COMPONENT_QUANTIZER = "quantizer"

ANNOTATION_APPLIED = f"{GROUP}/applied"
ANNOTATION_REVISION = f"{GROUP}/revision"
ANNOTATION_RENDERER = f"{GROUP}/renderer"
# Hash of the part of the spec that a pod template was rendered from; the template alone cannot tell.
ANNOTATION_SPEC = f"{GROUP}/spec"
# Of a Job that quantizes: the claim and the directory on it that it fills.
ANNOTATION_QUANTIZED = f"{GROUP}/quantized"

# The revision that was rolled back, and why: kept at the Deployment for as long as it is still asked for.
ANNOTATION_FAILED_REVISION = f"{GROUP}/failed-revision"
ANNOTATION_FAILED_WHY = f"{GROUP}/failed-why"

# How many requests an engine takes at a time, as asked for and as it was said to take: `256/180`.
ANNOTATION_PER_ENGINE = f"{GROUP}/per-engine"
# Of the Deployment: what the autoscaler did last, written with the number itself.
ANNOTATION_SCALED = f"{GROUP}/scaled"

# One field manager for each concern, so that a conflict names who is fighting over what.
MANAGER_CHILDREN = "falcon-operator"
MANAGER_STATUS = "falcon-operator-status"
MANAGER_COSTS = "falcon-operator-deletion-cost"

CONTAINER_NAME = "engine"
PORT_NAME = "http"
ENGINE_PORT = 8000
# Where the launcher says how the engine's start goes.
LAUNCHER_PORT_NAME = "launcher"
LAUNCHER_PORT = 8001
SERVICE_PORT = 80
GATEWAY_CONTAINER = "gateway"
QUANTIZER_CONTAINER = "quantize"
GATEWAY_PORT = 8080
# Metrics, held requests, and the health of the process itself.
GATEWAY_METRICS_PORT_NAME = "metrics"
GATEWAY_METRICS_PORT = 8404

LAUNCHER_KEY = "launch.pyz"
HASH_LENGTH = 10


def selector_labels(name: str) -> dict[str, str]:
    """The labels that select a resource's engine pods; they never change over a resource's life."""
    return {LABEL_NAME: APP_NAME, LABEL_INSTANCE: name, LABEL_COMPONENT: COMPONENT_ENGINE}


def selector_string(name: str) -> str:
    """The selector as `status.selector` carries it for the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector_labels(name).items()))


def gateway_selector_labels(name: str) -> dict[str, str]:
    """The labels that select a resource's gateway pods."""
    return {LABEL_NAME: APP_NAME, LABEL_INSTANCE: name, LABEL_COMPONENT: COMPONENT_GATEWAY}


def child_labels(name: str, uid: str, component: str = COMPONENT_ENGINE) -> dict[str, str]:
    """The labels on every child of one resource."""
    return {
        **selector_labels(name),
        LABEL_COMPONENT: component,
        LABEL_PART_OF: OPERATOR_NAME,
        LABEL_MANAGED_BY: OPERATOR_NAME,
        LABEL_UID: uid,
    }


def launcher_labels() -> dict[str, str]:
    """The labels on a launcher ConfigMap, which all resources of a namespace share."""
    return {LABEL_LAUNCHER: "true", LABEL_PART_OF: OPERATOR_NAME, LABEL_MANAGED_BY: OPERATOR_NAME}


def deployment_name(name: str) -> str:
    """The Deployment of the engines."""
    return name


def service_name(name: str) -> str:
    """The Service that clients call."""
    return name


def engines_service_name(name: str) -> str:
    """The headless Service that names every engine pod."""
    return f"{name}-engines"


def policy_name(name: str) -> str:
    """The engines' PodDisruptionBudget and NetworkPolicy, the HTTPRoute and the InferencePool."""
    return name


def gateway_name(name: str) -> str:
    """The gateway's Deployment, ConfigMap, PodDisruptionBudget and NetworkPolicy."""
    return f"{name}-gateway"


def revision_name(name: str, revision: str) -> str:
    """The ControllerRevision that keeps the pod template of one revision."""
    return f"{name}-{revision[:HASH_LENGTH]}"


def launcher_name(content_hash: str) -> str:
    """The ConfigMap that carries one version of the launcher."""
    return f"falcon-launcher-{content_hash[:HASH_LENGTH]}"


def cache_claim_name(name: str) -> str:
    """The claim for compiled kernels, where the spec asks for one by size."""
    return f"{name}-cache"


def model_claim_name(name: str) -> str:
    """The claim for downloaded weights, where the spec asks for one by size."""
    return f"{name}-model"


def quantize_job_name(name: str, content: str) -> str:
    """The Job that quantizes the model; its name is a label of its pods, so it is short."""
    return f"{name}-q-{content[:HASH_LENGTH]}"


def service_url(name: str, namespace: str, cluster_domain: str) -> str:
    """The OpenAI endpoint of a resource as it is reached inside the cluster."""
    return f"http://{service_name(name)}.{namespace}.svc.{cluster_domain}/v1"
