"""The scheduler's words for why a pod finds no node, and what each of them asks for."""

from __future__ import annotations

import re

from falcon_operator.decide.pods import Pod

_MESSAGE_CHARACTERS = 1000
_SHOWN_WAYS = 4

# Words of the scheduler, and the way out; the pattern's groups go into the sentence.
_WAYS = (
    (
        r'persistentvolumeclaim "(?P<claim>[^"]*)" not found',
        "Create the claim {claim} in this namespace, or correct claimName in spec.model.source or spec.cache.",
    ),
    (
        r"unbound immediate PersistentVolumeClaims|didn't find available persistent volumes",
        "A claim has no volume: look at its StorageClass, which spec.cache.storageClassName can name.",
    ),
    (
        r"volume node affinity conflict",
        "A volume is bound to nodes that cannot run the pod: use another claim in spec.cache or spec.model.source.",
    ),
    (
        r"Insufficient (?P<gpu>nvidia\.com/[\w.-]+|[\w.-]+/(?:gpu|mig)[\w.-]*)",
        "Too few {gpu} are free on one node: free some, add a node, or ask for less in spec.gpu.count.",
    ),
    (
        r"cannot allocate all claims|resourceclaim",
        "A device claim of spec.gpu.claims finds no device: look at the ResourceClaim and its DeviceClass.",
    ),
    (
        r"untolerated taint(?:\(s\))?(?: \{(?P<taint>[^}]*)\})?",
        "A taint {taint} keeps pods away: tolerate it in spec.scheduling.tolerations.",
    ),
    (
        r"didn't match Pod's node (?:affinity/selector|selector|affinity)",
        "Nodes lack the labels that are asked for: compare spec.gpu.products, spec.gpu.memoryAtLeast and "
        "spec.scheduling with the nodes' labels.",
    ),
    (
        r"Insufficient (?P<resource>cpu|memory|ephemeral-storage)",
        "Too little {resource} is free: lower spec.resources.requests, or add a node.",
    ),
    (
        r"didn't (?:match|satisfy) (?:existing )?pods?('s)? (?:anti-affinity|affinity|topology spread)",
        "Other pods are in the way: relax spec.scheduling.affinity or topologySpreadConstraints.",
    ),
    (r"node\(s\) were unschedulable", "Nodes are cordoned: `kubectl uncordon` lets pods in again."),
    (r"Too many pods", "A node holds as many pods as it may: add a node."),
    (r"no nodes available", "The cluster has no node that takes pods: add one."),
)
_OTHERWISE = "Free or add such a node, or ask for less in spec.gpu, spec.resources or spec.scheduling."


def unschedulable(pod: Pod) -> str | None:
    """The scheduler's own words where it finds no node; without its thoughts on preemption."""
    condition = pod.condition("PodScheduled")
    if condition.get("status") != "False" or condition.get("reason") != "Unschedulable":
        return None
    words = str(condition.get("message") or "no node fits").partition(" preemption: ")[0]
    return " ".join(words.split()).rstrip(".")[:_MESSAGE_CHARACTERS]


def explained(words: str, asks: str) -> str:
    """A message for people: the scheduler's words, what a pod asks for, and the way out of each."""
    ways = []
    for pattern, way in _WAYS:
        if match := re.search(pattern, words, re.IGNORECASE):
            groups = {k: (v or "").rstrip(": ") for k, v in match.groupdict().items()}
            ways.append(way.format(**groups).replace("  ", " "))
    said = " ".join(ways[:_SHOWN_WAYS]) or _OTHERWISE
    return f"The scheduler finds no node: {words}. A pod asks for {asks}. {said}"
