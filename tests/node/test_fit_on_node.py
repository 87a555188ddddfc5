"""The fit against the real engine: what is computed from the model's config.json is what vLLM on CPU says it has."""

import json
import re
from typing import Any

import pytest
from tests.node.harness import Resource

from falcon_engine import ask, profiles
from falcon_engine.fit import fit
from falcon_engine.intent import VARIABLE, Intent
from falcon_engine.shape import from_config

pytestmark = pytest.mark.node

READ = """
import json, urllib.request
def get(port, path): return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read().decode()
report = json.loads(get(8001, "/report"))
config = json.load(open(report["checkpoint"]["path"] + "/config.json"))
lines = [line for line in get(8000, "/metrics").splitlines() if line.startswith("vllm:cache_config_info{")]
print(json.dumps({"version": report["engine"]["version"], "config": config, "line": lines[0]}))
"""


@pytest.mark.parametrize(
    "engine",
    [
        {"extraArgs": [], "maxModelLen": 2048},
        {"extraArgs": ["--kv-cache-memory-bytes=64M", "--block-size=32", "--max-model-len=1k"]},
    ],
    ids=["one-gibibyte", "block-size"],
)
def test_blocks_tokens_and_concurrency_are_the_engines(resource: Resource, engine: dict[str, Any]) -> None:
    resource.apply(engine=engine)
    resource.wait_ready()

    (pod,) = resource.pods()
    seen = json.loads(resource.kubectl.run("exec", pod["metadata"]["name"], "--", "python3", "-c", READ))
    said = dict(re.findall(r'(\w+)="([^"]*)"', seen["line"]))
    variables = {v["name"]: v.get("value") for v in pod["spec"]["containers"][0]["env"]}
    intent = Intent.from_json(variables[VARIABLE] or "")
    profile, exact = profiles.select(seen["version"])
    model = from_config(seen["config"])
    asked = ask.from_intent(intent, profile, model.weights, float32_state=said["mamba_ssm_cache_dtype"] == "float32")

    found = fit(model, profile, asked)
    assert exact
    assert found.verdict == "Fits"
    assert (found.block_tokens, found.blocks, found.tokens, found.max_concurrency) == (
        int(said["block_size"]),
        int(said["num_gpu_blocks"]),
        int(said["kv_cache_size_tokens"]),
        float(said["kv_cache_max_concurrency"]),
    )
