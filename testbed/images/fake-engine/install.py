"""Put the fake engine among Python's packages, under vLLM's name and a version: install.py VERSION [MODEL_FOLDER]."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from tests.engine import checkpoints

PROGRAM = """\
import sys

sys.path.insert(0, "/opt/fake-engine")
from tests.load.engine.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def install(site: Path, version: str) -> None:
    """A package that the launcher finds as it finds vLLM."""
    for old in site.glob("vllm-*.dist-info/METADATA"):
        old.unlink()
        old.parent.rmdir()
    program = site / "vllm/entrypoints/cli/main.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(PROGRAM)
    info = site / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def main(arguments: list[str]) -> None:
    """Install the version, and write a checkpoint where one is wanted."""
    install(Path(sysconfig.get_path("purelib", "deb_system")), arguments[0])
    for folder in arguments[1:]:
        # What the launcher takes for a checkpoint; the fake engine loads nothing.
        checkpoints.write(Path(folder), checkpoints.tensors((), kv=False))


if __name__ == "__main__":
    main(sys.argv[1:])
