"""The launcher that this version of the operator ships."""

from __future__ import annotations

import hashlib

from falcon_engine import archive
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.names import launcher_name
from falcon_operator.decide.types import Launcher, Renderer


def make_renderer(config: OperatorConfig) -> Renderer:
    """What renders the children."""
    data = archive.build()
    return Renderer(config, Launcher(launcher_name(hashlib.sha256(data).hexdigest()), data))
