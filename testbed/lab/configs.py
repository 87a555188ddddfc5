"""Configuration files of the components, written anew at each `up`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layout import API_SERVER, CLUSTER_DOMAIN, DNS_IP, Layout
from .progress import TestbedError

USERS = ("kube-controller-manager", "kube-scheduler", "kwok")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def kubeconfig(layout: Layout, user: str) -> dict[str, Any]:
    """Return a kubeconfig with the user's certificate inside."""
    certificate, key = (_encoded(layout.pki / f"{user}.{end}") for end in ("crt", "key"))
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "falcon-testbed",
        "clusters": [
            {
                "name": "falcon-testbed",
                "cluster": {"server": API_SERVER, "certificate-authority-data": _encoded(layout.pki / "ca.crt")},
            }
        ],
        "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "falcon-testbed", "context": {"cluster": "falcon-testbed", "user": user}}],
    }


def kubelet(layout: Layout) -> dict[str, Any]:
    """Return the kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.node_ip,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(layout.etc / "no-upstream-resolv.conf"),
        "podLogsDir": "/var/log/pods",
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        # there is no registry: an image that is collected as garbage cannot come back
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "imageMinimumGCAge": "8760h",
        "nodeStatusUpdateFrequency": "5s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }


def kube_proxy(layout: Layout) -> dict[str, Any]:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": layout.node_ip,
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
        "nodePortAddresses": ["primary"],
        "clusterCIDR": layout.pod_cidr,
        "hostnameOverride": layout.node,
        "clientConnection": {"kubeconfig": str(layout.etc / "kube-proxy.kubeconfig")},
        # zeros: conntrack's limits belong to the machine, not to this cluster
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def audit_policy() -> dict[str, Any]:
    """Return the policy: who did what to which object, once for each request, when it is complete."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
            {"level": "Metadata"},
        ],
    }


def pod_network(layout: Layout) -> dict[str, Any]:
    """Return the CNI configuration: each pod at the end of a routed veth, so that no bridge filter is needed."""
    address_range = [{"subnet": layout.pod_cidr}]
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [address_range]}
    ptp = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam | {"routes": [{"dst": "0.0.0.0/0"}]}}
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "falcon-testbed", "plugins": [ptp, port_map]}


def containerd(layout: Layout, pause_image: str, snapshotter: str) -> str:
    """Return containerd's configuration; its version 2 is read by Debian 12's and Debian 13's containerd."""
    return f"""version = 2
root = "{layout.containerd}"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  disable_hugetlb_controller = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{layout.etc / "cni-bin"}"
    conf_dir = "{layout.etc / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def snapshotter_for(folder: Path) -> str:
    """Return the snapshotter that works on the folder's file system: an overlay cannot lie on an overlay."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True)
    return "native" if "overlay" in kind.stdout else "overlayfs"


def _copy_cni_plugins(target: Path) -> None:
    """Copy only the plugins in use: containerd is shown no others."""
    listed = subprocess.run(
        ["dpkg", "-L", "containernetworking-plugins"], capture_output=True, text=True, check=False
    ).stdout
    target.mkdir(exist_ok=True)
    for plugin in ("host-local", "loopback", "portmap", "ptp"):
        found = [line for line in listed.splitlines() if line.endswith(f"/{plugin}")]
        if not found:
            raise TestbedError(f"The package containernetworking-plugins has no plugin {plugin}.")
        if not (target / plugin).exists():
            shutil.copy2(found[0], target / plugin)


def _write(path: Path, content: str | Mapping[str, Any], mode: int = 0o644) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    if path.exists() and path.read_text() == text:
        return  # kube-proxy ends when its file is written to
    path.touch(mode=mode)
    path.write_text(text)


def write(layout: Layout, pause_image: str) -> None:
    """Write every file of the node; JSON where the reader takes YAML."""
    for user in ("kube-proxy", layout.kubelet_user, *(USERS if layout.number == 1 else ())):
        _write(layout.etc / f"{user}.kubeconfig", kubeconfig(layout, user), 0o600)
    _write(layout.kubeconfig, kubeconfig(layout, "admin"), 0o600)
    _write(layout.etc / "kubelet.yaml", kubelet(layout))
    _write(layout.etc / "kube-proxy.yaml", kube_proxy(layout))
    _write(layout.etc / "audit-policy.yaml", audit_policy())
    _write(layout.etc / "no-upstream-resolv.conf", "")
    _write(
        layout.etc / "resolv.conf",
        f"nameserver {DNS_IP}\nsearch svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\noptions ndots:3\n",
    )
    _write(layout.etc / "containerd.toml", containerd(layout, pause_image, snapshotter_for(layout.containerd)))
    (layout.etc / "cni").mkdir(exist_ok=True)
    _write(layout.etc / "cni" / "10-testbed.conflist", pod_network(layout))
    _copy_cni_plugins(layout.etc / "cni-bin")
