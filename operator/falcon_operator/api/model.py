"""Which image runs, and which weights it serves under which names."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import (
    Base,
    ImageReference,
    LocalRef,
    ObjectName,
    PullPolicy,
    SecretKeyRef,
)
from falcon_operator.api.markers import CEL, ListMap, Matches, RequiredByRule
from falcon_operator.api.quantize import Quantize
from falcon_operator.api.storage import Storage

DEFAULT_MODEL_NAME = "falcon-h1r-7b-nvfp4"


class Image(Base):
    """The serving image."""

    reference: ImageReference | None = Field(
        default=None,
        description="Any image with vLLM in it. Unset: the operator's default image, "
        "docker.io/mutazai/falcon-h1r-7b-nvfp4:latest as shipped.",
    )
    pull_policy: PullPolicy | None = Field(
        default=None, description="When the kubelet pulls the image; Kubernetes' own rule where unset."
    )
    pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=8), ListMap("name")] = Field(
        default=(), description="Secrets of the same namespace that hold registry credentials."
    )


class Checkpoint(StrEnum):
    """What the launcher does with a quantization config that the engine would refuse."""

    REPAIR = "Repair"
    CHECK = "Check"
    AS_IS = "AsIs"


class Baked(Base):
    """Weights that are part of the image."""

    path: (
        Annotated[
            str,
            Field(max_length=512),
            Matches(
                r"(/[^/.][^/]*|/\.[^/.][^/]*)+/?",
                '{path} is "{self}": write an absolute path inside the image, without . and .. parts',
            ),
        ]
        | None
    ) = Field(default=None, description="Directory in the image; found by the launcher where unset.")


class Volume(Base):
    """Weights on a claim, mounted read-only."""

    claim_name: ObjectName = Field(description="PersistentVolumeClaim in the same namespace.")
    path: (
        Annotated[
            str,
            Field(max_length=512),
            Matches(
                r"([^/.][^/]*|\.[^/.][^/]*)(/[^/.][^/]*|/\.[^/.][^/]*)*/?",
                '{path} is "{self}": write a path relative to the root of the volume, without . and .. parts',
            ),
        ]
        | None
    ) = Field(default=None, description="Directory in the volume; the volume's root where unset.")


class Oci(Base):
    """Weights in an OCI artifact, mounted as an image volume."""

    reference: ImageReference = Field(description="The artifact's reference.")
    pull_policy: PullPolicy | None = Field(
        default=None, description="When the kubelet pulls the artifact; Kubernetes' own rule where unset."
    )


class HuggingFace(Base):
    """Weights from the Hugging Face Hub, pinned to a commit."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "has(self.revision)",
            '{path}.revision is missing for "{self.repository}": give the 40 characters of a commit id, '
            "since a branch or tag can change under a running deployment",
        ),
        CEL(
            "!has(self.quantize) || (has(self.cache) && (has(self.cache.claimName) || has(self.cache.size)))",
            "{path}.quantize is set while {path}.cache names no claim and gives no size: without a volume that stays, "
            '"{self.repository}" would be quantized again for every pod, so set cache.size or cache.claimName',
        ),
    )

    repository: Annotated[
        str,
        Field(max_length=200),
        Matches(
            r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*",
            '{path} is "{self}": write owner/name as on the Hub',
        ),
    ] = Field(description="Repository on the Hub, as owner/name.")
    revision: Annotated[
        str,
        Field(max_length=100),
        Matches(
            "[0-9a-f]{40}",
            '{path} is "{self}": give the 40 characters of a commit id, '
            "since a branch or tag can change under a running deployment",
        ),
        RequiredByRule(),
    ] = Field(description="Commit id, 40 hexadecimal characters. Branches and tags are refused.")
    token_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret key with the token for a gated or private repository."
    )
    cache: Storage | None = Field(
        default=None, description="Where downloaded weights are kept; with the pod where unset."
    )
    quantize: Quantize | None = Field(
        default=None,
        description="The repository holds BF16: a Job quantizes it to NVFP4 on the cache's volume before the first pod "
        "starts. Needs cache.claimName or cache.size.",
    )


class Source(Base):
    """Where the weights come from: exactly one of its fields."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "[has(self.baked), has(self.volume), has(self.oci), has(self.huggingFace)].filter(set, set).size() == 1",
            "{path} sets {(has(self.baked) ? ['baked'] : []) + (has(self.volume) ? ['volume'] : [])"
            " + (has(self.oci) ? ['oci'] : []) + (has(self.huggingFace) ? ['huggingFace'] : [])"
            "}: set exactly one of baked, volume, oci and huggingFace",
        ),
    )

    baked: Baked | None = Field(default=None, description="Weights that are part of the image.")
    volume: Volume | None = Field(default=None, description="Weights on a PersistentVolumeClaim.")
    oci: Oci | None = Field(default=None, description="Weights in an OCI artifact, mounted as an image volume.")
    hugging_face: HuggingFace | None = Field(default=None, description="Weights from the Hugging Face Hub.")


ModelName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Matches(
        "[A-Za-z0-9][A-Za-z0-9._:/-]*",
        '{path} has "{self}": use letters, digits, ., _, :, / and -, starting with a letter or digit',
    ),
]


class Model(Base):
    """What is served, and from where."""

    names: Annotated[
        tuple[ModelName, ...],
        Field(min_length=1, max_length=16),
        CEL(
            "self.all(name, self.exists_one(other, other == name))",
            '{path} has "{self.filter(name, !self.exists_one(other, other == name))[0]}" more than once: '
            "each name can be served once",
        ),
    ] = Field(
        default=(DEFAULT_MODEL_NAME,),
        description="Names that clients may put into `model`. The first is the canonical one.",
    )
    source: Source = Field(
        default_factory=lambda: Source(baked=Baked()),
        description="Where the weights come from: exactly one of baked, volume, oci and huggingFace. "
        "Unset: baked, found by the launcher.",
        # Not a default of the schema: it would stay beside another source that `kubectl apply` adds later.
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    checkpoint: Checkpoint = Field(
        default=Checkpoint.REPAIR,
        description="What the launcher does with a quantization config that the engine would refuse: "
        "Repair it in a scratch overlay (never in the source), Check and refuse it, or pass it on AsIs.",
    )
