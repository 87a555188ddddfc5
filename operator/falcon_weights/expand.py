"""Expands an NVFP4 checkpoint: `python -m falcon_weights.expand SOURCE OUT --format bf16|fp8 [--device cuda|cpu]`.

OUT appears whole or not at all: it is written beside, checked, and renamed. What is there whole already is left alone.
"""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import argparse
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from falcon_engine import expanded, safetensors, tensors
from falcon_weights import formats, progress
from falcon_weights.convert import Converter, Stopped
from falcon_weights.lock import Lock
from falcon_weights.plan import ExpandError, Plan, plan

# Exit codes besides 0, and 1 for everything else; the launcher knows them.
NO_ROOM_EXIT, NO_PERMISSION_EXIT, STOPPED_EXIT = 3, 4, 143
_MOST_WORKERS = 16
# Room that is left beside the weights: tokenizer, manifest, and what the engine's own caches will want.
_SPARE_BYTES = 64 << 20
_QUANTIZATION_FILES = ("hf_quant_config.json",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code; above 0 there is a sentence."""
    parser = argparse.ArgumentParser(prog="falcon_weights.expand", description=__doc__)
    parser.add_argument("source", type=Path, help="directory of the NVFP4 checkpoint")
    parser.add_argument("out", type=Path, help="directory to make")
    parser.add_argument("--format", choices=expanded.FORMATS, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="what decodes; by default a GPU where there is one")
    parser.add_argument("--workers", type=int, default=0, help="threads; by default one a core, at most 16")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        report = expand(given.source, given.out, given.format, given.device, given.workers)
    except (Stopped, KeyboardInterrupt):
        progress.say("stopped as asked; what was begun is removed")
        return STOPPED_EXIT
    except ExpandError as e:
        progress.say(str(e))
        return e.exit_code
    except OSError as e:
        progress.say(_of_system(e, given.out))
        return _exit_code(e)
    except RuntimeError as e:  # what torch raises where a GPU is full or broken
        progress.say(f"{str(e).splitlines()[0]}: expand on the CPU (--device cpu).")
        return 1
    if report:
        progress.say(_summary(report, given.out))
    return 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # what was begun is removed, without being disturbed
    raise Stopped


def expand(source: Path, out: Path, form: str, device: str | None = None, workers: int = 0) -> dict[str, Any]:
    """Make `out`; returns its report, which is empty where it was there already.

    Raises `ExpandError` with a sentence, `OSError` where files cannot be read or written.
    """
    started = time.monotonic()
    if not (source / "config.json").is_file():
        raise ExpandError(f"{source} is no checkpoint: it has no config.json.")
    if trouble := safetensors.read(source).weights_trouble:
        way_out = "make its files readable" if trouble.kind == "permission" else "copy it again"
        raise ExpandError(f"The checkpoint {source} {trouble.what}: {way_out}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ExpandError("--device is cuda, but torch sees no GPU: use --device cpu.")
    fingerprint, stamps = tensors.fingerprint(source), tensors.stamps(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Lock(out) as lock:
        verdict = expanded.judge(out, source, fingerprint, form)
        if verdict.whole:
            progress.say(f"{out} is there already, and whole")
            return {}
        planned = plan(source, form)
        lock.clear()
        if out.exists():
            progress.say(f"{out} {verdict.why}: it is made again")
            shutil.rmtree(out)
        _check_room(planned, out)
        partial = lock.partial
        try:
            partial.mkdir()
            report = _make(source, partial, planned, device, workers or _cores(), fingerprint, stamps)
            report["seconds"] = round(time.monotonic() - started, 1)
            expanded.write(partial / tensors.REPORT, report)
            _sync(partial)
            partial.rename(out)
            _sync(out.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return report


def _make(
    source: Path,
    partial: Path,
    planned: Plan,
    device: str,
    workers: int,
    fingerprint: str,
    stamps: dict[str, list[int]],
) -> dict[str, Any]:
    """Write everything into `partial` and check it. Returns the report."""
    digests: dict[str, str] = {}
    bar = progress.Progress(f"expanding to {planned.form.upper()} on {_name(device)}", planned.size)
    converter = Converter(device, workers, bar.add)
    try:
        for shard in planned.shards:
            digests.update(converter.write(shard, partial / shard.name))
        bar.end()
        _describe(source, partial, planned)
        files = tensors.shards(source)
        bar = progress.Progress("checking what was written", 0)
        read = dict(zip(files, converter.digests([(file, 0, None) for file in files]), strict=True))
        written = [t for shard in planned.shards for t in tensors.header(partial / shard.name)]
        found = converter.digests([(t.file, t.begin, t.size) for t in written])
        bar.end()
        wrong = [t.name for t, digest in zip(written, found, strict=True) if digests.get(t.name) != digest]
        if wrong or len(written) != len(digests) or safetensors.read(partial).weights_trouble:
            raise ExpandError(
                f"What was written to {partial} reads otherwise ({wrong[:1] or 'sizes'}): check the disk."
            )
        if tensors.stamps(source) != stamps or tensors.fingerprint(source) != fingerprint:
            raise ExpandError(f"The checkpoint {source} was written to meanwhile: start again when it is whole.")
    finally:
        converter.close()
    manifest = {
        "schema": expanded.SCHEMA,
        "format": planned.form,
        "source": {
            "fingerprint": fingerprint,
            "stamps": stamps,
            "sha256": {file.name: digest for file, digest in read.items()},
        },
        "fingerprint": tensors.fingerprint(partial),
        "tensors": {name: digests[name] for name in sorted(digests)},
    }
    expanded.write(partial / tensors.MANIFEST, manifest)
    return {
        "format": planned.form,
        "device": _name(device),
        "linears": len(planned.modules),
        "keptBF16": sorted({name.rpartition(".")[2] for name in planned.kept}) if planned.form == "fp8" else [],
        "kvScales": planned.kv_scales,
        "sourceBytes": sum(size for size, _ in stamps.values()),
        "bytes": planned.size,
        "loss": {kind: converter.losses[kind].report() for kind in sorted(converter.losses)},
    }


def _describe(source: Path, partial: Path, planned: Plan) -> None:
    """The files beside the weights: the source's, with another quantization in config.json."""
    for file in tensors.beside(source):
        if file.name not in (*_QUANTIZATION_FILES, "config.json"):
            shutil.copyfile(file, partial / file.name)
    config = json.loads((source / "config.json").read_text())
    config.pop("quantization_config", None)
    quantization = formats.quantization_config(
        planned.form, planned.kept, int(config.get("num_hidden_layers") or 0), planned.kv_scales
    )
    if quantization is not None:
        config["quantization_config"] = quantization
    config["dtype" if "dtype" in config else "torch_dtype"] = "bfloat16"
    expanded.write(partial / "config.json", config)
    if len(planned.shards) > 1 or (source / safetensors.INDEX).is_file():
        index = {entry.name: shard.name for shard in planned.shards for entry in shard.entries}
        size = sum(entry.size for shard in planned.shards for entry in shard.entries)
        content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
        expanded.write(partial / safetensors.INDEX, content)


def _check_room(planned: Plan, out: Path) -> None:
    there = os.statvfs(out.parent)
    free, need = there.f_bavail * there.f_frsize, planned.size + _SPARE_BYTES
    if free < need:
        others = [p.name for p in sorted(out.parent.iterdir()) if (p / tensors.MANIFEST).is_file()]
        way_out = f"remove {', '.join(others)} there, or give it more room" if others else "give it more room"
        raise ExpandError(
            f"{out.parent} has {free / 2**30:.1f} GiB free, and {planned.form.upper()} weights need "
            f"{need / 2**30:.1f} GiB: {way_out}.",
            NO_ROOM_EXIT,
        )


def _of_system(error: OSError, out: Path) -> str:
    """One sentence of an error that the system reports."""
    where = error.filename or out
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"There is no room left for {out} ({error.strerror}): give its volume more, nothing half-written is left."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"User {os.getuid()} may not use {where} ({error.strerror}): change its owner, or name another directory."
        )
    return f"{where}: {error.strerror or error}."


def _exit_code(error: OSError) -> int:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NO_ROOM_EXIT
    return NO_PERMISSION_EXIT if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else 1


def _summary(report: dict[str, Any], out: Path) -> str:
    worst = max(report["loss"].items(), key=lambda item: item[1]["relativeFrobenius"])
    return (
        f"{out} has {report['bytes'] / 2**30:.2f} GiB of {report['format'].upper()} weights after "
        f"{report['seconds']:.1f} s; against NVFP4 the largest relative error of a kind of layer is "
        f"{worst[1]['relativeFrobenius']:.2g} ({worst[0]})"
    )


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _cores() -> int:
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0))))


def _sync(directory: Path) -> None:
    """Force what a directory lists to the disk, and the files that are not there yet."""
    for path in (*(p for p in directory.iterdir() if p.is_file() and not p.name.endswith(".safetensors")), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
