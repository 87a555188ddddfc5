"""What the status says of the engine: how a start goes, what really runs, what it holds."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_decide_properties import worlds
from tests.unit.world import SERVED, World, at, conditions, container, make_ready, schedule

from falcon_operator.api.status import Status
from falcon_operator.decide.capacity import MOST_PRODUCTS, Figures, capacity, measured_before, prediction_errors
from falcon_operator.decide.facts import Seen
from falcon_operator.decide.gpu import Kernels, Product
from falcon_operator.decide.pods import Pod, parse_time
from falcon_operator.decide.report import CacheFigures, Canary, Gpu, Report
from falcon_operator.decide.supported import supported
from falcon_operator.decide.types import EngineFacts

H200 = Gpu("NVIDIA H200", 143771, "9.0", "580.159.04")
REPORT = Report(
    version="0.26.0",
    kernel="MarlinNvFp4LinearKernel",
    attention_backend="FLASH_ATTN",
    quantization="modelopt_fp4",
    gpus=(H200,),
    cache=CacheFigures(None, 3328, 2719744, 41.5),
    phase="ready",
    phases={"prepared": 0.4, "imported": 21.0, "loaded": 25.04, "ready": 60.0},
    canary=Canary("passed"),
)
METRIC = CacheFigures(1660, 16, 2719744, 41.5012)


def starting(world: World, report: Report, restarts: int = 0) -> None:
    """The launcher of the last pod says how far its engine is."""
    uid = world.pods[-1]["metadata"]["uid"]
    world.engines[uid] = EngineFacts(uid, (), None, report.version, None, report, None, restarts, serving=False)


def reporting(world: World, report: Report | None = REPORT, cache: CacheFigures | None = METRIC) -> World:
    """A world whose ready engines have a report and a metric."""
    world.serve()
    world.engines = {k: replace(f, version="0.26.0", report=report, cache=cache) for k, f in world.engines.items()}
    world.settle()
    return world


def begun(seconds: float = 6) -> World:
    """A world with one pod whose container runs since so long."""
    world = World()
    world.step()
    pod = world.add_pod()
    schedule(pod, world.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    container(pod, {"running": {"startedAt": world.now.strftime("%Y-%m-%dT%H:%M:%SZ")}})
    world.step(seconds)
    return world


def test_a_pod_that_starts_is_asked_until_it_is_ready() -> None:
    world = begun()
    assert world.plan().observe == ("pod-1",)
    starting(world, Report(phase="imported", phases={"imported": 5}))
    assert world.plan().observe == ("pod-1",)
    make_ready(world.pods[0], world.now)
    assert world.plan().observe == ("pod-1",), "what it serves is not known yet"
    world.answer()
    assert world.plan().observe == ()
    container(world.pods[0], {"running": {"startedAt": at(900)}}, restarts=1, started=True)
    assert world.plan().observe == ("pod-1",), "another start"
    world.pods[0]["metadata"]["deletionTimestamp"] = at(1000)
    assert world.plan().observe == ()


def test_how_far_a_start_is_is_said_in_the_summary_and_in_progressing() -> None:
    world = begun()
    starting(world, Report(phase="imported", phases={"imported": 2.0}))
    world.step(10)
    for kind in ("Ready", "Progressing", "Reconciling"):
        assert "pod demo-1 is loading the weights on node node-1" in world.condition(kind)["message"]
    starting(world, Report(canary=Canary("failed", "status 500: no."), phase="ready", phases={"ready": 9.0}))
    world.step(10)
    assert "A first request fails: status 500: no." in world.condition("ModelServed")["message"]
    starting(world, Report(phase="imported"), restarts=3)
    world.step(10)
    assert "starting its engine on node node-1" in world.condition("Ready")["message"], "that was another start"


def test_each_step_of_a_start_costs_one_status_at_most_and_a_short_one_none() -> None:
    world = begun()
    started = parse_time((Pod(world.pods[0]).state("running") or {})["startedAt"])
    assert started is not None
    phases: dict[str, float] = {}
    written = []
    # Loaded follows so soon on imported that nobody needs to hear of the latter.
    for phase, seconds in (("prepared", 0.5), ("imported", 20.0), ("loaded", 23.0), ("compiled", 60.0)):
        phases = {**phases, phase: seconds}
        starting(world, Report(phase=phase, phases=phases))
        world.now = started + timedelta(seconds=seconds)
        for _ in range(3 if phase == "imported" else 10):
            before = world.status
            world.step(1)
            if world.status != before:
                written.append(world.condition("Ready")["message"].partition(" is ")[2].partition(" on ")[0])
    assert written == ["importing vLLM", "compiling kernels and sizing its cache", "warming up"]


def test_between_startup_and_readiness_an_engine_still_starts() -> None:
    world = begun()
    starting(world, Report(phase="compiled", phases={"compiled": 2.0}))
    world.step(10)
    before = world.status
    assert "is warming up" in world.condition("Ready")["message"]
    pod = world.pods[0]
    container(pod, pod["status"]["containerStatuses"][0]["state"], started=True)
    earlier = pod["metadata"]["creationTimestamp"]
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", earlier), Ready=("False", "", earlier))
    assert world.step(10).status == before, "no status for a few seconds"
    starting(world, Report(phase="ready", phases={"ready": 20.0}, canary=Canary("passed")))
    world.step(30)
    assert "is about to be ready" in world.condition("Ready")["message"]


def test_the_parts_of_an_engine_that_starts_are_told_together_once_it_serves() -> None:
    world = begun()
    so_far = Report(version="0.26.0", phase="imported", phases={"imported": 2.0})
    starting(world, so_far)
    world.step(10)
    before = world.status
    assert before["engine"] == {"version": "0.26.0"}
    starting(world, replace(so_far, kernel="Marlin", attention_backend="FLASH_ATTN", quantization="modelopt"))
    assert world.step(10).status == before


def test_what_runs_is_in_the_status_and_in_words() -> None:
    world = reporting(World())
    assert world.status["engine"] == {
        "version": "0.26.0",
        "nvfp4Kernel": "MarlinNvFp4LinearKernel",
        "attentionBackend": "FLASH_ATTN",
    }
    message = world.condition("EngineSupported")["message"]
    assert message.startswith(
        "vLLM 0.26.0 is known to this operator (profile of 0.26.0). It runs with NVFP4 kernel MarlinNvFp4LinearKernel, "
        "quantization modelopt_fp4, attention backend FLASH_ATTN."
    )
    assert (
        world.condition("ModelServed")["message"]
        == f"Serves {SERVED} with up to 65536 tokens and has answered a first request."
    )
    Status.model_validate(world.status)


def test_a_canary_that_is_off_is_said() -> None:
    world = reporting(World(), replace(REPORT, canary=Canary("off")))
    assert "no first request was made" in world.condition("ModelServed")["message"]


def test_what_an_engine_holds_is_the_metrics_figures_with_the_logs_block_size() -> None:
    world = reporting(World())
    [entry] = world.status["capacity"]
    assert entry["product"] == "NVIDIA-H200"
    assert entry["measured"] == {"blocks": 1660, "blockTokens": 3328, "tokens": 2719744, "sequences": 41}


@pytest.mark.parametrize(
    ("report", "cache", "measured"),
    [
        (REPORT, None, {"blockTokens": 3328, "tokens": 2719744, "sequences": 41}),
        (replace(REPORT, cache=None), METRIC, {"blocks": 1660, "blockTokens": 16, "tokens": 2719744, "sequences": 41}),
        (replace(REPORT, cache=None), None, None),
        (replace(REPORT, gpus=()), METRIC, None),
        (None, METRIC, None),
    ],
    ids=["log", "metric", "neither", "no-product", "old-launcher"],
)
def test_figures_come_from_whoever_has_them(
    report: Report | None, cache: CacheFigures | None, measured: dict[str, int] | None
) -> None:
    world = reporting(World(), report, cache)
    assert [e.get("measured") for e in world.status.get("capacity", [])] == ([measured] if measured else [])


def test_an_engine_on_the_cpu_has_a_product_of_its_own() -> None:
    world = reporting(World(spec={"engine": {"device": "cpu"}}), replace(REPORT, gpus=(), kernel=None))
    assert [e["product"] for e in world.status["capacity"]] == ["cpu"]
    message = world.condition("EngineSupported")["message"]
    assert "no NVFP4 kernels" in message
    assert "vLLM 0.26.0 runs with quantization modelopt_fp4, attention backend FLASH_ATTN." in message


def test_an_operator_that_starts_anew_keeps_what_was_found_out() -> None:
    world = reporting(World())
    before, engines = world.status, world.engines
    unread = {uid: replace(f, model_names=(), error="no answer", report=None, cache=None) for uid, f in engines.items()}
    for known in ({}, unread, engines):
        world.engines = known
        assert world.step(86400).status == before


def test_what_was_measured_of_another_revision_is_not_kept() -> None:
    world = reporting(World())
    world.change({"engine": {"maxModelLen": 1024}})
    world.step()
    assert [e for e in world.status.get("capacity", []) if "measured" in e] == []


def test_the_cold_start_has_the_steps_within_the_container() -> None:
    world = begun(seconds=0)
    world.now += timedelta(seconds=61)
    pod = world.pods[0]
    started = pod["status"]["containerStatuses"][0]["state"]
    pod["status"]["conditions"] = conditions(
        PodScheduled=("True", "", pod["metadata"]["creationTimestamp"]), Ready=("True", "", at(71))
    )
    container(pod, started, started=True)
    world.answer()
    world.engines = {uid: replace(f, report=REPORT) for uid, f in world.engines.items()}
    world.step()
    steps = {"scheduled": 0, "pulled": 0, "prepared": 0.4, "imported": 21, "loaded": 25.0, "ready": 61}
    assert world.status["coldStart"] == steps
    world.engines = {}
    world.step()
    assert world.status["coldStart"] == steps, "an operator that starts anew has it on record"


def some(name: str | None, kernels: Kernels, nodes: int = 1) -> Product:
    return Product(name, 139.8, 1, "9.0", kernels, nodes)


def test_before_a_start_the_kernel_that_is_expected_is_said() -> None:
    marlin = Kernels("weight-only", "Marlin", "weight-only", "Marlin")
    two = Kernels("native", "Cutlass", "weight-only", "Marlin")
    seen = Seen((), None, {})
    products = (some("NVIDIA-H200", marlin), some("NVIDIA-B200", two), some("x", Kernels()), *[some(None, marlin)] * 3)
    status, _, message = supported("0.33.0", "image", seen, products, on_cpu=False)
    assert status == "True"
    assert (
        "NVFP4 will be computed on NVIDIA-H200 by Marlin (weight-only), on NVIDIA-B200 by Cutlass (native), or Marlin "
        "(weight-only) where only the weights are quantized, on a GPU of unknown product by Marlin (weight-only), and "
        "2 products more."
    ) in message


def test_what_a_version_does_badly_on_the_gpu_that_runs_is_said() -> None:
    def said(version: str, capability: str) -> tuple[str, str, str]:
        seen = Seen((), None, {}, (replace(REPORT, gpus=(replace(H200, capability=capability),)),))
        return supported(version, "image", seen, (), on_cpu=False)

    status, reason, message = said("0.24.0", "10.0")
    assert (status, reason) == ("True", "KnownIssues")
    assert "slower on Blackwell" in message
    assert said("0.24.0", "9.0")[:2] == ("True", "ProfileFound")
    assert said("0.33.0", "10.0")[:2] == ("True", "ProfileFound")
    assert said("0.99.0", "10.0")[:2] == ("Unknown", "NearestProfile")


def test_capacity_names_each_product_once_and_those_measured_first_where_there_are_too_many() -> None:
    figures = Figures.of(1660, 3328, 2719744, 41.99)
    assert capacity({}, {}) == []
    assert capacity({"b": figures}, {"a": Figures(blocks=1), "b": Figures(tokens=2)}) == [
        {"product": "a", "measured": {"blocks": 1}},
        {
            "product": "b",
            "predicted": {"blocks": 1660, "blockTokens": 3328, "tokens": 2719744, "sequences": 41},
            "measured": {"tokens": 2},
        },
    ]
    many = {f"p{n:02}": figures for n in range(40)}
    found = capacity(many, {"p39": figures})
    assert len(found) == MOST_PRODUCTS
    assert "p39" in [e["product"] for e in found]
    assert measured_before({"capacity": found}) == {"p39": figures}
    Status.model_validate({"capacity": found})


@pytest.mark.parametrize("concurrency", [None, float("nan"), float("inf")])
def test_a_concurrency_that_is_no_number_is_left_out(concurrency: float | None) -> None:
    assert Figures.of(1, 2, 3, concurrency) == Figures(1, 2, 3, None)


def test_the_error_of_a_prediction_is_a_share_of_what_was_measured() -> None:
    entry = {"product": "p", "predicted": {"blocks": 110, "tokens": 3}, "measured": {"blocks": 100, "tokens": 0}}
    assert prediction_errors({"capacity": [entry, {"product": "q"}]}) == {("p", "blocks"): pytest.approx(0.1)}
    assert prediction_errors({}) == {}


numbers = st.none() | st.integers(0, 10**9)
words = st.none() | st.text(max_size=8)
reports = st.builds(
    Report,
    version=st.sampled_from([None, "0.26.0", "odd", "0.99.0"]),
    kernel=words,
    attention_backend=words,
    quantization=words,
    gpus=st.lists(
        st.builds(Gpu, st.sampled_from(["NVIDIA H200", "x"]), numbers, st.sampled_from([None, "9.0", "10.0"]))
    ).map(tuple),
    cache=st.none() | st.builds(CacheFigures, numbers, numbers, numbers, st.none() | st.floats(0, 1e6)),
    phase=st.sampled_from([None, "prepared", "loaded", "ready"]),
    phases=st.dictionaries(st.sampled_from(["prepared", "loaded", "ready"]), st.floats(0, 1000)),
    canary=st.none() | st.builds(Canary, st.sampled_from(["off", "pending", "passed", "failed"]), words),
)


@settings(max_examples=50, deadline=None)
@given(worlds(), st.data())
def test_whatever_is_reported_the_status_is_valid_and_comes_to_rest(world: World, data: st.DataObject) -> None:
    for pod in world.pods:
        uid = pod["metadata"]["uid"]
        serving = data.draw(st.booleans())
        cache = data.draw(st.none() | st.builds(CacheFigures, numbers, numbers, numbers, st.none()))
        world.engines[uid] = EngineFacts(uid, ("m",), 10, None, None, data.draw(reports), cache, 0, serving)
    for _ in range(3):
        Status.model_validate(world.step(3600).status)
    before = world.status
    assert world.step(3600).status == before
