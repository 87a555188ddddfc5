"""The launcher from its source, for a benchmark: `python -m benchmarks.gpu.launch serve`."""

from __future__ import annotations

import sys

from falcon_engine.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
