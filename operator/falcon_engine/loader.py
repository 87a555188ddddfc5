"""Whose code loads an NVFP4 Falcon-H1: stock vLLM, vLLM with this project's plugin, or a patched image's."""

import hashlib
from pathlib import Path

from falcon_engine.profiles import Profile

MODEL = "model_executor/models/falcon_h1.py"
# Parts of Falcon-H1 that have to be told how their weights are quantized.
PARTS = {"mlp": "the MLP", "attention": "attention", "mamba": "Mamba", "kvScales": "the KV cache's scales"}
STOCK, PLUGIN, PATCHED = "stock", "plugin", "patched"


def obstacles(profile: Profile) -> tuple[str, ...]:
    """What keeps this version's own code from loading weights in NVFP4 that have no scales of activations.

    Empty where nothing does. Each says what the version does, as in `does not know quant_algo W4A16_NVFP4`.
    """
    facts = profile.fact("loader")
    untold = [words for part, words in PARTS.items() if part not in facts["quantConfig"]]
    found = [f"does not tell {' and '.join(untold)} how they are quantized"] if untold else []
    if "W4A16_NVFP4" not in facts["algorithms"]:
        found.append("does not know quant_algo W4A16_NVFP4")
    if not facts["weightsAlone"]:
        found.append("multiplies by scales of activations, which the checkpoint does not have")
    if not facts["wholeScales"]:
        found.append("leaves four of the five scales of Mamba's in_proj as memory was, and takes the largest")
    if not facts["marlinPads"]:
        found.append("has Marlin take multiples of 64 columns alone, and Mamba's in_proj has 6680")
    return tuple(found)


def state(profile: Profile, package: str | None) -> str:
    """`stock` where that loads it, or nobody knows better; `plugin` where it takes ours; `patched` where the image has
    another falcon_h1.py than any release that the profile is for.

    `package` is vLLM's folder in this image.
    """
    if not obstacles(profile) or package is None:
        return STOCK
    try:
        content = Path(package, MODEL).read_bytes()
    except OSError:
        return STOCK
    known = profile.fact("loader")["stock"].values()
    return PLUGIN if hashlib.sha256(content).hexdigest() in known else PATCHED
