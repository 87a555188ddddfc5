"""A new testbed's store is linked from one in the cache: files are shared, databases are not."""

from pathlib import Path

import pytest
from testbed.lab import images, store
from testbed.lab.components import Components
from testbed.lab.layout import Layout
from testbed.lab.node import Node

LAYER = "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/lib.so"
DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")


class Containerd(Components):
    """Writes into its store what the real one does."""

    def __init__(self, place: Layout) -> None:
        super().__init__(place, Node(place))
        self.store = place.containerd
        self.done: list[str] = []

    def start(self, name: str) -> bool:
        self.done.append("start")
        for database in DATABASES:
            path = self.store / database
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write("opened ")
        return True

    def await_ready(self, name: str, seconds: float = 120) -> None:
        pass

    def stop(self, name: str, grace: float = 10) -> bool:
        self.done.append("stop")
        return True

    def imports(self, path: Path, place: Layout | None = None) -> bool:
        self.done.append("import")
        (self.store / LAYER).parent.mkdir(parents=True)
        (self.store / LAYER).write_text(f"from {path.name}")
        return True


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large image's, with a containerd on the machine."""
    containerd = tmp_path / "bin/containerd"
    containerd.parent.mkdir()
    containerd.write_text("#!/bin/sh\necho containerd 1.6\n")
    containerd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{containerd.parent}:/usr/bin:/bin")
    path = tmp_path / "vllm-cpu-0123.tar"
    path.write_bytes(b"")
    monkeypatch.setattr(store, "LARGE", 0)
    return path


def started(tmp_path: Path, name: str, archives: list[Path], monkeypatch: pytest.MonkeyPatch) -> Containerd:
    place = Layout(tmp_path / "cache", tmp_path / name)
    place.make_folders()
    containerd = Containerd(place)
    monkeypatch.setattr(images, "import_archive", containerd.imports)
    store.start_containerd(place, containerd, archives)
    return containerd


def test_what_one_testbed_imported_is_linked_into_the_next(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = started(tmp_path, "first", [archive], monkeypatch)
    assert first.done == ["start", "import", "stop", "start"]
    second = started(tmp_path, "second", [archive], monkeypatch)
    assert second.done == ["start"]
    assert (second.store / LAYER).read_text() == "from vllm-cpu-0123.tar"
    assert (second.store / LAYER).samefile(first.store / LAYER)
    for database in DATABASES:
        # each has been opened by its own containerd alone since the import
        assert (first.store / database).read_text() == (second.store / database).read_text() == "opened opened "


def test_a_store_that_holds_something_stays_as_it_is(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path, "first", [archive], monkeypatch)
    again = started(tmp_path, "first", [archive], monkeypatch)
    assert again.done == ["start"]


def test_another_archive_of_the_same_name_is_another_store(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path, "first", [archive], monkeypatch)
    archive.write_bytes(b"more")
    assert "import" in started(tmp_path, "second", [archive], monkeypatch).done


def test_small_images_are_imported_by_each_testbed(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGE", 1)
    for name in ("first", "second"):
        assert started(tmp_path, name, [archive], monkeypatch).done == ["start"]
    assert not (tmp_path / "cache/stores").exists()


def test_a_link_that_was_broken_off_is_made_anew(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / LAYER).parent.mkdir(parents=True)
    (source / LAYER).write_text("layer")
    half = tmp_path / "target.new"
    half.mkdir()
    (half / "half").touch()
    store.link(source, target)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("target")] == ["target"]
    assert not (target / "half").exists()
    assert (target / LAYER).samefile(source / LAYER)
