"""A profile's file: what the loader takes, what it refuses and with which words, and how the file is written."""

import copy
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falcon_engine import profiles
from falcon_engine.profiles import capability, schema
from falcon_engine.profiles.schema import ProfileError

TOOL = Path(__file__).parents[2] / "tools" / "profile_facts.py"
ALL = tuple(profiles.load(v) for v in profiles.VERSIONS)
VALID = json.loads((Path(profiles.__file__).parent / "0.33.json").read_text())
BAD = {"id": "vllm#1", "what": "Decoding is slow", "fixedIn": "0.25.0", "when": ">=10.0"}
KERNEL = {"checkpoint": "W4A16", "capabilities": [">=7.5"], "kernel": "MarlinNvFp4LinearKernel", "tier": "weight-only"}
CVE = {"id": "CVE-2026-1", "what": "remote code", "fixedIn": "0.14.0"}


def _read(change: Callable[[dict[str, Any]], Any]) -> profiles.Profile:
    content = copy.deepcopy(VALID)
    change(content)
    return profiles.read("9.9.json", json.dumps(content).encode())


def _fact(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["facts"].update({name: {"value": value, "source": "vllm 9.9.0 source"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(colour=1), "colour is not a known key; known are version, flagsComplete, flagsSource"),
        (lambda c: c.pop("flagsSource"), "flagsSource is missing"),
        (lambda c: c.update(version=0.33), "version must be a text that is not empty, not 0.33"),
        (lambda c: c.update(flagsComplete="yes"), "flagsComplete must be true or false, not 'yes'"),
        (lambda c: c["facts"].update(speed={}), "facts.speed is not a known key; known are nvfp4Quantization, "),
        (lambda c: c["facts"].pop("whileDraining"), "facts.whileDraining is missing"),
        (lambda c: c["facts"]["whileDraining"].pop("source"), "facts.whileDraining.source is missing"),
        (lambda c: c["facts"]["whileDraining"].update(source=" "), "facts.whileDraining.source must be a text that"),
        (
            lambda c: c["facts"]["whileDraining"].update(source="to be reviewed: copied from 0.33.0"),
            "facts.whileDraining.source says 'to be reviewed: copied from 0.33.0': check the value",
        ),
        (_fact("whileDraining", "sings"), "facts.whileDraining.value is 'sings'; known are answers, refuses, None"),
        (_fact("cpuPrefixCaching", 1), "facts.cpuPrefixCaching.value must be true or false, not 1"),
        (_fact("nvfp4Quantization", False), "facts.nvfp4Quantization.value must be a text or null, not False"),
        (_fact("driverFloor", True), "facts.driverFloor.value must be a whole number, not True"),
        (_fact("architectures", []), "facts.architectures.value must be a list that is not empty, not []"),
        (_fact("minimumCapability", "seven"), "facts.minimumCapability.value: 'seven' is not a compute capability"),
        (_fact("metrics", {"running": ["x"]}), "facts.metrics.value.waiting is missing"),
        (_fact("kernels", [{**KERNEL, "tier": "slow"}]), "facts.kernels.value[0].tier is 'slow'; known are native,"),
        (_fact("knownBad", [{**BAD, "when": "=>9"}]), "facts.knownBad.value[0].when: '=>9' is not a compute"),
        (lambda c: c.update(flags={}), "flags must be an object that is not empty"),
        (lambda c: c["flags"].update(model={"kind": "value"}), "flags.model is not a flag's name"),
        (lambda c: c["flags"].update({"--x": {"kind": "many"}}), "flags.--x.kind is 'many'; known are value, values"),
        (lambda c: c["flags"].update({"--x": {"default": 1}}), "flags.--x.kind is missing"),
        (lambda c: c["flags"].update({"--x": {"kind": "value", "nargs": 2}}), "flags.--x.nargs is not a known key;"),
        (lambda c: c["flags"].update({"--x": {"kind": "value", "choices": []}}), "flags.--x.choices must be a list"),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    with pytest.raises(ProfileError) as refused:
        _read(change)
    assert str(refused.value).startswith(f"9.9.json: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "the file must be an object, not []"),
        ("{", "Expecting property name"),
        ("\udcff", "can't decode"),
        ('{"version": "1", "version": "2"}', "version stands in one object twice"),
    ],
)
def test_a_file_that_is_no_object_is_refused(text: str, said: str) -> None:
    with pytest.raises(ProfileError) as refused:
        profiles.read("9.9.json", text.encode(errors="surrogateescape"))
    assert str(refused.value).startswith("9.9.json: ")
    assert said in str(refused.value)


def test_a_fact_or_file_that_is_not_there() -> None:
    profile = profiles.load("0.33")
    assert profile.fact("prefixCachingDefault") is True
    with pytest.raises(ProfileError, match=r"0\.33\.json: there is no fact colour; known are nvfp4Quantization, "):
        profile.fact("colour")
    with pytest.raises(ProfileError, match=r"0\.1\.json: there is no such profile; known are 0\.13, "):
        profiles.load("0.1")


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.version)
def test_every_profile_is_complete(profile: profiles.Profile) -> None:
    assert list(profile.facts) == list(schema.FACTS)
    assert profile.fact("shutdown")["flag"] is profile.has("--shutdown-timeout")
    assert [name for name, names in profile.fact("metrics").items() if not names] in ([], ["waiting_by_reason"])
    assert profiles.parse(profile.version) == profiles.parse(profile.file)
    assert len(profile.flags) > 190


@pytest.mark.parametrize(
    ("have", "bounds", "inside"),
    [
        ("10.0", ">=9.0", True),
        ("9.0", ">=10.0", False),
        ("8.9", ">=7.5,<9.0", True),
        ("9.0", ">=7.5,<9.0", False),
        ("9.0", "9.0", True),
        ("12.1", "12.0", False),
        ("12.1", ">12.0, <=12.1", True),
    ],
)
def test_capabilities_are_compared_as_numbers(have: str, bounds: str, inside: bool) -> None:
    assert capability.within(have, bounds) is inside


@pytest.mark.parametrize(("have", "bounds"), [("9", "9.0"), ("", "9.0"), ("9.0", "9"), ("9.0", ""), ("9.0", ">=9.0,")])
def test_a_capability_that_is_none(have: str, bounds: str) -> None:
    with pytest.raises(ValueError, match="is not a compute capability such as 9"):
        capability.within(have, bounds)


def test_remarks_are_those_of_the_gpu_and_the_version() -> None:
    profile = _read(lambda c: [_fact("knownBad", [BAD])(c), _fact("advisories", [CVE, {**CVE, "fixedIn": None}])(c)])
    decoding, holes = profile.remarks("10.0", "0.13.0")
    assert decoding == "Decoding is slow (vllm#1; fixed in 0.25.0)."
    assert holes == (
        "Known vulnerabilities: CVE-2026-1 (remote code; fixed in 0.14.0), "
        "CVE-2026-1 (remote code; no fixed version is known)."
    )
    assert profile.remarks("9.0", "0.14.0+cu130") == [
        "Known vulnerabilities: CVE-2026-1 (remote code; no fixed version is known)."
    ]
    assert profile.remarks(None, "0.24.0")[0] == (
        "On GPUs of compute capability 10.0 and higher: Decoding is slow (vllm#1; fixed in 0.25.0)."
    )
    assert len(profile.remarks("10.0", "0.25.0")) == 1
    assert profiles.load("0.33").remarks(None) == []


def test_the_files_are_valid_and_formatted() -> None:
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_setting_a_fact_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    tool = runpy.run_path(str(TOOL))
    path = tmp_path / "0.33.json"
    path.write_text(tool["form"](VALID))
    tool["set_facts"]("0.33", {"driverFloor": {"value": 580, "source": "measured"}}, tmp_path)
    after = json.loads(path.read_text())
    assert after["facts"].pop("driverFloor") == {"value": 580, "source": "measured"}
    assert after["flags"] == VALID["flags"]
    before = path.read_text()
    with pytest.raises(ProfileError, match=r"0\.33\.json: facts\.driverFloor\.source is missing"):
        tool["set_facts"]("0.33", {"driverFloor": {"value": 570}}, tmp_path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["0.33.json"]
