"""What the gateway of one resource is told, and where it finds things."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from falcon_operator.api import names

# One prompt of 256k tokens in JSON, escaped as \uXXXX throughout, still fits.
BODY_BYTES = 8 * 1024 * 1024
# From the deletion of a gateway's pod until every node has forgotten it in its Services.
SETTLE_SECONDS = 5


@dataclass(frozen=True)
class GatewaySettings:
    """What differs between two resources; counts are of all gateways together, each takes its share.

    `host` is the headless Service's name, `per_server` how many requests one engine takes at a time, `max_held` how
    many more may wait, each for `hold_seconds`; `slots` is how many engines the gateway can tell apart; `sleeps` says
    that there may be no engine for want of requests.
    """

    host: str
    replicas: int
    per_server: int
    hold_seconds: int
    max_held: int
    keys: bool
    drain_seconds: int
    body_bytes: int = BODY_BYTES
    slots: int = 64
    sleeps: bool = False

    @property
    def own_per_server(self) -> int:
        """How many requests one gateway gives to one engine; rounded up, so that every gateway can use every engine."""
        return max(1, _share(self.per_server, self.replicas))

    @property
    def own_held(self) -> int:
        """How many requests may wait in one gateway."""
        return _share(self.max_held, self.replicas)

    @property
    def grace_seconds(self) -> int:
        """terminationGracePeriodSeconds: Services forget the pod, what is held gets its engine, streams end."""
        return SETTLE_SECONDS + self.hold_seconds + self.drain_seconds + 10


@dataclass(frozen=True)
class Places:
    """Where a gateway listens and looks. As they are in the pod; tests put several gateways on one machine."""

    listen: str = f":{names.GATEWAY_PORT}"
    metrics: str = f":{names.GATEWAY_METRICS_PORT}"
    # What this process's successor answers on after a reload, as the process itself reaches it.
    successor: str = f"127.0.0.1:{names.GATEWAY_PORT}"
    run: str = "/run/falcon-gateway"
    # The address and port of the name server; None: the pod's own.
    nameserver: str | None = None


def gateway_lua() -> str:
    """The script beside haproxy.cfg; it is the same for all and gets its numbers from there."""
    return resources.files(__package__).joinpath("gateway.lua").read_text(encoding="utf-8")


def _share(total: int, replicas: int) -> int:
    return -(-total // max(1, replicas))
