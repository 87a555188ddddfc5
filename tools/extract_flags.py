"""Read the flags of `vllm serve` from vLLM's source, without importing it: what a profile's `flags` are made of.

    python tools/extract_flags.py SOURCE                  # print them as JSON
    python tools/extract_flags.py SOURCE --write 0.34     # make or refresh that version's profile

SOURCE is a wheel, or a directory that holds its unpacked `vllm` package. A new profile's facts are copies of those of
the nearest older version, marked to be reviewed: until each has been checked in the new source, the loader refuses the
file. A profile that exists keeps its facts and gets new flags.

vLLM declares a flag by `group.add_argument("--name", "-short", **kwargs["field"])`, where `kwargs` comes from a config
class's fields; the server's own flags are the fields of `FrontendArgs`. Both are followed here by name.
"""

import argparse
import ast
import functools
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.profile_facts import DIRECTORY, write

from falcon_engine.profiles import parse
from falcon_engine.profiles.schema import UNREVIEWED

Flag = dict[str, Any]
_TYPES = {"int": "int", "human_readable_int": "int", "float": "float", "json.loads": "json", "loads": "json"}
_WRAPPERS = ("Optional", "Union", "Annotated", "SkipValidation")
# Where the flags of the HTTP server are declared; the file moved twice.
_SERVER_FILES = tuple(f"entrypoints/{folder}/cli_args.py" for folder in ("common", "launchers", "openai"))
# Where the values of two flags are registered; argparse itself takes any text for them.
_PARSERS = {
    "--reasoning-parser": ("vllm.reasoning", "_REASONING_PARSERS_TO_REGISTER"),
    "--tool-call-parser": ("vllm.tool_parsers", "_TOOL_PARSERS_TO_REGISTER"),
}


class Source:
    """Finds definitions in the package by module and name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cache  # noqa: B019 - lives as long as the program
    def tree(self, module: str) -> ast.Module | None:
        """The parsed module, or None where the package has none of that name."""
        base = self.root.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return ast.parse(path.read_text())
        return None

    def find(self, module: str, name: str) -> tuple[str, ast.AST] | None:
        """The class or value of that name, wherever the module imports it from."""
        tree = self.tree(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                return module, node.value
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return (module, node.value) if node.value else None
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        origin = self._absolute(module, node.module, node.level)
                        return self.find(origin, alias.name) if origin.startswith("vllm") else None
        return None

    def _absolute(self, module: str, imported: str, level: int) -> str:
        """The full name of a module that `module` imports, with `level` dots before it."""
        if level == 0:
            return imported
        package = module.split(".")
        if not self.root.joinpath(*package).is_dir():
            package.pop()
        return ".".join([*package[: len(package) - level + 1], imported])

    def alias(self, module: str, name: str) -> tuple[str, ast.AST] | None:
        """What a name stands for, unless it is a class of its own."""
        found = self.find(module, name)
        return None if found and isinstance(found[1], ast.ClassDef) else found

    def class_def(self, module: str, name: str) -> tuple[str, ast.ClassDef]:
        """The class of that name."""
        found = self.find(module, name)
        if found and isinstance(found[1], ast.ClassDef):
            return found[0], found[1]
        raise SystemExit(f"{module}.{name} is not a class in this source")


def parts(source: Source, module: str, hint: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The members of a type hint's union, aliases followed."""
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        hint = ast.parse(hint.value, mode="eval").body
    if isinstance(hint, ast.BinOp):
        yield from parts(source, module, hint.left)
        yield from parts(source, module, hint.right)
    elif isinstance(hint, ast.Subscript) and ast.unparse(hint.value) in _WRAPPERS:
        members = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        for member in members[:1] if ast.unparse(hint.value) == "Annotated" else members:
            yield from parts(source, module, member)
        if ast.unparse(hint.value) == "Optional":
            yield module, ast.Constant(None)
    elif isinstance(hint, ast.Name) and (alias := source.alias(module, hint.id)):
        yield from parts(source, *alias)
    else:
        yield module, hint


def of_hint(source: Source, module: str, hint: ast.AST) -> Flag:
    """What `vllm.engine.arg_utils._compute_kwargs` makes of a field's type, which it asks in this order."""
    members = list(parts(source, module, hint))
    names = {ast.unparse(m.value if isinstance(m, ast.Subscript) else m).lower() for _, m in members}
    classes = [found for where, m in members if isinstance(m, ast.Name) and (found := source.find(where, m.id))]
    if any(isinstance(node, ast.ClassDef) and _is_config(node) for _, node in classes):
        return {"kind": "value", "type": "json"}  # a config class
    if names == {"bool", "str", "none"}:
        return {"kind": "optional"}
    if "bool" in names:
        return {"kind": "switch"}
    if "literal" in names:
        choices = [c for where, m in members if isinstance(m, ast.Subscript) for c in _choices(source, where, m)]
        numbers = {"type": "int"} if all(type(c) is int for c in choices) else {}
        return (
            {"kind": "value", **numbers}
            if "str" in names or None in choices
            else {"kind": "value", **numbers, "choices": choices}
        )
    for where, m in members:
        if isinstance(m, ast.Subscript) and ast.unparse(m.value).lower() in ("list", "set", "tuple"):
            element = m.slice.elts[0] if isinstance(m.slice, ast.Tuple) else m.slice
            inner = of_hint(source, where, element)
            return {"kind": "values", **{k: inner[k] for k in ("type", "choices") if k in inner}}
    for number in ("int", "float"):
        if number in names:
            return {"kind": "value", "type": number}
    if "dict" in names and names <= {"dict", "none"}:
        return {"kind": "value", "type": "json"}
    return {"kind": "value"}


