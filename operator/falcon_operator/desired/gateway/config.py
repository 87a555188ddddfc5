"""haproxy.cfg of one resource. What each line is for was measured; where it was not, the line's comment says why.

Understood alike by HAProxy 2.6 and 3.x.
"""

from __future__ import annotations

from functools import cache

from falcon_operator.api import names
from falcon_operator.desired.gateway import answers
from falcon_operator.desired.gateway.answers import Answer
from falcon_operator.desired.gateway.settings import GatewaySettings, Places, gateway_lua

__all__ = ["GatewaySettings", "Places", "beside", "haproxy_cfg"]

# A request whose body fits is waited for before it takes an engine's time.
BUFFER_BYTES = 128 * 1024
HEADER_BYTES = 16 * 1024
# A body whose length is not told before is bounded by what can be counted.
CHUNKED_BYTES = BUFFER_BYTES - 2 * HEADER_BYTES
# Clients of one gateway, held and streaming; the listener for probes and metrics has room beyond.
CLIENTS = 8000
# Streams that a reload leaves in the old process may be as long as the longest answer.
LONGEST_SECONDS = 3600

_POST = "/v1/chat/completions /v1/completions /v1/responses"
_GET = "/v1/models /health"


def haproxy_cfg(settings: GatewaySettings, places: Places | None = None) -> str:
    """The configuration of one gateway process."""
    places = places or Places()
    parts = (
        _global(settings, places),
        _resolvers(settings, places),
        _defaults(settings),
        _frontend(settings, places),
        _engines(settings),
        _successor(places),
        _metrics(places),
    )
    return "\n".join(parts)


@cache
def beside() -> dict[str, str]:
    """What the configuration names, by the files' names: they lie beside it, and are the same for all."""
    return {"gateway.lua": gateway_lua(), **answers.FILES}


def _global(settings: GatewaySettings, places: Places) -> str:
    # Variables, since 2.6 passes no arguments to a script.
    told = {
        "FALCON_HOLD": settings.hold_seconds,
        "FALCON_HELD": settings.own_held,
        "FALCON_LEAVING": f"{places.run}/leaving",
        "FALCON_SELF": places.successor,
    }
    if settings.keys:
        told["FALCON_KEYS"] = f"{places.run}/keys"
    variables = "\n".join(f"  setenv {name} {value}" for name, value in told.items())
    return f"""\
global
  default-path config
  maxconn {CLIENTS + 200}
  # The engines' limits and the order of the line are exact with one thread only: two count at the same time.
  nbthread 1
  tune.bufsize {BUFFER_BYTES}
  log stdout format raw local0 info
.if version_atleast(3.1-dev0)
  tune.lua.bool-sample-conversion normal
.endif
  # Time is only spent in waiting, for as long as the line says.
  tune.lua.session-timeout 0
{variables}
  lua-load gateway.lua
  stats socket {places.run}/stats.sock mode 600 level admin
  # Of a process that a reload replaced: its streams end by themselves. A pod that leaves is ended by its grace period.
  hard-stop-after {max(LONGEST_SECONDS, settings.drain_seconds)}s
"""


def _resolvers(settings: GatewaySettings, places: Places) -> str:
    server = f"nameserver dns {places.nameserver}" if places.nameserver else "parse-resolv-conf"
    # Where the first engine is often waited for, each look at the names is a part of that wait.
    look = 100 if settings.sleeps else 500
    return f"""\
resolvers cluster
  {server}
  # 512 bytes, the default, hold few records.
  accepted_payload_size 8192
  resolve_retries 3
  timeout resolve {look}ms
  timeout retry {look}ms
  hold valid {look}ms
  # An engine that is gone from the answer goes at once; the name itself is gone while none is ready.
  hold obsolete 0s
  hold nx 0s
  # The name server is ill: what is known stays, and /health decides.
  hold other 1h
  hold refused 1h
  hold timeout 1h
"""


