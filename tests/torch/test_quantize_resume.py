"""A run that is killed at any step goes on to the same bytes; a second one waits for its turn."""

# mypy: disable-error-code="import-not-found"

import fcntl
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from tests.torch.quantizing import checkpoint, contents, run

# Small enough for a few files.
FILES = ("--shard-size", "20000")


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Processes that begin with ModelOpt loaded, which takes ten seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["falcon_quantize.nvfp4", "falcon_quantize.calibrate", "tests.torch.quantizing"])
    with pytest.MonkeyPatch.context() as patch:
        # what is loaded beforehand is found by this alone
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield context


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("bf16") / "source")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(source, out, *FILES) == 0
    made = dict(contents(out))
    assert len([name for name in made if name.endswith(".safetensors")]) > 3
    return made


def run_and_die(source: Path, out: Path, options: tuple[str, ...], step: int) -> None:
    """The command, killed as it makes sure, for the `step`th time, that something is on the disk."""
    real, count = os.fsync, 0

    def fsync(descriptor: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    os._exit(run(source, out, *options))


def with_small_files(source: Path, out: Path, options: tuple[str, ...], limit: int) -> None:
    """The command where no file may be longer than this, as on a disk that is full; what it says goes to `said`."""
    sys.stderr = out.with_name("said").open("w")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ended = run(source, out, *options)
    sys.stderr.flush()
    os._exit(ended)


def status(processes: ForkServerContext, target: Any, *arguments: Any) -> int | None:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def steps() -> Iterator[int]:
    yield from range(1, 200)


@pytest.mark.parametrize("kind", ["cast", "calibrated"])
def test_killed_at_each_step_it_goes_on_to_the_same_bytes(
    processes: ForkServerContext, source: Path, tmp_path: Path, kind: str, whole: dict[str, bytes]
) -> None:
    options: tuple[str, ...] = (*FILES, "--kv-scales", kind)
    if kind == "calibrated":
        options += ("--calibration-prompts", "1", "--calibration-tokens", "8")
        assert run(source, tmp_path / "calibrated", *options) == 0
        whole = dict(contents(tmp_path / "calibrated"))
    for step in steps() if kind == "cast" else (3, 5):
        out = tmp_path / f"out-{step}"
        ended = status(processes, run_and_die, source, out, options, step)
        if ended == 0:
            assert step > 20
            break
        assert ended == -signal.SIGKILL
        assert run(source, out, *options) == 0
        assert dict(contents(out)) == whole
        assert not out.with_name(f"{out.name}.partial").exists()
    else:
        assert kind == "calibrated"


def test_killed_again_and_again_it_comes_to_an_end(
    processes: ForkServerContext, source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    # five steps: a file put in place, and the note of it
    ended = [status(processes, run_and_die, source, out, FILES, 5)]
    while ended[-1] == -signal.SIGKILL and len(ended) < 100:
        ended.append(status(processes, run_and_die, source, out, FILES, 9))
        if len(ended) > 20:
            ended.append(run(source, out, *FILES))
    assert ended[-1] == 0
    assert dict(contents(out)) == whole


def test_what_is_whole_is_not_made_again(processes: ForkServerContext, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert status(processes, run_and_die, source, out, FILES, 8) == -signal.SIGKILL
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial/model").glob("model-*")}
    assert len(files) >= 2
    noted = len((tmp_path / "out.partial/journal.jsonl").read_text().splitlines()) - 1
    assert run(source, out, *FILES) == 0
    again = [name for name, modified in files.items() if (out / name).stat().st_mtime_ns != modified]
    assert len(again) == len(files) - noted


def test_a_torn_line_of_the_journal_is_forgotten(
    processes: ForkServerContext, source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    assert status(processes, run_and_die, source, out, FILES, 8) == -signal.SIGKILL
    with (tmp_path / "out.partial/journal.jsonl").open("a") as journal:
        journal.write('{"file": "model-0000')
    assert run(source, out, *FILES) == 0
    assert dict(contents(out)) == whole


def test_other_settings_start_over(
    processes: ForkServerContext, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert status(processes, run_and_die, source, out, FILES, 8) == -signal.SIGKILL
    assert run(source, out, *FILES, "--keep-mamba") == 0
    assert "starting over" in capsys.readouterr().err
    assert run(source, tmp_path / "fresh", *FILES, "--keep-mamba") == 0
    assert dict(contents(out)) == dict(contents(tmp_path / "fresh"))


def test_a_whole_result_is_left_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(source, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert run(source, out) == 0
    assert capsys.readouterr().out == f"{out} is whole already.\n"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_disk_that_is_full_leaves_what_is_whole_and_says_so(
    processes: ForkServerContext,
    source: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
) -> None:
    out = tmp_path / "out"
    assert status(processes, with_small_files, source, out, FILES, 16_000) == 1
    said = (tmp_path / "said").read_text().splitlines()[-1]
    assert said.startswith("falcon-quantize: ")
    assert "File too large" in said
    assert "goes on from what is whole" in said
    assert not list((tmp_path / "out.partial/model").glob(".*"))
    assert not out.exists()
    assert run(source, out, *FILES) == 0
    assert dict(contents(out)) == whole


def test_a_second_run_of_the_same_result_is_refused_meanwhile(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.partial").mkdir()
    with (tmp_path / "out.partial/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(source, tmp_path / "out") == 1
    assert "Another falcon-quantize is making" in capsys.readouterr().err
    assert run(source, tmp_path / "out") == 0
