"""What holds for every spec and whatever the pods look like."""

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.world import UID, World, at, renderer

from falcon_operator.api import names
from falcon_operator.api.reasons import STANDING_CONDITIONS, ConditionType, Reason
from falcon_operator.api.resource import parse
from falcon_operator.api.status import Status
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.types import Decision, Limit
from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import EngineFacts, Scaling

PROFILE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


word = st.from_regex(r"[a-z]([a-z0-9]{0,8})", fullmatch=True)
size = st.sampled_from(["1Gi", "1.5Gi", "20G", "512Mi"])
requirement = st.fixed_dictionaries(
    {"key": word, "operator": st.sampled_from(["In", "Exists"]), "values": st.lists(word, max_size=2)}
)
term = some(matchExpressions=st.lists(requirement, max_size=2), matchFields=st.lists(requirement, max_size=1))
kept: st.SearchStrategy[dict[str, str]] = st.one_of(
    word.map(lambda name: {"claimName": name}), size.map(lambda amount: {"size": amount})
)
storage: st.SearchStrategy[dict[str, str]] = st.just({}) | kept
quantized = st.builds(
    lambda revision, cache, quantize: {
        "huggingFace": {"repository": "a/b", "revision": revision * 40, "cache": cache, "quantize": quantize}
    },
    st.sampled_from("ab"),
    kept,
    some(
        device=st.sampled_from(["cpu", "cuda"]),
        kvScales=st.sampled_from(["Cast", "Calibrated"]),
        image=word.map(lambda name: f"registry.example.com/{name}:1"),
        resources=some(requests=some(cpu=st.sampled_from([4, "4500m"]))),
    ),
)
source = st.one_of(
    quantized,
    st.sampled_from(["/m", "/a/b"]).map(lambda path: {"baked": {"path": path}}),
    word.map(lambda name: {"volume": {"claimName": name, "path": "a/b"}}),
    word.map(lambda name: {"oci": {"reference": f"registry.example.com/{name}:1"}}),
    storage.map(lambda s: {"huggingFace": {"repository": "a/b", "revision": "0" * 40, "cache": s}}),
)
gpu = st.one_of(
    some(count=st.integers(1, 8), products=st.lists(word, max_size=3, unique=True), memoryAtLeast=size),
    word.map(lambda name: {"claims": [{"name": name, "resourceClaimTemplateName": name}]}),
)
autoscaling = st.one_of(
    st.fixed_dictionaries({"maxReplicas": st.integers(2, 6)}, optional={"minReplicas": st.integers(1, 2)}),
    st.fixed_dictionaries({"mode": st.just("External")}, optional={"maxReplicas": st.integers(1, 6)}),
    st.just({"minReplicas": 0, "maxReplicas": 4, "scaleToZeroAfter": "1h"}),
)
decision = st.builds(
    Decision,
    replicas=st.integers(0, 8),
    reason=st.sampled_from(["The load needs it.", "x" * 2000]),
    signal=st.just("2 of 2 gateways"),
    limited_by=st.none() | st.sampled_from(Limit),
    unknown=st.none() | st.just((Reason.METRICS_UNKNOWN, "The load is not known.")),
)
scalings = st.none() | st.builds(
    Scaling,
    decision=decision,
    learned=st.builds(Learned, prompt=st.none() | st.just(100.0), answer=st.just(20.0)),
    seen=st.none() | st.integers(0, 8),
)
ACTED_ON = dict(
    replicas=st.integers(0, 4),
    autoscaling=autoscaling,
    suspend=st.booleans(),
    updatePolicy=st.sampled_from(["Manual", "Auto"]),
    image=some(reference=word.map(lambda name: f"registry.example.com/{name}:v0.33.0")),
    model=some(names=st.lists(word, min_size=1, max_size=3, unique=True), source=source),
    engine=some(
        device=st.sampled_from(["cuda", "cpu"]),
        maxNumSeqs=st.integers(1, 8192),
        gpuMemoryUtilization=st.sampled_from([0.1, 0.5, 0.98]),
        version=st.sampled_from(["0.33.0", "0.5.0", "1.0"]),
        queueLimit=st.just({"requests": 5}),
        extraArgs=st.lists(st.sampled_from(["--a=b", "--seed", "1"]), max_size=3),
        env=st.lists(word.map(lambda name: {"name": name.upper(), "value": "x"}), max_size=2, unique_by=str),
    ),
    gpu=gpu,
    scheduling=some(
        nodeSelector=st.dictionaries(word, word, max_size=2),
        affinity=some(
            nodeAffinity=some(
                requiredDuringSchedulingIgnoredDuringExecution=st.fixed_dictionaries(
                    {"nodeSelectorTerms": st.lists(term, min_size=1, max_size=3)}
                )
            )
        ),
        tolerations=st.just([]),
        queueName=word,
    ),
    resources=some(limits=some(memory=size, cpu=st.sampled_from([4, "4500m"]))),
    fit=st.sampled_from(["Clamp", "Refuse"]),
    cache=storage,
    rollout=some(strategy=st.sampled_from(["Auto", "InPlace", "Surge"]), drainTimeout=st.sampled_from(["0s", "5m"])),
    podMetadata=some(labels=st.dictionaries(word, word, max_size=2)),
    networkPolicy=st.sampled_from(["Enforce", "Off"]),
    gateway=some(
        replicas=st.integers(1, 3),
        apiKeys=word.map(lambda name: {"secretName": name}),
        holdTimeout=st.sampled_from(["0s", "1h"]),
        maxHeldRequests=st.integers(0, 9),
        httpRoute=word.map(lambda name: {"parentRefs": [{"name": name}]}),
        inferencePool=word.map(lambda name: {"endpointPickerRef": {"name": name}}),
    )
    | some(enabled=st.just(False), inferencePool=word.map(lambda name: {"endpointPickerRef": {"name": name}})),
)
admitted = some(**ACTED_ON)
specs = some(**ACTED_ON, monitoring=some(podMonitor=st.sampled_from(["Auto", "Off"])))