def _defaults(settings: GatewaySettings) -> str:
    own = "\n".join(f"  http-error {answer.config()}" for answer in answers.OWN)
    files = "\n".join(f"  errorfile {name.partition('.')[0]} {name}" for name in answers.FILES)
    return f"""\
defaults
  mode http
  log global
  option dontlognull
  log-format "%ci:%cp %ST %{{+Q}}r id=%[var(txn.id)] engine=%s/%si:%sp times=%TR/%Tw/%Tc/%Tr/%Ta bytes=%U/%B end=%tsc"
  # A request each connection to an engine: no idle one to race with when it drains, and nothing to smuggle behind it.
  option http-server-close
  # A client that hangs up while it waits ends its wait, and what the engine does for it.
  option abortonclose
  # Else the kernel may keep small chunks back, up to 200 ms.
  option http-no-delay
  # Only what the engine cannot have begun goes to another one.
  option redispatch 1
  retries 5
  retry-on conn-failure
  timeout connect 1s
  # A client that stops reading, once what it has not read fills all buffers.
  timeout client 60s
  # An answer that is not streamed comes in one piece, after all of it has been computed. An engine that is gone without
  # a word is noticed by the probes below, in 25 s and whatever it was doing.
  timeout server {LONGEST_SECONDS}s
  option srvtcpka
  srvtcpka-idle 10s
  srvtcpka-intvl 5s
  srvtcpka-cnt 3
  option clitcpka
  clitcpka-idle 10s
  clitcpka-intvl 5s
  clitcpka-cnt 3
  # Headers, and bodies that fit the buffer.
  timeout http-request 10s
  timeout http-keep-alive 60s
  timeout queue {max(settings.hold_seconds, 1)}s
{own}
.if version_atleast(3.2)
{files}
.endif
"""


def _frontend(settings: GatewaySettings, places: Places) -> str:
    key = (
        f"""
  http-request lua.key
  {_return(answers.WRONG_KEY)} unless {{ var(txn.key) -m bool }}"""
        if settings.keys
        else ""
    )
    return f"""\
frontend openai
  # HTTP/1 only: clear-text HTTP/2 is nothing that a client of OpenAI speaks.
  bind {places.listen} proto h1 tcp-ut 25s
  maxconn {CLIENTS}
  http-request set-var(txn.id) uuid()
  acl one_id req.fhdr_cnt(x-request-id) eq 1
  acl sane_id req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{{1,128}}$
  http-request set-var(txn.id) req.fhdr(x-request-id) if one_id sane_id
  http-after-response set-header X-Request-Id %[var(txn.id)]

  acl posts path {_POST}
  acl gets path {_GET}
  acl health path /health
  {_return(answers.UNKNOWN_PATH)} unless posts or gets
  {_return(answers.wrong_method("POST"))} if posts !{{ method POST }}
  {_return(answers.wrong_method("GET, HEAD"))} if gets !{{ method GET HEAD }}
  http-request return status 200 if health {{ nbsrv(engines) gt 0 }}
  {_return(answers.NO_ENGINE)} if health{key}
  # 2.6 lets control characters through in values, NUL among them.
  acl strange req.hdrs -m reg '[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f]'
  {_return(answers.STRANGE_HEADER)} if strange
  {_return(answers.LARGE_HEADER)} if {{ req.hdrs,length gt {HEADER_BYTES} }}
  {_return(answers.large_body(settings.body_bytes))} if {{ req.hdr_val(content-length) gt {settings.body_bytes} }}
  http-request wait-for-body time 10s at-least {CHUNKED_BYTES + 1} if posts
  acl chunked req.fhdr(transfer-encoding) -m found
  {_return(answers.CHUNKED_BODY)} if posts chunked {{ req.body_len gt {CHUNKED_BYTES} }}

  http-request lua.hold
  http-request reject if {{ var(txn.wait) -m str gone }}
  {_return(answers.ALL_FULL)} if {{ var(txn.wait) -m str full }}
  {_return(answers.NO_ENGINE)} if {{ var(txn.wait) -m str none }}
  http-request set-header X-Request-Id %[var(txn.id)]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  use_backend successor if {{ var(txn.wait) -m str successor }}
  default_backend engines
"""


def _engines(settings: GatewaySettings) -> str:
    return f"""\
backend engines
  balance leastconn
  # Neither the client's key nor what is meant for its connection alone goes further.
{_without("Authorization", "Proxy-Authorization", "Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Upgrade")}
  option httpchk GET /health
  timeout check 2s
  # Streams are not cut when an engine is marked down: one that drains refuses connections and finishes what it has.
  default-server check inter 500ms fall 3 rise 1 maxconn {settings.own_per_server}
  server-template engine {settings.slots} {_records(settings)} resolvers cluster resolve-prefer ipv4 init-addr none
"""


def _records(settings: GatewaySettings) -> str:
    return f"_{names.PORT_NAME}._tcp.{settings.host}"


def _successor(places: Places) -> str:
    return f"""\
# After a reload the old process asks for no names any more: what still waits in it goes to the new one.
backend successor
  retries 0
  server self {places.successor}
"""


def _metrics(places: Places) -> str:
    return f"""\
frontend metrics
  bind {places.metrics} proto h1
  timeout client 10s
  http-request return status 200 content-type text/plain string ok if {{ path /healthz }}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  http-request use-service lua.load if {{ path /load /held }}
  {_return(answers.UNKNOWN_PATH)}
"""


def _return(answer: Answer) -> str:
    return f"http-request return {answer.config()}"


def _without(*headers: str) -> str:
    return "\n".join(f"  http-request del-header {header}" for header in headers)
