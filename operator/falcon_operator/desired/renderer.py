"""What renders the children: the operator's configuration and the launcher that it ships."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from falcon_operator.api.config import OperatorConfig

# Raised by hand whenever the builders make another pod template out of the same spec, so that `UpToDate` can say so.
TEMPLATE_VERSION = 1


@dataclass(frozen=True)
class Launcher:
    """The zipapp of `falcon_engine` and the name of the ConfigMap that carries it (named by its content)."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Renderer:
    """Everything besides the spec that a pod template depends on."""

    config: OperatorConfig
    launcher: Launcher

    @cached_property
    def version(self) -> str:
        """Identifies the renderer: two renderers of one version make the same template of the same spec."""
        digest = hashlib.sha256(self.launcher.data).hexdigest()
        return f"{TEMPLATE_VERSION}-{digest[:10]}"
