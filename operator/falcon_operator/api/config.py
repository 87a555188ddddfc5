"""What the administrator decides for every resource of an operator."""

from dataclasses import dataclass
from typing import Literal

from falcon_operator import __version__

DEFAULT_IMAGE = "docker.io/mutazai/falcon-h1r-7b-nvfp4:latest"
GATEWAY_IMAGE = f"docker.io/mutazai/falcon-gateway:{__version__}"
QUANTIZER_IMAGE = f"docker.io/mutazai/falcon-quantizer:{__version__}"


@dataclass(frozen=True)
class OperatorConfig:
    """The operator's own settings; filled from flags and `FALCON_OPERATOR_*` variables."""

    default_image: str = DEFAULT_IMAGE
    gateway_image: str = GATEWAY_IMAGE
    quantizer_image: str = QUANTIZER_IMAGE
    cluster_domain: str = "cluster.local"
    allow_trust_remote_code: bool = False
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    operator_namespace: str = ""  # where its own pod runs, for NetworkPolicies; empty: any
    monitoring_namespaces: tuple[str, ...] = ("monitoring",)  # whose pods may read metrics
    workers: int = 16
    resync_seconds: float = 600
    sweep_seconds: float = 600
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"
    listen_port: int = 8080
