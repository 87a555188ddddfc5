"""Writes small OCI image archives of single files, FROM scratch, the same bytes for the same content."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

_MEDIA = "application/vnd.oci.image"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = {parent for name in (*files, *links) for parent in PurePosixPath(name).parents} - {PurePosixPath(".")}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, source in sorted(files.items()):
            _add(archive, name, source.read_bytes(), 0o755)
        for name, target in sorted(links.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def write_archive(
    archive: Path,
    image: str,
    files: Mapping[str, Path],
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    user: str = "65532:65532",
    links: Mapping[str, str] | None = None,
) -> None:
    """Write an archive with one layer of `files` (path in the image without leading slash: local file)."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = content
        return {"mediaType": f"{_MEDIA}.{kind}", "digest": digest, "size": len(content)}

    def document(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
        return blob(json.dumps(content, sort_keys=True).encode(), kind)

    layer = blob(_layer(files, links or {}), "layer.v1.tar")
    settings = {"Env": ["PATH=/bin"], "User": user, "Entrypoint": list(entrypoint), "Cmd": list(command)}
    config = document(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {key: value for key, value in settings.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
        "config.v1+json",
    )
    manifest = document(
        {"schemaVersion": 2, "mediaType": f"{_MEDIA}.manifest.v1+json", "config": config, "layers": [layer]},
        "manifest.v1+json",
    )
    manifest["annotations"] = {
        "io.containerd.image.name": image,
        "org.opencontainers.image.ref.name": image.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [manifest]}
    fresh = archive.with_name(f".{archive.name}.new")
    with tarfile.open(fresh, "w") as whole:
        _add(whole, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(whole, "index.json", json.dumps(index).encode())
        for digest, content in blobs.items():
            _add(whole, f"blobs/sha256/{digest.removeprefix('sha256:')}", content)
    fresh.rename(archive)
