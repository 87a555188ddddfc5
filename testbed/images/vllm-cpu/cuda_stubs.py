"""Make PyPI's CUDA build of torch importable on a machine that has no CUDA library at all.

PyPI has no CPU build of torch. The CUDA build links to a dozen CUDA libraries when it is loaded, although a CPU never
calls them. For each of those that is not installed this writes a library of the same soname into torch/lib, whose
functions all return 1, which is an error code in every one of these APIs. `torch.cuda.is_available()` stays an honest
False.

Needs binutils. Run it with the Python that torch is installed for.
"""

import platform
import re
import subprocess
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])
TORCH_LIB = SITE_PACKAGES / "torch/lib"

# The functions of a library are known by the prefix of their names.
PREFIXES = {
    "libcublas": r"cublas(?!Lt)",
    "libcublasLt": r"cublasLt",
    "libcudnn": r"cudnn",
    "libcufft": r"cufft",
    "libcufile": r"cuFile",
    "libcupti": r"cupti",
    "libcurand": r"curand",
    "libcusparse": r"cusparse(?!Lt)",
    "libcusparseLt": r"cusparseLt",
    "libnccl": r"p?nccl",
    "libnvrtc": r"nvrtc",
    "libnvshmem_host": r"nvshmem",
}
RETURN_ONE = {"x86_64": "movl $1, %eax\n\tret", "aarch64": "mov w0, #1\n\tret"}


def run(*command: str | Path) -> str:
    """What the command prints; a failure shows what it complained about."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def needed(library: Path) -> set[str]:
    """The sonames that the library asks the loader for."""
    return set(re.findall(r"\(NEEDED\).*\[(.*?)\]", run("readelf", "--dynamic", "--wide", library)))


def undefined(library: Path) -> dict[str, str]:
    """The symbols that the library expects of others, with the version it asks for ("" for none)."""
    symbols = {}
    for line in run("readelf", "--dyn-syms", "--wide", library).splitlines():
        columns = line.split()
        if len(columns) >= 8 and columns[6] == "UND":
            name, _, version = columns[7].partition("@")
            symbols[name] = version.lstrip("@")
    return symbols


def write_stub(soname: str, symbols: dict[str, str]) -> None:
    """Assemble and link one library that has these symbols."""
    body = RETURN_ONE[platform.machine()]
    by_version = defaultdict(list)
    for name, version in sorted(symbols.items()):
        by_version[version].append(name)
    source = "".join(f".globl {name}\n.type {name}, %function\n{name}:\n\t{body}\n" for name in sorted(symbols))
    versions = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n"
        for version, names in sorted(by_version.items())
        if version
    )
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "stub.s").write_text(f'.text\n{source}.section .note.GNU-stack,"",%progbits\n')
        (work / "versions").write_text(versions)
        run("as", "-o", work / "stub.o", work / "stub.s")
        script = [f"--version-script={work / 'versions'}"] if versions else []
        run("ld", "-shared", "-soname", soname, *script, "-o", TORCH_LIB / soname, work / "stub.o")


def main() -> None:
    """Write every stub that is missing, then say which."""
    libraries = sorted(TORCH_LIB.glob("*.so"))
    wanted = sorted(set().union(*(needed(library) for library in libraries)))
    expected: dict[str, str] = {}
    for library in libraries:
        expected.update(undefined(library))
    present = {path.name for path in SITE_PACKAGES.glob("nvidia/*/lib/*")} | {path.name for path in libraries}
    made = {}
    for soname in wanted:
        prefix = PREFIXES.get(soname.split(".so")[0])
        if prefix is None or soname in present:
            continue
        symbols = {name: version for name, version in expected.items() if re.match(f"_{{0,2}}{prefix}", name)}
        write_stub(soname, symbols)
        made[soname] = len(symbols)
    print("CUDA stubs:", ", ".join(f"{soname} ({count})" for soname, count in made.items()))


if __name__ == "__main__":
    main()