def _is_config(node: ast.ClassDef) -> bool:
    return any(re.search(r"config|dataclass", ast.unparse(d)) for d in node.decorator_list)


def _choices(source: Source, module: str, hint: ast.Subscript) -> list[Any]:
    """A Literal's values; None among them where one is computed."""
    if ast.unparse(hint.value) != "Literal":
        return []
    values: list[Any] = []
    for node in hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]:
        if isinstance(node, ast.Constant):
            values.append(node.value)
            continue
        found = source.find(module, node.id) if isinstance(node, ast.Name) else None
        inner = found[1] if found else None
        if found and isinstance(inner, ast.Subscript):
            values += _choices(source, found[0], inner)
        else:
            values.append(inner.value if isinstance(inner, ast.Constant) else None)
    return values


def fields_of(source: Source, module: str, name: str) -> dict[str, Flag]:
    """Flags by field of a config class, its bases first."""
    where, node = source.class_def(module, name)
    flags: dict[str, Flag] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and source.find(where, base.id):
            flags.update(fields_of(source, where, base.id))
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if "ClassVar" in ast.unparse(item.annotation):
                continue
            flag = of_hint(source, where, item.annotation)
            if default := _default(item.value):
                flag["default"] = default[0]
            flags[item.target.id] = flag
    return flags


