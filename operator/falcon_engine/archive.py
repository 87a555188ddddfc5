"""The launcher as one file that Python runs: what the operator ships to serving pods as `launch.pyz`.

vLLM's plugins are in it too: in PYTHONPATH the file is a folder of packages, whose metadata tells vLLM of them.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from falcon_engine import plugins

FILE_NAME = "launch.pyz"
# What serves, what expands weights and tunes a kernel where it serves, and what vLLM imports.
PACKAGES = ("falcon_engine", "falcon_weights", "falcon_tune", "falcon_vllm")

_MAIN = b"import sys\n\nfrom falcon_engine.launch import main\n\nsys.exit(main(sys.argv[1:]))\n"
_SUFFIXES = (".py", ".json")
_VERSION = "0.1.0"  # the project's
# The earliest time a zip can hold: the bytes must depend on the content alone.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def build() -> bytes:
    """The zipapp's bytes. The same package always gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted([("__main__.py", _MAIN), *_files()]):
            info = zipfile.ZipInfo(name, date_time=_TIMESTAMP)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # Unix, on whatever system this runs
            archive.writestr(info, data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def _files() -> Iterator[tuple[str, bytes]]:
    folder = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        for path in (folder / package).rglob("*"):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()
    metadata = f"Metadata-Version: 2.1\nName: falcon-vllm\nVersion: {_VERSION}\n"
    points = "".join(f"{name} = falcon_vllm.entry:{name}\n" for name in plugins.NAMES)
    for name, text in (("METADATA", metadata), ("entry_points.txt", f"[vllm.general_plugins]\n{points}")):
        yield f"falcon_vllm-{_VERSION}.dist-info/{name}", text.encode()
