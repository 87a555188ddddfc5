"""The command line: `falcon-operator run | crds | render`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from falcon_operator import __version__
from falcon_operator.api.config import OperatorConfig

ENVIRONMENT = "FALCON_OPERATOR_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    options = _parser(os.environ).parse_args(arguments)
    command: int = options.command(options)
    return command


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="falcon-operator",
        description="Serves Falcon-H1R-7B in NVFP4 on Kubernetes.",
        epilog=f"Options of `run` and `render` can be set as {ENVIRONMENT}NAME in the environment; the option wins.",
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
    render.add_argument(
        "-f", "--filename", required=True, metavar="FILE", help="the resource as YAML; - is standard input"
    )
    _add_config(render, environment)
    render.set_defaults(command=_render)
    return parser


def _add_config(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    defaults = OperatorConfig()
    text: dict[str, str] = {
        "default_image": "the engine's image where the resource names none",
        "cluster_domain": "the cluster's DNS domain",
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
    parser.set_defaults(environment_namespaces=environment.get(f"{ENVIRONMENT}WATCH_NAMESPACES", ""))
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
    named: list[str] = values["watch_namespaces"] or options.environment_namespaces.split(",")
    values["watch_namespaces"] = tuple(name.strip() for name in named if name.strip())
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
    from falcon_operator.preview import preview

    text = sys.stdin.read() if options.filename == "-" else Path(options.filename).read_text()
    documents, problems = preview(text, _config(options))
    print(documents, end="")
    for problem in problems:
        print(f"falcon-operator: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
