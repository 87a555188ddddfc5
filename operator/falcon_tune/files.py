"""The tuned file of the state update: its name as vLLM looks it up, its format, and writing it whole or not at all."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# vLLM picks the entry that is nearest to sequences x heads.
DEFAULT_BATCHES = (1, 4, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Shape:
    """One layer's state: `heads` of `head_dim` x `state`, and how a prompt is cut: `groups` of heads share what goes in
    and out, `chunk` tokens are computed at once. The default is Falcon-H1R-7B on one GPU.
    """

    heads: int = 24
    head_dim: int = 128
    state: int = 256
    groups: int = 1
    chunk: int = 256


@dataclass(frozen=True)
class Launch:
    """How the kernel is launched: rows of the state for one program, and its warps."""

    rows: int
    warps: int

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.warps} warps"


class TuneError(ValueError):
    """Nothing was written; the sentence says why and what to do."""


def shape_of(config: object, source: str, tensor_parallel_size: int = 1) -> Shape:
    """The state's shape from a checkpoint's config.json. Raises `TuneError` where it does not tell."""
    if not isinstance(config, dict):
        raise TuneError(f"{source} is not a JSON object: name a checkpoint of Falcon-H1")
    fields = ("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_chunk_size")
    left_out = {"mamba_n_groups": Shape.groups, "mamba_chunk_size": Shape.chunk}  # the architecture's own defaults
    values = [config.get(field, left_out.get(field)) for field in fields]
    for field, value in zip(fields, values, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TuneError(
                f"{source}: {field} is {value!r}, not a number of at least 1: name a checkpoint of Falcon-H1"
            )
    heads, head_dim, state, groups, chunk = (int(value) for value in values if isinstance(value, int))
    if heads % tensor_parallel_size:
        raise TuneError(f"{heads} heads cannot be shared by {tensor_parallel_size} GPUs: choose a divisor of {heads}")
    return Shape(heads // tensor_parallel_size, head_dim, state, max(1, groups // tensor_parallel_size), chunk)


def text(chosen: Mapping[int, Launch], heads: int, triton: str) -> str:
    """The file's content: an entry for each number of sequences."""
    entries = {
        str(batch * heads): {"BLOCK_SIZE_M": of.rows, "num_warps": of.warps} for batch, of in sorted(chosen.items())
    }
    return json.dumps({"triton_version": triton, **entries}, indent=1) + "\n"


def write(folder: Path, file: str, content: str) -> Path:
    """Write it under a temporary name and rename it. Raises `TuneError` where the folder cannot be written."""
    target = folder / file
    beside = folder / f".{file}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as e:
        raise TuneError(f"{target} cannot be written ({e.strerror}): name another folder with --out") from None
    return target


def writable(folder: Path) -> None:
    """Make the folder, before a minute is spent. Raises `TuneError` where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise TuneError(f"{folder} cannot be made ({e.strerror}): name another folder with --out") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TuneError(f"{folder} is not writable for user {os.getuid()}: name another folder with --out")
