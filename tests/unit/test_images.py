"""The image builder's own parts, and what Dockerfiles say twice."""

import hashlib
import json
import os
import re
import tarfile
import time
from pathlib import Path

import pytest
from testbed.images import archive, debian, recipes
from testbed.images.recipes import IMAGES, Builder
from testbed.lab.layout import Layout

from falcon_engine.intent import Intent
from falcon_operator.api.spec import Spec
from falcon_operator.desired.intent import intent

ROOT = Path(__file__).parents[2]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_image(folder: Path, layers: list[bytes], left_out: dict[str, int]) -> Path:
    """An archive of an image with these layers, from blobs in a folder."""
    blobs = folder / "blobs"
    blobs.mkdir(exist_ok=True)
    for content in (b"{}", *layers):
        if digest(content) not in left_out:
            (blobs / digest(content).removeprefix("sha256:")).write_bytes(content)
    manifest = {
        "config": {"digest": digest(b"{}"), "size": 2},
        "layers": [{"digest": digest(layer), "size": len(layer)} for layer in layers],
    }
    path = folder / "image.tar"
    archive.write(blobs, json.dumps(manifest).encode(), "localhost/image:7", path, left_out)
    return path


def test_an_archive_says_its_name_and_its_layers(tmp_path: Path) -> None:
    path = write_image(tmp_path, [b"below", b"above"], {})
    with tarfile.open(path) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        (described,) = json.load(file)["manifests"]
        assert tar.getnames()[:2] == ["oci-layout", "index.json"]
    assert described["annotations"]["io.containerd.image.name"] == "localhost/image:7"
    assert archive.layers(path) == {digest(b"below"): 5, digest(b"above"): 5}


def test_layers_of_the_image_below_are_named_but_not_in_the_archive(tmp_path: Path) -> None:
    below = {digest(b"below"): 5}
    path = write_image(tmp_path, [b"below", b"above"], below)
    with tarfile.open(path) as tar:
        files = tar.getnames()
    assert f"blobs/{digest(b'above').replace(':', '/')}" in files
    assert f"blobs/{digest(b'below').replace(':', '/')}" not in files
    assert set(archive.layers(path)) == {digest(b"below"), digest(b"above")}


def test_a_layer_that_is_only_pretended_has_its_size_and_takes_no_room(tmp_path: Path) -> None:
    blobs = archive.pretend(tmp_path, {digest(b"large"): 3_000_000_000})
    facts = (blobs / digest(b"large").removeprefix("sha256:")).stat()
    assert facts.st_size == 3_000_000_000
    assert facts.st_blocks * 512 < 1_000_000


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a file for each input of each image."""
    for image in IMAGES.values():
        for name in (image.dockerfile, *image.inputs):
            path = tmp_path / name
            if (ROOT / name).is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path = path / "code.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}")
    monkeypatch.setattr(recipes, "REPOSITORY", tmp_path)
    monkeypatch.setattr(debian, "identity", lambda: "bookworm")
    return tmp_path


def references(repository: Path) -> dict[str, str]:
    builder = Builder(Layout(repository / "cache", repository / "state"))
    return {name: builder.reference(name) for name in ("operator", "base", "vllm-cpu", "tiny-model")}


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("operator/falcon_engine/code.py", {"operator"}),
        ("images/operator/Dockerfile", {"operator"}),
        ("operator/falcon_quantize/code.py", {"operator", "tiny-model"}),
        ("testbed/images/tiny-model/tiny_model.py", {"tiny-model"}),
        ("testbed/images/vllm-cpu/requirements.txt", {"vllm-cpu", "tiny-model"}),
        ("testbed/images/base/Dockerfile", {"operator", "base", "vllm-cpu", "tiny-model"}),
    ],
)
def test_a_change_rebuilds_what_it_is_part_of_and_no_more(copy: Path, changed: str, rebuilt: set[str]) -> None:
    before = references(copy)
    (copy / changed).write_text("something else")
    after = references(copy)
    assert {name for name in before if before[name] != after[name]} == rebuilt


def test_compiled_files_are_no_input(copy: Path) -> None:
    before = references(copy)
    (copy / "operator/__pycache__").mkdir()
    (copy / "operator/__pycache__/code.pyc").write_bytes(b"\0")
    assert references(copy) == before


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("testbed/images/vllm-cpu/requirements.txt", 100),
        ("testbed/images/torch-tests/requirements.txt", 4),
        ("images/quantizer/requirements.txt", 4),
    ],
)
def test_every_package_of_an_image_is_pinned_and_hashed(file: str, least: int) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) >= least
    assert [line for line in lines if not re.match(r"[a-zA-Z0-9._-]+==\S+ +--hash=sha256:[0-9a-f]{64}", line)] == []


def test_the_serving_image_alone_serves_what_an_empty_spec_does() -> None:
    text = (ROOT / "images/serving/Dockerfile").read_text().replace("\\\n", "")
    written = re.search(r"FALCON_INTENT='(.*)'", text)
    assert written is not None
    assert Intent.from_json(written[1]) == intent(Spec(), "localhost/serving:latest")


def test_an_older_archive_stays_until_nobody_has_used_it_for_hours(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(Layout(copy / "cache", copy / "state"))
    monkeypatch.setattr(builder, "_buildah", Store())
    archives = copy / "cache/images"
    archives.mkdir(parents=True)
    of_another_checkout, left_behind = archives / "base-111111111111.tar", archives / "base-222222222222.tar"
    of_another_checkout.touch()
    left_behind.touch()
    os.utime(left_behind, (time.time() - 24 * 3600, time.time()))
    built = builder.build(["base"])
    assert sorted(archives.glob("*.tar")) == sorted([*built, of_another_checkout])


class Store:
    """Takes the place of buildah: it has every image."""

    def clean(self) -> None: ...

    def has(self, _image: str) -> bool:
        return True

    def export(self, _image: str, _reference: str, path: Path, _left_out: dict[str, int]) -> None:
        path.touch()
