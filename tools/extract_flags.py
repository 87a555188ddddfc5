"""Read the flags of `vllm serve` from vLLM's source, without importing it: what a profile's `flags` are made of.

    python tools/extract_flags.py DIR     # DIR holds an unpacked wheel's `vllm` package; JSON on standard output

vLLM declares a flag by `group.add_argument("--name", "-short", **kwargs["field"])`, where `kwargs` comes from a config
class's fields; the server's own flags are the fields of `FrontendArgs`. Both are followed here by name.
"""

import ast
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Flag = dict[str, Any]
_WRAPPERS = ("Optional", "Union", "Annotated", "SkipValidation")
# Where the flags of the HTTP server are declared; the file moved twice.
_SERVER_FILES = tuple(f"entrypoints/{folder}/cli_args.py" for folder in ("common", "launchers", "openai"))


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
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    if (alias.asname or alias.name) == name and node.module.startswith("vllm"):
                        return self.find(node.module, alias.name)
        return None

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
    """What `vllm.engine.arg_utils._compute_kwargs` makes of a field's type."""
    members = list(parts(source, module, hint))
    names = {ast.unparse(m.value if isinstance(m, ast.Subscript) else m) for _, m in members}
    classes = [found for where, m in members if isinstance(m, ast.Name) and (found := source.find(where, m.id))]
    if any(isinstance(node, ast.ClassDef) and node.decorator_list for _, node in classes):
        return {"kind": "value"}  # a config class, given as JSON
    if names == {"bool", "str", "None"}:
        return {"kind": "optional"}
    if "bool" in names:
        return {"kind": "switch"}
    if "Literal" in names:
        choices = [c for where, m in members if isinstance(m, ast.Subscript) for c in _choices(source, where, m)]
        return {"kind": "value"} if "str" in names or None in choices else {"kind": "value", "choices": choices}
    for m in (m for _, m in members if isinstance(m, ast.Subscript)):
        if ast.unparse(m.value) in ("list", "set", "List") or (ast.unparse(m.value) == "tuple"):
            return {"kind": "values"}
    return {"kind": "value"}


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
        elif keyword.arg == "choices" and isinstance(keyword.value, ast.List):
            flag["choices"] = ast.literal_eval(keyword.value)
        elif keyword.arg == "default" and (default := _default(keyword.value)):
            flag["default"] = default[0]
    return flag


def server_flags(source: Source, module: str) -> Iterator[tuple[list[str], Flag]]:
    """The fields of FrontendArgs; where the class takes the list away from a field, it takes one value."""
    tree = source.tree(module)
    single = {
        ast.literal_eval(target.value.slice)
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.Delete)
        for target in node.targets
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Subscript)
    }
    for name, flag in fields_of(source, module, "FrontendArgs").items():
        if name in single:
            flag["kind"] = "value"
        yield ["--" + name.replace("_", "-")], flag


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
    return dict(sorted(flags.items()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    json.dump(extract(Path(sys.argv[1])), sys.stdout, indent=1)
    print()
