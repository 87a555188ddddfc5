"""`testbed/up`: from whatever state to a working cluster."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from . import configs, down, images, packages, pki, progress, store, workers
from .cluster import Cluster
from .components import NAMES, POLICIES, Components
from .gobuild import NODE_GROUPS, Builder
from .layout import MOST_NODES, Layout
from .node import Node
from .progress import say, step

EXTRAS = ("metrics-server", "helm3")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(prog="testbed/up", description=__doc__)
    choices = range(1, MOST_NODES + 1)
    options.add_argument("--nodes", type=int, default=1, choices=choices, help="real nodes (default 1)")
    options.add_argument("--gpus", type=int, default=2, help="fake GPUs of each real node (default 2)")
    options.add_argument("--kwok", type=int, default=2, help="GPU nodes that kwok plays (default 2)")
    options.add_argument("--kwok-untainted", action="store_true", help="let any pod be scheduled to kwok's nodes")
    options.add_argument("--policies", action="store_true", help="enforce NetworkPolicies (default: only stored)")
    options.add_argument("--with", dest="extras", action="append", default=[], choices=EXTRAS, help="more programs")
    options.add_argument(
        "--images",
        nargs="*",
        type=Path,
        metavar="ARCHIVE",
        help="OCI archives to import: these only, or none (default: FALCON_TESTBED_IMAGES, paths separated by colons, "
        "else the newest of each image in the cache's folder images)",
    )
    return options


def _archives(layout: Layout, given: list[Path] | None) -> list[Path]:
    if given is not None:
        return given
    listed = os.environ.get("FALCON_TESTBED_IMAGES")
    if listed is not None:
        return [Path(path) for path in listed.split(":") if path]
    return images.newest(layout.images.glob("*.tar"))


def _start_components(layout: Layout, components: Components, archives: list[Path], *, policies: bool) -> None:
    for name in ("etcd", "kube-apiserver"):
        components.start(name)
    store.start_containerd(layout, components, archives)
    for image in (images.PAUSE, images.COREDNS, images.GPU_PLUGIN):
        images.import_archive(image.archive(layout), layout)
    components.await_ready("kube-apiserver")
    rest = [name for name in NAMES[NAMES.index("kube-apiserver") + 1 :] if policies or name != POLICIES]
    if not policies:
        components.stop(POLICIES)
    for name in rest:
        components.start(name)
    for name in rest:
        components.await_ready(name)


def _end_workers(layout: Layout, cluster: Cluster, wanted: int) -> None:
    """Take away the further nodes that are not wanted (any more)."""
    for worker in layout.workers():
        if worker.number > wanted:
            down.end_nodes([worker])
            cluster.forget_node(worker.node)
            shutil.rmtree(worker.state)


def _start_workers(layout: Layout, first: Node, archives: list[Path], options: argparse.Namespace) -> list[Cluster]:
    """Start the further nodes that are wanted, and return the cluster as seen from each."""
    found = []
    for worker in (layout.worker(number) for number in range(2, options.nodes + 1)):
        had_pods = worker.state.is_dir()
        with step(f"namespaces and components of {worker.node}"):
            node, fresh = workers.start(worker, archives, policies=options.policies)
        cluster = Cluster(worker, node, first)
        cluster.await_node()
        if fresh and had_pods:
            cluster.await_restarted_pods()
        found.append(cluster)
    return found


def up(layout: Layout, options: argparse.Namespace) -> None:
    """Start what does not run and bring the cluster's contents to what the options say."""
    packages.install()
    Builder(layout).build(*NODE_GROUPS, *options.extras)
    layout.make_folders()
    with step("certificates and configuration files"):
        pki.make(layout.pki)
        configs.write(layout, images.PAUSE.reference(layout))
    node = Node(layout)
    components, cluster = Components(layout, node), Cluster(layout, node)
    had_pods = (layout.state / "etcd").exists()
    archives = _archives(layout, options.images)
    with step("namespaces and components"):
        fresh = node.start()
        _start_components(layout, components, archives, policies=options.policies)
    cluster.await_node()
    _end_workers(layout, cluster, options.nodes)
    further = _start_workers(layout, node, archives, options)
    if fresh and had_pods:
        cluster.await_restarted_pods()
    for one in (cluster, *further):
        one.set_gpus(options.gpus)
    cluster.set_kwok_nodes(options.kwok, tainted=not options.kwok_untainted)
    cluster.set_dns()
    for archive in (images.tools_archive(layout), *archives):
        for place in (layout, *(layout.worker(number) for number in range(2, options.nodes + 1))):
            images.import_archive(archive, place)
    if "metrics-server" in options.extras:
        images.import_archive(images.METRICS_SERVER.archive(layout), layout)
        cluster.set_metrics()
    cluster.await_rollout("coredns")
    for one in (cluster, *further):
        one.await_gpus(options.gpus)
    cluster.await_kwok_nodes(options.kwok)
    if "metrics-server" in options.extras:
        cluster.await_rollout("metrics-server")
        cluster.await_metrics_api()
    (layout.run / "up.json").write_text(json.dumps(progress.steps()))
    say("the testbed is up")
    print(f"kubeconfig  {layout.kubeconfig} (works in testbed/exec)")
    print(f"audit log   {layout.audit_log}")
    print("next        testbed/kubectl get pods -A")
