"""PID 1 of the serving container, and its preStop hook: `launch.pyz serve | drain | version`."""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from falcon_engine import checkpoint, drain, extra, flags, locate, loopback, memory, profiles, termination
from falcon_engine.child import Child, hold_signals, stop_pending
from falcon_engine.diagnose import diagnose
from falcon_engine.intent import VARIABLE, Intent, IntentError
from falcon_engine.signatures import CONFIGURATION_EXIT, START_EXIT, Diagnosis, Refusal

# uvicorn says so when it accepts connections.
SERVING_LINE = "Application startup complete"
PROBE_SECONDS = 1.0


def log(sentence: str) -> None:
    """One line of the launcher's own, between the engine's."""
    print(f"falcon: {sentence}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the named command; its return value is the exit code."""
    commands = {"serve": serve, "drain": drain_hook, "version": version}
    if len(arguments) != 1 or arguments[0] not in commands:
        log(f"usage: launch.pyz {' | '.join(commands)}; got {' '.join(arguments)!r}")
        return CONFIGURATION_EXIT
    return commands[arguments[0]]()


def version() -> int:
    """Print the engine's version."""
    engine = locate.locate()
    print(engine.version or "unknown" if engine else "no vllm here")
    return 0 if engine else START_EXIT


def drain_hook() -> int:
    """Wait for running requests; never a failure, which the kubelet would report as one of the pod."""
    try:
        drain.drain(Intent.from_json(os.environ.get(VARIABLE, "")), log)
    except IntentError as e:
        log(f"not draining: {e}")
    return 0


def serve() -> int:
    """Start the engine and stay with it until its end."""
    hold_signals()
    drain.forget()
    try:
        intent, command, engine_version = prepare()
    except Refusal as refusal:
        return refuse(refusal.diagnosis)
    if stop_pending():
        log("stopped as asked, before the engine was started")
        return 0
    log(f"starting {shlex.join(command)}")
    return attend(intent, command, engine_version)


def prepare() -> tuple[Intent, list[str], str | None]:
    """Everything that can be said no to before the engine starts."""
    try:
        intent = Intent.from_json(os.environ.get(VARIABLE, ""))
    except IntentError as e:
        hint = f"{VARIABLE} is written by the operator; launcher and operator must be of one version."
        raise Refusal(Diagnosis("EngineStartFailed", f"{e}.", hint, CONFIGURATION_EXIT)) from None
    engine = locate.locate()
    if engine is None:
        message = f"There is no vllm in this image: neither a module of {sys.executable} nor a program on PATH."
        raise Refusal(Diagnosis("EngineStartFailed", message, "Use a vLLM image in spec.image.", CONFIGURATION_EXIT))
    stated = engine.version or intent.version
    try:
        return intent, [*engine.command, *compose(intent, engine.version)], stated
    except Refusal as refusal:
        raise Refusal(replace(refusal.diagnosis, engine_version=stated)) from None


def compose(intent: Intent, found_version: str | None) -> list[str]:
    """The engine's arguments, for the version and the checkpoint that are really there."""
    stated = found_version or intent.version
    profile, exact = profiles.select(stated)
    say_version(intent, found_version, profile, exact)
    for warning in extra.check(intent.extra_args, profile, stated, exact):
        log(f"warning: {warning}")
    if intent.source.kind == "huggingFace":
        model, nvfp4 = str(intent.source.repository), False
        log(f"the model is {model} at revision {intent.source.revision or 'main'} of the Hugging Face Hub")
    else:
        found = checkpoint.find(intent.source, os.environ)
        model, nvfp4 = found.path, found.nvfp4
        log(f"the checkpoint is {model}{' (NVFP4)' if nvfp4 else ''}")
        for warning in found.warnings:
            log(f"warning: {warning}")
    arguments = flags.argv(intent, profile, model, nvfp4=nvfp4)
    for note in flags.notes(intent, profile):
        log(note)
    return arguments


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


def refuse(diagnosis: Diagnosis) -> int:
    """Say why the engine does not start."""
    log(f"{diagnosis.reason}: {diagnosis.message} {diagnosis.hint}")
    termination.write(diagnosis)
    return diagnosis.exit_code


def attend(intent: Intent, command: list[str], engine_version: str | None) -> int:
    """Run the engine to its end; 0 only if somebody asked for the end."""
    served = threading.Event()
    kills_before = memory.kills()

    def watch(line: str) -> None:
        if SERVING_LINE in line:
            served.set()

    try:
        child = Child(command, watch)
    except OSError as e:
        message = f"{command[0]} cannot be started: {e}."
        return refuse(Diagnosis("EngineStartFailed", message, "Check the image.", START_EXIT, engine_version))
    threading.Thread(target=probe, args=(intent.port, served), daemon=True).start()
    ended = child.wait()
    if isinstance(ended, signal.Signals):
        stop(child, intent, ended)
        child.finish()
        if not served.is_set():
            interrupted = diagnose_interrupted(engine_version, list(child.lines))
            log(f"{interrupted.reason}: {interrupted.message}")
            termination.write(interrupted)
        log("stopped as asked")
        return 0
    child.finish()
    return refuse(
        diagnose(
            ended if ended is not None else START_EXIT,
            list(child.lines),
            served=served.is_set(),
            engine_version=engine_version,
            memory_kills=memory.kills() - kills_before,
        )
    )


def probe(port: int, served: threading.Event) -> None:
    """Ask until the engine answers once: an image may log at a level that hides the line."""
    while not served.wait(PROBE_SECONDS):
        answer = loopback.get(port, "/health")
        if answer and answer[0] == 200:
            served.set()


def stop(child: Child, intent: Intent, received: signal.Signals) -> None:
    """Let the engine drain, then end it: a drain that runs out leaves vLLM hanging with its streams open."""
    drained = drain.seconds_drained()
    patience = max(0.0, intent.drain_timeout_seconds - drained) + drain.STOP_MARGIN_SECONDS
    log(f"{received.name}: passing it on, and waiting up to {patience:.0f} s")
    child.send(received)
    deadline = time.monotonic() + patience
    while True:
        ended = child.wait(max(0.0, deadline - time.monotonic()))
        if isinstance(ended, signal.Signals):
            child.send(ended)
        elif ended is None:
            log("the engine did not end in time: killing it")
            child.kill_group()
            child.wait(5.0)
            return
        else:
            log(f"the engine ended with {ended}")
            return


def diagnose_interrupted(engine_version: str | None, lines: list[str]) -> Diagnosis:
    """A stop before the first answer: wanted, or the startup probe's."""
    return Diagnosis(
        "StartInterrupted",
        "The engine was told to stop before it served.",
        "If nobody wanted that, the startup probe did: raise spec.startup.budget.",
        0,
        engine_version,
        tuple(line for line in lines if line.strip())[-20:],
    )
