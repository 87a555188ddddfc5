"""The testbed's pure parts: cgroup places, content hashes, image archives, node labels."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from testbed.lab import cgroups, components, gobuild, golang, gpunodes, images, layout, oci, progress
from testbed.lab.progress import TestbedError


def test_v1_places_the_node_below_the_callers_own_groups(tmp_path: Path) -> None:
    for mounted in ("memory", "cpu,cpuacct", "systemd"):
        (tmp_path / mounted).mkdir()
    own = "5:memory:/user/7\n4:cpu,cpuacct:/\n3:pids:/unmounted\n1:name=systemd:/a\n0::/ignored\n"
    assert cgroups.v1_folders(own, "lab", tmp_path) == [
        tmp_path / "memory/user/7/lab",
        tmp_path / "cpu,cpuacct/lab",
        tmp_path / "systemd/a/lab",
    ]


def test_v2_enables_what_is_available_and_not_yet_on() -> None:
    assert cgroups.to_enable("cpuset cpu io memory pids rdma misc", "cpu memory") == ["cpuset", "io", "pids"]
    assert cgroups.to_enable("cpu", "cpu") == []
    # with any other before it, a group that holds processes would become a threaded one instead of being refused
    assert cgroups.to_enable("cpuset cpu io memory pids", "")[0] == "memory"


def test_two_testbeds_never_share_a_cgroup() -> None:
    names = {layout.Layout(Path("/c"), Path(state)).cgroup for state in ("/a/falcon", "/b/falcon", "/a/falcon2")}
    assert len(names) == 3


@pytest.mark.parametrize("variable", ["FALCON_CACHE", "FALCON_TESTBED"])
def test_folders_that_the_node_cannot_see_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/var/lib/falcon")
    with pytest.raises(TestbedError, match=f"{variable} is /var/lib/falcon"):
        layout.layout()


def test_a_binary_is_built_anew_when_its_own_source_its_sums_or_go_change(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module m\n")
    (tmp_path / "go.sum").write_text("")
    (tmp_path / "coredns").mkdir()
    source = tmp_path / "coredns" / "main.go"
    source.write_text("package main\n")
    coredns, etcd = gobuild.GROUPS["coredns"], gobuild.GROUPS["etcd"]

    def hashes(go: str = "go1.26.8") -> tuple[str, str]:
        return gobuild.content_hash(coredns, go, tmp_path), gobuild.content_hash(etcd, go, tmp_path)

    first = hashes()
    assert hashes() == first
    source.write_text("package main // changed\n")
    second = hashes()
    assert second[0] != first[0]
    assert second[1] == first[1], "etcd is not built from CoreDNS's source"
    (tmp_path / "go.sum").write_text("x\n")
    third = hashes()
    assert third[1] != second[1]
    assert hashes("go1.27.0")[1] != third[1]


def test_go_versions_compare_as_numbers() -> None:
    assert golang.version_of("go1.26.8") == (1, 26, 8)
    assert golang.version_of("go 1.26.4") < golang.version_of("go1.26.10")
    assert golang.version_of("devel") == ()


def test_a_component_is_restarted_when_a_file_it_reads_changes(tmp_path: Path) -> None:
    config = tmp_path / "kubelet.yaml"
    config.write_text("a")
    command = ["/bin/true", f"--config={config}"]
    first = components.fingerprint(command)
    assert components.fingerprint(command) == first
    config.write_text("b")
    assert components.fingerprint(command) != first
    assert components.fingerprint([*command, "--v=2"]) != components.fingerprint(command)


def test_an_archive_has_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    archives = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for archive in archives:
        oci.write_archive(archive, "localhost/x:1", {"bin/program": program}, links={"bin/sh": "program"})
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as whole:
        file = whole.extractfile("index.json")
        assert file is not None
        index = json.load(file)
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/x:1"


def test_gpu_nodes_carry_the_drivers_version_in_both_spellings() -> None:
    node = gpunodes.kwok_node(1, tainted=True)
    labels = node["metadata"]["labels"]
    assert labels["nvidia.com/cuda.driver.major"] == labels["nvidia.com/cuda.driver-version.major"] == "580"
    assert labels["nvidia.com/gpu.count"] == node["status"]["allocatable"]["nvidia.com/gpu"]
    assert labels[gpunodes.FAKE] == "true"
    assert node["spec"]["taints"][0]["effect"] == "NoSchedule"
    assert gpunodes.kwok_node(1, tainted=False)["spec"]["taints"] == []


def test_waits_are_as_long_as_the_machine_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALCON_TESTBED_PATIENCE", "20")
    assert progress.patience(30) == 600
    for wrong in ("0", "quick", "inf", "nan"):
        monkeypatch.setenv("FALCON_TESTBED_PATIENCE", wrong)
        with pytest.raises(TestbedError, match=f"FALCON_TESTBED_PATIENCE is '{wrong}'"):
            progress.patience(30)


def archive_of(folder: Path, name: str, made: int) -> Path:
    path = folder / name
    path.touch()
    os.utime(path, (made, made))
    return path


def test_the_newest_archive_of_each_image_is_imported_and_in_order(tmp_path: Path) -> None:
    archive_of(tmp_path, "vllm-cpu-aaaaaaaaaaaa.tar", 1)
    above = archive_of(tmp_path, "serving-cpu-bbbbbbbbbbbb.tar", 4)
    below = archive_of(tmp_path, "vllm-cpu-cccccccccccc.tar", 3)
    own = archive_of(tmp_path, "mine.tar", 2)
    assert images.newest(tmp_path.glob("*.tar")) == [own, below, above]


def test_use_does_not_make_an_archive_another(tmp_path: Path) -> None:
    path = archive_of(tmp_path, "mine.tar", 2)
    images.mark_used(path)
    assert path.stat().st_mtime == 2
    assert path.stat().st_atime > 2
