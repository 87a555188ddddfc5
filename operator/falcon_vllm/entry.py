"""What vLLM calls at the start of each of its processes; a plugin that FALCON_PLUGINS does not name does nothing."""

import os

# The launcher names in it, separated by commas, which plugins are to act.
VARIABLE = "FALCON_PLUGINS"


def falcon_nvfp4_on_cpu() -> None:
    """Let a CPU multiply NVFP4 weights. Raises `RuntimeError` with one sentence where this vLLM cannot be taught it."""
    if _wanted("falcon_nvfp4_on_cpu"):
        from falcon_vllm import cpu

        cpu.register()


def falcon_h1_loader() -> None:
    """Let Falcon-H1 of vLLM 0.13 to 0.23 load NVFP4. Raises `RuntimeError` in one sentence elsewhere."""
    if _wanted("falcon_h1_loader"):
        try:
            from falcon_vllm import falcon_h1
        except ImportError as error:
            raise RuntimeError(f"falcon: {error}; the loader of NVFP4 is for vLLM 0.13 to 0.23") from error
        falcon_h1.register()


def _wanted(name: str) -> bool:
    return name in os.environ.get(VARIABLE, "").split(",")
