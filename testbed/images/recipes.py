"""What each image is made of, and in which order images are built."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.lab.images import mark_used
from testbed.lab.layout import Layout
from testbed.lab.lock import alone
from testbed.lab.progress import say, step

from . import archive, debian
from .buildah import Buildah

REPOSITORY = Path(__file__).resolve().parents[2]
_VLLM = "testbed/images/vllm-cpu"
_FAKE = "testbed/images/fake-engine"
_TORCH_TESTS = "testbed/images/torch-tests"
# An archive that no build and no `up` asked for this long is nobody's: until then another checkout may be about to
# bring up a testbed with it.
_UNUSED_SECONDS = 2 * 3600
_IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")


@dataclass(frozen=True)
class Image:
    """One image: its Dockerfile, the files it is built from, and the images it needs as build arguments."""

    name: str
    dockerfile: str
    inputs: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    # The image below, whose layers are left out of the archive: it is imported first.
    below: str = ""
    # A tag that people and manifests write; without one the tag is the content's hash.
    tag: str = ""


IMAGES = {
    image.name: image
    for image in (
        Image("base", "testbed/images/base/Dockerfile", ("testbed/images/debian.py",)),
        Image(
            "operator",
            "images/operator/Dockerfile",
            ("operator", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "testbed/uv.txt"),
            needs=(("BASE", "base"),),
        ),
        Image("gateway", "images/gateway/Dockerfile", ("images/gateway",), needs=(("BASE", "base"),)),
        Image(
            "vllm-cpu",
            f"{_VLLM}/Dockerfile",
            (
                "testbed/uv.txt",
                *(f"{_VLLM}/{file}" for file in ("requirements.txt", "cuda_stubs.py", "vllm_metadata.py")),
            ),
            needs=(("BASE", "base"),),
        ),
        Image(
            "quantizer-cpu",
            "images/quantizer/Dockerfile",
            ("operator/falcon_quantize", "images/quantizer/requirements.txt", "testbed/uv.txt"),
            needs=(("BASE", "vllm-cpu"),),
            below="vllm-cpu",
        ),
        Image(
            "torch-tests",
            f"{_TORCH_TESTS}/Dockerfile",
            (f"{_TORCH_TESTS}/requirements.txt", f"{_TORCH_TESTS}/triton.txt", "testbed/uv.txt"),
            needs=(("BASE", "quantizer-cpu"),),
            below="quantizer-cpu",
        ),
        Image(
            "tiny-model",
            "testbed/images/tiny-model/Dockerfile",
            ("testbed/images/tiny-model/tiny_model.py",),
            needs=(("BASE", "quantizer-cpu"),),
        ),
        Image(
            "serving-cpu",
            "images/serving/Dockerfile",
            ("operator/falcon_engine", "operator/falcon_weights", "operator/falcon_vllm"),
            needs=(("BASE", "vllm-cpu"), ("MODEL", "tiny-model")),
            below="vllm-cpu",
            tag="v0.32.0",
        ),
        Image(
            "fake-engine",
            f"{_FAKE}/Dockerfile",
            (
                *("operator/falcon_engine", "tests/load/engine", "tests/load/wire.py"),
                *("tests/engine/vllm_arguments.py", "tests/engine/checkpoints.py", f"{_FAKE}/install.py"),
            ),
            needs=(("BASE", "base"),),
            tag="v0.32.0",
        ),
        Image(
            "fake-engine-older",
            f"{_FAKE}/older.Dockerfile",
            needs=(("BASE", "fake-engine"),),
            below="fake-engine",
            tag="v0.26.0",
        ),
    )
}


def _files(paths: Iterable[str]) -> Iterator[Path]:
    for text in paths:
        path = REPOSITORY / text
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in found if file.is_file() and not set(file.parts) & set(_IGNORED))


class Builder:
    """Builds images, each once for each content of what it is built from."""

    def __init__(self, layout: Layout) -> None:
        self._archives = layout.images
        self._buildah = Buildah(layout.cache / "image-build")
        self._hashes: dict[str, str] = {}

    def build(self, names: Sequence[str]) -> list[Path]:
        """Return the archives of these images in the order in which a node has to import them."""
        wanted = dict.fromkeys(part for name in names for part in (IMAGES[name].below, name) if part)
        self._archives.mkdir(parents=True, exist_ok=True)
        with alone(self._archives / ".lock", "another build of images"):
            self._buildah.clean()
            for name in wanted:
                self._make_archive(IMAGES[name])
            archives = [self._archive(IMAGES[name]) for name in wanted]
            for path in archives:
                mark_used(path)
        return archives

    def run(self, name: str, command: Sequence[str]) -> int:
        """Run a command in the image with the repository on /repository, read-only; return its exit status."""
        with alone(self._archives / ".lock", "another build of images"):
            self._buildah.clean()
            stored = self._make(IMAGES[name])
        return self._buildah.run(stored, command, {REPOSITORY: "/repository"})

    def reference(self, name: str) -> str:
        """Return the name that pods call the image by."""
        return f"localhost/falcon-{name}:{IMAGES[name].tag or self._hash(IMAGES[name])}"

    def _archive(self, image: Image) -> Path:
        return self._archives / f"{image.name}-{self._hash(image)}.tar"

    def _hash(self, image: Image) -> str:
        """Hash everything that the image is built from; an image below counts with its own hash."""
        if image.name not in self._hashes:
            digest = hashlib.sha256()
            for file in _files((image.dockerfile, *image.inputs)):
                digest.update(f"{file.relative_to(REPOSITORY)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
            for _, other in image.needs:
                digest.update(self._hash(IMAGES[other]).encode())
            if image.name == "base":
                digest.update(debian.identity().encode())
            self._hashes[image.name] = digest.hexdigest()[:12]
        return self._hashes[image.name]

    def _make_archive(self, image: Image) -> None:
        path = self._archive(image)
        if path.exists():
            say(f"image {image.name}: already built")
            return
        stored = self._make(image)
        left_out = archive.layers(self._archive(IMAGES[image.below])) if image.below else {}
        with step(f"image {image.name}: archive"):
            self._buildah.export(stored, self.reference(image.name), path, left_out)
        for old in self._archives.glob(f"{image.name}-*.tar"):
            if old != path and old.stat().st_atime < time.time() - _UNUSED_SECONDS:
                old.unlink()

    def _make(self, image: Image) -> str:
        """Have the image in buildah's store; return its name there, which carries the hash."""
        repository = f"localhost/falcon-{image.name}"
        stored = f"{repository}:{self._hash(image)}"
        if self._buildah.has(stored):
            return stored
        arguments = {argument: self._make(IMAGES[other]) for argument, other in image.needs}
        context = REPOSITORY
        if image.name == "base":
            context = self._buildah.folder / f"base-{self._hash(image)}"
            with step("image base: Debian packages", announce=True):
                debian.make_rootfs(context)
        with step(f"image {image.name}: {image.dockerfile}", announce=True):
            self._buildah.build(REPOSITORY / image.dockerfile, context, stored, arguments)
        if context != REPOSITORY:
            shutil.rmtree(context)
        self._buildah.remove_others(repository, stored)
        return stored
