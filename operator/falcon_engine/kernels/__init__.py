"""Tuned files of vLLM's Mamba state update, by the names that it looks for, and settings that won on a GPU."""

import re


def file_name(head_dim: int, state: int, dtype: str, gpu: str) -> str:
    """The file for a state of this shape and number format. Formats of two bytes share one: only the width matters."""
    width = "float16" if dtype == "bfloat16" else dtype
    device = re.sub(r"[\s/]+", "_", gpu)
    return f"headdim={head_dim},dstate={state},device_name={device},cache_dtype={width}.json"
