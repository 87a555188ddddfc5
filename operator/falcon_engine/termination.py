"""The termination message: the kubelet copies it into the pod's status."""

import os
from pathlib import Path

from falcon_engine.signatures import Diagnosis

VARIABLE = "FALCON_TERMINATION_LOG"
DEFAULT_PATH = "/dev/termination-log"


def write(diagnosis: Diagnosis) -> bool:
    """Leave the diagnosis behind. A container without such a file, or one that may not write it, is no failure."""
    try:
        Path(os.environ.get(VARIABLE, DEFAULT_PATH)).write_text(diagnosis.to_json())
    except OSError:
        return False
    return True
