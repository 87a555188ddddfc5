"""Fields that are in the schema already and whose effect comes with a later release."""

from falcon_operator.api.base import Base
from falcon_operator.api.spec import Spec

# Dotted names as users write them.
PENDING_FIELDS: tuple[str, ...] = ("monitoring.podMonitor",)


def not_yet_implemented(spec: Spec) -> list[str]:
    """The fields that are set away from their defaults although nothing would come of it."""
    return [field for name in PENDING_FIELDS for field in _differences(spec, Spec(), name)]


def _differences(spec: Spec, default: Spec, name: str) -> list[str]:
    mine: object = spec
    usual: object = default
    for part in name.split("."):
        mine, usual = _field(mine, part), _field(usual, part)
    if mine == usual:
        return []
    if isinstance(mine, Base) and isinstance(usual, Base):
        return [f"{name}.{alias}" for alias in _aliases(mine) if _field(mine, alias) != _field(usual, alias)]
    return [name]


def _aliases(model: Base) -> list[str]:
    return [info.alias or field for field, info in type(model).model_fields.items()]


def _field(model: object, alias: str) -> object:
    for field, info in type(model).model_fields.items() if isinstance(model, Base) else ():
        if (info.alias or field) == alias:
            return getattr(model, field)
    raise AttributeError(f"{type(model).__name__} has no field {alias}")
