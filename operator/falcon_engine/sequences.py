"""How many sequences the engine is asked for: as many as the resource says, or as the GPU holds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from falcon_engine import ask, gpus, shape
from falcon_engine.fit import fit, visible_gib
from falcon_engine.gpus import Gpu
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile
from falcon_engine.report import Clamped
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

# vLLM from 0.20 on, where it captures whole CUDA graphs.
_TOO_MANY = re.compile(r"max_num_seqs \((\d{1,9})\) exceeds available Mamba cache blocks \((\d{1,9})\)")


def decided_by_extra_args(intent: Intent) -> bool:
    """Whether the extra arguments, which come last, say how many: then nothing here changes it."""
    return any(a.partition("=")[0].replace("_", "-") == "--max-num-seqs" for a in intent.extra_args)


def foresee(
    intent: Intent, profile: Profile, directory: str | None, found: Sequence[Gpu], log: Callable[[str], None]
) -> Clamped | None:
    """Fewer sequences where this GPU holds no more; None where all fit, or where that is not known.

    `directory` is the checkpoint's; without one the model is taken to be Falcon-H1R-7B. Raises `Refusal` where the
    resource wants to be refused rather than lowered.
    """
    mib = gpus.least_mib(found)
    if intent.device != "cuda" or mib is None or "blockRules" not in profile.facts:
        return None
    if decided_by_extra_args(intent):
        return None
    if intent.gpu_resource == gpus.SHARED:
        log("the GPU is shared; how many engines share it cannot be seen from here, and the whole of it is counted")
    model = _shape(directory, log)
    wanted = ask.from_intent(intent, profile, model.weights)
    visible = visible_gib(mib, mig="/mig-" in (intent.gpu_resource or ""))
    result = fit(model, profile, wanted, gpu_gib=visible, clamp=intent.fit == "Clamp")
    if result.verdict == "Refused" and intent.fit == "Clamp":
        log(f"warning: {result.message} That is an estimate: the engine is started, and decides")
    elif result.verdict == "Refused":
        hint = "Lower spec.engine.maxNumSeqs or maxModelLen, set spec.fit to Clamp, or use a GPU with more memory."
        raise Refusal(Diagnosis("SequencesExceedMemory", result.message, hint, CONFIGURATION_EXIT))
    if result.verdict == "Clamped":
        return Clamped(intent.max_num_seqs, result.max_num_seqs, result.message)
    return None


def learn(intent: Intent, wanted: int, lines: Sequence[str]) -> Clamped | None:
    """Fewer sequences where the engine has just refused so many, and has said how many it holds; else None.

    `wanted` is how many the resource asks for.
    """
    if intent.fit != "Clamp" or decided_by_extra_args(intent):
        return None
    for line in reversed(lines):
        if match := _TOO_MANY.search(line):
            asked, held = int(match[1]), int(match[2])
            if 1 <= held < asked:
                why = f"The engine holds {held} sequences on this GPU, and was asked for {asked}."
                return Clamped(wanted, held, why)
    return None


def lowered(intent: Intent, clamped: Clamped | None) -> Intent:
    """The intent with what was clamped."""
    return replace(intent, max_num_seqs=clamped.given) if clamped else intent


def _shape(directory: str | None, log: Callable[[str], None]) -> shape.ModelShape:
    if directory is None:
        return shape.FALCON_H1R_7B
    try:
        return shape.read(directory)
    except shape.ShapeError as e:
        log(f"warning: the fit is that of Falcon-H1R-7B: {e}")
        return shape.FALCON_H1R_7B
