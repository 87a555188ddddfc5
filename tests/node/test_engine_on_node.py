"""The demo's path and its failures: the chart's operator, a real kubelet, the real vLLM on CPU."""

import re
import time
from typing import Any

import openai
import pytest
from tests.node.harness import Json, Resource, wait_for

pytestmark = pytest.mark.node

KILL_ENGINE_CORE = """
import os, pathlib, signal
cores = [p for p in pathlib.Path('/proc').glob('[0-9]*') if b'EngineCor' in (p / 'cmdline').read_bytes()]
assert cores, 'no engine core process'
os.kill(int(cores[0].name), signal.SIGKILL)
"""
TRUE_WHEN_SERVING = (
    "Ready",
    "Available",
    "Progressing",
    "ModelServed",
    "GPUCompatible",
    "Fits",
    "EngineSupported",
    "UpToDate",
)
# The promise: a cause is named within this many seconds.
DIAGNOSIS_SECONDS = 30


def stream(resource: Resource, text: str) -> list[str]:
    """The pieces of one streamed chat completion through the resource's Service."""
    service = resource.kubectl.get("service", resource.name)
    assert service is not None
    client = openai.OpenAI(base_url=f"http://{service['spec']['clusterIP']}/v1", api_key="none", max_retries=0)
    chunks = client.chat.completions.create(
        model="falcon-h1r-7b-nvfp4",
        messages=[{"role": "user", "content": text}],
        max_tokens=16,
        stream=True,
    )
    return [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]


def says_what_its_log_says(status: Json, log: str) -> None:
    """The engine's version, parts, cache and steps, against its own words."""

    def printed(pattern: str) -> str:
        match = re.search(pattern, log)
        assert match is not None, f"the log has no {pattern}"
        return match[1]

    # On CPU vLLM 0.32 names neither a kernel nor an attention backend.
    assert status["engine"] == {"version": printed(r"LLM engine \(v([^)]+)\)")}

    [entry] = status["capacity"]
    assert entry["product"] == "cpu"
    measured = entry["measured"]
    assert measured["tokens"] == int(printed(r"KV cache size: ([\d,]+) tokens").replace(",", ""))
    assert measured["sequences"] == int(float(printed(r"tokens per request: ([\d.]+)x")))
    assert measured["blocks"] > 0
    assert measured["blockTokens"] > 0

    steps = status["coldStart"]
    order = ["scheduled", "pulled", "prepared", "imported", "loaded", "compiled", "captured", "ready"]
    assert {"prepared", "imported", "loaded", "ready"} <= steps.keys() <= set(order)
    reached = [steps[step] for step in order if step in steps]
    assert reached == sorted(reached)


def named_failure(resource: Resource, reason: str) -> Json | None:
    failure: Json | None = resource.status().get("lastFailure")
    return failure if failure and failure["reason"] == reason else None


def not_serving(resource: Resource, reason: str) -> Json | None:
    """The condition that carries the reason, once Available is False or Stalled is True with it."""
    for kind, status in (("Stalled", "True"), ("Available", "False")):
        condition = resource.condition(kind)
        if condition.get("status") == status and condition.get("reason") == reason:
            return condition
    return None


def test_a_resource_is_served_and_an_engine_that_dies_is_reported_and_replaced(resource: Resource) -> None:
    resource.apply()
    resource.wait_ready()

    assert len(stream(resource, "What is the capital of France?")) >= 2

    conditions = {c["type"]: c for c in resource.status()["conditions"]}
    assert {kind: conditions[kind]["status"] for kind in TRUE_WHEN_SERVING} == dict.fromkeys(TRUE_WHEN_SERVING, "True")
    assert conditions["Stalled"]["status"] == conditions["Reconciling"]["status"] == "False"
    assert resource.status()["model"] == {"name": "falcon-h1r-7b-nvfp4", "maxModelLen": 512}
    assert "has answered a first request" in conditions["ModelServed"]["message"]

    (pod,) = resource.pods()
    name = pod["metadata"]["name"]
    says_what_its_log_says(resource.status(), resource.kubectl.run("logs", name))
    devices = resource.kubectl.run("exec", name, "--", "printenv", "NVIDIA_VISIBLE_DEVICES")
    assert devices.startswith("GPU-fake-")

    resource.kubectl.run("exec", name, "--", "python3", "-c", KILL_ENGINE_CORE)
    failure = wait_for(lambda: named_failure(resource, "EngineDied"), DIAGNOSIS_SECONDS, "EngineDied in lastFailure")
    assert failure["pod"] == name
    assert failure["exitCode"] == 70
    assert failure["hint"]
    resource.wait_ready()
    assert resource.pods()[0]["status"]["containerStatuses"][0]["restartCount"] == 1
    assert named_failure(resource, "EngineDied"), "the failure stays readable after the recovery"
    assert len(stream(resource, "Still there?")) >= 2


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"image": {"reference": "localhost/no-such-image:1"}}, "ImagePullFailed", ("localhost/no-such-image:1",)),
        ({"model": {"source": {"baked": {"path": "/models/nowhere"}}}}, "CheckpointNotFound", ("/models/nowhere",)),
        (
            {"engine": {"extraArgs": ["--max-num-sequences=4"]}},
            "FlagUnknown",
            ("--max-num-sequences", "--max-num-seqs"),
        ),
    ],
    ids=["image", "model-path", "flag"],
)
def test_a_wrong_spec_is_named_and_its_correction_recovers_without_help(
    resource: Resource, change: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    resource.apply(**change)
    started = time.monotonic()
    condition = wait_for(lambda: not_serving(resource, reason), DIAGNOSIS_SECONDS, f"condition with reason {reason}")
    assert time.monotonic() - started <= DIAGNOSIS_SECONDS
    for word in words:
        assert word in condition["message"]
    assert resource.condition("Ready")["status"] == "False"
    assert named_failure(resource, reason)
    assert resource.status()["lastFailure"]["hint"]

    resource.apply()
    resource.wait_ready()
    assert resource.condition("Stalled")["status"] == "False"
    assert len(stream(resource, "Hello again")) >= 2
