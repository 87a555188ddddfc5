"""How weights in BF16 become NVFP4 on the cluster, before the first engine starts."""

from enum import StrEnum

from pydantic import Field

from falcon_operator.api.base import Base, ImageReference
from falcon_operator.api.engine import Device
from falcon_operator.api.pod import Resources


class KVScales(StrEnum):
    """Where the FP8 scales of keys and values come from."""

    CAST = "Cast"
    CALIBRATED = "Calibrated"


class Quantize(Base):
    """A Job that downloads the repository into the cache and quantizes it there; engines serve what it has made."""

    image: ImageReference | None = Field(
        default=None, description="Image with falcon-quantize in it; the operator's default where unset."
    )
    device: Device = Field(
        default=Device.CPU,
        description="What the quantizer computes on. cuda asks for one GPU, which it takes beside engines that run.",
    )
    kv_scales: KVScales = Field(
        default=KVScales.CAST,
        description="Scales of the FP8 KV cache: Cast is 1 for all, Calibrated is measured on sample texts.",
    )
    resources: Resources = Field(default_factory=Resources, description="CPU and memory of the quantizer.")
