"""Builds the Go programs into the cache, each group once for each content of what it is built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import golang
from .layout import GO_MODULE, KUBERNETES_VERSION, Layout
from .progress import TestbedError, step

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")


def _kubernetes_ldflags() -> str:
    _, minor, _ = KUBERNETES_VERSION.split(".")
    values = {"gitVersion": KUBERNETES_VERSION, "gitMajor": "1", "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())


def _helm_ldflags(major: str) -> str:
    module = f"helm.sh/helm/{major}"
    required = (line.split() for line in (GO_MODULE / "go.mod").read_text().splitlines())
    version = next(words[1] for words in required if words[:1] == [module])
    return f"-X {module}/internal/version.version={version}"


@dataclass(frozen=True)
class Group:
    """Programs that one `go build` makes: name of the binary and its main package."""

    name: str
    programs: tuple[tuple[str, str], ...]
    own_sources: tuple[str, ...] = ()
    ldflags: str = ""


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
GROUPS = {
    group.name: group
    for group in (
        Group(
            "kubernetes",
            tuple((name, f"k8s.io/kubernetes/cmd/{name}") for name in _KUBERNETES),
            ldflags=_kubernetes_ldflags(),
        ),
        Group("etcd", (("etcd", "go.etcd.io/etcd/server/v3"),)),
        Group("coredns", (("coredns", "./coredns"),), ("coredns",)),
        Group("tools", (("gpuplugin", "./gpuplugin"), ("labtool", "./labtool")), ("gpuplugin", "labtool")),
        Group("kwok", (("kwok", "sigs.k8s.io/kwok/cmd/kwok"),)),
        Group("helm", (("helm", "helm.sh/helm/v4/cmd/helm"),), ldflags=_helm_ldflags("v4")),
        Group("helm3", (("helm3", "helm.sh/helm/v3/cmd/helm"),), ldflags=_helm_ldflags("v3")),
        Group("metrics-server", (("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),)),
    )
}
NODE_GROUPS = ("kubernetes", "etcd", "coredns", "tools", "kwok", "helm")

# kwok's behaviour of nodes and pods; its binary has none built in, its module ships them
_KWOK_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)


def content_hash(group: Group, go_version: str, module: Path = GO_MODULE) -> str:
    """Hash all that decides what the group's binaries are."""
    digest = hashlib.sha256()
    files = [module / "go.mod", module / "go.sum"]
    for folder in group.own_sources:
        files += sorted((module / folder).glob("*.go"))
    for file in files:
        digest.update(f"{file.relative_to(module)}\0".encode() + file.read_bytes() + b"\0")
    digest.update(repr((group, go_version, FLAGS, _KWOK_STAGES)).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Builder:
    """Builds groups on demand and links their binaries into the testbed's bin folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._go = golang.find(layout.cache)
        # GOGC: a fifth less compiling for some more memory
        chosen = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOGC": "400"}
        self._environment = os.environ | chosen
        self._environment.pop("GOFLAGS", None)
        self._go_version = self._run("env", "GOVERSION").strip()

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._go), *arguments],
            cwd=GO_MODULE,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestbedError(f"go {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def build(self, *names: str) -> None:
        """Make the groups' binaries, unless the cache has them, and link them."""
        self._layout.bin.mkdir(parents=True, exist_ok=True)
        for name in names:
            group = GROUPS[name]
            folder = self._layout.cache / "bin" / content_hash(group, self._go_version)
            with _locked(self._layout.cache / "bin" / f"{name}.lock"):
                if not folder.exists():
                    self._build(group, folder)
            for binary in folder.iterdir():
                _link(self._layout.bin / binary.name, binary)

    def _build(self, group: Group, folder: Path) -> None:
        with (
            step(
                f"building {group.name} {KUBERNETES_VERSION if group.name == 'kubernetes' else ''}".strip(),
                announce=True,
            ),
            tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
        ):
            new = Path(scratch) / "new"
            new.mkdir()
            ldflags = f"-s -w {group.ldflags}".strip()
            if len(group.programs) > 1:
                self._run("build", *FLAGS, "-ldflags", ldflags, "-o", f"{new}/", *(main for _, main in group.programs))
            else:
                binary, main = group.programs[0]
                self._run("build", *FLAGS, "-ldflags", ldflags, "-o", str(new / binary), main)
            if group.name == "kwok":
                module = Path(self._run("list", *FLAGS, "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok").strip())
                stages = [(module / "kustomize/stage" / stage).read_text() for stage in _KWOK_STAGES]
                (new / "kwok-stages.yaml").write_text("---\n".join(stages))
            new.rename(folder)


def _link(link: Path, target: Path) -> None:
    """Point `link` at `target` without a moment in which it is missing."""
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    shutil.move(fresh, link)
