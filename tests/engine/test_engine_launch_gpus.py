"""What the launcher does with the GPUs that it finds: refuses them, or asks for fewer sequences."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.launching import Container, intent

from falcon_engine import gpus, profiles, sequences
from falcon_engine.gpus import Gpu
from falcon_engine.report import Clamped
from falcon_engine.signatures import Refusal

H200 = Gpu("NVIDIA H200", 143771, "9.0", "580.159.04")
LINE = "NVIDIA H200, 143771, 9.0, 580.159.04"


def nvidia_smi(container: Container, script: str) -> None:
    """Puts a program of that name first on PATH."""
    program = container.directory / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    container.environment["PATH"] = f"{program.parent}:{container.environment['PATH']}"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path, vllm="0.26.0", profile="0.26")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LINE + "\n" + LINE + "\n", (H200, H200)),
        ("NVIDIA GB10, [N/A], 12.1, 580.95.05", (Gpu("NVIDIA GB10", None, "12.1", "580.95.05"),)),
        (
            "NVIDIA H100 80GB HBM3, [Insufficient Permissions], 9.0, 570.86",
            (Gpu("NVIDIA H100 80GB HBM3", None, "9.0", "570.86"),),
        ),
        ("A, name, 24576, 8.9, 580", (Gpu("A, name", 24576, "8.9", "580"),)),
        ("X, -5, 9, 58O.1", (Gpu("X"),)),
        ("No devices were found", ()),
        ("", ()),
    ],
)
def test_the_answer_of_nvidia_smi(text: str, found: tuple[Gpu, ...]) -> None:
    assert gpus.parse(text) == found


@given(st.text())
def test_no_answer_of_nvidia_smi_raises(text: str) -> None:
    for gpu in gpus.parse(text):
        gpus.refusal((gpu,), profiles.load("0.26"), "0.26.0", True, {})


def test_a_mig_slice_has_the_memory_of_its_name() -> None:
    assert gpus.mig_mib("nvidia.com/mig-1g.24gb") == 22888
    assert gpus.mig_mib("nvidia.com/mig-1c.3g.40gb.me") == 38146
    assert gpus.mig_mib("nvidia.com/gpu") is None
    assert gpus.mig_mib(None) is None


@pytest.mark.parametrize(
    ("gpu", "version", "environ", "message"),
    [
        (H200, "0.26.0", {}, None),
        (Gpu("T", driver="570.86.15"), "0.26.0", {}, "driver of T is 570.86.15, and vLLM 0.26.0 needs 580 or newer."),
        (Gpu("T", driver="580"), "0.26.0", {}, None),
        (Gpu("T", driver="1000.1"), "0.26.0", {}, None),
        (Gpu("T", driver="570.86.15"), "0.26.0+cu129", {}, None),
        (Gpu("T", driver="570.86.15"), "0.26.0", {"CUDA_VERSION": "12.9.1"}, None),
        (Gpu("T", driver="520.1"), "0.26.0", {"CUDA_VERSION": "12.9.1"}, "CUDA 12 of this image needs 525 or newer."),
        (Gpu("T", driver="570.86.15"), "0.26.0", {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}, None),
        (Gpu("T"), "0.26.0", {}, None),
        (Gpu("V100", capability="7.0"), "0.26.0", {}, "capability 7.0, and vLLM 0.26.0 runs NVFP4 from 7.5 on."),
        (Gpu("RTX", capability="8.7"), "0.26.0", {}, None),
        (Gpu("GB10", capability="12.1"), "0.26.0", {}, None),
        (Gpu("B300", capability="10.3"), "0.26.0", {}, None),
        (Gpu("Thor", capability="11.0"), "0.26.0", {}, "capability 11.0, and vLLM 0.26.0 is built for 7.5, 8.0,"),
        (Gpu("Thor", capability="11.0"), "0.26.0+nv26.08", {}, None),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_numbers(
    gpu: Gpu, version: str, environ: dict[str, str], message: str | None
) -> None:
    diagnosis = gpus.refusal((H200, gpu), profiles.load("0.26"), version, True, environ)
    assert (diagnosis is None) == (message is None)
    if diagnosis and message:
        assert message in diagnosis.message
        assert diagnosis.reason == ("DriverTooOld" if "driver" in message or "CUDA" in message else "GPUNotSupported")
        assert diagnosis.exit_code == 2


def test_the_least_capability_is_that_of_nvfp4() -> None:
    old = Gpu("V100", capability="7.0")
    assert gpus.refusal((old,), profiles.load("0.13"), "0.13.0", True, {}) is not None
    assert gpus.refusal((old,), profiles.load("0.13"), "0.13.0", False, {}) is None


@pytest.mark.parametrize(
    ("architecture", "runs"), [("10.0", True), ("10.0f", True), ("10.3", True), ("10.0a", False), ("9.0", False)]
)
def test_code_runs_on_later_gpus_of_its_family_unless_it_is_bound_to_one(architecture: str, runs: bool) -> None:
    profile = profiles.load("0.26")
    facts = {**profile.facts, "architectures": {"value": [architecture], "source": "this test"}}
    b300 = Gpu("B300", capability="10.3")
    assert (gpus.refusal((b300,), replace(profile, facts=facts), "0.26.0", True, {}) is None) == runs


def foresee(found: tuple[Gpu, ...], **changes: Any) -> Clamped | None:
    return sequences.foresee(intent(**changes), profiles.load("0.26"), None, found, print)


def test_a_small_gpu_gets_fewer_sequences() -> None:
    clamped = foresee((Gpu("small", 16384),))
    assert clamped is not None
    assert clamped.asked == 256
    assert 1 <= clamped.given < 256
    assert str(clamped.given) in clamped.why


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        ((H200,), {}),
        ((), {}),
        ((Gpu("unknown"),), {}),
        ((Gpu("small", 16384), Gpu("unknown")), {}),
        ((Gpu("small", 16384),), {"device": "cpu"}),
        ((Gpu("small", 16384),), {"extra_args": ("--max-num-seqs=256",)}),
        ((Gpu("small", 16384),), {"cuda_graph_mode": "NONE"}),
        ((Gpu("tiny", 1024),), {}),
    ],
    ids=["fits", "no-gpu", "unknown", "one-unknown", "cpu", "extra-arguments", "no-graphs", "nothing-fits"],
)
def test_nothing_is_lowered_without_need(found: tuple[Gpu, ...], changes: dict[str, Any]) -> None:
    assert foresee(found, **changes) is None


def test_refuse_refuses_with_numbers() -> None:
    with pytest.raises(Refusal) as refused:
        foresee((Gpu("small", 16384),), fit="Refuse")
    diagnosis = refused.value.diagnosis
    assert (diagnosis.reason, diagnosis.exit_code) == ("SequencesExceedMemory", 2)
    assert "256" in diagnosis.message


def test_a_clamp_is_said_and_rendered(container: Container) -> None:
    nvidia_smi(container, "echo 'NVIDIA small, 16384, 9.0, 580.1'")
    # A config without sizes: the fit is then that of Falcon-H1R-7B.
    (container.model / "config.json").write_text('{"architectures": ["FalconH1ForCausalLM"]}')
    shared = "nvidia.com/gpu.shared"
    with container.running(device="cuda", gpu_resource=shared, checkpoint="AsIs") as launcher:
        container.wait_until_started()
        report = container.report()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    clamped = report["clamped"]
    argv = container.engine_argv()
    assert argv[argv.index("--max-num-seqs") + 1] == str(clamped["given"]) == str(report["engine"]["maxNumSeqs"])
    assert report["gpus"] == [
        {"name": "NVIDIA small", "memoryMiB": 16384, "computeCapability": "9.0", "driver": "580.1"}
    ]
    assert f"falcon: warning: maxNumSeqs 256 becomes {clamped['given']}: " in container.log
    assert "how many engines share it cannot be seen" in container.log


def test_an_engine_that_holds_still_fewer_has_the_last_word(container: Container) -> None:
    nvidia_smi(container, "echo 'NVIDIA small, 16384, 9.0, 580.1'")
    (container.directory / "failures").write_text(
        '["ValueError: max_num_seqs (90) exceeds available Mamba cache blocks (7). Each decode sequence"]'
    )
    with container.running(device="cuda"):
        container.wait_until_started()
        clamped = container.report()["clamped"]
    assert (clamped["asked"], clamped["given"]) == (256, 7)


def test_an_old_driver_is_refused_before_the_engine_starts(container: Container) -> None:
    nvidia_smi(container, "echo 'NVIDIA L40S, 46068, 8.9, 550.90.07'")
    assert container.run(device="cuda") == 2
    assert container.diagnosis().reason == "DriverTooOld"
    assert "550.90.07, and vLLM 0.26.0 needs 580" in container.diagnosis().message
    assert not (container.directory / "argv.json").exists()


def test_an_nvidia_smi_that_hangs_or_fails_is_none(container: Container) -> None:
    nvidia_smi(container, "sleep 60")
    with container.running(
        device="cuda", prelude="import falcon_engine.gpus as g; g.SECONDS = 0.1", canary=False
    ) as launcher:
        container.wait_until_started()
        assert container.report()["gpus"] == []
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0


def test_a_failing_nvidia_smi_is_none(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{LINE}'\nexit 9\n")
    program.chmod(0o755)
    assert gpus.read(program=str(program)) == ()
    assert gpus.read(program="/no/such/nvidia-smi") == ()
    program.write_text(f"#!/bin/sh\necho '{LINE}'\n")
    assert gpus.read(program=str(program)) == (H200,)
    assert gpus.read("nvidia.com/mig-1g.18gb", str(program))[0].memory_mib == 17166
