"""Reads a command line as one version of vLLM does, by what its profile says of each flag."""

import argparse
import json
import re
from collections.abc import Callable
from typing import Any

from falcon_engine.profiles import Flag, Profile


def whole(text: str) -> int:
    """vLLM also takes 25k, 25.6k and 25K for some numbers."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT])", text):
        return round(float(match[1]) * 1000)
    return int(text)


TYPES: dict[str | None, Callable[[str], Any]] = {None: str, "int": whole, "float": float, "json": json.loads}


class Parser(argparse.ArgumentParser):
    """An error is an exception with the message."""

    def error(self, message: str) -> Any:
        raise ValueError(message)


def parser(profile: Profile) -> Parser:
    """argparse as this version of vLLM sets it up for `serve`, less its tolerance for abbreviations."""
    result = Parser(add_help=False, allow_abbrev=False)
    result.add_argument("command", choices=["serve"])
    result.add_argument("model")
    for flag in profile.flags.values():
        names = [flag.name, *flag.also]
        if flag.kind == "switch":
            result.add_argument(*names, dest=flag.name, action=argparse.BooleanOptionalAction)
        elif flag.kind == "flag":
            result.add_argument(*names, dest=flag.name, action="store_true")
        else:
            nargs = {"values": "+", "optional": "?"}.get(flag.kind)
            result.add_argument(
                *names, dest=flag.name, nargs=nargs, type=TYPES[flag.type], choices=flag.choices or None
            )
    return result


_made: dict[int, tuple[Profile, Parser]] = {}  # a parser of 300 flags takes a hundred times as long as its use


def read(profile: Profile, args: list[str]) -> dict[str, Any]:
    """The values by flag, `model` among them. Raises `ValueError` for what this version has not."""
    if id(profile) not in _made:
        _made[id(profile)] = profile, parser(profile)
    return vars(_made[id(profile)][1].parse_args(_without_dotted(profile, args)))


def _without_dotted(profile: Profile, args: list[str]) -> list[str]:
    """`--flag.key value` is a part of that flag's JSON: vLLM puts such parts together before it parses."""
    kept = []
    rest = iter(args)
    for argument in rest:
        name = argument.partition("=")[0]
        if name.startswith("-") and "." in name and (flag := profile.lookup(argument)) and _takes_json(flag):
            if "=" not in argument:
                next(rest)
        else:
            kept.append(argument)
    return kept


def _takes_json(flag: Flag) -> bool:
    return flag.type == "json"
