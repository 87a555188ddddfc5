"""PID 1 of the serving container, and its preStop hook: `launch.pyz serve | drain | version | tune`."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from falcon_engine import (
    ahead,
    checkpoint,
    drain,
    expansion,
    extra,
    flags,
    gpus,
    loader,
    locate,
    model_info,
    plugins,
    profiles,
    repair,
    sequences,
    serving,
    tuned,
    watch,
)
from falcon_engine.attend import Attendant, Prepared, refuse
from falcon_engine.checkpoint import Checkpoint
from falcon_engine.child import hold_signals, stop_pending
from falcon_engine.findings import Loader
from falcon_engine.intent import VARIABLE, Intent, IntentError
from falcon_engine.report import Report
from falcon_engine.signatures import CONFIGURATION_EXIT, START_EXIT, Diagnosis, Refusal


def log(sentence: str) -> None:
    """One line of the launcher's own, between the engine's."""
    print(f"falcon: {sentence}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the named command; its return value is the exit code."""
    if arguments[:1] == ["tune"]:
        return tune(arguments[1:])
    commands = {"serve": serve, "drain": drain_hook, "version": version}
    if len(arguments) != 1 or arguments[0] not in commands:
        log(f"usage: launch.pyz {' | '.join(commands)} | tune [OPTION...]; got {' '.join(arguments)!r}")
        return CONFIGURATION_EXIT
    return commands[arguments[0]]()


def version() -> int:
    """Print the engine's version."""
    engine = locate.locate()
    print(engine.version or "unknown" if engine else "no vllm here")
    return 0 if engine else START_EXIT


def tune(arguments: Sequence[str]) -> int:
    """Tune the state update on the GPU that is here."""
    run: Callable[[Sequence[str]], int] = import_module("falcon_tune.__main__").main
    return run(arguments)


def drain_hook() -> int:
    """Wait for running requests; never a failure, which the kubelet would report as one of the pod."""
    try:
        drain.drain(Intent.from_environ(os.environ), log)
    except IntentError as e:
        log(f"not draining: {e}")
    return 0


def serve() -> int:
    """Start the engine and stay with it until its end."""
    hold_signals()
    drain.forget()
    report = Report()
    try:
        intent = read_intent()
        answer(report, intent)
        prepared = prepare(intent, report)
    except Refusal as refusal:
        return refuse(refusal.diagnosis, log)
    except expansion.Stopped:
        log("stopped as asked, before the engine was started")
        return 0
    if stop_pending():
        log("stopped as asked, before the engine was started")
        return 0
    report.prepared()
    return Attendant(report, log).attend(prepared)


def read_intent() -> Intent:
    """What the operator asks for."""
    try:
        return Intent.from_environ(os.environ)
    except IntentError as e:
        hint = f"{VARIABLE} is written by the operator; launcher and operator must be of one version."
        raise Refusal(Diagnosis("EngineStartFailed", f"{e}.", hint, CONFIGURATION_EXIT)) from None


def answer(report: Report, intent: Intent) -> None:
    """Serve the report from before the engine starts to the end of the process."""

    def started() -> tuple[int, str, str]:
        status, sentence = watch.started(report, intent.port)
        return status, "text/plain", f"{sentence}\n"

    serving.serve({"/report": lambda: (200, "application/json", report.to_json()), "/started": started}, log)


def prepare(intent: Intent, report: Report) -> Prepared:
    """Everything that can be said no to before the engine starts."""
    engine = locate.locate()
    if engine is None:
        message = f"There is no vllm in this image: neither a module of {sys.executable} nor a program on PATH."
        raise Refusal(Diagnosis("EngineStartFailed", message, "Use a vLLM image in spec.image.", CONFIGURATION_EXIT))
    stated = engine.version or intent.version
    try:
        return compose(intent, engine, stated, report)
    except Refusal as refusal:
        raise Refusal(replace(refusal.diagnosis, engine_version=stated)) from None


