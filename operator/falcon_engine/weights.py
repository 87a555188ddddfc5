"""Checks a checkpoint's weight files without reading the weights: the engine finds a cut file only minutes later."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

INDEX = "model.safetensors.index.json"
# A header lists names and offsets; a longer one is not a header.
_HEADER_LIMIT = 100 << 20


def problem(directory: Path) -> str | None:
    """What is wrong with the weights in a directory, as the end of a sentence; None where nothing is."""
    try:
        index = directory / INDEX
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            missing = [s for s in shards if not (directory / s).is_file()]
            if missing:
                return f"lacks {len(missing)} of the {len(shards)} files that {INDEX} names, {missing[0]} first"
            files = [directory / s for s in shards]
        else:
            files = sorted(directory.glob("*.safetensors"))
        if not files:
            return "holds no *.safetensors file"
        return next(_damaged(files), None)
    except PermissionError as e:
        return f"has a file that this user may not read: {Path(e.filename).name}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return f"has an {INDEX} that cannot be used ({type(e).__name__}: {e})"


def _damaged(files: list[Path]) -> Iterator[str]:
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            if start.startswith(b"version https://git-lfs"):
                yield f"holds only a Git LFS pointer in place of {path.name}"
                continue
            length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else _HEADER_LIMIT + 1
            if length > min(size - 8, _HEADER_LIMIT):
                yield f"has a damaged weight file: {path.name} ({size} bytes) does not begin with a safetensors header"
                continue
            file.seek(8)
            try:
                header = json.loads(file.read(length))
                end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                yield f"has a damaged weight file: {path.name} has an unreadable safetensors header"
                continue
            if 8 + length + end != size:
                yield f"has a cut weight file: {path.name} has {size} bytes, its header says {8 + length + end}"