def _default(value: ast.AST | None) -> list[Any]:
    """The default in a list, or an empty list where the source does not spell it out."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("Field", "field", "get_field"):
        value = next((k.value for k in value.keywords if k.arg == "default"), None)
    try:
        return [ast.literal_eval(value)] if isinstance(value, ast.expr) else []
    except ValueError:
        return []


def declared(source: Source, module: str) -> Iterator[tuple[list[str], Flag]]:
    """Every `add_argument` of a module with literal names."""
    tree = source.tree(module)
    if tree is None:
        return
    groups: dict[str, dict[str, Flag]] = {}  # variable of get_kwargs() -> fields
    singles: dict[str, Flag] = {}  # variable that holds one field's arguments
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            target, value = node.targets[0].id, node.value
            if _is_get_kwargs(value):
                groups[target] = fields_of(source, module, ast.unparse(value.args[0]))  # type: ignore[attr-defined]
            elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
                key = str(value.slice.value)
                if _is_get_kwargs(value.value):
                    fields = fields_of(source, module, ast.unparse(value.value.args[0]))  # type: ignore[attr-defined]
                    singles[target] = fields[key]
                elif isinstance(value.value, ast.Name) and value.value.id in groups:
                    singles[target] = groups[value.value.id][key]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith("-")]
            if names:
                yield [str(n) for n in names], _of_call(node, groups, singles)


def _is_get_kwargs(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "get_kwargs" and ast.unparse(node.args[0]) != "cls"


def _of_call(call: ast.Call, groups: dict[str, dict[str, Flag]], singles: dict[str, Flag]) -> Flag:
    flag: Flag = {"kind": "value"}
    for keyword in call.keywords:
        if keyword.arg is None:
            for node in ast.walk(keyword.value):
                if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in groups:
                    flag.update(groups[node.value.id][ast.literal_eval(node.slice)])
                elif isinstance(node, ast.Name) and node.id in singles:
                    flag.update(singles[node.id])
            if isinstance(keyword.value, ast.Dict):  # {**kwargs["field"], "default": None}
                given = {ast.unparse(k): v for k, v in zip(keyword.value.keys, keyword.value.values, strict=True) if k}
                flag.update({"default": d[0]} if (d := _default(given.get("'default'"))) else {})
        elif keyword.arg == "action" and ast.unparse(keyword.value) == "'store_true'":
            flag["kind"] = "flag"
        elif keyword.arg == "action" and ast.unparse(keyword.value).endswith("BooleanOptionalAction"):
            flag["kind"] = "switch"
        elif keyword.arg == "nargs":
            flag["kind"] = {"+": "values", "*": "values", "?": "optional"}.get(ast.literal_eval(keyword.value), "value")
        elif keyword.arg == "type" and (given_type := _TYPES.get(ast.unparse(keyword.value))):
            flag["type"] = given_type
        elif keyword.arg == "choices" and isinstance(keyword.value, ast.List):
            flag["choices"] = ast.literal_eval(keyword.value)
        elif keyword.arg == "default" and (default := _default(keyword.value)):
            flag["default"] = default[0]
    return flag


def server_flags(source: Source, module: str) -> Iterator[tuple[list[str], Flag]]:
    """The fields of FrontendArgs; the class takes the list away from some, and gives some another type."""
    tree = source.tree(module) or ast.Module([], [])
    single: set[str] = set()
    types: dict[str, str | None] = {}
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Delete | ast.Assign) else []:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Subscript):
                field = ast.literal_eval(target.value.slice)
                if isinstance(node, ast.Delete):
                    single.add(field)
                elif isinstance(node, ast.Assign) and ast.unparse(target.slice) == "'type'":
                    types[field] = _TYPES.get(ast.unparse(node.value))
    for name, flag in fields_of(source, module, "FrontendArgs").items():
        if name in single:
            flag["kind"] = "value"
        if name in types:
            flag.pop("type", None)
            flag.update({"type": given} if (given := types[name]) else {})
        yield ["--" + name.replace("_", "-")], flag


def parsers(source: Source, module: str, registry: str) -> list[str]:
    """The names that a package of parsers registers: the server refuses any other."""
    found = source.find(module, registry)
    return sorted(ast.literal_eval(found[1])) if found and isinstance(found[1], ast.Dict) else []


def extract(root: Path) -> dict[str, Flag]:
    """Flag name -> {kind, choices, default, also}, sorted by name."""
    source = Source(root)
    server = next((p for p in _SERVER_FILES if (root / "vllm" / p).is_file()), None)
    if server is None:
        raise SystemExit(f"no vllm package with {' or '.join(_SERVER_FILES)} in {root}")
    server_module = "vllm." + server.removesuffix(".py").replace("/", ".")
    inverse = source.find("vllm.utils.argparse_utils", "EnableDisableAction") is not None
    flags: dict[str, Flag] = {"--help": {"kind": "optional", "also": ["-h"]}}
    for names, flag in (
        *declared(source, "vllm.engine.arg_utils"),
        *declared(source, server_module),
        *server_flags(source, server_module),
    ):
        long = next((n for n in names if n.startswith("--")), names[0])
        also = [n for n in names if n != long]
        if inverse and flag["kind"] == "switch":
            also += [
                other + n.removeprefix(prefix)
                for n in names
                for prefix, other in (("--enable-", "--disable-"), ("--disable-", "--enable-"))
                if n.startswith(prefix)
            ]
        flags[long] = {**flag, "also": also} if also else dict(flag)
    for name, (module, registry) in _PARSERS.items():
        if name in flags and (known := parsers(source, module, registry)):
            flags[name]["choices"] = known
    return dict(sorted(flags.items()))


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The directory itself, or one with a wheel's Python files and metadata."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(source) as wheel:
        wheel.extractall(scratch, [name for name in wheel.namelist() if name.endswith((".py", ".dist-info/METADATA"))])
        yield Path(scratch)


def version_in(root: Path) -> str | None:
    """The full version that a wheel's metadata states."""
    found = [re.match(r"vllm-([^-]+)\.dist-info", path.name) for path in root.iterdir()]
    return next((match[1] for match in found if match), None)


def write_profile(name: str, version: str | None, flags: dict[str, Flag], directory: Path = DIRECTORY) -> Path:
    """Make the profile `name`, such as `0.34`, or refresh its flags. Returns the file."""
    wanted, path = parse(name), directory / f"{name}.json"
    if wanted is None or (version and parse(version) != wanted):
        raise SystemExit(f"{name} is not the minor version of this source, which is {version}")
    if path.exists():
        content = json.loads(path.read_text())
    else:
        older = [f for f in directory.glob("*.json") if (parse(f.stem) or wanted) < wanted]
        if not older:
            raise SystemExit(f"there is no profile older than {name} whose facts could be reviewed")
        nearest = max(older, key=lambda f: parse(f.stem) or (0, 0))
        content = json.loads(nearest.read_text())
        content["facts"] = {
            fact: {**known, "source": f"{UNREVIEWED}in {nearest.stem} it is from {known['source']}"}
            for fact, known in content["facts"].items()
        }
    content["version"] = version or name
    content["flagsComplete"] = True
    content["flagsSource"] = f"vllm {version or name}, wheel of PyPI, source read by tools/extract_flags.py"
    content["flags"] = flags
    write(path, content)
    return path


def main(arguments: list[str]) -> int:
    """Run one of the usages above."""
    parser = argparse.ArgumentParser(description="Read the flags of `vllm serve` from vLLM's source.")
    parser.add_argument("source", type=Path, help="a wheel, or a directory that holds the vllm package")
    parser.add_argument("--write", metavar="0.34", help="make or refresh the profile of that version")
    given = parser.parse_args(arguments)
    with unpacked(given.source) as root:
        flags = extract(root)
        if given.write is None:
            print(json.dumps(flags, indent=1))
            return 0
        path = write_profile(given.write, version_in(root), flags)
    left = path.read_text().count(UNREVIEWED)
    print(f"{path}: {len(flags)} flags, {left} facts to be reviewed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
