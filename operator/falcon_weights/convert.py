"""Writes one shard of an expansion: its tensors in parallel, a part of a tensor at a time."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import torch

from falcon_engine import tensors
from falcon_engine.tensors import Tensor
from falcon_weights import formats, nvfp4
from falcon_weights.formats import Loss
from falcon_weights.plan import Entry, ExpandError, Module, Shard

_T = TypeVar("_T")
# Numbers of a matrix at once: on a CPU what its caches hold, on a GPU what leaves its memory to others.
_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 22}


class Converter:
    """Writes shards; after `stop` every worker ends at the next part with `Stopped`."""

    def __init__(self, device: str, workers: int, wrote: Callable[[int], None]) -> None:
        self._device = torch.device(device)
        self._wrote = wrote
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="expand")
        self.losses: dict[str, Loss] = {}
        torch.set_num_threads(1)  # the workers are what runs in parallel

    def close(self) -> None:
        """End the workers, at the next part where they still work."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, shard: Shard, file: Path) -> dict[str, str]:
        """Write a shard and force it to the disk. Returns every tensor's digest."""
        with file.open("wb", buffering=0) as stream:
            descriptor = stream.fileno()
            os.truncate(descriptor, shard.size)
            _write(descriptor, 0, shard.header)
            scales = {e.name: e for e in shard.entries if e.copied is None and e.module is None}
            jobs = [
                self._pool.submit(self._entry, e, descriptor, len(shard.header), scales)
                for e in shard.entries
                if e.name not in scales
            ]
            digests = dict(pair for pairs in self._all(jobs) for pair in pairs)
            os.fsync(descriptor)
        return digests

    def digests(self, parts: list[tuple[Path, int, int | None]]) -> list[str]:
        """The digests of files, or of parts of them (begin, size)."""
        return self._all([self._pool.submit(self._digest, *part) for part in parts])

    def _digest(self, file: Path, begin: int, size: int | None) -> str:
        digest = hashlib.sha256()
        with file.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size - begin if size is None else size
            for chunk in tensors.chunks(stream.fileno(), begin, size):
                if self._stopped.is_set():
                    raise Stopped
                digest.update(chunk)
        return digest.hexdigest()

    @staticmethod
    def _all(jobs: list[Future[_T]]) -> list[_T]:
        done, pending = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in pending:
            job.cancel()
        for job in done:
            if not job.cancelled() and (error := job.exception()):
                raise error
        return [job.result() for job in jobs]

    def _entry(self, entry: Entry, descriptor: int, base: int, scales: dict[str, Entry]) -> list[tuple[str, str]]:
        if entry.copied is not None:
            return [(entry.name, self._copy(entry.copied, descriptor, base + entry.begin))]
        assert entry.module is not None
        return self._expand(entry, entry.module, descriptor, base, scales.get(f"{entry.module.name}.weight_scale"))

    def _copy(self, tensor: Tensor, descriptor: int, begin: int) -> str:
        digest = hashlib.sha256()
        with tensor.file.open("rb", buffering=0) as stream:
            for chunk in tensors.chunks(stream.fileno(), tensor.begin, tensor.size):
                self._put(descriptor, begin, chunk)
                digest.update(chunk)
                begin += len(chunk)
        return digest.hexdigest()

    def _expand(
        self, entry: Entry, module: Module, descriptor: int, base: int, scale_entry: Entry | None
    ) -> list[tuple[str, str]]:
        rows, columns = module.shape
        scale_2 = self._read(module.scale_2, 0, 4, torch.float32).reshape(())
        digest, loss, row_scales = hashlib.sha256(), Loss(), []
        begin, step = base + entry.begin, max(1, _AT_ONCE[self._device.type] // columns)
        for first in range(0, rows, step):
            many = min(step, rows - first)
            half, groups = columns // 2, columns // nvfp4.GROUP
            packed = self._read(module.weight, first * half, many * half, torch.uint8).view(many, half)
            scales = self._read(module.scales, first * groups, many * groups, torch.float8_e4m3fn).view(many, groups)
            unscaled = nvfp4.unscaled(packed, scales)
            if scale_entry is None:
                part, lost = formats.to_bf16(unscaled, scale_2)
            else:
                part, row_scale, lost = formats.to_fp8(unscaled, scale_2)
                row_scales.append(row_scale)
            if not math.isfinite(lost.square):
                raise ExpandError(
                    f"{module.name} in {module.weight.file} decodes to numbers that are none (NaN or infinity): its "
                    "scales are damaged; copy or quantize the checkpoint again."
                )
            loss.add(lost)
            data = _bytes(part)
            self._put(descriptor, begin, data)
            digest.update(data)
            begin += len(data)
        with self._lock:
            self.losses.setdefault(module.kind, Loss()).add(loss)
        found = [(entry.name, digest.hexdigest())]
        if scale_entry is not None:
            data = _bytes(torch.cat(row_scales))
            self._put(descriptor, base + scale_entry.begin, data)
            found.append((scale_entry.name, hashlib.sha256(data).hexdigest()))
        return found

    def _read(self, tensor: Tensor, begin: int, size: int, dtype: torch.dtype) -> torch.Tensor:
        with tensor.file.open("rb", buffering=0) as stream:
            data = bytearray().join(tensors.chunks(stream.fileno(), tensor.begin + begin, size))
        return torch.frombuffer(data, dtype=torch.uint8).view(dtype).to(self._device)

    def _put(self, descriptor: int, begin: int, data: bytes) -> None:
        if self._stopped.is_set():
            raise Stopped
        _write(descriptor, begin, data)
        self._wrote(len(data))


class Stopped(Exception):
    """The work was told to end."""


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).cpu().numpy())


def _write(descriptor: int, begin: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, begin)
        view, begin = view[written:], begin + written
