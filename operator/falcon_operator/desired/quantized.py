"""Where the quantized model is found on the volume of downloaded weights."""

from __future__ import annotations

from falcon_operator.api.spec import Spec
from falcon_operator.desired.canonical import content_hash
from falcon_operator.desired.volumes import MODEL_DIRECTORY


def directory(spec: Spec) -> str | None:
    """The directory in the pods, named by all that decides what is in it; None where nothing is quantized."""
    remote = spec.model.source.hugging_face
    if remote is None or remote.quantize is None:
        return None
    content = [remote.repository, remote.revision, remote.quantize.kv_scales.value]
    return f"{MODEL_DIRECTORY}/quantized/{content_hash(content)}"
