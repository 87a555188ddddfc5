"""PID 1 of the serving container, and its preStop hook: `launch.pyz serve | drain | version`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the named command; its return value is the exit code."""
    print(f"falcon: unknown command {' '.join(arguments)!r}", file=sys.stderr)
    return 2
