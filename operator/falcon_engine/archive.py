"""The package as one file that Python runs: what the operator ships to serving pods as `launch.pyz`."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

FILE_NAME = "launch.pyz"
# What serves, and what expands weights where it serves.
PACKAGES = ("falcon_engine", "falcon_weights")

_MAIN = b"import sys\n\nfrom falcon_engine.launch import main\n\nsys.exit(main(sys.argv[1:]))\n"
_SUFFIXES = (".py", ".json")
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
    folder = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for path in (folder / package).rglob("*"):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()
