"""Checks what this environment's vLLM loads of a tiny NVFP4 checkpoint; `tests/loader/run` calls it."""

# mypy: disable-error-code="import-not-found"
# (torch and vLLM are in an environment of their own)

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.torch import tiny_nvfp4

from falcon_engine import archive, plugins

ROOT = Path(__file__).parents[2]
LAYERS = 2 * 6
SCALES = {f"model.layers.{layer}.attn": [0.01001, 0.02002] for layer in range(2)}


def load(variables: dict[str, str], *checkpoints: Path) -> Any:
    """What `load.py` says, in a process of its own."""
    offline = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": "127.0.0.1"}
    command = [sys.executable, str(ROOT / "tests/loader/load.py"), *map(str, checkpoints)]
    done = subprocess.run(
        command, env={**os.environ, **offline, **variables}, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit((done.stdout + done.stderr)[-4000:])
    return json.loads(lines[-1].removeprefix("RESULT "))


def algorithm(checkpoint: Path, name: str) -> Path:
    """The checkpoint with another `quant_algo`, beside it."""
    other = checkpoint.with_name(name)
    other.mkdir()
    for file in checkpoint.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["quantization_config"]["quant_algo"] = name
    (other / "config.json").write_text(json.dumps(config))
    return other


def main() -> int:
    """Try each form of the checkpoint; returns how many were not as they must be."""
    failed = 0

    def check(what: str, holds: bool, found: Any) -> None:
        nonlocal failed
        failed += not holds
        print(f"vLLM {version('vllm')}: {what}: {'yes' if holds else f'NO: {json.dumps(found)[:1000]}'}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        maker = ROOT / "testbed/images/tiny-model/tiny_model.py"
        subprocess.run([sys.executable, str(maker), str(folder / "model")], check=True, capture_output=True)
        weight_only, plain = tiny_nvfp4.write(folder / "model", folder)
        file = folder / archive.FILE_NAME
        file.write_bytes(archive.build())
        plugin = plugins.variables((plugins.LOADER,), {}, str(file))
        found = load({}, weight_only)
        check("by itself it refuses W4A16_NVFP4", "error" in found, found)
        for form in (weight_only, algorithm(weight_only, "NVFP4")):
            found = load(plugin, form, plain)
            same = found.get("differing") == [] and len(found["layers"]) == LAYERS
            check(f"with the plugin {form.name} multiplies as BF16 does, in all {LAYERS} layers", same, found)
            check("and has the checkpoint's scales of the cache", found.get("cacheScales") == SCALES, found)
    print(f"{5 - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
