"""The flags against the real vLLM on CPU: it takes every command line that is made for its version, and its parser has
the flags, kinds, types and choices that its profile says."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from tests.node.harness import ROOT, Json, Kubectl, wait_for
from tests.unit.flag_specs import SPECS

from falcon_engine import profiles
from falcon_engine.extra import check
from falcon_engine.flags import argv
from falcon_engine.profiles import Flag, Profile
from falcon_engine.signatures import Refusal
from falcon_operator.api.spec import Spec
from falcon_operator.desired.intent import intent

pytestmark = pytest.mark.node

# Reads command lines from its standard input: whole ones, and those of a single flag, which may need others.
# Its last line is what vLLM's own parser says of each, and of itself.
PROGRAM = """
import argparse, contextlib, io, json, sys

import vllm
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

command = ServeSubcommand()
parser = FlexibleArgumentParser()
serve = command.subparser_init(parser.add_subparsers(dest="subparser"))


def refusal(line, whole):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = parser.parse_args(line)
        if whole:
            command.validate(args)
        if args.tool_call_parser and args.tool_call_parser not in ToolParserManager.list_registered():
            return f"invalid tool call parser: {args.tool_call_parser}"
        if args.reasoning_parser and args.reasoning_parser not in ReasoningParserManager.list_registered():
            return f"invalid reasoning parser: {args.reasoning_parser}"
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def described(action):
    kind = {"+": "values", "*": "values", "?": "optional"}.get(action.nargs, "value")
    if isinstance(action, argparse.BooleanOptionalAction):
        kind = "switch"
    elif action.nargs == 0 and not isinstance(action, argparse._HelpAction):
        kind = "flag"
    converter = action.type
    while closure := getattr(converter, "__closure__", None):
        converter = closure[0].cell_contents
    name = getattr(converter, "__name__", str(converter))
    return {"names": action.option_strings, "kind": kind, "type": name, "choices": list(action.choices or ())}


asked = json.load(sys.stdin)
refusals = [refusal(line, True) for line in asked["whole"]] + [refusal(line, False) for line in asked["single"]]
flags = [described(action) for action in serve._actions if action.option_strings]
print()
print(json.dumps({"version": vllm.__version__, "refusals": refusals, "flags": flags}))
"""
CHECKS: Json = {"suppress_health_check": list(HealthCheck)}
# How vLLM's converters of a number are called.
TYPES = {"int": {"int", "human_readable_int", "human_readable_int_or_auto"}, "float": {"float"}}
# The build for CPU, which is not vLLM's own, lacks this choice of --all2all-backend.
NOT_ON_CPU = {"passthrough"}
# Their choices are computed in vLLM's source, which the tool that reads it does not do.
COMPUTED = {"--log-level", "--mm-processor-device"}
NUMBERS = {name for names in TYPES.values() for name in names}
WRONG = [
    ["serve", "/m", "--max-num-seqs", "many"],
    ["serve", "/m", "--flag-of-tomorrow"],
    ["serve", "/m", "--kv-cache-dtype", "fp3"],
    ["serve", "/m", "--compilation-config", '{"cudagraph_mode": "SOMETIMES"}'],
    ["serve", "/m", "--enable-auto-tool-choice", "--tool-call-parser", "of_tomorrow"],
]


@pytest.fixture
def engine_image(namespace: Kubectl) -> str:
    """The name of a running pod of the demo's image in which no engine runs."""
    image = yaml.safe_load((ROOT / "examples/cpu-demo.yaml").read_text())["spec"]["image"]["reference"]
    container = {
        "name": "engine",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 2000, "seccompProfile": {"type": "RuntimeDefault"}}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "parser"},
            "spec": {"restartPolicy": "Never", "securityContext": security, "containers": [container]},
        }
    )
    wait_for(lambda: (namespace.get("pod", "parser") or {})["status"]["phase"] == "Running", 120, "running pod")
    return "parser"


def lines_of_specs(known: list[Profile]) -> list[list[str]]:
    """The command lines of 150 specs, as each of these profiles makes them."""
    lines: list[list[str]] = []

    @settings(max_examples=150, derandomize=True, database=None, phases=[Phase.generate], deadline=None, **CHECKS)
    @given(SPECS)
    def collect(spec: Spec) -> None:
        for profile in known:
            with suppress(Refusal):  # a queue limit, which not every version has
                lines.append(argv(intent(spec, "image"), profile, "/models/x"))

    collect()
    return lines


def lines_of_flags(profile: Profile) -> Iterator[list[str]]:
    """One command line for every flag of the profile that users may give, and for each of its choices."""
    for flag in profile.flags.values():
        try:
            assert check([flag.name], profile, profile.version, exact=True) == []
        except Refusal:
            continue
        for arguments in _uses(flag):
            yield ["serve", "/m", *arguments]


def _uses(flag: Flag) -> Iterator[list[str]]:
    if flag.kind in ("flag", "switch"):
        yield [flag.name]
        if flag.kind == "switch":
            yield [f"--no-{flag.name[2:]}"]
    elif flag.choices:
        yield from ([flag.name, str(choice)] for choice in flag.choices if choice not in NOT_ON_CPU)
    elif flag.type in ("int", "float"):
        yield [flag.name, {"int": "1", "float": "0.5"}[flag.type]]


def test_the_real_engine_reads_what_is_written_for_it(namespace: Kubectl, engine_image: str) -> None:
    profile = profiles.load("0.32")
    own = lines_of_specs([profile, profiles.select("0.31")[0], profiles.select(None)[0]])
    users = list(lines_of_flags(profile))
    assert len(own) > 300
    assert len(users) > 400
    lines = [*WRONG, *own, *users]
    asked = json.dumps({"whole": [*WRONG, *own], "single": users})

    printed = namespace.run("exec", "-i", engine_image, "--", "python3", "-c", PROGRAM, stdin=asked)
    said: Json = json.loads(printed.splitlines()[-1])
    assert profiles.parse(said["version"]) == profiles.parse(profile.version)
    refused = [(line, why) for line, why in zip(lines, said["refusals"], strict=True) if why]
    assert [(line, why) for line, why in refused if line not in WRONG] == []
    assert [line for line, _ in refused] == WRONG

    real: dict[str, Any] = {name: flag for flag in said["flags"] for name in flag["names"]}
    assert set(real) == set(profile.names())
    compared = [flag for flag in profile.flags.values() if flag.name != "--help"]
    assert [d for flag in compared for d in _differences(flag, real[flag.name])] == []


def _differences(flag: Flag, real: Json) -> Iterator[str]:
    if real["kind"] != flag.kind:
        yield f"{flag.name} is a {real['kind']}, not a {flag.kind}"
    if real["type"] not in TYPES.get(str(flag.type), {real["type"]} - NUMBERS):
        yield f"{flag.name} takes {real['type']}, not {flag.type}"
    choices = {choice for choice in real["choices"] if choice not in (None, "None")}
    if choices and flag.name not in COMPUTED and choices != set(flag.choices) - NOT_ON_CPU:
        yield f"{flag.name} has the choices {sorted(choices)}, not {flag.choices}"
