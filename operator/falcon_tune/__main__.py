"""`python -m falcon_tune`, also `launch.pyz tune`: tunes the state update in under a minute and writes vLLM's file."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from falcon_engine.kernels import file_name
from falcon_tune import files
from falcon_tune.files import Shape, TuneError

SECONDS = 50.0
FOLDER = "tuned"


def default_folder() -> Path:
    """Where the launcher looks for a file of the user's own."""
    cache = os.environ.get("FALCON_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(cache) if cache else Path(base, "falcon")) / FOLDER


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune and write; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="falcon-operator tune", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: the launcher's cache)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint (default: Falcon-H1R-7B's shape)")
    parser.add_argument("--state-dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"),
                        help="number format of the state (default bfloat16, the model's)")  # fmt: skip
    parser.add_argument(
        "--tensor-parallel-size", type=int, default=1, metavar="N", help="GPUs of one engine (default 1)"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=list(files.DEFAULT_BATCHES), metavar="N",
                        help="numbers of sequences to tune for")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"when to stop trying (default {SECONDS:.0f})")
    options = parser.parse_args(arguments)
    try:
        return _tune(options)
    except TuneError as e:
        print(f"falcon-operator tune: {e}", file=sys.stderr)
        return 1


def _tune(options: argparse.Namespace) -> int:
    began = time.monotonic()
    if any(batch < 1 for batch in options.batches) or options.tensor_parallel_size < 1 or options.seconds <= 0:
        raise TuneError("--batches, --tensor-parallel-size and --seconds must be above 0")
    shape = _shape(options.model, options.tensor_parallel_size)
    folder = options.out or default_folder()
    try:
        from falcon_tune import kernel

        gpu = kernel.device()
    except ImportError as e:
        raise TuneError(f"{e}: run this where the engine runs, such as in its image") from None
    file = file_name(shape.head_dim, shape.state, options.state_dtype, gpu)
    files.writable(folder)
    print(f"{gpu}: state of {shape.heads} x {shape.head_dim} x {shape.state} in {options.state_dtype}", flush=True)
    print(kernel.HEAD, flush=True)
    measured = kernel.Kernel(shape, options.state_dtype, max(options.batches))
    found = kernel.tune(measured, options.batches, options.seconds, lambda line: print(line, flush=True))
    if not found:
        raise TuneError(f"no batch was finished in {options.seconds:.0f} s: raise --seconds")
    chosen = {batch: finding.launch for batch, finding in found.items()}
    written = files.write(folder, file, files.text(chosen, shape.heads, kernel.triton_version()))
    print(f"written in {time.monotonic() - began:.1f} s: {written}")
    return 0


def _shape(model: Path | None, tensor_parallel_size: int) -> Shape:
    if model is None:
        whole = Shape()
        config: object = {"mamba_n_heads": whole.heads, "mamba_d_head": whole.head_dim, "mamba_d_state": whole.state}
        return files.shape_of(config, "Falcon-H1R-7B", tensor_parallel_size)
    source = model / "config.json"
    try:
        config = json.loads(source.read_text())
    except (OSError, ValueError) as e:
        raise TuneError(f"{source} cannot be read ({e}): name a checkpoint's folder") from None
    return files.shape_of(config, str(source), tensor_parallel_size)


if __name__ == "__main__":
    sys.exit(main())