text = st.one_of(st.just(""), st.text(max_size=30), st.sampled_from(['{"reason": 1}', "[]", "null", "{}"]))
moment = st.integers(-100, 100).map(at)
state = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "waiting": some(
                reason=st.sampled_from(["ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff", "X"]), message=text
            )
        }
    ),
    st.fixed_dictionaries({"running": some(startedAt=moment)}),
    st.fixed_dictionaries(
        {
            "terminated": some(
                exitCode=st.integers(0, 255), reason=text, message=text, startedAt=moment, finishedAt=moment
            )
        }
    ),
)
pod_statuses = some(
    phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
    reason=st.sampled_from(["Evicted", "NodeLost", "UnexpectedAdmissionError"]),
    message=text,
    startTime=moment,
    conditions=st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Ready", "PodScheduled", "ContainersReady"]),
                "status": st.sampled_from(["True", "False", "Unknown"]),
            },
            optional={
                "reason": st.sampled_from(["Unschedulable", "SchedulingGated", "NodeNotReady"]),
                "message": text,
                "lastTransitionTime": moment,
            },
        ),
        max_size=3,
    ),
    containerStatuses=st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["engine", "gateway", "quantize", "sidecar"])},
            optional={
                "state": state,
                "lastState": state,
                "restartCount": st.integers(0, 9),
                "started": st.booleans(),
            },
        ),
        max_size=2,
    ),
)


