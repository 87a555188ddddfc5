"""The expansions of checkpoints in a cache directory: where one is, and whether it is whole."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_engine import tensors

SCHEMA = 1
FORMATS = ("bf16", "fp8")
DIRECTORY = "expanded"


@dataclass(frozen=True)
class Verdict:
    """Whether an expansion can be used; `why` not, as the end of a sentence."""

    whole: bool
    why: str = ""


def place(cache: Path, fingerprint: str, form: str) -> Path:
    """Where the expansion of a checkpoint to a format is kept."""
    return cache / DIRECTORY / f"{fingerprint[:24]}-{form}"


def judge(out: Path, source: Path, fingerprint: str, form: str) -> Verdict:
    """Whether `out` holds this checkpoint in this format, by what `tensors.fingerprint` says of both.

    Where the source's files have another time of change than they had, the source is read whole, once.
    """
    try:
        manifest = json.loads((out / tensors.MANIFEST).read_text())
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or manifest.get("format") != form:
            return Verdict(False, f"has a {tensors.MANIFEST} of another kind")
        if manifest["source"]["fingerprint"] != fingerprint:
            return Verdict(False, "was made from another checkpoint")
        if manifest["fingerprint"] != tensors.fingerprint(out):
            return Verdict(False, "is damaged")
        if not _same_source(manifest, out, source):
            return Verdict(False, "was made from weights that have changed since")
    except FileNotFoundError as e:
        return Verdict(False, f"lacks {Path(e.filename).name}" if out.is_dir() else "is not there")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return Verdict(False, f"cannot be read ({type(e).__name__}: {e})")
    return Verdict(True)


def _same_source(manifest: dict[str, Any], out: Path, source: Path) -> bool:
    stamps, known = tensors.stamps(source), manifest["source"]
    if stamps == known["stamps"]:
        return True
    if any(tensors.sha256(file) != known["sha256"].get(file.name) for file in tensors.shards(source)):
        return False
    known["stamps"] = stamps
    try:
        write(out / tensors.MANIFEST, manifest)
    except OSError:
        return True  # on a volume that may only be read, the source is read again the next time
    return True


def write(file: Path, content: Any) -> None:
    """Write JSON so that the file is there whole, or as it was."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("w") as stream:
            json.dump(content, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
