"""The second and third real node: a kubelet, containerd and kube-proxy in namespaces of their own, and the wire.

All wires end in the first node, which routes between the others. A node that is cut off loses every packet of its wire
in both directions without a word, as one that lost its power or its network does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import configs, images, store
from .components import POLICIES, WORKER_NAMES, Components
from .layout import CLUSTER_POD_CIDR, NODE, NODE_IP, NODES_CIDR, Layout
from .node import Node
from .processes import Process
from .progress import TestbedError

_WIRE = "uplink"  # its name in the further node; in the first one it is called to2, to3
_CUT = "falcon_cut"


def _in_network(holder: Process, script: str) -> bool:
    """Run a script of `ip` or `nft` commands on a node's network; say whether all of them succeeded."""
    command = ["nsenter", "-t", str(holder.pid), "-n", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _must(holder: Process, script: str) -> None:
    if not _in_network(holder, script):
        raise TestbedError(f"This failed on the network of a node:\n{script}")


def _holder(layout: Layout) -> Process:
    holder = Node(layout).holder
    if holder is None:
        raise TestbedError(f"{layout.node} does not run. Start it with testbed/up --nodes {max(layout.number, 2)}.")
    return holder


def _connect(first: Process, further: Process, layout: Layout) -> None:
    """Lay the wire where one of its ends is missing, and route both nodes' pods over it."""
    near = f"to{layout.number}"
    if _in_network(first, f"ip link show dev {near}") and _in_network(further, f"ip link show dev {_WIRE}"):
        return
    _in_network(first, f"ip link del dev {near}")
    _in_network(further, f"ip link del dev {_WIRE}")
    _must(
        first,
        f"""ip link add {near} type veth peer name {_WIRE} netns {further.pid}
        ip link set dev {near} up
        ip route add {layout.node_ip}/32 dev {near} src {NODE_IP}
        ip route replace {layout.pod_cidr} via {layout.node_ip} dev {near} onlink src {NODE_IP}""",
    )
    _must(
        further,
        f"""ip link set dev {_WIRE} up
        ip route add {NODE_IP}/32 dev {_WIRE} src {layout.node_ip}
        for range in {NODES_CIDR} {CLUSTER_POD_CIDR}; do
          ip route add $range via {NODE_IP} dev {_WIRE} onlink src {layout.node_ip}
        done""",
    )


def start(layout: Layout, archives: Sequence[Path], *, policies: bool) -> tuple[Node, bool]:
    """Start what does not run of a further node; return it and whether it was started anew."""
    layout.make_folders()
    configs.write(layout, images.PAUSE.reference(layout))
    node = Node(layout)
    fresh = node.start()
    _connect(_holder(Layout(layout.cache, layout.state.parent)), _holder(layout), layout)
    components = Components(layout, node)
    store.start_containerd(layout, components, archives)
    for image in (images.PAUSE, images.COREDNS, images.GPU_PLUGIN):
        images.import_archive(image.archive(layout), layout)
    if not policies:
        components.stop(POLICIES)
    wanted = [*WORKER_NAMES, *([POLICIES] if policies else [])]
    for name in wanted:
        components.start(name)
    for name in wanted:
        components.await_ready(name)
    return node, fresh


def _worker(layout: Layout, name: str) -> Layout:
    """Return the layout of the named node, which is one that can be cut off."""
    running = {there.node: there for there in layout.workers() if Node(there).holder}
    if name not in running:
        why = "The API server runs there." if name == NODE else f"Nodes: {', '.join(running) or 'none'}."
        raise TestbedError(f"{name} cannot be cut off or mended. {why} testbed/up --nodes 2 starts {NODE}-2.")
    return running[name]


def _drop(interface: str) -> str:
    # before connection tracking, and where packets arrive: who sends learns nothing
    chain = "{ type filter hook prerouting priority raw; policy accept; iifname " + interface + " drop; }"
    return f"nft 'table ip {_CUT} {{}}; delete table ip {_CUT}; table ip {_CUT} {{ chain lost {chain}; }}'"


def cut(layout: Layout, name: str) -> None:
    """Lose all packets between a node and the rest of the cluster; its processes go on."""
    worker = _worker(layout, name)
    _must(_holder(layout), _drop(f"to{worker.number}").replace(_CUT, f"{_CUT}_{worker.number}"))
    _must(_holder(worker), _drop(_WIRE))


def mend(layout: Layout, name: str) -> None:
    """Undo `cut`; a node that is not cut off stays as it is."""
    worker = _worker(layout, name)
    for holder, table in ((_holder(layout), f"{_CUT}_{worker.number}"), (_holder(worker), _CUT)):
        _must(holder, f"nft 'table ip {table} {{}}; delete table ip {table}'")
