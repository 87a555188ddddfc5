"""Gives a checkpoint new metadata in a directory of links: the source and its weights stay as they are."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from falcon_engine import checkpoint, findings, modelopt, quantization, safetensors, shape
from falcon_engine.checkpoint import Checkpoint
from falcon_engine.finding import REFUSED, Finding, curable, refuses
from falcon_engine.findings import Loader
from falcon_engine.modelopt import Rules
from falcon_engine.profiles import Profile
from falcon_engine.safetensors import BESIDE, CONFIG, INDEX, Files
from falcon_engine.signatures import CONFIGURATION_EXIT, START_EXIT, Diagnosis, Refusal

# In every directory that is made here: what it is made of, and what was repaired.
MARKER = "falcon-repair.json"
_REASONS = {
    errno.ENOSPC: "DiskFull",
    errno.EDQUOT: "DiskFull",
    errno.EROFS: "ReadOnlyFilesystem",
    errno.EACCES: "PermissionDenied",
    errno.EPERM: "PermissionDenied",
}


class RepairError(Exception):
    """The directory could not be made: one sentence. `reason` is the one of conditions."""

    def __init__(self, sentence: str, reason: str = "CheckpointUnusable") -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """What differs from the source: new content by file name, and files that are left out."""

    written: Mapping[str, bytes] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()


def plan(files: Files, found: Sequence[Finding], profile: Profile, loader: Loader) -> Plan:
    """The metadata that cures what new metadata can cure; empty where there is nothing of that."""
    broken = {f.file for f in found if f.repairable}
    written: dict[str, bytes] = {}
    dropped = set()
    if INDEX in broken:
        index = {name: tensor.file for name, tensor in sorted(files.tensors.items())}
        written[INDEX] = _text({"metadata": {}, "weight_map": index})
    if broken & {CONFIG, BESIDE} and files.config is not None:
        config, rules = dict(files.config), Rules.of(profile, loader.name == "plugin")
        sizes = shape.from_config({**config, "quantization_config": None})
        there = (files.directory / BESIDE).exists()
        if quantization.any_packed(quantization.layers(sizes), files.tensors):
            declared = modelopt.read(files.config, files.beside, rules)
            config["quantization_config"] = quantization.config(sizes, files.tensors, declared, rules)
            if there:
                producer = (files.beside or {}).get("producer")
                written[BESIDE] = _text(quantization.beside(config["quantization_config"], producer))
        else:
            config.pop("quantization_config", None)
            dropped |= {BESIDE} if there else set()
        written[CONFIG] = _text(config)
    return Plan(written, frozenset(dropped))


def overlay(files: Files, plan: Plan, found: Sequence[Finding], out: Path) -> bool:
    """Make `out` a directory of links to the source's files with the plan's content in it; false where it is one.

    It appears whole or not at all. Raises `RepairError`; `out` is then as it was.
    """
    source = files.directory.resolve()
    _check_out(source, out)
    repaired = [str(f) for f in found if f.repairable]
    marker = _text({"source": str(source), "repaired": repaired})
    content = {**plan.written, MARKER: marker}
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        links = {
            name: os.path.realpath(source / name)
            for name in sorted(os.listdir(source))
            if name not in content and name not in plan.dropped and not name.startswith(".")
        }
        if _is_same(out, links, content):
            return False
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for name, target in links.items():
            (beside / name).symlink_to(target)
        for name, data in content.items():
            _write(beside / name, data)
        if changed := files.changed():
            raise RepairError(f"{files.directory / changed} changed while it was read: repair it once it is whole.")
        _swap(beside, out)
    except OSError as e:
        what = f"{e.filename or out}: {e.strerror or e}"
        raise RepairError(
            f"{out} cannot be written ({what}).", _REASONS.get(e.errno or 0, "CheckpointUnusable")
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def prepare(
    found: Checkpoint,
    mode: str,
    profile: Profile,
    *,
    loader: Loader,
    scratch: Path,
    log: Callable[[str], None],
) -> Checkpoint:
    """The checkpoint that the engine is given: the one that was found, or an overlay of it in `scratch`.

    `mode` is `Repair`, `Check` or `AsIs`. Raises `Refusal` where the engine would refuse it and that is not to be, or
    cannot be, repaired.
    """
    files = found.files or safetensors.read(Path(found.path))
    if loader.name == "patched" or not findings.is_falcon_h1(files):
        return found
    seen = findings.check(files, profile, loader)
    refused = refuses(seen)
    repairs = mode == "Repair" and refused and curable(seen)
    for finding in seen:
        mended = repairs and finding.repairable
        log(f"repairing: {finding.file}: {finding.sentence}" if mended else f"warning: {finding}")
    if mode == "AsIs" or not refused:
        return found
    if not repairs:
        raise Refusal(_diagnosis(found, seen, profile))
    out = scratch / "checkpoint"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        overlay(files, plan(files, seen, profile, loader), seen, out)
    except (RepairError, OSError) as e:
        reason = e.reason if isinstance(e, RepairError) else _REASONS.get(e.errno or 0, "CheckpointUnusable")
        hint = "Give the container a writable HOME, or repair the checkpoint with falcon-operator repair-model."
        raise Refusal(Diagnosis(reason, f"The checkpoint cannot be repaired: {e}", hint, START_EXIT)) from None
    log(f"the engine gets {out}: links to {found.path} with new metadata")
    codes = tuple(f.code for f in seen if f.repairable)
    nvfp4 = checkpoint.is_nvfp4(out, json.loads((out / CONFIG).read_text()))
    return replace(found, path=str(out), nvfp4=nvfp4, source=found.path, repaired=codes, files=None)


def _diagnosis(found: Checkpoint, seen: Sequence[Finding], profile: Profile) -> Diagnosis:
    """Why the engine is not started: what cannot be repaired first."""
    first = next((f for f in seen if f.severity == REFUSED and not f.repairable), seen[0])
    rest = sum(f.severity == REFUSED for f in seen) - 1
    more = f" ({rest} more findings are in the log.)" if rest else ""
    hint = first.fix
    if first.repairable:
        hint = "Set spec.model.checkpoint to Repair, or repair it with falcon-operator repair-model."
    message = f"vLLM {profile.version} would not load {found.path}: {first.file}: {first.sentence}{more}"
    return Diagnosis(first.reason, message, hint, CONFIGURATION_EXIT)


def _check_out(source: Path, out: Path) -> None:
    at = out.parent.resolve() / out.name
    if at == source or source in at.parents:
        raise RepairError(f"{out} is in the checkpoint itself, which stays as it is: name another directory.")
    if not out.parent.is_dir():
        raise RepairError(f"There is no directory {out.parent}: make it first.")
    if out.is_symlink() or (out.exists() and not _is_ours(out)):
        raise RepairError(f"{out} is there already and was not made by a repair: name another directory.")


def _is_ours(out: Path) -> bool:
    try:
        return out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))
    except OSError:
        return False


def _is_same(out: Path, links: Mapping[str, str], content: Mapping[str, bytes]) -> bool:
    if not out.is_dir() or {entry.name for entry in out.iterdir()} != {*links, *content}:
        return False
    return all(os.path.islink(out / n) and os.readlink(out / n) == to for n, to in links.items()) and all(
        not (out / n).is_symlink() and (out / n).read_bytes() == data for n, data in content.items()
    )


def _swap(beside: Path, out: Path) -> None:
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    replaces = out.exists() and any(out.iterdir())
    shutil.rmtree(old, ignore_errors=True)  # of a run that was killed in between
    if replaces:
        out.rename(old)
    try:
        beside.rename(out)
    except OSError:
        if replaces:
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
    descriptor = os.open(out.parent, os.O_RDONLY)
    with suppress(OSError):  # not every filesystem can
        os.fsync(descriptor)
    os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", errors="surrogatepass")
