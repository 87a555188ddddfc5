"""The ConfigMap that carries the launcher into the pods."""

from __future__ import annotations

import base64
from typing import Any

from falcon_operator.api import names
from falcon_operator.desired.metadata import stamped
from falcon_operator.desired.renderer import Launcher


def launcher_config_map(namespace: str, launcher: Launcher) -> dict[str, Any]:
    """One a namespace and launcher, shared by its resources and therefore owned by none of them."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": launcher.name,
                "namespace": namespace,
                "labels": names.launcher_labels(),
                "annotations": {},
            },
            "immutable": True,
            "binaryData": {names.LAUNCHER_KEY: base64.b64encode(launcher.data).decode()},
        }
    )
