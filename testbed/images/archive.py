"""OCI archives in which layers may be missing that the importing node has already.

A layer of 2.5 GB must not be written and read again because a file of the layer above it changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BLOBS = "blobs/sha256"
_MEDIA = "application/vnd.oci.image"


def layers(archive: Path) -> dict[str, int]:
    """Return the digests of an archive's layers with their sizes."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            file = tar.extractfile(name)
            assert file is not None
            return json.load(file)

        manifest = read(_blob(read("index.json")["manifests"][0]["digest"]))
        return {layer["digest"]: layer["size"] for layer in manifest["layers"]}


def pretend(layout: Path, present: Mapping[str, int]) -> Path:
    """Make an OCI layout in which these layers seem to be there, and return the folder of its blobs.

    They are files without content but of the right size: what writes an image into a layout looks for a layer by its
    name and size, and does not write it again.
    """
    for digest, size in present.items():
        path = layout / _blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
    return layout / _BLOBS


def manifest(layout: Path) -> bytes:
    """Return the manifest of the one image in an OCI layout."""
    (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    return (layout / _blob(described["digest"])).read_bytes()


def write(blobs: Path, manifest: bytes, reference: str, archive: Path, left_out: Mapping[str, int]) -> None:
    """Write an image's archive; the documents come first, so that they are found fast."""
    content = json.loads(manifest)
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    described = {
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "digest": digest,
        "size": len(manifest),
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [described]}
    parts = dict.fromkeys(blob["digest"] for blob in (content["config"], *content["layers"]))
    fresh = archive.with_name(f".{archive.name}.new")
    with tarfile.open(fresh, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        _add(tar, _blob(digest), manifest)
        for part in parts:
            if part not in left_out:
                tar.add(blobs / _hash(part), _blob(part))
    fresh.rename(archive)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _hash(digest: str) -> str:
    return digest.partition(":")[2]


def _blob(digest: str) -> str:
    return f"{_BLOBS}/{_hash(digest)}"
