"""Reading resources from YAML that a person wrote: whatever it holds, either a resource or a sentence."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from falcon_operator.api import names

STANDARD_INPUT = "-"
MOST_BYTES = 8 << 20
_NO_UID = "00000000-0000-0000-0000-000000000000"


class ManifestError(ValueError):
    """What was given is no resource of ours; the text is a sentence."""


def read(file: str) -> str:
    """The text of a file, or of standard input where it is `-`. Raises ManifestError."""
    try:
        data = sys.stdin.buffer.read(MOST_BYTES + 1) if file == STANDARD_INPUT else _start_of(Path(file))
    except OSError as error:
        raise ManifestError(f"{file} cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise ManifestError(f"{file} has more than {MOST_BYTES >> 20} MiB, which is no resource")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ManifestError(f"{file} is not text in UTF-8") from None


def resources(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The resources in a YAML text, each with whole metadata, and a sentence for each document that is none.

    Raises ManifestError where the text is not YAML.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"this is not YAML: {' '.join(str(error).split())[:200]}") from None
    except (RecursionError, ValueError) as error:
        raise ManifestError(f"this YAML cannot be read: {str(error)[:100]}") from None
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for document in documents:
        if problem := _problem(document):
            problems.append(problem)
            continue
        metadata = {"namespace": "default", "uid": _NO_UID, "generation": 1, **document["metadata"]}
        found.append({"spec": {}, **document, "metadata": metadata})
    return found, problems


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MOST_BYTES + 1)


def _problem(document: object) -> str | None:
    if not isinstance(document, Mapping) or document.get("kind") != names.KIND:
        kind = document.get("kind") if isinstance(document, Mapping) else None
        shown = f"a {kind}" if isinstance(kind, str) else repr(document)
        return f"not a {names.KIND}: {shown[:80]}"
    version = document.get("apiVersion")
    if version is not None and version != names.API_VERSION:
        return f"apiVersion is {str(version)[:80]!r}: this operator knows {names.API_VERSION}"
    metadata = document.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        return f"metadata is {str(metadata)[:80]!r}: give an object with a name"
    if not metadata or not metadata.get("name"):
        return "metadata.name is missing: give the resource a name"
    return None
