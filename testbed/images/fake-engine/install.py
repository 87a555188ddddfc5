"""Put the fake engine among Python's packages, under vLLM's name and a version: install.py VERSION [MODEL_FOLDER]."""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

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


def write_checkpoint(folder: Path) -> None:
    """What the launcher takes for a checkpoint; the fake engine loads nothing."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["FalconH1ForCausalLM"]}))
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def main(arguments: list[str]) -> None:
    """Install the version, and write a checkpoint where one is wanted."""
    install(Path(sysconfig.get_path("purelib", "deb_system")), arguments[0])
    for folder in arguments[1:]:
        write_checkpoint(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