labels = some(
    **{
        "nvidia.com/gpu.product": st.sampled_from(["NVIDIA-H200", "NVIDIA-B200", "not a product"]),
        "nvidia.com/gpu.memory": st.sampled_from(["143771", "23034", "100", "-1", "much"]),
        "nvidia.com/gpu.replicas": st.sampled_from(["1", "4", "x"]),
        "nvidia.com/gpu.compute.major": st.sampled_from(["7", "9", "10", ""]),
        "nvidia.com/gpu.compute.minor": st.just("0"),
        "nvidia.com/cuda.driver-version.major": st.sampled_from(["470", "580", "new"]),
    }
)
nodes = st.none() | st.dictionaries(
    st.sampled_from(["node-1", "node-2", "node-3"]), st.tuples(labels, some(**{"nvidia.com/gpu": st.just("8")}))
).map(lambda found: NodeIndex(NodeFacts(name, *parts) for name, parts in found.items()))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A resource somewhere on its way, with pods of this and that revision in any state."""
    world = World(spec=draw(specs), nodes=draw(nodes))
    world.step()
    world.scaling = draw(scalings)
    if draw(st.booleans()):
        world.change(draw(specs))
        world.step()
    if draw(st.booleans()):
        world.renderer = renderer("2")
    for status in draw(st.lists(pod_statuses, max_size=3)) if world.deployment else ():
        pod = world.add_pod(status=status)
        if draw(st.booleans()):
            pod["spec"]["nodeName"] = "node-1"
        if draw(st.booleans()):
            pod["metadata"]["deletionTimestamp"] = at(0)
        if draw(st.booleans()):
            pod["metadata"]["labels"][names.LABEL_REVISION] = "earlier"
        if draw(st.booleans()):
            served = tuple(draw(st.lists(word, max_size=2)))
            uid = pod["metadata"]["uid"]
            world.engines[uid] = EngineFacts(uid, served, 10, draw(st.none() | st.just("0.33.0")), None)
    for status in draw(st.lists(pod_statuses, max_size=2)) if ("Deployment", "demo-gateway") in world.objects else ():
        world.add_gateway_pod()["status"] = status
    for status in draw(st.lists(pod_statuses, max_size=2)) if world.of_kind("Job") else ():
        world.add_quantizer_pod()["status"] = status
    if world.of_kind("Job") and (ended := draw(st.sampled_from(["", "Complete", "Failed"]))):
        world.end_job(
            ended, reason=draw(st.sampled_from(["", "DeadlineExceeded", "BackoffLimitExceeded"])), message=draw(text)
        )
    world.missing = draw(st.sampled_from([frozenset(), frozenset({"HTTPRoute", "InferencePool"})]))
    if draw(st.booleans()):
        world.refused = {draw(st.sampled_from(["Deployment/demo", "Service/demo", "Other/x"])): draw(text)}
    return world


@PROFILE
@given(worlds())
def test_a_decision_never_fails_and_its_status_is_complete_and_valid(world: World) -> None:
    plan = world.step()
    said = [c["type"] for c in plan.status["conditions"]]
    assert said[: len(STANDING_CONDITIONS)] == list(STANDING_CONDITIONS)
    others = said[len(STANDING_CONDITIONS) :]
    assert others == [k for k in (ConditionType.AUTOSCALING_ACTIVE, ConditionType.GATEWAY_READY) if k in others]
    assert (ConditionType.AUTOSCALING_ACTIVE in others) >= ("autoscaling" in world.spec and bool(plan.apply))
    assert {c["reason"] for c in plan.status["conditions"]} <= set(Reason)
    assert all(c["message"] for c in plan.status["conditions"])
    Status.model_validate(plan.status)
    for event in plan.events:
        assert event.note
        assert len(event.note) <= 1024
        assert event.reason in set(Reason)
    ready = world.condition("Ready")["status"] == "True"
    assert not (ready and world.condition("Available")["status"] != "True")
    assert not (ready and world.condition("ModelServed")["status"] != "True")
    assert not (world.condition("Stalled")["status"] == "True" and world.condition("Reconciling")["status"] == "True")


@PROFILE
@given(worlds())
def test_a_plan_carried_out_leaves_nothing_to_do_and_nothing_to_say(world: World) -> None:
    for _ in range(3):
        world.step()
    objects, status, told = copy.deepcopy(world.objects), copy.deepcopy(world.status), len(world.events)
    plan = world.step(seconds=3600)
    assert plan.status == status
    assert plan.events == ()
    assert plan.delete == ()
    assert world.objects == objects
    assert len(world.events) == told


@PROFILE
@given(worlds())
def test_the_same_inputs_give_the_same_plan_and_are_not_changed(world: World) -> None:
    snapshot = world.snapshot()
    before = copy.deepcopy(replace(snapshot, nodes=None))
    first = decide(snapshot, world.renderer, world.now)
    assert replace(snapshot, nodes=None) == before
    shuffled = replace(snapshot, pods=snapshot.pods[::-1], revisions=snapshot.revisions[::-1])
    assert decide(shuffled, world.renderer, world.now) == first


@PROFILE
@given(worlds(), st.integers(0, 9))
def test_an_operator_that_begins_anew_moves_no_number_within_bounds(world: World, number: int) -> None:
    asked = world.spec.get("autoscaling", {})
    if world.deployment is None or "maxReplicas" not in asked or asked.get("mode") == "External":
        return
    number = min(max(number, asked.get("minReplicas", 1)), asked["maxReplicas"])
    for _ in range(3):
        world.step()
    if world.spec.get("suspend") or not world.plan().apply:
        return
    world.deployment["spec"]["replicas"] = number
    world.scaling = None
    world.step()
    if "Deployment/demo" not in world.refused:
        assert world.deployment["spec"]["replicas"] == number
    objects, status = copy.deepcopy(world.objects), copy.deepcopy(world.status)
    plan = world.step(seconds=3600)
    assert (world.objects, plan.status, plan.events) == (objects, status, ())
    # What is decided of another number is not carried out, either.
    world.scaling = Scaling(Decision(number + 1, "More.", "2 of 2 gateways"), Learned(), seen=number + 1)
    assert world.step(seconds=3600).apply == plan.apply


@PROFILE
@given(admitted)
def test_every_spec_that_is_acted_on_comes_to_serve(spec: dict[str, Any]) -> None:
    world = World(spec=spec)
    world.serve()
    assert world.deployment is not None
    if world.deployment["spec"]["replicas"]:
        assert world.state("Ready") == ("True", "Ready")
    else:
        assert world.condition("Ready")["reason"] in ("Suspended", "ScaledToZero")
    assert world.state("Reconciling")[0] == "False"


@PROFILE
@given(admitted, specs)
def test_what_has_served_is_restarted_only_by_a_change_of_the_pods_spec(
    spec: dict[str, Any], later: dict[str, Any]
) -> None:
    world = World(spec={**spec, "updatePolicy": "Manual"}).serve()
    if not world.pods:
        return  # wants none, so nothing has served
    template = copy.deepcopy(world.template())
    world.renderer = renderer("2")
    # All that does not concern pods.
    other: dict[str, Any] = {k: later[k] for k in ("replicas", "suspend", "autoscaling") if k in later}
    strategy = {"strategy": later.get("rollout", {}).get("strategy", "Auto")}
    world.change({**world.spec, **other, "rollout": {**world.spec.get("rollout", {}), **strategy}})
    world.settle()
    assert world.template() == template


@PROFILE
@given(specs)
def test_every_object_of_a_plan_is_owned_named_and_hashed(spec: dict[str, Any]) -> None:
    world = World(spec=spec)
    plan = world.plan()
    for body in plan.apply:
        metadata = body["metadata"]
        assert metadata["namespace"] == "team"
        assert metadata["annotations"][names.ANNOTATION_APPLIED]
        if names.LABEL_LAUNCHER in metadata["labels"]:
            assert "ownerReferences" not in metadata
        else:
            assert metadata["ownerReferences"][0]["uid"] == metadata["labels"][names.LABEL_UID] == UID
        assert None not in _values(body)
    if plan.apply:
        budget = parse(world.resource()).spec.startup.budget_seconds
        applied = {(b["kind"], b["metadata"]["name"]): b for b in plan.apply}
        if any(kind == "Job" for kind, _ in applied):
            return  # the model is quantized first
        deployment = applied["Deployment", "demo"]
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        assert all(isinstance(v, int) for v in rolling.values())
        assert sum(rolling.values()) == 1
        assert deployment["spec"]["progressDeadlineSeconds"] > budget
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@PROFILE
@given(worlds(), st.integers(0, 10))
def test_a_status_is_held_back_for_seconds_and_never_for_good(world: World, seconds: int) -> None:
    world.now += timedelta(seconds=seconds)
    plan = world.plan()
    if plan.requeue_after is None:
        return
    assert 0 < plan.requeue_after <= 5
    assert plan.status == world.status
    assert world.pods + world.gateway_pods, "nothing else moves"
    world.now += timedelta(seconds=1000)
    assert world.plan().requeue_after is None


def _values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in _values(item)]
    if isinstance(value, list):
        return [found for item in value for found in _values(item)]
    return [value]
