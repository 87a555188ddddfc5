"""`testbed/down` leaves nothing of a second testbed behind, and says so when something is left."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.lab import processes
from testbed.lab.layout import Layout

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Path]:
    state = tmp_path / "second-testbed"
    yield state
    call(state, "down", "--purge")


def call(state: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "testbed" / command), *arguments],
        env=os.environ | {"FALCON_TESTBED": str(state)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def members(namespaces: set[str | None]) -> list[int]:
    kinds = ("net", "mnt", "pid")
    return [pid for pid in processes.all_pids() if any(processes.namespace(pid, kind) in namespaces for kind in kinds)]


def cgroups(state: Path) -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"{Layout(state, state).cgroup}*"))


def test_down_ends_everything_and_reports_what_is_left(second: Path) -> None:
    up = call(second, "up", "--gpus", "0", "--kwok", "0", "--images")
    assert up.returncode == 0, up.stderr
    holder = int((second / "run" / "holder").read_text().split()[0])
    namespaces = {processes.namespace(holder, kind) for kind in ("net", "mnt", "pid")}
    assert len(members(namespaces)) > 8
    assert cgroups(second)

    # this test has a mount namespace of its own (testbed/exec): the mount is seen by it and by `down` alone
    subprocess.run(["mount", "--bind", second / "log", second / "log"], check=True)
    down = call(second, "down")
    assert down.returncode == 1
    assert "mounts left: 1" in down.stderr
    assert "processes left: 0" in down.stderr
    assert "Not everything of the testbed is gone" in down.stderr
    assert members(namespaces) == []
    assert cgroups(second) == []

    subprocess.run(["umount", second / "log"], check=True)
    down = call(second, "down", "--purge")
    assert down.returncode == 0, down.stderr
    assert "mounts left: 0" in down.stderr
    assert not second.exists()
