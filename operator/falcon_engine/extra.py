"""Checks the resource's extra arguments first: the engine needs ten seconds to refuse what is known here at once."""

import difflib
import re
from collections.abc import Sequence

from falcon_engine.profiles import Profile
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

# What would change who reaches the engine, what code it runs or what it serves. The API server refuses these too;
# `--trust-remote-code` is not among them because the operator's configuration decides it.
_OWNED = "the operator sets it"
DENIED = {
    "--model": _OWNED,
    "--served-model-name": _OWNED,
    "--host": _OWNED,
    "--port": _OWNED,
    "--uds": "host and port would be ignored",
    "--config": "it reads any flag from a file",
    "--help": "it ends the engine",
    "--api-key": "keys belong in spec.gateway.apiKeys",
    "--middleware": "it loads code into the server",
    "--tool-parser-plugin": "it loads code into the server",
    "--reasoning-parser-plugin": "it loads code into the server",
}
DENIED_PREFIXES = {"--ssl-": "TLS belongs to the gateway", "--otlp-": "it sends data elsewhere"}


def check(extra_args: Sequence[str], profile: Profile, version: str | None, exact: bool) -> list[str]:
    """Refuse denied flags and, where the version's list is known in full, unknown ones.

    Returns warnings: flags that are not in a list that is not this version's own.
    """
    warnings = []
    for argument in extra_args:
        if not re.match(r"--[A-Za-z]|-[A-Za-z]", argument):
            continue  # a value
        flag = profile.lookup(argument)
        shown = argument.partition("=")[0]
        name = flag.name if flag else "--" + shown[2:].replace("_", "-").partition(".")[0]
        _refuse_denied(name, shown, version)
        if flag is None:
            _refuse_abbreviation(name, shown, version)
            near = difflib.get_close_matches(shown, profile.names(), n=1)
            nearest = f"The nearest name is {near[0]}. " if near else ""
            if exact and profile.flags_complete:
                raise _refusal(
                    "FlagUnknown",
                    f"spec.engine.extraArgs has {shown}, which vLLM {version} does not know.",
                    f"{nearest}Correct or remove it in spec.engine.extraArgs.",
                    version,
                )
            warnings.append(f"extraArgs {shown} is not in the list of vLLM {profile.version}. {nearest}".strip())
    return warnings


def _refuse_denied(name: str, shown: str, version: str | None) -> None:
    why = DENIED.get(name) or next((w for prefix, w in DENIED_PREFIXES.items() if name.startswith(prefix)), None)
    if why:
        raise _refusal(
            "FlagValueRefused",
            f"spec.engine.extraArgs has {shown}, which is not allowed: {why}.",
            "Remove it from spec.engine.extraArgs.",
            version,
        )


def _refuse_abbreviation(name: str, shown: str, version: str | None) -> None:
    """argparse takes `--trust-remote` for `--trust-remote-code`: no check by name would see it."""
    guarded = (*DENIED, *DENIED_PREFIXES, "--trust-remote-code")
    if full := next((g for g in guarded if g.startswith(name)), None):
        raise _refusal(
            "FlagUnknown",
            f"spec.engine.extraArgs has {shown}, which the engine may read as {full}.",
            "Spell the flag out in spec.engine.extraArgs.",
            version,
        )


def _refusal(reason: str, message: str, hint: str, version: str | None) -> Refusal:
    return Refusal(Diagnosis(reason, message, hint, CONFIGURATION_EXIT, version))
