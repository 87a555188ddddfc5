"""Set facts in the profiles' files, in their formatting: one line a fact and a flag.

python tools/profile_facts.py 0.33 FACTS.json    # FACTS.json: {"fact": {"value": ..., "source": "..."}, ...}
python tools/profile_facts.py --check            # refuse files that are not valid or not formatted
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from falcon_engine import profiles
from falcon_engine.profiles import schema

DIRECTORY = Path(profiles.__file__).parent


def form(content: Mapping[str, Any]) -> str:
    """The text of a profile's file: a diff shows which fact or flag changed."""
    facts = content["facts"]
    ordered = {name: facts[name] for name in schema.FACTS if name in facts}
    groups = {"facts": {**ordered, **facts}, "flags": dict(sorted(content["flags"].items()))}
    lines = [f" {_json(key)}: {_json(value)}" for key, value in content.items() if key not in groups]
    for key, group in groups.items():
        members = ",\n".join(f"  {_json(name)}: {_json(value)}" for name, value in group.items())
        lines.append(f" {_json(key)}: {{\n{members}\n }}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(form(content))
    beside.replace(path)


def set_facts(version: str, facts: Mapping[str, Any], directory: Path = DIRECTORY) -> None:
    """Set these facts, each `{"value": ..., "source": "..."}`, in the file of `version`; the others stay.

    Raises `ProfileError`, and changes nothing, where the file would not be valid afterwards.
    """
    path = directory / f"{version}.json"
    content = json.loads(path.read_text())
    content["facts"].update(facts)
    schema.check(path.name, content)
    write(path, content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check() -> int:
    for path in sorted(DIRECTORY.glob("*.json")):
        content = json.loads(path.read_text())
        schema.check(path.name, content)
        if path.read_text() != form(content):
            raise SystemExit(
                f"{path.name} is not formatted: run tools/profile_facts.py {path.stem} with no facts ('{{}}')"
            )
    return 0


def main(args: list[str]) -> int:
    """Run one of the usages above."""
    if args == ["--check"]:
        return _check()
    if len(args) != 2:
        raise SystemExit(__doc__)
    set_facts(args[0], json.loads(Path(args[1]).read_text()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except schema.ProfileError as error:
        sys.exit(str(error))
