"""GPUs by name, with the memory that vLLM sees of them."""

from __future__ import annotations

import difflib
import re

# GiB as PyTorch and vLLM print them ("total capacity of", "Free memory on device"); the H200 measured with vLLM 0.26
# and driver 580, the others as users' logs show them. It is less than the driver's own figure, by 0.4 to 0.9 GiB.
VISIBLE_GIB = {
    "GB10": 121.63,
    "GB200": 184.31,
    "B200": 178.35,
    "B300": 267.69,
    "RTX 5090": 31.36,
    "RTX PRO 6000": 94.97,
    "H100": 79.18,
    "H100 NVL": 93.10,
    "H200": 139.80,
    "L40S": 44.39,
    "L40": 44.39,
    "L4": 22.03,
    "A100 40GB": 39.39,
    "A100 80GB": 79.15,
    "A10": 22.05,
    "T4": 14.56,
    "RTX 4090": 23.52,
}
# Compute capabilities in NVIDIA's table.
CAPABILITY = {
    "GB10": "12.1",
    "GB200": "10.0",
    "B200": "10.0",
    "B300": "10.3",
    "RTX 5090": "12.0",
    "RTX PRO 6000": "12.0",
    "H100": "9.0",
    "H100 NVL": "9.0",
    "H200": "9.0",
    "L40S": "8.9",
    "L40": "8.9",
    "L4": "8.9",
    "A100 40GB": "8.0",
    "A100 80GB": "8.0",
    "A10": "8.6",
    "T4": "7.5",
    "RTX 4090": "8.9",
}
# What else people and node labels call them, once vendor and form are left out.
_ALSO = {
    "h10080gb": "H100",
    "h10094gb": "H100 NVL",
    "h200nvl": "H200",
    "a100": "A100 80GB",
    "a10g": "A10",
    "dgxspark": "GB10",
    "rtxpro6000blackwell": "RTX PRO 6000",
    "5090": "RTX 5090",
    "4090": "RTX 4090",
    "pro6000": "RTX PRO 6000",
}
# Words that do not tell one product from another.
_NOISE = (
    "nvidia|geforce|tesla|sxm[0-9]*|pcie|hbm[0-9]e?|edition|server|workstation|blackwell|tensor|core|gpu|max-?q|"
    "141gb|180gb|183gb|288gb|96gb|48gb|32gb|24gb"
)


class UnknownGPUError(ValueError):
    """No GPU of this name is known; the text says which are."""


def visible_gib(name: str) -> float:
    """GiB that vLLM sees of a GPU, by any usual way to write its name. Raises `UnknownGPUError`."""
    return VISIBLE_GIB[product(name)]


def product(name: str) -> str:
    """The GPU's name as it is in `VISIBLE_GIB` and `CAPABILITY`. Raises `UnknownGPUError`."""
    known = {_key(gpu): gpu for gpu in VISIBLE_GIB} | _ALSO
    key = _key(name)
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    guess = f" Did you mean {known[near[0]]}?" if near else ""
    raise UnknownGPUError(
        f"no GPU {name[:60]!r} is known here.{guess} Known are {', '.join(VISIBLE_GIB)}; "
        "for another give --gpu-memory in GiB, as vLLM sees it"
    )


def _key(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower())
    return re.sub(r"\s+", "", re.sub(rf"\b({_NOISE})\b", " ", words))
