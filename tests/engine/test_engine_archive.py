"""The launcher as one file: always the same bytes, small enough for a ConfigMap, and for Python 3.10."""

import ast
import io
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import falcon_engine
from falcon_engine import profiles
from falcon_engine.archive import FILE_NAME, PACKAGES, build

PACKAGE = Path(falcon_engine.__file__).parent


def _python310() -> str | None:
    """An interpreter that is one: a version manager's shim may stand where none is."""
    program = shutil.which("python3.10")
    if program and subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0:
        return program
    return None


def project_version() -> str:
    """What pyproject.toml says."""
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def test_the_same_package_gives_the_same_bytes() -> None:
    assert build() == build()
    assert len(build()) < 400_000  # a ConfigMap holds 1 MiB


def test_it_holds_the_package_and_nothing_else() -> None:
    names = zipfile.ZipFile(io.BytesIO(build())).namelist()
    assert names == sorted(names)
    assert "__main__.py" in names
    assert {f"falcon_engine/profiles/{v}.json" for v in profiles.VERSIONS} <= set(names)
    assert "falcon_weights/expand.py" in names
    assert {n.split("/")[0] for n in names} == {
        "__main__.py",
        *PACKAGES,
        f"falcon_vllm-{project_version()}.dist-info",
    }
    assert not any("__pycache__" in n for n in names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_every_file_is_python_3_10_and_needs_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    newer = {"tomllib", "StrEnum", "UTC", "ExceptionGroup", "Self", "assert_never", "TaskGroup", "batched"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            for module in modules:
                assert module.split(".")[0] in {*sys.stdlib_module_names, "falcon_engine"}
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
        assert name not in newer


@pytest.mark.parametrize("python", [p for p in (sys.executable, _python310()) if p])
def test_it_runs_out_of_the_zip(tmp_path: Path, python: str) -> None:
    launcher = tmp_path / FILE_NAME
    launcher.write_bytes(build())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from falcon_engine import archive, launch, profiles;"
        "assert 'launch.pyz' in launch.__file__;"
        "print([profiles.load(v).version for v in profiles.VERSIONS])"
    )
    done = subprocess.run([python, "-I", "-c", code, str(launcher)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([profiles.load(v).version for v in profiles.VERSIONS]), done.stderr
