"""What the administrator's configuration forbids. CEL cannot know it, so the operator checks it."""

import re

from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.spec import Spec

_TRUST_REMOTE_CODE = re.compile(r"--trust[-_]remote[-_]code([=. ].*)?", re.DOTALL)


def refusals(spec: Spec, config: OperatorConfig) -> list[str]:
    """One sentence for each thing in the spec that the administrator does not allow."""
    if config.allow_trust_remote_code:
        return []
    return [
        f'engine.extraArgs has "{arg}": it runs code from the model repository; '
        "the administrator can allow it with the operator's allowTrustRemoteCode"
        for arg in spec.engine.extra_args
        if _TRUST_REMOTE_CODE.fullmatch(arg)
    ]
