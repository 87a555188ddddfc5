"""The command line: `falcon-operator run | crds | render | fit | check-model | repair-model | tune`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from falcon_operator import __version__
from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.desired.volumes import LAUNCHER_DIRECTORY

ENVIRONMENT = "FALCON_OPERATOR_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["tune"]:
        return _tune(given[1:])  # its options are the tuner's own
    options = _parser(os.environ).parse_args(given)
    command: int = options.command(options)
    return command


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="falcon-operator",
        description="Serves Falcon-H1R-7B in NVFP4 on Kubernetes.",
        epilog=f"The operator's configuration can be set as {ENVIRONMENT}NAME in the environment; the option wins.",
    )
    parser.add_argument("--version", action="version", version=f"falcon-operator {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="watch and reconcile resources, until SIGTERM")
    _add_config(run, environment)
    run.set_defaults(command=_run)

    crds = commands.add_parser("crds", help="print the custom resource definitions")
    crds.add_argument("--out", type=Path, metavar="DIR", help="write them into this folder instead")
    crds.add_argument("--chart", action="store_true", help="as the chart's template, with its values' conditions")
    crds.set_defaults(command=_crds)

    render = commands.add_parser("render", help="print what the operator would create for a resource")
    _add_resource(render)
    _add_config(render, environment)
    render.set_defaults(command=_render)
    commands.add_parser("tune", help="make vLLM's Mamba kernel faster on the GPU that is here; it needs vLLM")
    _add_fit(commands.add_parser("fit", help="print what an engine of a resource holds on a GPU"), environment)
    _add_models(commands)
    return parser


def _add_resource(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="SPEC.yaml", help="the resource as YAML; - is standard input")


def _add_fit(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    parser.description = (
        "Prints how many blocks, tokens and sequences one engine holds, with vLLM's own sums. "
        "Exit status: 0, or 3 where the engine would not start, 1 where the input is wrong, 2 for wrong usage."
    )
    _add_resource(parser)
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument("--gpu", metavar="NAME", help="the GPU, such as H200 or 'RTX PRO 6000'")
    memory.add_argument("--gpu-memory", type=_gib, metavar="GIB", help="memory of one GPU as vLLM sees it")
    parser.add_argument(
        "--kv-available", type=_gib, metavar="GIB", help='what the engine logs as "Available KV cache memory"'
    )
    parser.add_argument(
        "--engine-version", type=_version, metavar="VERSION", help="vLLM's version (default: the spec's)"
    )
    parser.add_argument(
        "--model-config", metavar="FILE", help="config.json of the checkpoint (default: Falcon-H1R-7B in NVFP4)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add(parser, environment, "default_image", "the engine's image where the resource names none", str,
         OperatorConfig().default_image)  # fmt: skip
    parser.set_defaults(command=_fit, parser=parser)


def _add_models(commands: Any) -> None:
    check = commands.add_parser("check-model", help="say whether an engine would load a checkpoint")
    check.description = (
        "Reads a checkpoint's metadata, not its weights, and prints a line for each thing that is wrong with it for a "
        "version of vLLM. Exit status: 0 where the engine loads it, 1 where repair-model makes it load, 3 where new "
        "metadata does not help, 2 for wrong usage."
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(command=_check_model)
    repair = commands.add_parser("repair-model", help="give a checkpoint metadata that an engine takes")
    repair.description = (
        "Makes a directory of links to a checkpoint's files, with a new config where the engine would refuse the old "
        "one. The checkpoint stays as it is. Exit status: 0 where the result loads, 1 where it could not be written, 3 "
        "where new metadata does not help, 2 for wrong usage."
    )
    repair.add_argument("--out", type=Path, metavar="DIR", required=True, help="the new directory")
    repair.set_defaults(command=_repair_model)
    for parser in (check, repair):
        parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint's directory")
        parser.add_argument(
            "--engine-version", type=_version, metavar="VERSION", help="vLLM's version (default: the newest known)"
        )
        parser.add_argument(
            "--loader",
            choices=("stock", "plugin"),
            default="stock",
            help="vLLM's own loader, or with this operator's plugin, as its launcher runs vLLM before 0.24",
        )
        parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where the engine runs")


def _add_config(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    defaults = OperatorConfig()
    text: dict[str, str] = {
        "default_image": "the engine's image where the resource names none",
        "gateway_image": "the image of the gateways",
        "quantizer_image": "the image of the Jobs that quantize weights, where the resource names none",
        "cluster_domain": "the cluster's DNS domain",
        "operator_namespace": "the operator's own namespace, from where its pod reaches engines; empty is any",
    }
    for name, about in text.items():
        _add(parser, environment, name, about, str, getattr(defaults, name))
    for name, choices in (("log_level", ("debug", "info", "warning", "error")), ("log_format", ("json", "text"))):
        _add(parser, environment, name, " or ".join(choices), _one_of(*choices), getattr(defaults, name))
    _add(parser, environment, "workers", "how many resources are worked on at once", _positive, defaults.workers)
    _add(parser, environment, "listen_port", "port of /healthz, /readyz and /metrics", int, defaults.listen_port)
    for name, about in (
        ("resync_seconds", "how often each resource is looked at without a cause"),
        ("sweep_seconds", "how often everything is listed, to find what no event told"),
    ):
        _add(parser, environment, name, about, float, getattr(defaults, name))
    parser.add_argument(
        "--namespace",
        dest="watch_namespaces",
        action="append",
        metavar="NAME",
        help="watch this namespace only; can be repeated, default all",
        default=None,
    )
    parser.add_argument(
        "--monitoring-namespace",
        dest="monitoring_namespaces",
        action="append",
        metavar="NAME",
        help="pods of this namespace may read the metrics of engines and gateways; can be repeated, "
        f"default {', '.join(defaults.monitoring_namespaces)}",
        default=None,
    )
    parser.set_defaults(
        environment_namespaces={
            "watch_namespaces": environment.get(f"{ENVIRONMENT}WATCH_NAMESPACES", ""),
            "monitoring_namespaces": environment.get(
                f"{ENVIRONMENT}MONITORING_NAMESPACES", ",".join(defaults.monitoring_namespaces)
            ),
        }
    )
    parser.add_argument(
        "--allow-trust-remote-code",
        action="store_true",
        default=_truth(environment.get(f"{ENVIRONMENT}ALLOW_TRUST_REMOTE_CODE", "false")),
        help="allow resources to run code that comes with a model",
    )


def _add(
    parser: argparse.ArgumentParser,
    environment: Mapping[str, str],
    name: str,
    about: str,
    kind: Any,
    default: object,
) -> None:
    parser.add_argument(
        "--" + name.replace("_", "-"),
        type=kind,
        default=environment.get(ENVIRONMENT + name.upper(), str(default)),  # argparse converts a default that is text
        help=f"{about} (default {default})",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB above 0")
    return value


def _version(text: str) -> str:
    from falcon_engine.profiles import parse

    if parse(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a version of vLLM such as 0.33.0")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    # Not argparse's own choices, which a value from the environment would pass by.
    def check(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return check


def _truth(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


def _config(options: argparse.Namespace) -> OperatorConfig:
    values = {field.name: getattr(options, field.name) for field in fields(OperatorConfig)}
    for field, of_environment in options.environment_namespaces.items():
        named: list[str] = values[field] or of_environment.split(",")
        values[field] = tuple(name.strip() for name in named if name.strip())
    return OperatorConfig(**values)


def _run(options: argparse.Namespace) -> int:
    import asyncio

    from falcon_operator.app import run
    from falcon_operator.kube.connection import ConnectionProblem
    from falcon_operator.telemetry.logging import configure

    config = _config(options)
    configure(config.log_level, config.log_format)
    try:
        asyncio.run(run(config))
    except ConnectionProblem as problem:
        print(f"falcon-operator: {problem}", file=sys.stderr)
        return 2
    return 0


def _crds(options: argparse.Namespace) -> int:
    from falcon_operator.api import crd
    from falcon_operator.api.names import CRD_NAME

    text = crd.render_for_chart() if options.chart else crd.render()
    if options.out is None:
        print(text, end="")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{CRD_NAME}.yaml"
    path.write_text(text)
    print(path)
    return 0


def _render(options: argparse.Namespace) -> int:
    from falcon_operator import manifests
    from falcon_operator.preview import preview

    try:
        documents, problems = preview(manifests.read(options.file), _config(options))
    except manifests.ManifestError as error:
        documents, problems = "", [str(error)]
    print(documents, end="")
    return _report(problems)


def _fit(options: argparse.Namespace) -> int:
    from falcon_operator import fitting, gpus, manifests

    try:
        question = fitting.Question(
            gpu=options.gpu,
            gpu_gib=gpus.visible_gib(options.gpu) if options.gpu is not None else options.gpu_memory,
            kv_available_gib=options.kv_available,
            engine_version=options.engine_version,
            model_config=options.model_config,
        )
        found = fitting.answer(
            manifests.read(options.file), question, OperatorConfig(default_image=options.default_image)
        )
    except ValueError as error:
        return _report([str(error)])
    if fitting.needs_memory(found, question):
        options.parser.error("one of --gpu, --gpu-memory and --kv-available is needed")
    print(
        fitting.as_json(found) if options.json else fitting.as_text(found, question), end="\n" if options.json else ""
    )
    return 3 if found.fit.verdict == "Refused" else 0


def _check_model(options: argparse.Namespace) -> int:
    from falcon_operator import checking

    try:
        found = checking.answer(_question(options))
    except ValueError as error:
        _report([str(error)])
        return checking.UNUSABLE
    print(checking.as_json(found) if options.json else checking.as_text(found), end="\n" if options.json else "")
    return found.status


def _repair_model(options: argparse.Namespace) -> int:
    from falcon_operator import checking

    status = checking.UNUSABLE
    try:
        found = checking.answer(_question(options))
        status = found.status
        print(checking.mend(found, options.out))
    except ValueError as error:
        _report([str(error)])
        return max(status, 1)
    return 0


def _question(options: argparse.Namespace) -> Any:
    from falcon_operator import checking

    return checking.Question(options.directory, options.engine_version, options.loader, options.device)


def _tune(options: list[str]) -> int:
    """Hand over to the tuner where there is an engine to tune; the operator's own image has none."""
    if find_spec("vllm") is None and not {"-h", "--help"} & set(options):
        run = f"kubectl exec POD -c {names.CONTAINER_NAME} -- python3 {LAUNCHER_DIRECTORY}/{names.LAUNCHER_KEY} tune"
        return _report([f"tune: there is no vllm here, whose kernel would be timed; run it where engines run: {run}"])
    from falcon_tune.__main__ import main as tune

    return tune(options)


def _report(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"falcon-operator: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
