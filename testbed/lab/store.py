"""A large image in a new store without an import: linked from a store in the cache, where the first import left it.

What is written once, the files of images and of their layers, is shared with hard links. The databases beside them,
which are written to at any time, are copied.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import configs, images
from .components import Components
from .layout import Layout
from .lock import alone
from .progress import TestbedError, step

# An import of this many bytes takes longer than to link its files.
LARGE = 1_000_000_000
# A store that no `up` asked for this long is nobody's, as with archives.
_UNUSED_SECONDS = 2 * 3600


def start_containerd(layout: Layout, components: Components, archives: Sequence[Path]) -> None:
    """Start containerd and wait for it; where its store is new, the first large one of these archives is in it."""
    large = next((path for path in archives if path.is_file() and path.stat().st_size >= LARGE), None)
    if large is None or any(layout.containerd.iterdir()) or not _one_file_system(layout):
        _start(components)
        return
    kept = _kept(layout, large)
    with alone(kept.parent / ".lock", "another testbed's import of the same image"):
        if kept.is_dir():
            with step(f"linking {large.name} from the cache"):
                link(kept, layout.containerd)
            kept.touch()
            _start(components)
            return
        _start(components)
        images.import_archive(large, layout)
        if not components.stop("containerd"):
            raise TestbedError("containerd does not end after the import of an image.")
        with step(f"keeping {large.name} for other testbeds"):
            _forget_unused(kept.parent)
            link(layout.containerd, kept)
            # What a power cut costs a testbed's state is known; the cache has to outlive it.
            subprocess.run(["sync", "-f", str(kept)], check=True)
        _start(components)


def link(source: Path, target: Path) -> None:
    """Make `target`, which has nothing in it, the same store as `source`, whole or not at all."""
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    done = subprocess.run(["cp", "-al", str(source), str(fresh)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"The store {source} could not be linked to {target}:\n{done.stderr[-2000:]}")
    for database in (*fresh.glob("*/meta.db"), *fresh.glob("*/metadata.db")):
        copy = database.with_name(f"{database.name}.copy")
        shutil.copy2(database, copy)
        copy.rename(database)
    fresh.rename(target)


def _start(components: Components) -> None:
    components.start("containerd")
    components.await_ready("containerd")


def _one_file_system(layout: Layout) -> bool:
    return layout.cache.stat().st_dev == layout.containerd.stat().st_dev


def _kept(layout: Layout, archive: Path) -> Path:
    """Return where the store with this very archive is kept, for this containerd."""
    version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout
    facts = (version, configs.snapshotter_for(layout.containerd), images.identity(archive))
    key = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    return layout.cache / "stores" / f"{archive.stem}-{key[:12]}"


def _forget_unused(stores: Path) -> None:
    for old in stores.iterdir():
        with suppress(FileNotFoundError):
            if old.is_dir() and old.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
