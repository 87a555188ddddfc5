"""`python -m falcon_tune.ahead`: compiles kernels of vLLM into Triton's cache, without a GPU.

vLLM 0.26 tries sixty launches of five Mamba2 kernels for prompts one after the other when it starts for the first time:
more than a minute of compiling. Here the launches are given. The kernels' own Python runs over tensors of the CPU for a
GPU that is not there, each launch is compiled instead of launched, and Triton's search is told that the given one is
the fastest, which it writes down where vLLM finds it. The sampler's kernel has one launch, one form for each kind of
request: a start builds the first in 12 to 19 s, and the first requests of another kind would wait for theirs.
"""

# mypy: disable-error-code="import-not-found,no-untyped-call"

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from falcon_tune.files import Shape, TuneError, shape_of

# The engine has the processors first.
_NICE = 10
# Of Falcon-H1R-7B.
VOCABULARY = 130_048
# The "time" of a launch that is not the given one.
_NOT = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile; the result is the exit code. A failure is one line: the engine compiles for itself then."""
    parser = argparse.ArgumentParser(prog="falcon_tune.ahead", description=__doc__)
    parser.add_argument("--capability", required=True, metavar="N.N", help="compute capability of the GPU")
    parser.add_argument("--launches", required=True, type=json.loads, metavar="JSON", help="of each kernel")
    parser.add_argument("--state-dtype", default="bfloat16", help="number format of the state")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint (default: Falcon-H1R-7B's shape)")
    parser.add_argument("--mark", type=Path, metavar="FILE", help="made when all is compiled")
    options = parser.parse_args(arguments)
    with suppress(OSError):
        os.nice(_NICE)
    began = time.monotonic()
    try:
        config = json.loads((options.model / "config.json").read_text()) if options.model else None
        shape = shape_of(config, str(options.model / "config.json")) if config is not None else Shape()
        vocabulary = config.get("vocab_size", VOCABULARY) if config else VOCABULARY
        compiled = compile_all(shape, vocabulary, options.capability, options.launches, options.state_dtype)
        if options.mark:
            options.mark.touch()
    except Exception as e:  # whatever another version of vLLM or Triton does otherwise
        said = (str(e).strip().splitlines() or [""])[0][:300]
        print(f"falcon: warning: kernels are not compiled ahead ({type(e).__name__}: {said})", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    print(f"falcon: {compiled} kernels were compiled ahead in {seconds:.0f} s", file=sys.stderr, flush=True)
    return 0


def compile_all(
    shape: Shape, vocabulary: int, capability: str, launches: Mapping[str, Mapping[str, int]], state_dtype: str
) -> int:
    """Fill Triton's cache for a model of this shape and vocabulary. The result is how many kernels were asked for.

    Raises whatever vLLM, torch or Triton raise, and `TuneError` where a kernel has no such launch.
    """
    import torch
    import vllm  # noqa: F401  # first: it sets what Triton reads when it is imported
    from triton.runtime._async_compile import AsyncCompileMode

    _compile_instead_of_launching(capability, launches)
    from vllm.model_executor.layers.mamba.ops import ssd_combined

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, AsyncCompileMode(pool) as mode:
        for initial in (False, True):  # two kernels are compiled with and without states to begin with
            ssd_combined.mamba_chunk_scan_combined_varlen(**arguments(shape, getattr(torch, state_dtype), initial))
        if not mode.raw_futures:
            raise TuneError("vLLM does without Triton here")
        _sampler(vocabulary)
    return len(mode.raw_futures)


def _sampler(vocabulary: int) -> None:
    """The kernel that keeps the likeliest tokens, as vLLM's sampler launches it for logits of a batch.

    Triton has one form for a number of sequences that 16 divides, as in the engine's own start, and one for others.
    """
    import torch
    from vllm.v1.sample.ops import topk_topp_triton

    topk_topp_triton.num_compute_units = lambda *_: 1  # only of how many programs there would be
    for sequences in (256, 255):
        logits = torch.empty(sequences, vocabulary, device="meta")  # no memory, and not what vLLM has for a CPU's
        k, p = torch.empty(sequences, dtype=torch.int32, device="meta"), torch.empty(sequences, device="meta")
        for asked in ((k, p), (None, p), (k, None)):
            topk_topp_triton.apply_top_k_top_p_triton(logits, *asked)


def arguments(shape: Shape, state_dtype: Any, initial: bool) -> dict[str, Any]:
    """What vLLM's layer passes for one sequence of one chunk (mamba_mixer2.py), in the CPU's memory."""
    import torch

    tokens, heads, chunk = shape.chunk, shape.heads, torch.tensor([0, shape.chunk], dtype=torch.int32)
    wide, groups = (tokens, heads, shape.head_dim), (tokens, shape.groups, shape.state)
    dtype = torch.bfloat16  # the model's
    return {
        "x": torch.zeros(wide, dtype=dtype),
        "dt": torch.zeros(tokens, heads, dtype=dtype),
        "A": torch.zeros(heads),
        "B": torch.zeros(groups, dtype=dtype),
        "C": torch.zeros(groups, dtype=dtype),
        "chunk_size": shape.chunk,
        "cu_seqlens": chunk,
        "cu_chunk_seqlens": chunk.clone(),
        "last_chunk_indices": torch.zeros(1, dtype=torch.int32),
        "seq_idx": torch.zeros(1, dtype=torch.int32),
        "out": torch.zeros(wide, dtype=dtype),
        "D": torch.zeros(heads, dtype=dtype),
        "z": None,
        "dt_bias": torch.zeros(heads, dtype=dtype),
        "initial_states": torch.zeros(1, heads, shape.head_dim, shape.state, dtype=state_dtype) if initial else None,
        "dt_softplus": True,
        "dt_limit": (0.0, float("inf")),
        "state_dtype": state_dtype,
    }


def _compile_instead_of_launching(capability: str, launches: Mapping[str, Mapping[str, int]]) -> None:
    """Change Triton in this process: a GPU that is not there, no launches, and a search whose result is given."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    major, minor = capability.split(".")

    class Absent:
        """The GPU, as far as the compiler asks for it."""

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", int(major) * 10 + int(minor), 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return device

    def bench(self: Any, *_: Any, config: Any, **__: Any) -> list[float]:
        given, of = launches[self.base_fn.__name__], config.all_kwargs()
        return [0.0 if all(of.get(name) == value for name, value in given.items()) else _NOT] * 3

    search, run = Autotuner.run, JITFunction.run

    def searched(self: Any, *positional: Any, **named: Any) -> Any:
        kernel = search(self, *positional, **named)
        if all(timing[0] == _NOT for timing in self.configs_timings.values()):
            raise TuneError(f"{self.base_fn.__name__} has no launch {launches[self.base_fn.__name__]}")
        return kernel

    driver.set_active(Absent())
    Autotuner._bench, Autotuner.run = bench, searched
    JITFunction.run = lambda self, *positional, grid, warmup, **named: run(
        self, *positional, grid=grid, warmup=True, **named
    )


if __name__ == "__main__":
    sys.exit(main())
