"""Where files are kept that should outlive a pod."""

from typing import ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, ObjectName, Size
from falcon_operator.api.markers import CEL


class Storage(Base):
    """An existing claim, or one that the operator makes; with neither, the files live as long as the pod."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!(has(self.claimName) && has(self.size))",
            '{path} sets both claimName "{self.claimName}" and size "{self.size}": '
            "name an existing claim, or give the size of a new one",
        ),
        CEL(
            "!has(self.storageClassName) || has(self.size)",
            '{path} sets storageClassName "{self.storageClassName}" without size: '
            "a storage class is only used for a claim that is made, so give its size",
        ),
    )

    claim_name: ObjectName | None = Field(
        default=None, description="An existing PersistentVolumeClaim in the same namespace."
    )
    size: Size | None = Field(
        default=None, description="Size of a PersistentVolumeClaim to make. It is deleted with the resource."
    )
    storage_class_name: ObjectName | None = Field(
        default=None, description="StorageClass of the claim to make; the cluster's default where unset."
    )
