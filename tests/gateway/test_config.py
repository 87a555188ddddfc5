"""The configuration itself: every HAProxy accepts it, for any settings, without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.gateway.gateway import settings
from tests.gateway.haproxies import HAProxy

from falcon_operator.desired.gateway.config import GatewaySettings, Places, beside, haproxy_cfg

USUAL = settings()
CASES = {
    "usual": USUAL,
    "keys": replace(USUAL, keys=True),
    "it sleeps": replace(USUAL, sleeps=True),
    "nothing is held": replace(USUAL, hold_seconds=0, max_held=0),
    "nothing may wait": replace(USUAL, max_held=0),
    "much of all": replace(USUAL, replicas=5, per_server=100_000, hold_seconds=86_400, max_held=10_000, slots=1000),
    "one of all": replace(USUAL, per_server=1, hold_seconds=1, max_held=1, drain_seconds=1, body_bytes=1, slots=1),
    "long names": replace(USUAL, host=".".join(["falcon-engines", "n" * 63, "svc", "cluster.example.internal"])),
}


def write(folder: Path, config: str) -> None:
    for name, text in {"haproxy.cfg": config, **beside()}.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("given", CASES.values(), ids=list(CASES))
def test_haproxy_accepts_it_without_a_warning(haproxy: HAProxy, tmp_path: Path, given: GatewaySettings) -> None:
    write(tmp_path, haproxy_cfg(given, replace(Places(), run=str(tmp_path))))
    assert haproxy.check(tmp_path / "haproxy.cfg") == ""


def test_what_is_wrong_is_told(haproxy: HAProxy, tmp_path: Path) -> None:
    write(tmp_path, haproxy_cfg(USUAL).replace("balance leastconn", "balance evenly"))
    assert "balance" in haproxy.check(tmp_path / "haproxy.cfg")


def test_each_gateway_takes_its_share() -> None:
    given = replace(USUAL, replicas=3, per_server=100, max_held=512)
    assert (given.own_per_server, given.own_held) == (34, 171)
    config = haproxy_cfg(given)
    assert " maxconn 34\n" in config
    assert "  setenv FALCON_HELD 171\n" in config


def test_names_are_looked_at_more_often_where_a_first_engine_is_waited_for() -> None:
    often, usual = haproxy_cfg(replace(USUAL, sleeps=True)), haproxy_cfg(USUAL)
    for figure in ("timeout resolve", "timeout retry", "hold valid"):
        assert f"  {figure} 100ms\n" in often
        assert f"  {figure} 500ms\n" in usual


def test_an_engine_always_gets_something() -> None:
    assert replace(USUAL, replicas=4, per_server=0).own_per_server == 1


def test_the_grace_period_covers_all_that_a_leaving_gateway_does() -> None:
    given = replace(USUAL, hold_seconds=600, drain_seconds=300)
    assert given.grace_seconds >= given.hold_seconds + given.drain_seconds


def test_the_same_settings_make_the_same_text() -> None:
    assert haproxy_cfg(USUAL) == haproxy_cfg(settings())
