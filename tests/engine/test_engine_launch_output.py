"""The engine's output passes through as it is, whatever it is, and what is kept of it stays small."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

OPERATOR = Path(__file__).parents[2] / "operator"
MEGABYTES = 24
# Tells what it kept, and the most memory that it ever had in MiB, on its own standard error.
RUNNER = f"""
import sys
sys.path.insert(0, {str(OPERATOR)!r})
from falcon_engine.child import Child, hold_signals
from falcon_engine.enginelog import EngineLog
hold_signals()
log = EngineLog()
child = Child([sys.executable, "-c", sys.argv[1]], lambda chunk: log.feed(chunk, 0.0))
code = child.wait(60)
child.finish()
kept = child.lines
grown = next(int(l.split()[1]) // 1024 for l in open("/proc/self/status") if l.startswith("VmHWM:"))
print(code, len(kept), max(map(len, kept), default=0), grown, log.facts.phase, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("piece", "last", "lines", "phase"),
    [
        (b"(EngineCore pid=9) INFO 11-24 10:48:13 [core.py:1] a line like any other\n", b"", 400, "None"),
        (b"x" * 1024, b"\nModel loading took 5.19 GiB memory\n", 2, "loaded"),
        (bytes(range(256)) * 4, b"\nModel loading took 5.19 GiB memory", 400, "loaded"),
        (b"\rCapturing 50%|" + b"#" * 100, b"", 1, "None"),
    ],
    ids=["lines", "one-line", "binary", "progress"],
)
def test_any_output_passes_through_and_little_is_kept(piece: bytes, last: bytes, lines: int, phase: str) -> None:
    writer = f"""
import sys
for _ in range({MEGABYTES}):
    sys.stdout.buffer.write({piece!r} * {(1 << 20) // len(piece)})
sys.stdout.buffer.write({last!r})
"""
    done = subprocess.run([sys.executable, "-c", RUNNER, writer], capture_output=True, timeout=60, check=True)
    whole = hashlib.sha256()
    for _ in range(MEGABYTES):
        whole.update(piece * ((1 << 20) // len(piece)))
    whole.update(last)
    assert hashlib.sha256(done.stdout).digest() == whole.digest()
    code, kept, longest, grown, reached = done.stderr.decode().split()
    assert (code, kept, reached) == ("0", str(lines), phase)
    assert int(longest) <= 4000
    assert int(grown) < 64