def compose(intent: Intent, engine: locate.Engine, stated: str | None, report: Report) -> Prepared:
    """What to start, for the version, the checkpoint and the GPUs that are really there."""
    profile, exact = profiles.select(stated)
    say_version(intent, engine.version, profile, exact)
    report.put(version=stated, profile=profile.file.removesuffix(".json"), max_num_seqs=intent.max_num_seqs)
    for warning in extra.check(intent.extra_args, profile, stated, exact):
        log(f"warning: {warning}")
    state = loader.state(profile, engine.package)
    given, model = find_model(intent, profile, Loader.of(state, profile, intent.device))
    directory, nvfp4 = (given.path, given.nvfp4) if given else (None, False)
    repaired = {"source": given.source, "repaired": list(given.repaired)} if given and given.repaired else {}
    report.put(checkpoint={"path": model, "nvfp4": nvfp4, **repaired})
    found = gpus.read(intent.gpu_resource) if intent.device == "cuda" else ()
    report.put(gpus=found)
    for gpu in found:
        log(f"the GPU is {gpu.name} with {gpu.memory_mib or 'unknown'} MiB, driver {gpu.driver or 'unknown'}")
    if diagnosis := gpus.refusal(found, profile, stated, False, os.environ):
        raise Refusal(diagnosis)
    if given is not None:
        outcome = expansion.prepare(given, intent, profile, stated, found, engine, log)
        report.put(compute_format=outcome.described())
        if outcome.checkpoint != given:
            directory = model = outcome.checkpoint.path
            nvfp4 = outcome.checkpoint.nvfp4
            report.put(checkpoint={"path": model, "nvfp4": nvfp4})
    if diagnosis := gpus.refusal(found, profile, stated, nvfp4, os.environ):
        raise Refusal(diagnosis)
    clamped = sequences.foresee(intent, profile, directory, found, log)
    if clamped:
        log(f"warning: maxNumSeqs {clamped.asked} becomes {clamped.given}: {clamped.why}")
        report.put(clamped=clamped, max_num_seqs=clamped.given)
    lowered = sequences.lowered(intent, clamped)
    environ = plugins.prepare(intent, profile, engine, nvfp4 if directory else None, os.environ, log)
    faster = tuned.settings(lowered, profile, stated, found)
    for note in faster.notes:
        log(note)
    lowered = replace(lowered, extra_args=(*faster.arguments, *lowered.extra_args))
    environ = {**environ, **faster.environ}
    prepared = Prepared(lowered, intent.max_num_seqs, engine.command, profile, stated, model, nvfp4, environ)
    flags.argv(prepared.intent, profile, model, nvfp4=nvfp4)  # refuses what this version lacks
    for note in flags.notes(intent, profile):
        log(note)
    if intent.device == "cuda":
        model_info.put(stated, os.environ, log)
    ahead.begin(prepared.intent, stated, found, engine, directory, log, {**os.environ, **environ})
    return prepared


def find_model(intent: Intent, profile: profiles.Profile, can: Loader) -> tuple[Checkpoint | None, str]:
    """The checkpoint, repaired where it has to be, if it is here; and what the engine is to load."""
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())

    def prepared(found: Checkpoint) -> Checkpoint:
        return repair.prepare(found, intent.checkpoint, profile, loader=can, scratch=home / ".falcon", log=log)

    if intent.source.kind == "huggingFace":
        repository, revision = str(intent.source.repository), intent.source.revision or "main"
        log(f"the model is {repository} at revision {revision} of the Hugging Face Hub")
        cached = checkpoint.cached(repository, revision, os.environ)
        if cached is None:
            log("it is not whole in the cache yet, so nothing of it was checked")
            return None, repository
        given = prepared(cached)
        return given, given.path if given.repaired else repository
    found = checkpoint.find(intent.source, os.environ)
    log(f"the checkpoint is {found.path}{' (NVFP4)' if found.nvfp4 else ''}")
    for warning in found.warnings:
        log(f"warning: {warning}")
    given = prepared(found)
    return given, given.path


def say_version(intent: Intent, found: str | None, profile: profiles.Profile, exact: bool) -> None:
    """One line on the version; a warning where something about it is not as stated."""
    if found is None:
        said = f"taking {intent.version} as spec.engine says" if intent.version else "set spec.engine.version"
        log(f"warning: EngineVersionUnknown: the image does not say which vLLM it holds; {said}")
    elif intent.version and profiles.parse(intent.version) != profiles.parse(found):
        log(f"warning: spec.engine.version is {intent.version}, but the image holds vLLM {found}; taking {found}")
    stated = found or intent.version or "of unknown version"
    if exact:
        log(f"the engine is vLLM {stated}, profile {profile.version}")
    else:
        log(f"warning: no profile for vLLM {stated}; taking the one of {profile.version}")
