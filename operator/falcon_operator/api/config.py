"""What the administrator decides for every resource of an operator."""

from dataclasses import dataclass
from typing import Literal

DEFAULT_IMAGE = "docker.io/mutazai/falcon-h1r-7b-nvfp4:latest"


@dataclass(frozen=True)
class OperatorConfig:
    """The operator's own settings; filled from flags and `FALCON_OPERATOR_*` variables."""

    default_image: str = DEFAULT_IMAGE
    cluster_domain: str = "cluster.local"
    allow_trust_remote_code: bool = False
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    workers: int = 16
    resync_seconds: float = 600
    sweep_seconds: float = 600
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"
    listen_port: int = 8080
