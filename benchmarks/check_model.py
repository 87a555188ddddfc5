"""Times `check-model` on a checkpoint of Falcon-H1R-7B's sizes in 100 files: `python -m benchmarks.check_model [DIR]`.

Without a directory the files are made of real headers and holes in place of the weights. Prints one JSON object.
"""

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.engine.checkpoints import Tensors, exported, write

from falcon_engine import profiles, quantization, safetensors
from falcon_engine.findings import Loader, check
from falcon_engine.shape import FALCON_H1R_7B as MODEL

SHARDS, RUNS = 100, 10


def content() -> Tensors:
    """The tensors of Falcon-H1R-7B with every linear in NVFP4 and an FP8 cache."""
    table = ("BF16", (MODEL.vocab_size, MODEL.hidden_size))
    found: Tensors = {"model.embed_tokens.weight": table, "lm_head.weight": table}
    for layer in quantization.layers(MODEL):
        for module, rows in zip(layer.modules, layer.rows, strict=True):
            found[f"{module}.weight"] = ("U8", (rows, layer.columns // 2))
            found[f"{module}.weight_scale"] = ("F8_E4M3", (rows, layer.columns // 16))
            found[f"{module}.weight_scale_2"] = ("F32", ())
    for index in range(MODEL.layers):
        for name in ("A_log", "D", "dt_bias"):
            found[f"model.layers.{index}.mamba.{name}"] = ("BF16", (MODEL.mamba_heads,))
        channels = MODEL.mamba_d_ssm + 2 * MODEL.mamba_groups * MODEL.mamba_d_state
        found[f"model.layers.{index}.mamba.conv1d.weight"] = ("BF16", (channels, 1, MODEL.mamba_d_conv))
        for name in quantization.KV_SCALES:
            found[f"model.layers.{index}.{name}"] = ("F32", ())
    return found


def config() -> dict[str, object]:
    """Those sizes as a config.json has them."""
    names = {
        "layers": "num_hidden_layers",
        "attention_heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "mamba_heads": "mamba_n_heads",
        "mamba_head_dim": "mamba_d_head",
        "mamba_groups": "mamba_n_groups",
        "max_positions": "max_position_embeddings",
    }
    return {names.get(name, name): value for name, value in asdict(MODEL).items()}


def main(arguments: list[str]) -> None:
    """Check the directory ten times and print how long that took."""
    with tempfile.TemporaryDirectory() as made:
        directory = (
            Path(arguments[0])
            if arguments
            else write(Path(made, "m"), content(), exported(), shards=SHARDS, **config())
        )
        profile = profiles.load(profiles.VERSIONS[-1])
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            files = safetensors.read(directory)
            findings = check(files, profile, Loader.of("stock", profile))
            seconds.append(time.perf_counter() - start)
        print(
            json.dumps(
                {
                    "shards": len(list(directory.glob("*.safetensors"))),
                    "tensors": len(files.tensors),
                    "bytes": sum(f.stat().st_size for f in directory.iterdir()),
                    "bytesRead": files.bytes_read,
                    "findings": [f.code for f in findings],
                    "secondsBest": round(min(seconds), 4),
                    "secondsWorst": round(max(seconds), 4),
                    "python": platform.python_version(),
                    "cpus": os.cpu_count(),
                }
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
