"""The gate on any labels: no exception, no matter of order, numbers as numbers, and the scheduler's agreement."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import gpu_cluster

from falcon_engine import profiles
from falcon_operator.api.scheduling import Scheduling
from falcon_operator.api.spec import Spec
from falcon_operator.decide.gpu import Judgement, NodeFacts, NodeIndex, Product, Refusal, Rejected, judge, judge_all
from falcon_operator.decide.nodes import Names
from falcon_operator.desired.affinity import requirements
from falcon_operator.desired.gpu_needs import needs, profile_of

H200 = gpu_cluster.node_of(
    {"gfd": "new", "product": "NVIDIA-H200", "mib": 143771, "cc": "9.0", "driver": "580.95.05", "count": 8}
)
PREFIX = "nvidia.com/"

anything = st.one_of(
    st.sampled_from(
        ["", "0", "1", "2", "7", "9", "10", "12", "-1", "007", "+8", "1_0", "1e3", "9" * 40, "\u0669", "x"]
    ),
    st.sampled_from(["time-slicing", "mps", "none", "580", "570", "143771", "NVIDIA-GB10", "NVIDIA GeForce RTX"]),
    st.integers(-(10**20), 10**20).map(str),
    st.text(max_size=12),
)
label = st.sampled_from(
    [
        *(
            "gpu.product",
            "gpu.memory",
            "gpu.compute.major",
            "gpu.compute.minor",
            "gpu.replicas",
            "gpu.sharing-strategy",
        ),
        *("cuda.driver.major", "cuda.driver-version.major", "mig-1g.24gb.memory", "mig-1g.24gb.replicas", "gpu.count"),
        "mig-1g.24gb.sharing-strategy",
    ]
).map(PREFIX.__add__)
node = st.builds(
    NodeFacts,
    name=st.sampled_from(["a", "b", "c", "d"]),
    labels=st.dictionaries(label, anything),
    allocatable=st.dictionaries(
        st.sampled_from(["gpu", "gpu.shared", "mig-1g.24gb"]).map(PREFIX.__add__), st.sampled_from(["0", "1", "8", "x"])
    ),
    unschedulable=st.booleans(),
    taints=st.lists(
        st.tuples(
            st.sampled_from(["nvidia.com/gpu", "dedicated"]),
            st.just(""),
            st.sampled_from(["NoSchedule", "PreferNoSchedule"]),
        )
    ).map(tuple),
)
gpu = st.fixed_dictionaries(
    {},
    optional={
        "resourceName": st.sampled_from(["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.24gb"]),
        "count": st.integers(1, 3),
        "fp4": st.sampled_from(["Require", "Prefer", "Allow"]),
        "products": st.lists(st.sampled_from(["NVIDIA-H200", "x"]), max_size=2, unique=True),
        "memoryAtLeast": st.sampled_from(["24Gi", "100Gi", "1"]),
    },
)
engine = st.fixed_dictionaries(
    {"version": st.sampled_from([None, *profiles.VERSIONS, "0.99.0"])},
    optional={
        "gpuMemoryUtilization": st.sampled_from([0.1, 0.22, 0.3, 0.45, 0.88, 0.98]),
        "maxModelLen": st.sampled_from([512, 65536, 1_048_576]),
    },
)
spec = st.builds(
    lambda gpu, engine, fit: Spec.model_validate({"gpu": gpu, "engine": engine, "fit": fit}),
    gpu,
    engine,
    st.sampled_from(["Clamp", "Refuse"]),
)


@given(spec, node)
def test_any_labels_get_a_verdict_with_a_reason_and_the_scheduler_agrees(spec: Spec, node: NodeFacts) -> None:
    found = judge(spec, profile_of(spec, ""), node)
    assert bool(found.reason) == (found.verdict in ("Rejected", "Unknown"))
    if found.verdict is not None:
        assert gpu_cluster.scheduler_takes(spec, node) == (found.verdict != "Rejected")


@given(spec, st.lists(node, max_size=8, unique_by=lambda n: n.name), st.randoms(use_true_random=False))
def test_all_nodes_are_judged_as_each_one_is_in_whatever_order(spec: Spec, nodes: list[NodeFacts], random: Any) -> None:
    profile = profile_of(spec, "")
    found = judge_all(spec, profile, nodes)
    each = {n.name: judge(spec, profile, n) for n in nodes}
    by_verdict = {v: sorted(n for n, one in each.items() if one.verdict == v) for v in ("Eligible", "Unknown", None)}
    assert [list(found.eligible), list(found.unknown)] == [by_verdict["Eligible"], by_verdict["Unknown"]]
    assert found.without_gpus == len(by_verdict[None])
    assert {name: refusal.reason for refusal in found.refusals for name in refusal.nodes} == {
        name: one.reason for name, one in each.items() if one.verdict == "Rejected"
    }
    assert sum(p.nodes for p in found.products) == len(found.eligible) + len(found.unknown)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert judge_all(spec, profile, shuffled) == found


zone = st.sampled_from(["a", "b"])
# So few that some are alike but for their zones.
few_nodes = st.builds(
    lambda name, driver, zone: replace(
        H200, name=name, labels={**H200.labels, "nvidia.com/cuda.driver-version.major": driver, "zone": zone}
    ),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["570", "580"]),
    zone,
)


@given(st.lists(st.tuples(spec, st.one_of(st.none(), zone), few_nodes), max_size=6))
def test_what_is_kept_of_nodes_is_what_would_be_said_of_them_now(
    steps: list[tuple[Spec, str | None, NodeFacts]],
) -> None:
    index, nodes, specs = NodeIndex(), dict[str, NodeFacts](), list[Spec]()
    for asked, wanted, found in steps:
        selector = {} if wanted is None else {"zone": wanted}
        specs.append(asked.model_copy(update={"scheduling": Scheduling(node_selector=selector)}))
        nodes[found.name] = found
        index.put(found)
        for known in specs:
            profile = profile_of(known, "")
            assert judge_all(known, profile, index) == judge_all(known, profile, nodes.values())


def test_no_more_is_kept_than_is_looked_at_again() -> None:
    index = NodeIndex([H200])
    (group,) = index.groups()
    for asked in range(1000):
        index.once(asked, lambda: "kept")
        group.once(asked, lambda _: "kept")
        group.fact(asked, lambda _: "kept")
        group.once_of_all(asked, lambda: "kept")
    of_any = (lambda what, new: group.once(what, lambda _: new()), lambda what, new: group.fact(what, lambda _: new()))
    for once in (index.once, group.once_of_all, *of_any):
        assert (once(999, lambda: "new"), once(0, lambda: "new")) == ("kept", "new")


@given(st.integers(1, 1200), st.integers(0, 300))
def test_a_newer_driver_never_hurts(driver: int, more: int) -> None:
    assert _rank({"cuda.driver.major": driver}) <= _rank({"cuda.driver.major": driver + more})


@given(st.integers(1, 300_000), st.integers(0, 300_000))
def test_more_memory_never_hurts(mib: int, more: int) -> None:
    assert _rank({"gpu.memory": mib}) <= _rank({"gpu.memory": mib + more})


@given(st.tuples(st.integers(1, 12), st.integers(0, 9)), st.tuples(st.integers(1, 12), st.integers(0, 9)))
def test_a_higher_capability_is_never_refused_where_a_lower_one_is_not(a: tuple[int, int], b: tuple[int, int]) -> None:
    low, high = sorted((a, b))
    refused = [
        _rank({"gpu.compute.major": major, "gpu.compute.minor": minor}, fp4="Require") == 0
        for major, minor in (low, high)
    ]
    assert refused[0] or not refused[1]


@given(st.integers(1, 100), st.integers(0, 100))
def test_more_sharers_never_help(sharers: int, more: int) -> None:
    utilization = {"gpuMemoryUtilization": 0.22}
    few, many = ({"gpu.replicas": n, "gpu.sharing-strategy": "time-slicing"} for n in (sharers, sharers + more))
    assert _rank(few, engine=utilization) >= _rank(many, engine=utilization)


def _rank(labels: Mapping[str, Any], engine: Mapping[str, Any] | None = None, **gpu: Any) -> int:
    """How good the verdict on an H200 with these labels is."""
    changed = {PREFIX + key: str(value) for key, value in labels.items()}
    kept = {k: v for k, v in H200.labels.items() if not k.startswith("nvidia.com/cuda.")}
    driver = {"nvidia.com/cuda.driver.major": "580"}
    spec = Spec.model_validate({"gpu": gpu, "engine": {**(engine or {}), "version": "0.26.0"}})
    found = judge(spec, profiles.load("0.26"), replace(H200, labels={**kept, **driver, **changed}))
    return ["Rejected", "Unknown", "Eligible"].index(str(found.verdict))


@pytest.mark.parametrize("broken", [{}, {"metadata": None}, {"metadata": {"labels": []}, "spec": {"taints": {}}}])
def test_a_node_that_is_not_as_it_must_be_has_no_gpus(broken: Mapping[str, Any]) -> None:
    assert judge(Spec(), None, NodeFacts.of(broken)).verdict is None


def test_the_facts_of_a_node_are_its_labels_its_gpus_and_what_keeps_pods_off() -> None:
    body = {
        "metadata": {"name": "n", "labels": {"zone": "a", "nvidia.com/gpu.memory": "15360"}},
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoExecute"}, "x"]},
        "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": "1"}},
    }
    labels = {"zone": "a", "nvidia.com/gpu.memory": "15360"}
    expected = NodeFacts("n", labels, {"nvidia.com/gpu": "1"}, True, (("k", "", "NoExecute"),))
    assert NodeFacts.of(body) == expected


def test_an_index_follows_nodes_and_says_whether_anything_is_different() -> None:
    index = NodeIndex()
    assert index.put(H200)
    assert not index.put(replace(H200, labels=dict(H200.labels)))
    again = replace(H200, name="node-2", labels={**H200.labels, "zone": "b", "nvidia.com/gfd.timestamp": "2"})
    assert index.put(again)
    assert [sorted(group.nodes) for group in index.groups()] == [["node-1", "node-2"]]
    assert index.once("how many", lambda: len(index)) == 2
    assert index.put(replace(again, labels={**again.labels, "zone": "c"}))
    found = index.get("node-2")
    assert found is not None
    assert found.labels["zone"] == "c"
    assert index.put(replace(H200, unschedulable=True))
    assert len(list(index.groups())) == 2
    assert index.once("how many", lambda: 7) == 7, "what was worked out of other nodes is forgotten"
    assert index.once("how many", lambda: 8) == 7
    assert index.remove("node-1")
    assert not index.remove("node-1")
    assert index.get("node-1") is None
    assert len(index) == 1
    assert index.once("how many", lambda: 8) == 8


def test_what_is_said_of_all_nodes_names_each_kind_once() -> None:
    b200 = gpu_cluster.node_of({"gfd": "new", "product": "NVIDIA-B200", "mib": 183359, "cc": "10.0", "driver": 580.1})
    old = replace(H200, labels={**H200.labels, "nvidia.com/cuda.driver-version.major": "570"})
    nodes = [
        *(replace(H200, name=f"h{i}") for i in (2, 1)),
        replace(b200, name="b1"),
        replace(old, name="x2"),
        replace(old, name="x1"),
        NodeFacts("bare", {}, {"nvidia.com/gpu": "1"}),
        NodeFacts("cpu", {}, {}),
    ]
    found = judge_all(Spec(), profiles.load("0.26"), nodes)
    assert found == Judgement(
        eligible=Names(("b1", "h1", "h2")),
        unknown=Names(("bare",)),
        refusals=(Refusal("driver 570 < 580", Names(("x1", "x2"))),),
        products=found.products,
        unknown_reasons=(
            "no label nvidia.com/gpu.compute.major; no label nvidia.com/gpu.memory; "
            "no label nvidia.com/cuda.driver.major",
        ),
        without_gpus=1,
    )
    assert [_of(p) for p in found.products] == [
        ("NVIDIA-H200", 2, "runs NVFP4 weight-only (Marlin)"),
        (
            "NVIDIA-B200",
            1,
            "runs NVFP4 natively (FlashInferCuteDsl) where the checkpoint is W4A4, "
            "weight-only (Marlin) where it is W4A16",
        ),
        (None, 1, ""),
    ]
    assert found.rejected(1) == [Rejected("x1", "driver 570 < 580")]
    newer = judge_all(Spec(), profiles.load("0.33"), nodes).products
    assert _of(newer[0])[2] == "runs NVFP4 weight-only (Humming)"


def _of(product: Product) -> tuple[str | None, int, str]:
    return product.product, product.nodes, product.kernels.words


@pytest.mark.parametrize("version", profiles.VERSIONS)
def test_every_profile_says_what_the_gate_asks_of_it(version: str) -> None:
    profile = profiles.load(version)
    wanted = needs(Spec(), profile)
    assert wanted is not None
    assert wanted.driver == (525 if version in ("0.13", "0.18") else 580)
    assert wanted.capability == ((8, 0) if version == "0.13" else (7, 5))
    for text, tier in (("12.1", "native"), ("10.0", "native"), ("9.0", "weight-only"), ("8.0", "weight-only")):
        major, minor = text.split(".")
        labels = {**H200.labels, "nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": minor}
        found = judge(Spec(), profile, replace(H200, labels=labels))
        assert (found.tier, bool(found.kernel)) == (tier, True)


def test_preferred_nodes_are_those_with_native_fp4_where_it_is_preferred_alone() -> None:
    for fp4, count in (("Require", 0), ("Prefer", 1), ("Allow", 0)):
        preferred = requirements(Spec.model_validate({"gpu": {"fp4": fp4}}), None).preferred
        assert len(preferred) == count
        for term in preferred:
            expression = {"key": "nvidia.com/gpu.compute.major", "operator": "Gt", "values": ["9"]}
            assert term["preference"] == {"matchExpressions": [expression]}
