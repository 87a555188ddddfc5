"""Times vLLM's state-update kernel under each launch, and compares what it computes with the default launch."""

# mypy: disable-error-code="import-not-found,no-untyped-call"

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_tune.files import Launch, Shape, TuneError

ROWS = (4, 8, 16, 32, 64, 128)
WARPS = (1, 2, 4, 8)
# More values of the state in one thread than this spill out of its registers.
MOST_VALUES = 128
# Of an answer, relative to its size: two units in the last place of bfloat16, for sums taken in another order.
TOLERANCE = 2.0**-7
# A launch this much slower than the best one for the largest batch is not tried for smaller ones.
HOPELESS = 2.0
# Sequences lie in pages of the cache: the state's part of one page, and then the page's rest.
_POOL_BYTES = 2 << 30
_REPLAYS = 3
# Sequences whose results are compared: what a launch computes does not hang on how many there are.
_COMPARED = 256
_CALLS = 40


@dataclass(frozen=True)
class Finding:
    """One batch: the chosen launch, its time and the default's in µs, GB/s of both, and the largest difference."""

    batch: int
    launch: Launch
    microseconds: float
    default_microseconds: float
    rate: float
    default_rate: float
    difference: float


def device() -> str:
    """The GPU's name as vLLM tells it. Raises `TuneError` where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise TuneError("there is no GPU that torch can use here: run this where the engine runs")
    return str(torch.cuda.get_device_name(0))


def triton_version() -> str:
    """The compiler that the timings are of."""
    import triton

    return str(triton.__version__)


class Kernel:
    """vLLM's kernel over a pool of states of random values, laid out as in the engine's cache."""

    def __init__(self, shape: Shape, state_dtype: str, most: int, target: str = "cuda") -> None:
        import torch

        try:
            from vllm.model_executor.layers.mamba.ops import mamba_ssm
        except ImportError as e:
            raise TuneError(
                f"vLLM's state update cannot be imported ({e}): use an image with vLLM 0.22 or newer"
            ) from None
        if not hasattr(mamba_ssm, "override_ssm_config"):
            raise TuneError("this vLLM reads no tuned file for the state update: 0.22 is the first that does")
        self._torch, self._module, self.shape = torch, mamba_ssm, shape
        self._device, self._dtype = target, getattr(torch, state_dtype)
        torch.manual_seed(8)
        values = shape.heads * shape.head_dim * shape.state
        page = values + values // 16
        self._slots = max(most + 1, min(4 * most, _POOL_BYTES // (page * self._dtype.itemsize)))
        self._pool = self._normal(self._slots * page).to(self._dtype)
        strides = (page, shape.head_dim * shape.state, shape.state, 1)
        self._state = self._pool.as_strided((self._slots, shape.heads, shape.head_dim, shape.state), strides)
        self.bytes_of_one = 2 * values * self._dtype.itemsize  # read and written

    def _normal(self, *size: int) -> Any:
        return self._torch.randn(*size, device=self._device, dtype=self._torch.bfloat16)

    def inputs(self, batch: int) -> dict[str, Any]:
        """Fresh arguments for so many sequences; what one head shares is expanded, as the engine passes it."""
        torch, shape = self._torch, self.shape
        wide, deep = (shape.heads, shape.head_dim), (shape.heads, shape.head_dim, shape.state)
        decay = -torch.rand(shape.heads, device=self._device) * 15 - 1
        step = self._normal(batch, shape.heads) - 3
        ones = torch.ones(shape.heads, device=self._device)
        return {
            "x": self._normal(batch, *wide),
            "dt": step[:, :, None].expand(batch, *wide),
            "A": decay[:, None, None].expand(*deep),
            "B": self._normal(batch, 1, shape.state),
            "C": self._normal(batch, 1, shape.state),
            "D": ones[:, None].expand(*wide),
            "dt_bias": ones[:, None].expand(*wide),
            "dt_softplus": True,
        }

    def slots(self, batch: int) -> Any:
        """Other sequences than last time; slot 0 is the engine's null block."""
        order = self._torch.randperm(self._slots - 1, device=self._device)[:batch] + 1
        return order.to(self._torch.int32)

    def call(self, given: Mapping[str, Any], slots: Any, out: Any, state: Any = None) -> None:
        """One step of these sequences."""
        self._module.selective_state_update(
            self._state if state is None else state, **given, state_batch_indices=slots, out=out
        )

    def pinned(self, launch: Launch) -> Any:
        """A context in which the kernel is launched so."""
        return self._module.override_ssm_config((launch.rows, launch.warps))

    def default(self) -> Launch:
        """What this version takes without a file."""
        blackwell = self._device == "cuda" and self._torch.cuda.get_device_capability()[0] == 10
        rows, warps = self._module._get_default_ssm_launch_config(self.shape.state, blackwell)
        return Launch(rows, warps)

    def microseconds(self, launch: Launch, batch: int) -> float:
        """Time of one call, out of a replayed CUDA graph of many, each on other sequences."""
        torch = self._torch
        given, out = self.inputs(batch), self._torch.empty_like(self.inputs(batch)["x"])
        sets = [self.slots(batch) for _ in range(max(4, min(_CALLS, 4 * self._slots // batch)))]
        with self.pinned(launch):
            self.call(given, sets[0], out)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for slots in sets:
                    self.call(given, slots, out)
        graph.replay()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(_REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) * 1e3 / _REPLAYS / len(sets)

    def difference(self, launch: Launch, batch: int) -> float:
        """Largest difference to the default launch, of answers and of states, relative to the value's size."""
        batch = min(batch, _COMPARED)
        given, slots = self.inputs(batch), self.slots(batch)
        results = []
        for one in (self.default(), launch):
            state, out = self._state[slots.long()].clone(), self._torch.full_like(given["x"], float("nan"))
            order = self._torch.arange(batch, device=self._device, dtype=self._torch.int32)
            # The engine's null block is 0 and is skipped, so there is one state before the first.
            state = self._torch.cat([state[:1], state])
            with self.pinned(one):
                self.call(given, order + 1, out, state)
            results.append((out.float(), state[1:].float()))
        worst = 0.0
        for wanted, found in zip(*results, strict=True):
            size = wanted.abs() + wanted.abs().mean()
            off = ((wanted - found).abs() / size).max().item()
            worst = max(worst, float("inf") if off != off else off)
        return worst


def candidates(shape: Shape) -> list[Launch]:
    """Launches that can be worth a try."""
    every = [Launch(rows, warps) for rows, warps in itertools.product(ROWS, WARPS)]
    return [
        one for one in every if one.rows <= shape.head_dim and one.rows * shape.state <= MOST_VALUES * 32 * one.warps
    ]


def tune(kernel: Kernel, batches: Sequence[int], seconds: float, log: Callable[[str], None]) -> dict[int, Finding]:
    """The fastest launch that computes the same, for each batch; largest batch first, within the time."""
    began, default = time.monotonic(), kernel.default()
    remaining = candidates(kernel.shape)
    found: dict[int, Finding] = {}
    for batch in sorted(batches, reverse=True):
        if time.monotonic() - began > seconds:
            log(f"{seconds:.0f} s are over: batches of {batch} and fewer are left out")
            break
        usual = kernel.microseconds(default, batch)
        times: dict[Launch, float] = {default: usual}
        for launch in remaining:
            if time.monotonic() - began > seconds:
                break
            try:
                times.setdefault(launch, kernel.microseconds(launch, batch))
            except Exception as e:  # the compiler's own kinds, such as out of resources
                log(f"{launch} does not run: {str(e)[:100]}")
        chosen, difference = default, 0.0
        for launch in sorted(times, key=lambda one: times[one]):
            off = kernel.difference(launch, batch)
            if off <= TOLERANCE:
                chosen, difference = launch, off
                break
            log(f"batch {batch}: {launch} computes something else (by {off:.2g}) and is not taken")
        if not found:
            remaining = [one for one in remaining if times.get(one, float("inf")) < HOPELESS * times[chosen]]
        rate = batch * kernel.bytes_of_one / 1e3
        found[batch] = Finding(batch, chosen, times[chosen], usual, rate / times[chosen], rate / usual, difference)
        log(row(found[batch]))
    return found


HEAD = f"{'sequences':>9}  {'default µs':>10}  {'GB/s':>6}  {'tuned µs':>9}  {'GB/s':>6}  {'times':>5}  launch, off by"


def row(finding: Finding) -> str:
    """One line of the table under `HEAD`."""
    times = finding.default_microseconds / finding.microseconds
    return (
        f"{finding.batch:>9}  {finding.default_microseconds:>10.1f}  {finding.default_rate:>6.0f}  "
        f"{finding.microseconds:>9.1f}  {finding.rate:>6.0f}  {times:>5.2f}  {finding.launch}, {finding.difference:.1e}"
    )
